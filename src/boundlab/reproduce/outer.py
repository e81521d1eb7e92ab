"""How tight outer bounds of logits are, for pictures of networks that were trained for l_2 balls (Lee et al. 2020, BCP)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from boundlab.attack.pgd import PGD, attack
from boundlab.bounds.lipschitz import BCP, LMT
from boundlab.bounds.methods import bound
from boundlab.bounds.problem import Method
from boundlab.capture.onnx import load_onnx
from boundlab.data.examples import Examples
from boundlab.errors import SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.spec import at_least, labelled_right, margins
from boundlab.train.batch import Threat
from boundlab.train.measure import measure
from boundlab.train.results import Finished
from boundlab.train.run import OWN_PROOFS
from boundlab.train.sources import training_and_test

OUTER: Mapping[str, Method] = {"LMT": LMT(), "BCP": BCP()}
"""The ball alone, and the ball with a box."""
DIRECTIONS, SAMPLES, SOME = 180, 400, 100
IMAGES, FEW, MANY, STEPS = 3, 20, 500, 6
"""Planes of a run, images that are looked at for each, images of other pictures, radii up to that of training."""
ROUNDING = 1e-6
"""Share of the logits' size by which regions are drawn larger; a point, of a network with one answer, would vanish."""
SEARCH = PGD(steps=40, restarts=1, targets=1)


def translations(model: Model, x: Tensor, eps: float, method: Method) -> Tensor:
    """The mean over ordered pairs of classes of how far their margin may fall below the one at x, on l_2 balls of eps: (b,).

    Lee et al. 2020, Sec. 5: their tightness, which is the same for all x where the ball alone is known.
    """
    classes = model.graph.output.shape[0]
    eye = torch.eye(classes, dtype=model.dtype)
    pairs = (eye[:, None] - eye)[~torch.eye(classes, dtype=torch.bool)]
    spec = at_least(pairs[None])
    with torch.no_grad():
        at = spec.values(evaluate(model, {model.graph.inputs[0].name: x}))
        lower = torch.cat([bound(model, LpBall(some, eps, 2.0), method=method, spec=spec).lower for some in x.split(SOME)])
    return (at - lower).mean(1)


@dataclass(frozen=True)
class Plane:
    """Where the logits of a label and of the runner-up may be while an image varies in a ball.

    `regions` are by method the corners (n, 2) of a polygon around all of them, `margins` the least difference that the method
    proves. `samples` (n, 2) are logits at random points of the ball, `found` (2,) those that an attack ends at.
    """

    image: int
    classes: tuple[int, int]
    center: Tensor
    regions: Mapping[str, Tensor]
    margins: Mapping[str, float]
    samples: Tensor
    found: Tensor


def plane(model: Model, data: Examples, image: int, eps: float, directions: int = DIRECTIONS) -> Plane:
    """The plane of one image of the data, for the l_2 ball of radius eps (Lee et al. 2020, Fig. 2)."""
    x, labels = (part[image:image + 1] for part in data.labelled())
    name, ball, label = model.graph.inputs[0].name, LpBall(x, eps, 2.0), int(labels)
    with torch.no_grad():
        logits = evaluate(model, {name: x})[0]
        other = int(torch.where(torch.arange(len(logits)) == label, -math.inf, logits).argmax())
        angles = torch.arange(directions, dtype=torch.float64) * 2 * math.pi / directions
        ways = torch.stack([angles.cos(), angles.sin()], 1)
        rows = torch.zeros(1, directions + 1, len(logits), dtype=model.dtype)
        rows[0, :-1, label], rows[0, :-1, other] = (part.to(model.dtype) for part in ways.unbind(1))
        rows[0, -1, label], rows[0, -1, other] = 1, -1
        lower = {title: bound(model, ball, method=method, spec=at_least(rows)).lower[0].double()
                 for title, method in OUTER.items()}
        points = ball.sample(SAMPLES, torch.Generator().manual_seed(0)).flatten(0, 1)
        samples = evaluate(model, {name: points})[:, [label, other]]
    broken = attack(model, ball, margins(labels, len(logits), model.dtype), SEARCH, torch.Generator().manual_seed(0))
    found = evaluate(model, broken.points)[0, [label, other]]
    return Plane(image, (label, other), logits[[label, other]], {
        title: corners(ways, value[:-1] - ROUNDING * (1 + value.abs().max())) for title, value in lower.items()},
        {title: float(value[-1]) for title, value in lower.items()}, samples, found)


