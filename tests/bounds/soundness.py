"""Points of a set inside every bound of a network: what the tests of soundness share."""

import torch

from boundlab import BCP, CROWN, IBP, Box, Dual, Forward, Full, Optimised, bound, one_slope, parallel, zero_slope
from boundlab.evaluate import evaluate, evaluate_all
from boundlab.interval import Interval
from boundlab.perturbations.ball import LpBall
from boundlab.spec import at_least
from tests.bounds.rounding import rounding, rounding_of_rows

METHODS = {
    "IBP": IBP(), "Forward": Forward(), "CROWN": CROWN(), "CROWN-IBP": CROWN(intermediate=IBP()),
    "forward-CROWN": CROWN(intermediate=Forward()), "parallel": CROWN(alpha=parallel), "zero": CROWN(alpha=zero_slope),
    "one": CROWN(alpha=one_slope), "Forward parallel": Forward(alpha=parallel), "CROWN by two rows": CROWN(max_rows=2),
    "Optimised": Optimised(steps=3), "FROWN in groups": Optimised(steps=2, inner=True, group=3, rate=0.4),
    "FROWN, all slopes": Optimised(steps=2, inner=True, space=Full(), rate=0.4), "Dual": Dual(steps=3, rate=0.5),
    "BCP": BCP(),
}
"""Every method under test; slopes by policy wherever an operator has one called `slope`."""


def region_of(kind, radius, shape, seed, batch=2):
    """A set of each kind around random centres; some coordinates of a box do not vary, one sits on its end."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn((batch, *shape), generator=generator, dtype=torch.float64)
    if kind == "box":
        reach = radius * torch.rand(center.shape, generator=generator, dtype=torch.float64).round(decimals=1)
        return Box(center - reach, center + 2 * reach)
    if kind == "point":
        return Box(center, center)
    p = {"l1": 1.0, "l2": 2.0, "linf": float("inf"), "l2 clipped": 2.0}[kind]
    clip = (center.clamp(max=0.1).amin(0, keepdim=True) - 0.1, center.amax(0, keepdim=True) + 0.05) if "clip" in kind else None
    return LpBall(center, radius, p) if clip is None else LpBall(center, radius, p, clip)


def random_rows(shape, seed, batch=2, count=4):
    """Rows of a specification, their own for every problem."""
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn((batch, count, *shape), generator=generator, dtype=torch.float64)


def attacked(module, region, start, rows, steps=8):
    """Points of the set where each row is small: projected sign ascent against it from `start` (n, b, *shape)."""
    points = []
    for row in range(rows.shape[1]):
        point = start
        for step in range(steps):
            point = point.detach().requires_grad_()
            y = module(point.flatten(0, 1)).reshape(*point.shape[:2], -1)
            (gradient,) = torch.autograd.grad(-(y * rows[:, row].flatten(1)).sum(), point)
            point = region.project(point.detach() + region.ascent(gradient) * 0.5 / (1 + step))
        points.append(point.detach())
    return torch.cat(points)


def points_of(module, region, rows, count, seed):
    """Samples, corners and attacked points, (n, b, *shape)."""
    samples = region.sample(count, torch.Generator().manual_seed(seed))
    return torch.cat([samples, attacked(module, region, samples[:4], rows)])


def excess_of(model, region, points, rows, method, policy=None):
    """How far any point lies outside the bounds of any perturbed node, of the output and of the rows, beyond rounding.

    Returns the largest excess (negative if sound), the largest allowance for rounding relative to the values, and the
    number of (point, bound) pairs. A BoundError is not caught: these networks are too tame for infinite bounds.
    """
    dtype = model.dtype
    with torch.no_grad():
        own = points.to(dtype)
        exact = evaluate_all(model.to(torch.float64), {model.graph.inputs[0].name: own.double().flatten(0, 1)})
        whole = bound(model, region, method=method)
        lines = bound(model, region, method=method, spec=at_least(rows.to(dtype)))
        errors = rounding(model, whole.env, policy)
        excess, allowed, pairs = -torch.inf, 0.0, 0
        target = model.graph.output.index
        nodes = [(index, interval) for index, interval in whole.env.items() if isinstance(interval, Interval)]
        for index, interval in [*nodes, (target, Interval(whole.lower, whole.upper))]:
            value, slack = exact[index].reshape(*points.shape[:2], *interval.shape[1:]), errors[index]
            out = torch.maximum(interval.lower.double() - value, value - interval.upper.double()) - slack
            excess = max(excess, float(out.nan_to_num(nan=torch.inf).max()))
            allowed, pairs = max(allowed, float((slack / (1 + value.abs().amax(0))).max())), pairs + out.numel()
        values = torch.einsum("nbo,bso->nbs", exact[target].reshape(*points.shape[:2], -1), rows.flatten(2))
        env = lines.env[target]
        out = lines.lower.double() - values - rounding_of_rows(rows, errors[target], env)
        return max(excess, float(out.nan_to_num(nan=torch.inf).max())), allowed, pairs + out.numel()


def policy_of(method):
    """The choice of free variables that a method's relaxations were made with."""
    return getattr(method, "alpha", None)


__all__ = ["METHODS", "attacked", "evaluate", "excess_of", "points_of", "policy_of", "random_rows", "region_of"]
