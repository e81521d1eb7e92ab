"""Images and published weights from a user's folders: IDX files, and archives of named tensors."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from boundlab.errors import SpecError


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file (LeCun's MNIST format) of bytes, packed with gzip or not; SpecError if it is none."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        axes = raw[3]
        shape = tuple(np.frombuffer(raw, ">i4", axes, 4).tolist())
        found = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)
        if raw[:3] != b"\0\0\x08" or found.size != np.prod(shape):
            raise ValueError("not an IDX file of bytes")
    except OSError:
        raise
    except (ValueError, IndexError, EOFError) as problem:
        raise SpecError(f"'{path}' is not a readable IDX file of bytes.") from problem
    return found.reshape(shape)


def mnist_test(folder: Path) -> tuple[Tensor, Tensor]:
    """The MNIST test images (10000, 1, 28, 28), from 0 to 1, and their labels; SpecError names the files that are missing."""
    parts = []
    for stem in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        found = [path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()]
        if not found:
            raise SpecError(f"'{folder}' does not hold MNIST's test set: there is no {stem}.gz in it.")
        parts.append(read_idx(found[0]).copy())
    return torch.from_numpy(parts[0]).float().unsqueeze(1) / 255, torch.from_numpy(parts[1]).long()


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
