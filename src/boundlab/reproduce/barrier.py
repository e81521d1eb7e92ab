"""The convex relaxation barrier, run again: errors and radii by greedy bounds and linear programs (Salman et al. 2019)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD, attack
from boundlab.bounds.dual import Dual
from boundlab.bounds.methods import CROWN, bound
from boundlab.bounds.problem import Method, problem_of
from boundlab.bounds.slopes import parallel
from boundlab.capture.torch import capture
from boundlab.data.idx import read_idx_folder
from boundlab.engines.engine import Engine
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.programs.methods import LP, MILP
from boundlab.radii.family import balls
from boundlab.radii.radius import radius
from boundlab.radii.search import Search
from boundlab.reproduce.files import named_tensors, network_of, weights_in
from boundlab.reproduce.published import BARRIER_1, BARRIER_2, Distortions, Errors
from boundlab.spec import labelled_right, margins

GREEDY = CROWN(alpha=parallel)
DUAL = Dual(GREEDY, steps=100)
ATTACK = PGD(steps=40, restarts=1)
TEN = (5845, 6139, 124, 3368, 1263, 313, 8491, 6341, 1759, 4432)
"""The ten test images of Table 2."""
PART = 20
"""Images whose programs are held at once."""
Tell = Callable[[str], None]


def programs(engine: Engine) -> dict[str, Method]:
    """LP-LAST and LP-ALL on greedy bounds of inner neurons; of margins only the sign need be known."""
    return {"LP-LAST": LP(GREEDY, inner=False, enough=0.0, engine=engine), "LP-ALL": LP(GREEDY, enough=0.0, engine=engine)}


@dataclass(frozen=True)
class ErrorRow:
    """Errors of one network at one radius, in percent of `images`, and seconds an image for those that a method was run on.

    `error` of a method counts the images that are misclassified or not proven; `attacked` those that are misclassified or that
    an attack (PGD, or the point of an integer program) breaks. `run` counts the images that each method was run on.
    """

    network: str
    eps: float
    images: int
    test: float
    attacked: float
    error: Mapping[str, float]
    seconds: Mapping[str, float]
    run: Mapping[str, int]
    published: Errors | None = None


@dataclass(frozen=True)
class State:
    """What is known of every image: classified right, broken by an attack, proven by a method no stronger than the last one."""

    right: Tensor
    broken: Tensor
    proven: Tensor
    error: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    run: dict[str, int] = field(default_factory=dict)

    def open(self) -> Tensor:
        """The images that are neither proven nor broken, as places."""
        return (self.right & ~self.broken & ~self.proven).nonzero().flatten()

    def share(self, held: Tensor) -> float:
        """Of how many images something does not hold, in percent."""
        return 100 * float((~held).double().mean())

    def after(self, name: str, proven: Tensor, broken: Tensor, seconds: float, count: int) -> State:
        """With what one more method found in `seconds` on `count` images."""
        held = self.right & ~broken & proven
        return replace(self, proven=proven, broken=broken, error={**self.error, name: self.share(held)},
                       seconds={**self.seconds, name: seconds / max(count, 1)}, run={**self.run, name: count})


def error_row(name: str, eps: float, model: Model, data: tuple[Tensor, Tensor], methods: Mapping[str, Method], tell: Tell
              ) -> ErrorRow:
    """Errors of one network: methods from weak to strong, each run on the images that are still neither proven nor broken.

    So an image that greedy bounds prove counts as proven by programs, too: their relaxations are no larger.
    """
    x, labels = data
    right = labelled_right(evaluate(model, {model.graph.inputs[0].name: x}), labels)
    found = attack(model, LpBall(x, eps, clip=(0, 1)), margins(labels, 10, x.dtype), ATTACK)
    state = State(right, found.violated, torch.zeros_like(right))
    for method_name, method in methods.items():
        state = with_method(state, method_name, method, model, (x, labels, eps))
        tell(f"{name}, eps {eps:g}: {method_name} leaves {state.error[method_name]:.1f} % unproven, "
             f"{state.seconds[method_name]:.2f} s an image on {state.run[method_name]} images")
    return ErrorRow(name, eps, len(x), state.share(right), state.share(right & ~state.broken), state.error, state.seconds,
                    state.run, BARRIER_1.get((name, eps)))


def with_method(state: State, name: str, method: Method, model: Model, data: tuple[Tensor, Tensor, float]) -> State:
    """What one method adds, a few images at a time; an integer program may break images, too."""
    (x, labels, eps), places = data, state.open()
    proven, broken, started = state.proven.clone(), state.broken.clone(), time.perf_counter()
    for part in places.split(PART if len(places) else 1):
        if not len(part):
            continue
        ball, spec = LpBall(x[part], eps, clip=(0, 1)), margins(labels[part], 10, x.dtype)
        if isinstance(method, MILP):
            minima = method.minima(problem_of(model, ball, spec))
            proven[part], broken[part] = (minima.lower > 0).all(1), (minima.upper <= 0).any(1)
        else:
            proven[part] = (bound(model, ball, method=method, spec=spec).lower > 0).all(1)
    return state.after(name, proven, broken, time.perf_counter() - started, len(places))


@dataclass(frozen=True)
class Sample:
    """So many of the test images: the first ones, or spread evenly over all (the second half of MNIST's is easier)."""

    images: int
    spread: bool = False

    def of(self, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The images and labels that it names."""
        step = len(data[0]) // min(self.images, len(data[0])) if self.spread else 1
        x, labels = (part[::step][:self.images] for part in data)
        return x, labels


def error_table(weights: Path, data: Path, sample: Sample, seconds: float, engine: Engine, tell: Tell) -> list[ErrorRow]:
    """Table 1 for the networks of `BARRIER_1`, on a sample of MNIST's test set; `seconds` a row for MILP (0: none)."""
    x, labels = sample.of(read_idx_folder(data).labelled())
    methods: dict[str, Method] = {"LP-GREEDY": GREEDY, "Dual": DUAL, **programs(engine)}
    if seconds > 0:
        methods["MILP"] = MILP(LP(GREEDY, enough=0.0, engine=engine), seconds, enough=0.0, engine=engine)
    rows = []
    for name, eps in BARRIER_1:
        model = capture(network_of(named_tensors(weights_in(weights, name))), x[:2]).detached()
        rows.append(error_row(name, eps, model, (x, labels), methods, tell))
    return rows


@dataclass(frozen=True)
class DistortionRow:
    """Mean radii over the images of one network: proven, by method, and attacked; with the seconds an image of each method."""

    network: str
    images: int
    proven: Mapping[str, float]
    attacked: float
    seconds: Mapping[str, float]
    each: Mapping[str, Sequence[float]]
    published: Distortions | None = None


def distortion_row(name: str, model: Model, x: Tensor, methods: Mapping[str, Method], search: Search, tell: Tell
                   ) -> DistortionRow:
    """Radii of one network; labels are what it says itself, and each method begins at the last one's radii.

    Balls are not cut to [0, 1]: only so do greedy radii equal the published ones.
    """
    labels = evaluate(model, {model.graph.inputs[0].name: x}).argmax(1)
    proven: dict[str, float] = {}
    seconds, each, attacked = {}, {}, math.nan
    best = torch.zeros(len(x))
    for method_name, method in methods.items():
        first, started = not proven, time.perf_counter()
        how = search if first else replace(search, attack=None, known=best)
        found = radius(model, x, labels, family=balls(math.inf), method=method, search=how)
        attacked = float(found.attacked.double().mean()) if first else attacked
        best = found.proven
        each[method_name], seconds[method_name] = best.tolist(), (time.perf_counter() - started) / len(x)
        proven[method_name] = float(best.double().mean())
        tell(f"{name}: {method_name} proves {proven[method_name]:.5f} on average, {seconds[method_name]:.1f} s an image")
    return DistortionRow(name, len(x), proven, attacked, seconds, each, BARRIER_2.get(name))


def distortion_table(weights: Path, data: Path, images: int, tolerance: float, engine: Engine, tell: Tell
                     ) -> list[DistortionRow]:
    """Table 2 for the networks of `BARRIER_2`, on the paper's ten test images, or the first of them."""
    methods: dict[str, Method] = {"LP-GREEDY": GREEDY, **programs(engine)}
    search = Search(tolerance=tolerance, attack=PGD(steps=100, restarts=4))
    x, _ = read_idx_folder(data).labelled()
    chosen = x[list(TEN[:images])]
    rows = []
    for name in BARRIER_2:
        model = capture(network_of(named_tensors(weights_in(weights, name))), x[:2]).detached()
        rows.append(distortion_row(name, model, chosen, methods, search, tell))
    return rows
