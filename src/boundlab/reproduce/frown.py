"""FROWN's radii, run again: CROWN's lines of two kinds, optimised lines in both search spaces, and linear programs.

The protocol of Lyu et al. 2020, Sec. 4: correctly classified test images, one random target each, inputs scaled to [-1, 1] and
not clipped, radii until the bracket of proof and failure is 1 % wide.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boundlab.bounds.methods import CROWN
from boundlab.bounds.optimise import Optimised
from boundlab.bounds.problem import Method
from boundlab.bounds.slopes import parallel
from boundlab.bounds.space import Full
from boundlab.capture.torch import capture
from boundlab.data.idx import read_idx_folder
from boundlab.engines.engine import Engine
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.ops.op import Op, number_of
from boundlab.programs.methods import LP
from boundlab.radii.family import balls
from boundlab.radii.problems import Targeted
from boundlab.radii.radius import radius
from boundlab.radii.search import Search
from boundlab.reproduce.barrier import Tell
from boundlab.reproduce.files import named_tensors, network_of, weights_in
from boundlab.reproduce.published import FROWN_3, Gains
from boundlab.spec import labelled_right

NETWORKS: dict[str, type[nn.Module]] = {"net_3_100_relu": nn.ReLU, "net_3_100_sigmoid": nn.Sigmoid}
NORMS = (1.0, 2.0, float("inf"))
SEARCH = Search(tolerance=0.01, attack=None)
FROWN = Optimised(CROWN(), inner=True, enough=0.0)
FULL = Optimised(CROWN(), inner=True, enough=0.0, space=Full())


def published_lines(op: Op, *arguments: Any, **attributes: Any) -> Mapping[str, Tensor] | None:
    """The lines of the paper's CROWN: for a ReLU parallel to the chord, for an S-shaped curve tangents through the ends.

    The latter where the curve bends inside the interval; ours are those of least area there. Lyu et al. 2020, App. A.4.
    """
    if "slope" in op.alpha:
        return parallel(op, *arguments, **attributes)
    if op.breaks_of(attributes) != () or set(op.alpha) != {"lower", "upper"}:
        return None
    x = arguments[0]
    mixed = (x.row_lower < 0) & (x.row_upper > 0)
    least = {name: number_of(free.start, arguments, attributes, x.shape[1:]) for name, free in op.alpha.items()}
    return {"lower": torch.where(mixed, 1.0, least["lower"]), "upper": torch.where(mixed, 0.0, least["upper"])}


CHAINS: dict[str, tuple[Method, ...]] = {
    "CROWN": (CROWN(alpha=published_lines),), "least area": (CROWN(),), "FROWN": (CROWN(), FROWN), "full": (CROWN(), FULL)}
"""The methods of every column, each going on from the radii of the one before: CROWN as published; with the lines of least area
(the adaptive slopes of a ReLU); optimised in the papers' search space, and in FROWN's full one."""


@dataclass(frozen=True)
class RadiusRow:
    """Mean radii of one network and norm by method, with the radii themselves and the seconds an image.

    `run` counts the images of each method: linear programs are run on the first few.
    """

    network: str
    p: float
    mean: Mapping[str, float]
    each: Mapping[str, Sequence[float]]
    seconds: Mapping[str, float]
    run: Mapping[str, int]
    published: Gains | None = None

    def gain(self, name: str, beside: str) -> float:
        """By how much a method's mean radius is larger than another's on the same images, in percent."""
        own, other = self.each[name], self.each[beside][:len(self.each[name])]
        return 100 * (sum(own) / sum(other) - 1)

    def least_gain(self, name: str, beside: str) -> float:
        """The smallest difference of radii over the images."""
        return min(a - b for a, b in zip(self.each[name], self.each[beside], strict=False))


def classified(model: Model, data: tuple[Tensor, Tensor], images: int) -> tuple[Tensor, Targeted]:
    """The first images that are classified right, and the statement that their label beats one random other class."""
    x, labels = data
    right = labelled_right(evaluate(model, {model.graph.inputs[0].name: x}), labels).nonzero().flatten()[:images]
    away = torch.randint(1, 10, (len(right),), generator=torch.Generator().manual_seed(0))
    return x[right], Targeted(labels[right], (labels[right] + away) % 10)


def radius_row(name: str, p: float, model: Model, data: tuple[Tensor, Targeted], programs: tuple[int, Engine], tell: Tell
               ) -> RadiusRow:
    """Radii of one network in one norm by all methods; linear programs go on from FROWN's radii on the first few images."""
    x, statement = data
    count, engine = programs
    mean, each, seconds, run = {}, {}, {}, {}
    linear = {"LP": (CROWN(), FROWN, LP(FROWN, engine=engine))} if count else {}
    for method_name, chain in {**CHAINS, **linear}.items():
        images = min(count, len(x)) if method_name == "LP" else len(x)
        part = Targeted(statement.labels[:images], statement.targets[:images])
        started = time.perf_counter()
        found = radius(model, x[:images], part, family=balls(p), method=chain, search=SEARCH)
        seconds[method_name], run[method_name] = (time.perf_counter() - started) / images, images
        mean[method_name], each[method_name] = float(found.proven.double().mean()), found.proven.tolist()
        tell(f"{name}, p = {p:g}: {method_name} {mean[method_name]:.5f}, {seconds[method_name]:.3f} s an image on {images}")
    return RadiusRow(name, p, mean, each, seconds, run, FROWN_3.get((name, p)))


def radius_table(weights: Path, data: Path, images: int, programs: tuple[int, Engine], tell: Tell) -> list[RadiusRow]:
    """The rows of both networks and all norms; `programs` are on how many images, and by which engine, LP is run."""
    x, labels = read_idx_folder(data).labelled()
    scaled, rows = (x.flatten(1) - 0.5) / 0.5, []
    for name, activation in NETWORKS.items():
        model = capture(network_of(named_tensors(weights_in(weights, name)), activation), scaled[:2]).detached()
        problem = classified(model, (scaled, labels), images)
        rows += [radius_row(name, p, model, problem, programs, tell) for p in NORMS]
    return rows
