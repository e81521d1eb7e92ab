"""The operators; importing this package registers every family."""

from boundlab.ops import arith, conv, convex, linear, piecewise, shape, sshaped
from boundlab.ops.op import Free, Op, affine_op, antitone, by_source, elementwise_op, lookup, monotone, register, register_rule, rule

__all__ = [
    "Free", "Op", "affine_op", "antitone", "arith", "by_source", "conv", "convex", "elementwise_op", "linear", "lookup", "monotone",
    "piecewise", "register", "register_rule", "rule", "shape", "sshaped",
]
