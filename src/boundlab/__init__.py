"""boundlab: proven bounds of neural networks."""

from boundlab.affine import Affine, LinearBound, chord, exact, lines, where3
from boundlab.attack.pgd import PGD, AttackResult, attack
from boundlab.bounds.dual import Dual
from boundlab.bounds.linear import LinearForm, LinearForms, linear_bounds
from boundlab.bounds.lipschitz import BCP, LMT
from boundlab.bounds.methods import CROWN, IBP, Forward, bound
from boundlab.bounds.observe import Deadline
from boundlab.bounds.optimise import Optimised
from boundlab.bounds.problem import Bounds, Method, Rigour
from boundlab.bounds.slopes import one_slope, parallel, zero_slope
from boundlab.bounds.space import Full, Lagrangian, Own
from boundlab.capture.joined import joined, moved, renamed
from boundlab.capture.onnx import OnnxFile, load_onnx, onnx_reference
from boundlab.capture.torch import capture
from boundlab.certificates.certificate import Argument, CaseProof, Certificate, Checked, Semantics
from boundlab.certificates.check import check_certificate
from boundlab.certify.certification import Certification
from boundlab.certify.certify import certify
from boundlab.certify.export import read_certification, save_certification
from boundlab.certify.instances import Instances, save_instances
from boundlab.certify.plan import Jobs, Plan
from boundlab.certify.record import Record, Status
from boundlab.check.check import check
from boundlab.check.report import Bounding, Report
from boundlab.classifier import Certified, CertifiedClassifier
from boundlab.data.examples import Examples, Part
from boundlab.data.read import read_examples
from boundlab.engines.cluster import Ray
from boundlab.engines.engine import Serial
from boundlab.engines.ledger import Recorded
from boundlab.engines.pool import Pool
from boundlab.errors import (
    BoundError,
    BoundlabError,
    CaptureError,
    CertificateError,
    DataError,
    MissingRule,
    OutOfTime,
    ShapeError,
    SpecError,
    UnsupportedOperator,
)
from boundlab.evaluate import evaluate
from boundlab.exchange.onnx_file import save_onnx
from boundlab.graph import Graph, Model, Node
from boundlab.interval import Interval
from boundlab.ops.curves import curve_op
from boundlab.ops.hull import Curve
from boundlab.ops.op import Free, Op, affine_op, elementwise_op, interval_op, monotone, register, register_rule
from boundlab.perturbations.altered import L0Ball, Patches
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.combined import Blocks, Union
from boundlab.perturbations.joint import joint_ball
from boundlab.perturbations.polytope import Polytope
from boundlab.perturbations.programs import PrimalDual, Simplex
from boundlab.perturbations.sets import Box, PerturbationSet
from boundlab.perturbations.substitution import Substitution
from boundlab.perturbations.weights import weight_ball
from boundlab.perturbations.words import WordVectors, known_words, read_synonyms
from boundlab.programs.methods import LP, MILP
from boundlab.programs.minima import Minima
from boundlab.radii.family import Family, balls
from boundlab.radii.problems import Targeted
from boundlab.radii.radius import Radius, radius
from boundlab.radii.search import Search
from boundlab.reports.certified.page import save_report
from boundlab.spec import Specification, at_least, margins
from boundlab.train.adversary import Ascent
from boundlab.train.augmentation import Augmentation
from boundlab.train.averaging import Averaging
from boundlab.train.batch import Batch, Threat, ThreatModel
from boundlab.train.fit import Fitted, fit, fit_against
from boundlab.train.landscape import Landscape, landscape
from boundlab.train.latent import STAPS, TAPS
from boundlab.train.lipschitz import CAP, ByMargin, GloRo, RobustBCP, RobustLMT
from boundlab.train.measure import Measured, measure
from boundlab.train.methods import (
    CCIBP,
    MTLIBP,
    SABR,
    Adversarial,
    CrownIBP,
    ExpIBP,
    Natural,
    RobustIBP,
    TrainingMethod,
)
from boundlab.train.normalise import Normalise
from boundlab.train.plan import SGD, Adam, HeldOut, Keep, OnTestSet, Statistics, TrainingPlan, Validation
from boundlab.train.processes import Processes
from boundlab.train.regularisers import L1, Calm, initialise_for_ibp
from boundlab.train.schedule import Exponential, Linear, Ramp, Rate, Smooth
from boundlab.train.weights import Flatness, WeightThreat, flatness
from boundlab.train.words import ByBudget, HullIBP, WordThreat, by_budget, by_every_sentence
from boundlab.verify.asked import spec
from boundlab.verify.options import Bisection, Branching, Race
from boundlab.verify.saved import save_vnnlib
from boundlab.verify.sound import Original, load_original
from boundlab.verify.team import Team
from boundlab.verify.verdict import Result, Results, Verdict, Witness
from boundlab.verify.verify import LADDER, verify

