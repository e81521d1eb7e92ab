"""Every perturbation set keeps the laws of sets; and the suite notices sets that do not."""

import dataclasses
import math

import pytest
import torch

import boundlab as bl
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import Box, Taken
from boundlab.testing import ConformanceError, check_perturbation


def center(*shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def sets(dtype):
    """Boxes and balls over vectors and images: shared and own radii, clipped, of radius zero."""
    for shape in ((3, 6), (2, 2, 4, 3), (1, 5)):
        x = center(*shape, dtype=dtype)
        name = "x".join(map(str, shape))
        yield f"box {name}", Box(x - 0.3, x + x.abs())
        yield f"point {name}", Box(x, x)
        for p in (1.0, 1.5, 2.0, 3.0, math.inf):
            yield f"l{p} ball {name}", LpBall(x, 0.7, p)
            yield f"l{p} ball {name}, clipped", LpBall(x.clamp(-0.52, 0.82), 0.7, p, (-0.5, 0.8))
        yield f"l2 balls of own radii {name}", LpBall(x, torch.linspace(0, 2, shape[0], dtype=dtype), 2.0)


def altered_sets(dtype):
    """l_0 balls and patches: shared and own budgets and domains, centers outside the domain."""
    for shape in ((3, 6), (2, 2, 4, 3), (1, 5)):
        x = center(*shape, dtype=dtype)
        name = "x".join(map(str, shape))
        yield f"l0 ball {name}", bl.L0Ball(x, 2, -0.5, 0.5)
        yield f"l0 balls of own budgets {name}", bl.L0Ball(x, torch.arange(shape[0]), x - 0.1, x.abs() + 2)
        yield f"l0 ball of all coordinates {name}", bl.L0Ball(x, 100, -0.5, torch.linspace(0, 1, shape[-1], dtype=dtype))
        if len(shape) == 4:
            yield "l0 ball of pixels", bl.L0Ball(x, torch.tensor([1, 3]), -0.5, 0.5, pixels=True)
            yield "patches", bl.Patches(x, (2, 2), -0.5, 0.5)
            yield "flat patches", bl.Patches(x, (1, 3), x - 0.2, x + 0.1)
            yield "patches of a pixel", bl.Patches(x, (1, 1), -0.5, 0.5)


def combined_sets(dtype):
    """Unions, blocks, nested ones, and sets taken from others."""
    for shape in ((3, 6), (2, 2, 4, 3), (1, 5)):
        x = center(*shape, dtype=dtype)
        name = "x".join(map(str, shape))
        few, ball = bl.L0Ball(x, 1, -0.5, 0.5), LpBall(x, 0.3, 2.0)
        yield f"union {name}", bl.Union((ball, few, Box(x, x + 0.1)))
        yield f"blocks {name}", bl.Blocks((ball, x, few), dim=len(shape) - 2)
        yield f"blocks of boxes {name}", bl.Blocks((Box(x, x + 1), x), dim=0)
        yield f"union of blocks {name}", bl.Union((bl.Blocks((ball, few)), bl.Blocks((bl.Union((ball, x)), x))))
        yield f"taken sets {name}", Taken(few, torch.tensor([shape[0] - 1, 0, shape[0] - 1]))
        yield f"taken balls {name}", Taken(Taken(ball, torch.zeros(4, dtype=torch.long)), torch.tensor([1, 3]))


def word_sets(dtype):
    """Sentences with ragged lists and own budgets."""
    x, candidates = center(3, 4, 5, dtype=dtype), center(3, 4, 2, 5, dtype=dtype)
    yield "words", bl.Substitution(x, candidates, torch.tensor([0, 1, 9]))
    allowed = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    yield "words of ragged lists", bl.Substitution(x, candidates.masked_fill(~allowed[..., None], math.nan), 2, allowed)


def polytopes(dtype):
    """Vectors and images, own constraints and shared ones, both solvers."""
    pytest.importorskip("highspy")
    for shape in ((3, 6), (2, 2, 4, 3), (1, 5)):
        x, name = center(*shape, dtype=dtype).clamp(-1, 1), "x".join(map(str, shape))
        matrix = torch.randn(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(2), dtype=dtype)
        limit = (matrix * x[:, None]).flatten(2).sum(2) + 0.2
        yield f"polytope {name}", bl.Polytope(x - 0.5, x + 0.5, matrix, limit)
        shared = matrix[0].flatten(1).abs().sum(1) / 4
        yield f"polytope of shared constraints {name}", bl.Polytope(x * 0 - 1, x * 0 + 1, matrix[0], shared)
    yield "approximate polytope", bl.Polytope(x - 0.5, x + 0.5, matrix, limit, bl.PrimalDual(steps=200))


KINDS = {"boxes and balls": sets, "altered": altered_sets, "combined": combined_sets, "words": word_sets,
         "polytopes": polytopes}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("kind", KINDS)
def test_laws_of_sets(kind, dtype):
    for name, region in KINDS[kind](dtype):
        try:
            check_perturbation(region, points=60)
        except ConformanceError as problem:
            raise AssertionError(f"{name}: {problem}") from problem


@dataclasses.dataclass(frozen=True)
class TooSmall(Box):
    """A box that claims minima of a smaller one."""

    def concretize(self, rows):
        return Box(self.lower * 0.9 + self.upper * 0.1, self.upper).concretize(rows)


@dataclasses.dataclass(frozen=True)
class Escaping(Box):
    """A box whose projection does nothing."""

    def project(self, point):
        return point


@dataclasses.dataclass(frozen=True)
class Alone(Box):
    """A box that forgets about the others when one problem is taken."""

    def take(self, index):
        return Box(self.lower[index] - 0.1, self.upper[index])


@dataclasses.dataclass(frozen=True)
class Independent(bl.L0Ball):
    """A ball that says it is its box."""

    @property
    def independent(self):
        return True


@dataclasses.dataclass(frozen=True)
class Deaf(Box):
    """A box whose minima have no gradient."""

    def concretize(self, rows):
        return super().concretize(rows).detach()


@dataclasses.dataclass(frozen=True)
class Falling(Box):
    """A box that leads attacks downhill."""

    def ascent(self, gradient):
        return -gradient


@dataclasses.dataclass(frozen=True)
class Shapeless(Box):
    """A box whose samples lack the axis of problems."""

    def sample(self, count, generator=None):
        return super().sample(count, generator)[:, 0]


@pytest.mark.parametrize(("kind", "law"), [
    (TooSmall, "not a minimum"), (Escaping, "outside the set's box"), (Alone, r"problems \[0\] in their batch and alone"),
    (Deaf, "no gradient in the rows"), (Falling, "ascent does not climb"), (Shapeless, "has shape")])
def test_a_broken_set_is_found(kind, law):
    x = center(3, 6, dtype=torch.float64)
    with pytest.raises(ConformanceError, match=law):
        check_perturbation(kind(x - 1, x + 1))


def test_a_false_claim_of_independence_is_found():
    with pytest.raises(ConformanceError, match="says that its coordinates are independent"):
        check_perturbation(Independent(center(3, 6, dtype=torch.float64), 2, -1.0, 1.0))
