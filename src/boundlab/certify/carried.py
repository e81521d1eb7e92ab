"""Networks as arrays of bytes, so that they travel with a task and are part of what identifies its result."""

from __future__ import annotations

import hashlib
import io
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.graph import Model
from boundlab.verify.sound import Original, load_original

ONNX, GRAPH = b"o", b"g"
"""How the bytes begin: an ONNX file follows, or a graph with its parameters."""


class Packer(pickle.Pickler):
    """Writes tensors as numpy's arrays, the same bytes whenever the values are the same."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return tensor_of, (np.ascontiguousarray(value.detach().cpu().numpy()),)
        return NotImplemented


def tensor_of(array: np.ndarray) -> Tensor:
    """The tensor that a Packer has written."""
    return torch.from_numpy(array.copy())


def packed(value: object) -> np.ndarray:
    """A value of dataclasses, plain Python and tensors as bytes; SpecError for what processes cannot exchange."""
    file = io.BytesIO()
    try:
        Packer(file, protocol=5).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as problem:
        raise SpecError("networks and stages travel to other processes, so they hold no lambda, open file or function within "
                        f"another; pickle says: {problem}.") from problem
    return as_array(file.getvalue())


def unpacked(data: np.ndarray) -> Any:
    """What `packed` packed. Bytes come from the process that started this one, and from nowhere else."""
    return pickle.loads(data.tobytes())


def digest(data: np.ndarray) -> str:
    """The SHA-256 of an array's bytes, in hexadecimal digits."""
    return hashlib.sha256(data.tobytes()).hexdigest()


def parcel_of(original: Original) -> Parcel:
    """The network as a parcel."""
    data = carried(original)
    return Parcel(digest(data), data)


def as_array(data: bytes) -> np.ndarray:
    """Bytes as an array."""
    return np.frombuffer(data, np.uint8)


def carried(original: Original) -> np.ndarray:
    """The network as bytes: its ONNX file where there is one, else the graph and its parameters."""
    if original.content is not None:
        return as_array(ONNX + original.content)
    model = original.model.detached()
    return as_array(GRAPH + packed((model.graph, dict(model.params))).tobytes())


@dataclass(frozen=True)
class Parcel:
    """What `carried` carried, told from others by its hash alone."""

    digest: str
    data: np.ndarray = field(compare=False, repr=False)


@lru_cache(maxsize=2)
def arrived(parcel: Parcel, device: str) -> Original:
    """The network of a parcel, on a device; it is kept for the next task about it."""
    data = parcel.data.tobytes()
    maker: Callable[[bytes], Original] = {ONNX: of_onnx, GRAPH: of_graph}[data[:1]]
    found = maker(data[1:])
    return Original(found.model.to(torch.device(device)), found.replay, found.content)


def of_graph(data: bytes) -> Original:
    """A network from its graph and parameters."""
    graph, params = pickle.loads(data)
    return Original(Model(graph, params))


def of_onnx(data: bytes) -> Original:
    """A network from the bytes of its ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(data)
        return load_original(path).detached()