__all__ = [
    "BCP",
    "CAP",
    "CCIBP",
    "CROWN",
    "IBP",
    "L1",
    "LADDER",
    "LMT",
    "LP",
    "MILP",
    "MTLIBP",
    "PGD",
    "SABR",
    "SGD",
    "STAPS",
    "TAPS",
    "Adam",
    "Adversarial",
    "Affine",
    "Argument",
    "Ascent",
    "AttackResult",
    "Augmentation",
    "Averaging",
    "Batch",
    "Bisection",
    "Blocks",
    "BoundError",
    "Bounding",
    "BoundlabError",
    "Bounds",
    "Box",
    "Branching",
    "ByBudget",
    "ByMargin",
    "Calm",
    "CaptureError",
    "CaseProof",
    "Certificate",
    "CertificateError",
    "Certification",
    "Certified",
    "CertifiedClassifier",
    "Checked",
    "CrownIBP",
    "Curve",
    "DataError",
    "Deadline",
    "Dual",
    "Examples",
    "ExpIBP",
    "Exponential",
    "Family",
    "Fitted",
    "Flatness",
    "Forward",
    "Free",
    "Full",
    "GloRo",
    "Graph",
    "HeldOut",
    "HullIBP",
    "Instances",
    "Interval",
    "Jobs",
    "Keep",
    "L0Ball",
    "Lagrangian",
    "Landscape",
    "Linear",
    "LinearBound",
    "LinearForm",
    "LinearForms",
    "LpBall",
    "Measured",
    "Method",
    "Minima",
    "MissingRule",
    "Model",
    "Natural",
    "Node",
    "Normalise",
    "OnTestSet",
    "OnnxFile",
    "Op",
    "Optimised",
    "Original",
    "OutOfTime",
    "Own",
    "Part",
    "Patches",
    "PerturbationSet",
    "Plan",
    "Polytope",
    "Pool",
    "PrimalDual",
    "Processes",
    "Race",
    "Radius",
    "Ramp",
    "Rate",
    "Ray",
    "Record",
    "Recorded",
    "Report",
    "Result",
    "Results",
    "Rigour",
    "RobustBCP",
    "RobustIBP",
    "RobustLMT",
    "Search",
    "Semantics",
    "Serial",
    "ShapeError",
    "Simplex",
    "Smooth",
    "SpecError",
    "Specification",
    "Statistics",
    "Status",
    "Substitution",
    "Targeted",
    "Team",
    "Threat",
    "ThreatModel",
    "TrainingMethod",
    "TrainingPlan",
    "Union",
    "UnsupportedOperator",
    "Validation",
    "Verdict",
    "WeightThreat",
    "Witness",
    "WordThreat",
    "WordVectors",
    "affine_op",
    "at_least",
    "attack",
    "balls",
    "bound",
    "by_budget",
    "by_every_sentence",
    "capture",
    "certify",
    "check",
    "check_certificate",
    "chord",
    "curve_op",
    "elementwise_op",
    "evaluate",
    "exact",
    "fit",
    "fit_against",
    "flatness",
    "initialise_for_ibp",
    "interval_op",
    "joined",
    "joint_ball",
    "known_words",
    "landscape",
    "linear_bounds",
    "lines",
    "load_onnx",
    "load_original",
    "margins",
    "measure",
    "monotone",
    "moved",
    "one_slope",
    "onnx_reference",
    "parallel",
    "radius",
    "read_certification",
    "read_examples",
    "read_synonyms",
    "register",
    "register_rule",
    "renamed",
    "save_certification",
    "save_instances",
    "save_onnx",
    "save_report",
    "save_vnnlib",
    "spec",
    "verify",
    "weight_ball",
    "where3",
    "zero_slope",
]
