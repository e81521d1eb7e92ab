"""Batch statistics as parameters: batch norm as it trains, with each example bounded on its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_statistics(module: nn.Module, *example: Any, **named: Any) -> dict[str, Tensor]:
    """Mean and variance that each batch norm of `module` sees on a batch, by the names of its running statistics.

    They are differentiable functions of the module's parameters. `Model.with_params` puts them where a model captured in
    evaluation mode has its running statistics, so that bounds use the statistics of the clean batch, as certified training
    does (Shi et al. 2021, Sec. 4). The module itself is left as it is: dropout is off, running statistics stay.
    """
    found: dict[str, Tensor] = {}
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}
    modes = [(part, part.training) for part in module.modules()]
    tracked = [(layer, layer.track_running_stats) for layer in layers.values()]
    handles = [layer.register_forward_pre_hook(recorder(name, found)) for name, layer in layers.items()]
    try:
        module.eval()
        for layer in layers.values():
            layer.training, layer.track_running_stats = True, False
        module(*example, **named)
    finally:
        for handle in handles:
            handle.remove()
        for layer, flag in tracked:
            layer.track_running_stats = flag
        for part, training in modes:
            part.training = training
    return found


def recorder(name: str, found: dict[str, Tensor]) -> Any:
    """A hook that records the statistics of what a layer reads."""

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].dim()) if axis != 1]
        variance, mean = torch.var_mean(inputs[0], axes, correction=0)
        prefix = f"{name}." if name else ""
        found[f"{prefix}running_mean"], found[f"{prefix}running_var"] = mean, variance

    return record
