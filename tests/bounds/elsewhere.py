"""Tensors that say they are on another device: what CUDA would refuse is refused, on a machine that has none.

Each holds a tensor of the CPU, with which the work is done. The meta device lends its name alone. Calls that get tensors of two
places fail, except for those that CUDA allows: numbers, copies, and an index on the CPU.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE, HERE = torch.device("meta"), torch.device("cpu")
ALLOWED = {f"aten.{call}" for call in ("index.Tensor", "index_put.default", "index_put_.default", "_to_copy.default",
                                       "copy_.default")}


class Elsewhere(Tensor):
    """A tensor that says it is on the other device, and holds its `values` here."""

    values: Tensor

    @staticmethod
    def __new__(cls, values):
        found = Tensor._make_wrapper_subclass(cls, values.size(), strides=values.stride(), dtype=values.dtype, device=ELSEWHERE,
                                              storage_offset=values.storage_offset())
        found.values = values
        return found

    def tolist(self):
        return self.values.tolist()

    def new_tensor(self, data, *, dtype=None):
        return Elsewhere(torch.tensor(data, dtype=dtype or self.dtype))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return done(func, args, kwargs or {})


class Dispatched(TorchDispatchMode):
    """What the context does with calls."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return done(func, args, kwargs or {})


@contextmanager
def strict():
    """A context in which tensors may be made on the other device (`torch.tensor` would make them without data there)."""
    with pytest.MonkeyPatch.context() as patch, Dispatched():
        for name in ("tensor", "as_tensor"):
            patch.setattr(torch, name, placed(getattr(torch, name)))
        yield


def placed(make):
    """`torch.tensor`, or what is like it, for both devices."""

    def made(data, *, dtype=None, device=None):
        if isinstance(data, Elsewhere):
            return data if dtype is None else data.to(dtype)
        found = make(data, dtype=dtype)
        return Elsewhere(found) if device is not None and torch.device(device) == ELSEWHERE else found

    return made


def done(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A call on the values; RuntimeError if tensors of both places meet."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = any(isinstance(tensor, Elsewhere) for tensor in given)
    strangers = [tensor for tensor in given if tensor.dim() and not isinstance(tensor, Elsewhere)]
    if away and strangers and (str(func) not in ALLOWED or not isinstance(args[0], Elsewhere)):
        raise RuntimeError(f"{func} got tensors of two devices, {[tuple(tensor.shape) for tensor in strangers]} of the CPU.")
    if kwargs.get("device") is not None:
        away, kwargs = torch.device(kwargs["device"]) == ELSEWHERE, {**kwargs, "device": HERE}
    result = func(*tree_map(values_of, args), **tree_map(values_of, kwargs))
    if args and isinstance(args[0], Elsewhere) and result is args[0].values:
        return args[0]  # in place
    return tree_map(lambda leaf: Elsewhere(leaf) if away and isinstance(leaf, Tensor) else leaf, result)


def values_of(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, Elsewhere) else leaf