def corners(ways: Tensor, lower: Tensor) -> Tensor:
    """The corners (n, 2), in order, of all points z with way . z >= lower for every row of ways (m, 2); double precision.

    A square that holds them is cut by one line after the other (Sutherland and Hodgman 1974).
    """
    size = 4 * float(lower.abs().max()) + 1
    polygon = size * torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    for way, least in zip(ways, lower, strict=True):
        height = polygon @ way - least
        kept: list[Tensor] = []
        for place in range(len(polygon)):
            before, here = height[place - 1], height[place]
            if (before < 0) != (here < 0):
                kept.append(torch.lerp(polygon[place - 1], polygon[place], before / (before - here)))
            if here >= 0:
                kept.append(polygon[place])
        polygon = torch.stack(kept)
    return polygon


@dataclass(frozen=True)
class Curve:
    """Shares of test examples at several radii: labelled right under attack, and proven by the method `proof`."""

    title: str
    proof: str
    trained_at: float
    eps: Sequence[float]
    attacked: Sequence[float]
    verified: Sequence[float]


def curve(model: Model, data: Examples, proof: tuple[str, Method], about: tuple[str, Threat], radii: Sequence[float]) -> Curve:
    """Verified accuracy by radius (Lee et al. 2020, Fig. 4); at 0 it is the accuracy without perturbation."""
    (name, method), (title, threat) = proof, about
    attacked, verified = [], []
    for eps in radii:
        if eps == 0:
            x, labels = data.labelled()
            right = labelled_right(evaluate(model, {model.graph.inputs[0].name: x}), labels)
            attacked.append(float(right.double().mean()))
            verified.append(attacked[-1])
            continue
        found = measure(model, data, Threat(eps, threat.norm, threat.clip), {name: method}, SEARCH)
        attacked.append(found.attacked)
        verified.append(found.verified[name])
    return Curve(title, name, threat.eps, tuple(radii), attacked, verified)


def proof_of(run: Finished) -> tuple[str, Method]:
    """By what a network is certified: what it was trained by, if that is a bound for l_2 balls, else BCP."""
    return OWN_PROOFS.get(type(run.recipe.training_method), ("BCP", BCP()))


def test_images(run: Finished, folder: Path, count: int) -> Examples:
    """The first test images of the data that the run was about."""
    _, test = training_and_test(None if run.recipe.data == "digits" else folder, run.recipe.data, run.recipe.seed)
    return test.take(range(min(count, len(test))))


def opened(run: Finished) -> Model:
    """The network of a run."""
    return load_onnx(run.network).detached()


def planes(runs: Sequence[Finished], folder: Path, count: int | None) -> dict[str, Plane]:
    """Of each run the planes of the first test images that are labelled right; three of them, or `count`.

    SpecError if there is none.
    """
    found = {}
    for run in runs:
        model, data = opened(run), test_images(run, folder, FEW * (count or IMAGES))
        x, labels = data.labelled()
        right = labelled_right(evaluate(model, {model.graph.inputs[0].name: x}), labels).nonzero().flatten().tolist()
        for image in right[:count or IMAGES]:
            found[f"{run.folder.name}, image {image}"] = plane(model, data, image, run.recipe.radius)
    if not found:
        raise SpecError("none of the networks labels one of the first test images right, so there is no plane to draw; train "
                        "longer.")
    return found


def tightness(runs: Sequence[Finished], folder: Path, count: int | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each run the translations of the first test images (500 if none are asked for), by BCP and by the ball alone."""
    found = {}
    for run in runs:
        model, (x, _) = opened(run), test_images(run, folder, count or MANY).labelled()
        both, ball = (translations(model, x, run.recipe.radius, OUTER[name]) for name in ("BCP", "LMT"))
        found[run.folder.name] = both, ball
    return found


def curves(runs: Sequence[Finished], folder: Path, count: int | None) -> list[Curve]:
    """Of each run the verified accuracy on the first test images, at radii up to twice that of its training."""
    found = []
    for run in runs:
        asked = run.recipe
        radii = [asked.eps * place / STEPS for place in range(2 * STEPS + 1)]
        threat = Threat(asked.eps, asked.norm, asked.limits)
        data = test_images(run, folder, count or MANY)
        found.append(curve(opened(run), data, proof_of(run), (run.folder.name, threat), radii))
    return found
