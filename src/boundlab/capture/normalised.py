"""Networks with the normalisation of their inputs in front: so sets are of the inputs as they are, not of normalised ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx.helper
import onnx.numpy_helper
import torch
from torch import Tensor, nn

from boundlab.capture.onnx_file import read_model, reference_of
from boundlab.errors import CaptureError, ShapeError


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std, by one number for all inputs or one for each channel.

    ShapeError unless all are finite and standard deviations above 0, also in float32.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        with np.errstate(over="ignore", under="ignore"):  # infinite or 0 then, which is refused
            mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        if not mean.size or not std.size or not np.isfinite([*mean, *std]).all() or std.min() <= 0:
            raise ShapeError("a normalisation has finite means and standard deviations above 0, got "
                             f"{self.mean} and {self.std}.")

    def arrays(self, shape: Sequence[int], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation as arrays that broadcast to inputs (b, *shape)."""
        return placed(self.mean, shape, dtype), placed(self.std, shape, dtype)


def placed(numbers: Sequence[float], shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """One number along the last axis, or one a channel along the first axis or else the last; ShapeError if neither fits."""
    found = np.array(numbers, dtype)
    if len(found) == 1:  # a scalar would become an attribute of a product in onnxruntime, and those are float32
        return np.repeat(found, shape[-1] if shape else 1)
    if shape and shape[0] == len(found):
        return found.reshape(-1, *[1] * (len(shape) - 1))
    if shape and shape[-1] == len(found):
        return found
    raise ShapeError(f"a normalisation by {len(found)} channels does not fit inputs of shape {list(shape)}.")


class Normalised(nn.Module):
    """A module behind the normalisation of its input (b, *shape)."""

    def __init__(self, module: nn.Module, normalisation: Normalisation, shape: Sequence[int]) -> None:
        super().__init__()
        self.module = module
        mean, std = (torch.from_numpy(array) for array in normalisation.arrays(shape, np.dtype(np.float64)))
        like = next(iter(module.parameters()), torch.zeros(0))
        self.register_buffer("mean", mean.to(like))
        self.register_buffer("std", std.to(like))

    def forward(self, x: Tensor) -> Tensor:
        return self.module((x - self.get_buffer("mean")) / self.get_buffer("std"))


def normalised_onnx(path: str | Path, normalisation: Normalisation) -> bytes:
    """An ONNX file with one input as the bytes of one that normalises its input first, and is else the same."""
    model = read_model(Path(path))
    inputs = reference_of(model, Path(path)).inputs
    if len(inputs) != 1:
        raise CaptureError(f"{path} has {len(inputs)} inputs; a normalisation is for networks with one.")
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)} | {
        value.name for value in (*model.graph.input, *model.graph.initializer)}
    raw, mean, std, centred = (fresh(f"{inputs[0].name}_{part}", taken) for part in ("raw", "mean", "std", "centred"))
    arrays = normalisation.arrays(inputs[0].inner, np.dtype(inputs[0].dtype))
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name)
                                   for array, name in zip(arrays, (mean, std), strict=True))
    for value in model.graph.input:
        if value.name == inputs[0].name:
            value.name = raw
    nodes = [onnx.helper.make_node("Sub", [raw, mean], [centred], name=centred),
             onnx.helper.make_node("Div", [centred, std], [inputs[0].name], name=fresh("normalised", taken)), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def fresh(name: str, taken: set[str]) -> str:
    """The name, or one like it, that is not taken."""
    while name in taken:
        name += "_"
    return name
