"""Questions as VNN-LIB files, so that other verifiers can be asked the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from boundlab.bounds.problem import problem_of
from boundlab.errors import SpecError
from boundlab.graph import Model, check_model
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import PerturbationSet
from boundlab.question.exact import Query, widened
from boundlab.question.vnnlib import write_vnnlib
from boundlab.spec import Specification
from boundlab.verify.exactly import queries_of
from boundlab.whole_file import write_whole


def save_vnnlib(model: Model, sets: PerturbationSet | Regions | Query, spec: Specification | None, path: str | Path) -> None:
    """Writes the question of one problem, or a query (then `spec` is None), as VNN-LIB 1.0; it asks for an unsafe output.

    X_i and Y_j are the network's inputs and outputs, flat, as `save_onnx` writes them. Ends of boxes are rounded outward to
    float64 and written with all their digits: an answer that there is no unsafe output holds of the set itself, and a
    counterexample may lie one float64 outside. SpecError for several problems, and for balls of another norm than inf;
    MissingRule for sets that are neither boxes nor balls.
    """
    if isinstance(sets, Query):
        if spec is not None:
            raise SpecError("a query states its own specification; leave out `spec`.")
        found = sets
    else:
        found, *more = questions(model, sets, spec)
        if more:
            raise SpecError(f"a VNN-LIB file holds one problem, and these are {1 + len(more)}; give one input with its own "
                            "specification.")
    write_whole(Path(path), write_vnnlib(widened(found)).encode())


def questions(model: Model, sets: PerturbationSet | Regions, spec: Specification | None) -> list[Query]:
    """The problems as queries that VNN-LIB can state; see `save_vnnlib`."""
    if spec is None:
        raise SpecError("sets alone are no question: give a specification, for example margins(labels, classes).")
    check_model(model)
    named = sets if isinstance(sets, Mapping) else {model.graph.inputs[0].name: sets}
    for region in named.values():
        if isinstance(region, LpBall):
            check_norm(region.p)
    return queries_of(model, named, spec, torch.arange(problem_of(model, named, spec).batch))


def check_norm(p: float) -> None:
    """SpecError for a norm whose balls VNN-LIB 1.0 cannot state."""
    if not math.isinf(p):
        raise SpecError(f"VNN-LIB 1.0 has linear constraints only, and a ball of norm {p:g} is none; use norm inf.")
