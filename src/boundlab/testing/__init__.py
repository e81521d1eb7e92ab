"""Conformance suites for whoever writes an operator, a linear map or a perturbation set; they raise ConformanceError."""

from boundlab.errors import ConformanceError
from boundlab.testing.cases import Case, Vary, cases_of
from boundlab.testing.maps import check_map, check_rows
from boundlab.testing.operators import check_operator
from boundlab.testing.perturbations import check_perturbation

__all__ = [
    "Case", "ConformanceError", "Vary", "cases_of", "check_map", "check_operator", "check_perturbation", "check_rows",
]
