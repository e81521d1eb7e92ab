"""Intervals of all margins of a classifier, at a cost that hardly depends on how many classes there are.

A margin is the label's logit minus another. Its row in the last affine layers is a difference of two rows, so these layers are
pulled back once for all examples, and only absolute differences are summed for each: no matrix for each example is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from boundlab.bounds.backward import Env, backward, plus
from boundlab.bounds.intermediate import is_affine, relaxer
from boundlab.bounds.problem import Problem
from boundlab.interval import Interval, around
from boundlab.maps import Dense, Rows, flat

AT_ONCE = 2**20
"""Differences of rows in one piece."""


def margin_interval(problem: Problem, env: Env, labels: Tensor) -> Interval:
    """Bounds of the label's logit minus each logit (b, classes), from the intervals in `env`; exactly 0 at the label.

    As with `IBP`, the last affine layers are merged with the margins.
    """
    graph, target = problem.model.graph, problem.target
    every = torch.eye(target.shape[0], dtype=problem.model.dtype, device=labels.device)[None]
    pulled = backward(graph, env, relaxer(env), target.index, Dense(target.shape, None, every),
                      stop=lambda node: not is_affine(node, env))
    parts = [part_at(problem, env, index, rows, labels) for index, rows in pulled.coefficients.items()]
    center = None if pulled.bias is None else differences(pulled.bias, labels)
    for part in parts:
        center = plus(center, part[0])
    assert center is not None
    return around(center, torch.stack([radius for _, radius in parts]).sum(0))


def part_at(problem: Problem, env: Env, index: int, rows: Rows, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Center and radius (b, classes) of what one node adds to the margins, from its set or its interval."""
    interval, region = env[index], problem.sets.get(index)
    assert isinstance(interval, Interval)
    if region is None or region.independent:
        center, radius = interval.center_and_radius()
        return differences(rows.dot(center.unsqueeze(1)), labels), Spread.apply(flat(rows.dense(), 2), labels, flat(radius, 1))
    dense = differences(rows.dense(), labels)
    low, high = (region.concretize(Dense(rows.shape, None, sign * dense)) for sign in (1, -1))
    return (low - high) / 2, -(low + high) / 2


def differences(values: Tensor, labels: Tensor) -> Tensor:
    """The label's entry minus every entry, of values (b or 1, classes, ...)."""
    values = values.expand(len(labels), *values.shape[1:])
    return values[torch.arange(len(labels), device=labels.device), labels].unsqueeze(1) - values


class Spread(torch.autograd.Function):
    """How far margins reach to both sides: the sum of |rows[label] - rows[j]| times radius (b, k), for each j, (b, classes).

    `rows` are (b or 1, classes, k). The differences are formed again for the gradient, a few examples at a time.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, labels: Tensor, radius: Tensor) -> Tensor:
        ctx.save_for_backward(rows, labels, radius)
        found = radius.new_empty(len(labels), rows.shape[1])
        for piece in pieces(rows, labels):
            sizes = differences(part(rows, piece), labels[piece]).abs_()
            torch.bmm(sizes, radius[piece].unsqueeze(2), out=found[piece].unsqueeze(2))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, Tensor]:
        rows, labels, radius = ctx.saved_tensors
        for_rows, for_radius = torch.zeros_like(rows), torch.empty_like(radius)
        for piece in pieces(rows, labels):
            between = differences(part(rows, piece), labels[piece])
            torch.bmm(given[piece].unsqueeze(1), between.abs(), out=for_radius[piece].unsqueeze(1))
            change = between.sign_().mul_(given[piece].unsqueeze(2)).mul_(radius[piece].unsqueeze(1))
            place = part(for_rows, piece)
            owner = torch.arange(len(change), device=labels.device) if len(rows) > 1 else torch.zeros_like(labels[piece])
            place.index_put_((owner, labels[piece]), change.sum(1), accumulate=True)
            place.sub_(change if len(rows) > 1 else change.sum(0, keepdim=True))
        return for_rows, None, for_radius


def pieces(rows: Tensor, labels: Tensor) -> Iterator[slice]:
    """Ranges of examples whose differences together hold about AT_ONCE numbers."""
    size = max(1, AT_ONCE // max(1, rows[0].numel()))
    return (slice(start, start + size) for start in range(0, len(labels), size))


def part(rows: Tensor, piece: slice) -> Tensor:
    """The rows (b or 1, ...) of a range of examples."""
    return rows if len(rows) == 1 else rows[piece]
