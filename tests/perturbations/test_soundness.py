"""Points of the sets beyond boxes and balls lie inside every bound of random networks, at every node, by every method."""

import functools

import pytest
import torch

import boundlab as bl
from tests.bounds.networks import KINDS, captured
from tests.bounds.soundness import METHODS, excess_of, points_of, policy_of, random_rows

COMMON = ("IBP", "Forward", "CROWN", "CROWN-IBP", "CROWN by two rows")
NETWORKS = {
    "vector": (["linear", "relu", "residual", "tanh"], ["product", "shared", "softmax"], ["own maximum", "concat", "sigmoid"]),
    "image": (["conv 3", "relu", "conv stride", "relu"], ["downsample", "relu", "max pool"], ["turned", "crop", "relu"]),
    "tokens": (["attention", "relu"], ["tokenwise", "tanh", "mixing"], ["residual", "square"]),
}


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sets_over(kind, seed):
    """A set of each kind that fits the inputs, two problems each."""
    x = 0.5 * normal(2, *KINDS[kind][0], seed=seed)
    few = bl.L0Ball(x, torch.tensor([1, 2]), x - 0.4, x + 0.3)
    yield "l0", few
    yield "union", bl.Union((bl.LpBall(x, 0.2, 2), few, x + 0.1))
    yield "blocks", bl.Blocks((bl.L0Ball(x[:, :1].clone(), 1, -0.5, 0.5), x[:, 1:].clone()))
    if kind == "image":
        yield "pixels", bl.L0Ball(x, 2, -0.5, 0.5, pixels=True)
        yield "patch", bl.Patches(x, (2, 3), -0.5, 0.5)
    if kind == "tokens":
        yield "words", bl.Substitution(x, x.unsqueeze(2) + 0.3 * normal(2, 3, 2, 4, seed=seed + 1), torch.tensor([1, 2]))
    if kind == "vector":
        pytest.importorskip("highspy")
        matrix = normal(2, 3, 4, seed=seed + 2)
        limit = torch.linalg.vecdot(matrix, x[:, None]) + 0.1
        yield "polytope", bl.Polytope(x - 0.3, x + 0.3, matrix, limit)


@functools.cache
def network(kind, place):
    return captured(kind, NETWORKS[kind][place], place)


def single(value):
    """A set, a tensor or a tuple of them in single precision."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(map(single, value))
    return type(value)(**{name: single(held) for name, held in vars(value).items() if name in type(value).__match_args__}) \
        if isinstance(value, bl.PerturbationSet) else value


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_points_lie_inside_all_bounds(kind, place, dtype):
    module, model = network(kind, place)
    rows = random_rows((3,), place)
    for name, region in sets_over(kind, place):
        points = points_of(module, region, rows, 16, place)
        own = region
        if dtype != torch.float64:
            own, points = single(region), single(region).project(points.float())
        for method in COMMON if dtype == torch.float64 else COMMON[:3]:
            how = METHODS[method]
            excess, _, pairs = excess_of(model.to(dtype), own, points, rows, how, policy_of(how))
            assert excess <= 0 and pairs > 100, f"{method} is unsound on a {name} set: by {excess:.3g}"
