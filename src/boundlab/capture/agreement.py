"""Whether a captured graph is its module: equal values at two batch sizes, equal gradients of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from boundlab.capture.export import Call
from boundlab.errors import CaptureError
from boundlab.evaluate import evaluate_all
from boundlab.graph import Model

TOLERANCE = 1e-3
"""How far graph and module may differ, relative to the largest output, before a capture is refused."""
CUT = ("If forward cuts gradients with detach() or no_grad(), bounds cannot follow that: remove it, or call "
       "module.requires_grad_(False) before the capture. Otherwise this is a defect of the capture; please report the module.")
DEFECT = "This is a defect of the capture; please report the module."


@torch.enable_grad()
def check_capture(model: Model, module: nn.Module, call: Call, places: Sequence[int | None]) -> None:
    """CaptureError unless graph and module agree; `places` says where each output of the module has its batch."""
    names = [node.name for node in model.graph.inputs]
    for batch in (2, 3):
        given = call.map(lambda tensor, batch=batch: tensor[:batch])
        found = evaluate_all(model, dict(zip(names, given.tensors(), strict=True)))
        results = [found[index] for index in model.graph.outputs]
        wanted = tensors_of(given.map(torch.clone).run(module))
        expected = [batch_first(want, place) for want, place in zip(wanted, places, strict=True)]
        for node, result, want in zip(model.outputs.values(), results, expected, strict=True):
            compare(node.describe(), result, want, DEFECT)
    shared = [result.expand(want.shape) for result, want in zip(results, expected, strict=True)]
    compare_gradients(module, shared, expected)


def batch_first(value: Tensor, place: int | None) -> Tensor:
    """A module's output as ours: the batch in front, an axis of size 1 where there is none."""
    return value.unsqueeze(0) if place is None else value.movedim(place, 0)


def compare_gradients(module: nn.Module, results: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Both ways from the parameters to the outputs have one derivative, so that training the graph trains the module."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not named or not any(want.requires_grad for want in expected):
        return

    def gradients(outputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        reached = [output.sum() for output in outputs if output.requires_grad]
        if not reached:
            return [None] * len(named)
        return torch.autograd.grad(torch.stack(reached).sum(), [parameter for _, parameter in named], allow_unused=True)

    try:
        wanted = gradients(expected)
    except RuntimeError:  # the module writes over values that its own gradient needs: it cannot be trained at all
        return
    for (name, parameter), ours, theirs in zip(named, gradients(results), wanted, strict=True):
        nothing = torch.zeros_like(parameter)
        compare(f"gradient of '{name}'", nothing if ours is None else ours, nothing if theirs is None else theirs, CUT)


def compare(place: str, found: Tensor, want: Tensor, advice: str) -> None:
    """CaptureError unless the two agree to rounding, relative to the largest entry."""
    sizes = zip(found.shape, want.shape, strict=True) if found.dim() == want.dim() else [(0, 1)]
    if any(size not in (1, wanted) for size, wanted in sizes):
        raise CaptureError(f"the captured graph gives {list(found.shape)} at output {place}, where the module gives "
                           f"{list(want.shape)}; examples of a batch must not be mixed, and the batch stays one axis.")
    found, want = found.expand(want.shape).detach(), want.detach()
    if not want.is_floating_point():
        want = want.to(found.dtype)
    scale = 1 + want.abs().max() if want.numel() else 1
    difference = (found - want).abs().max() / scale if want.numel() else torch.zeros(())
    if not bool(difference <= TOLERANCE):
        raise CaptureError(f"the captured graph disagrees with the module at output {place}: relative difference "
                           f"{float(difference):.2g}. {advice}")


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors of a module's result, in the order in which torch.export lists them."""
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
