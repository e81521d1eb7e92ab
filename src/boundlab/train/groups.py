"""Sums over examples whose gradient is found at once, a few examples at a time: memory for those few is all that is needed.

What autograd must remember of backward bounds grows with examples times rows times neurons. But a loss is a sum over examples:
as soon as the part of one group is known, so is its gradient, and everything between can be forgotten. Unlike checkpoints,
nothing is computed twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Part = Callable[[slice, Sequence[Tensor]], Tensor]


def even_groups(count: int, most: int) -> list[slice]:
    """Ranges of at most `most` examples, all of about one size."""
    ends = [count * place // -(-count // most) for place in range(-(-count // most) + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def sum_over_groups(part: Part, tensors: Sequence[Tensor], batched: Sequence[bool], groups: Sequence[slice]) -> Tensor:
    """The sum of `part(group, tensors)` over ranges of examples; `part` gets its range of each tensor that is `batched`.

    Every way from the result back to parameters must lead through `tensors`.
    """
    total: Tensor = GroupSum.apply(part, batched, groups, *tensors)
    return total


class GroupSum(torch.autograd.Function):
    """The sum, and its gradient, in one pass over the groups."""

    @staticmethod
    def forward(ctx: Any, part: Part, batched: Sequence[bool], groups: Sequence[slice], *tensors: Tensor) -> Tensor:
        needed = ctx.needs_input_grad[3:]
        gradients: list[Tensor | None] = [None] * len(tensors)
        total = tensors[0].new_zeros(())
        for group in groups:
            local = [tensor.detach()[group] if own else tensor.detach() for tensor, own in zip(tensors, batched, strict=True)]
            leaves = [(place, tensor.requires_grad_()) for place, tensor in enumerate(local) if needed[place]]
            with torch.set_grad_enabled(bool(leaves)):
                value = part(group, local)
            total += value.detach()
            found = torch.autograd.grad(value, [leaf for _, leaf in leaves], allow_unused=True) if leaves else []
            for (place, _), gradient in zip(leaves, found, strict=True):
                if gradient is not None:
                    whole = gradients[place]
                    whole = gradients[place] = torch.zeros_like(tensors[place]) if whole is None else whole
                    (whole[group] if batched[place] else whole).add_(gradient)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> Any:
        if bool(given == 1):  # the loss itself: a pass over all gradients is spared
            return None, None, None, *ctx.saved_tensors
        return None, None, None, *(None if gradient is None else gradient * given for gradient in ctx.saved_tensors)

