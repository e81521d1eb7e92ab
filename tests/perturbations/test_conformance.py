"""Every perturbation set keeps the laws of sets; and the suite notices sets that do not."""

import dataclasses
import math

import pytest
import torch

from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import Box
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_laws_of_sets(dtype):
    for name, region in sets(dtype):
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


@pytest.mark.parametrize(("kind", "law"), [(TooSmall, "not a minimum"), (Escaping, "outside the set's box")])
def test_a_broken_set_is_found(kind, law):
    x = center(3, 6, dtype=torch.float64)
    with pytest.raises(ConformanceError, match=law):
        check_perturbation(kind(x - 1, x + 1))
