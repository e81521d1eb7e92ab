"""The operators; importing this package registers every family."""

from boundlab.ops import (
    arith,
    choice,
    computed,
    conv,
    conv_transpose,
    convex,
    extremum,
    gated,
    linear,
    norm,
    normalise,
    piecewise,
    select,
    shape,
    sshaped,
    steps,
    wavy,
)
from boundlab.ops.op import (
    Free,
    Op,
    affine_op,
    antitone,
    by_source,
    elementwise_op,
    interval_op,
    lookup,
    monotone,
    register,
    register_rule,
    rule,
)

__all__ = [
    "Free", "Op", "affine_op", "antitone", "arith", "by_source", "choice", "computed", "conv", "conv_transpose", "convex",
    "elementwise_op", "extremum", "gated", "interval_op", "linear", "lookup", "monotone", "norm", "normalise", "piecewise",
    "register", "register_rule", "rule", "select", "shape", "sshaped", "steps", "wavy",
]
