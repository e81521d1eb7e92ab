"""boundlab: proven bounds of neural networks."""

from boundlab.affine import Affine, LinearBound, chord, exact, lines, where3
from boundlab.attack.pgd import PGD, AttackResult, attack
from boundlab.bounds.linear import LinearForm, LinearForms, linear_bounds
from boundlab.bounds.methods import CROWN, IBP, Forward, bound
from boundlab.bounds.problem import Bounds, Method, Rigour
from boundlab.bounds.slopes import one_slope, parallel, zero_slope
from boundlab.capture.onnx import OnnxFile, load_onnx, onnx_reference
from boundlab.capture.torch import capture
from boundlab.errors import BoundError, BoundlabError, CaptureError, MissingRule, ShapeError, SpecError, UnsupportedOperator
from boundlab.evaluate import evaluate
from boundlab.graph import Graph, Model, Node
from boundlab.interval import Interval
from boundlab.ops.curves import curve_op
from boundlab.ops.hull import Curve
from boundlab.ops.op import Free, Op, affine_op, elementwise_op, monotone, register, register_rule
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import Box, PerturbationSet
from boundlab.spec import Specification, at_least, margins
from boundlab.verify.verdict import Result, Verdict, Witness
from boundlab.verify.verify import verify

__all__ = [
    "CROWN",
    "IBP",
    "PGD",
    "Affine",
    "AttackResult",
    "BoundError",
    "BoundlabError",
    "Bounds",
    "Box",
    "CaptureError",
    "Curve",
    "Forward",
    "Free",
    "Graph",
    "Interval",
    "LinearBound",
    "LinearForm",
    "LinearForms",
    "LpBall",
    "Method",
    "MissingRule",
    "Model",
    "Node",
    "OnnxFile",
    "Op",
    "PerturbationSet",
    "Result",
    "Rigour",
    "ShapeError",
    "SpecError",
    "Specification",
    "UnsupportedOperator",
    "Verdict",
    "Witness",
    "affine_op",
    "at_least",
    "attack",
    "bound",
    "capture",
    "chord",
    "curve_op",
    "elementwise_op",
    "evaluate",
    "exact",
    "linear_bounds",
    "lines",
    "load_onnx",
    "margins",
    "monotone",
    "one_slope",
    "onnx_reference",
    "parallel",
    "register",
    "register_rule",
    "verify",
    "where3",
    "zero_slope",
]
