"""Conformance suites for whoever writes an operator, a linear map or a perturbation set, and planted problems for methods."""

from boundlab.errors import ConformanceError
from boundlab.testing.cases import Case, Vary, cases_of
from boundlab.testing.hideouts import Architecture
from boundlab.testing.maps import check_map, check_rows
from boundlab.testing.operators import check_operator
from boundlab.testing.perturbations import check_perturbation
from boundlab.testing.planted import Place, Planted, planted, planted_problems

__all__ = [
    "Architecture", "Case", "ConformanceError", "Place", "Planted", "Vary", "cases_of", "check_map", "check_operator",
    "check_perturbation", "check_rows", "planted", "planted_problems",
]
