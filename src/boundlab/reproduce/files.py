"""Published weights from a user's folders: archives of named tensors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from boundlab.errors import SpecError


def named_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .npz archive by name, in the order of their layers."""
    try:
        with np.load(path, allow_pickle=False) as held:
            found = {name: torch.from_numpy(held[name]) for name in held.files}
    except (ValueError, EOFError) as problem:
        raise SpecError(f"'{path}' is not a readable .npz archive of numbers.") from problem
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])]))


def network_of(tensors: dict[str, Tensor], activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Convolutions (stride 2, padding 1) and linear layers from weights and biases in order, with `activation` between them.

    SpecError if a tensor is neither.
    """
    parts: list[nn.Module] = []
    weights = [(name, value) for name, value in tensors.items() if name.endswith("weight")]
    for name, weight in weights:
        bias = tensors.get(name.removesuffix("weight") + "bias")
        if weight.dim() not in (2, 4) or bias is None:
            raise SpecError(f"'{name}' of shape {tuple(weight.shape)} is no weight of a linear layer or convolution with bias.")
        if parts:
            parts.append(activation())
        layer: nn.Module
        if weight.dim() == 4:
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), 2, 1)  # type: ignore[arg-type]
        else:
            if not any(isinstance(part, nn.Flatten) for part in parts):
                parts.append(nn.Flatten())
            layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        parts.append(layer)
    return nn.Sequential(*parts).eval()


def weights_in(folder: Path, name: str) -> Path:
    """The archive of a network below a folder: NAME.*.npz, or merged*.npz in a folder NAME; SpecError if there is none."""
    found = sorted(path for path in folder.rglob("*.npz") if path.name.startswith(name + ".") or
                   (path.parent.name == name and path.name.startswith("merged")))
    if not found:
        raise SpecError(f"no weights of '{name}' below '{folder}': there is no {name}.*.npz, and no merged*.npz in a folder of "
                        "that name.")
    return found[0]
