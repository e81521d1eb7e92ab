"""Counting what torch does: multiply-adds, numbers moved, calls and memory, for tensors with or without data."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

NEAR, FRESH = 2**21, 2**25
"""Bytes of a tensor up to which it stays in a cache, and of a result beyond which its memory is taken from the system anew."""
IN_PLACE = {torch.ops.aten.addmm_: torch.ops.aten.addmm}
"""Products that are added to what is there, and the calls that count as much."""
CALL, VISIT = 4, 60
"""Bare calls on few numbers that one call, and the Python around one node, are worth."""


@dataclass(frozen=True)
class Work:
    """What some torch calls amount to: multiply-adds, bytes, calls, and nodes that an interpreter comes by."""

    products: int = 0
    convolutions: int = 0
    near: int = 0
    far: int = 0
    fresh: int = 0
    calls: int = 0
    visits: int = 0

    @property
    def multiply_adds(self) -> int:
        """Of matrix products and of convolutions."""
        return self.products + self.convolutions

    def then(self, other: Work, times: float = 1.0) -> Work:
        """This work and then the other, so many times."""
        def total(mine: int, theirs: int) -> int:
            return mine + round(times * theirs)
        return Work(total(self.products, other.products), total(self.convolutions, other.convolutions),
                    total(self.near, other.near), total(self.far, other.far), total(self.fresh, other.fresh),
                    total(self.calls, other.calls), total(self.visits, other.visits))

    def since(self, before: Work) -> Work:
        """What was added to `before` to give this work."""
        return self.then(before, -1.0)


class Tally(TorchDispatchMode):
    """A context that counts the torch calls inside it, and the bytes that are alive: now, and at the `peak`.

    Works on tensors of the meta device as on any other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()
        self.alive = self.peak = 0
        self.storages: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run a call and count it; views move nothing."""
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, dict(kwargs or {}))) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in made:
            self.keep(tensor)
        if func.is_view:
            return result
        count = flop_registry.get(IN_PLACE.get(func._overloadpacket, func._overloadpacket))
        flops = 0 if count is None else int(count(*args, **(kwargs or {}), out_val=result)) // 2
        convolved = flops if "conv" in str(func) else 0
        sizes, written = [size_of(tensor) for tensor in (*given, *made)], sum(size_of(tensor) for tensor in made)
        near = sum(size for size in sizes if size <= NEAR)
        self.work = self.work.then(Work(flops - convolved, convolved, near, sum(sizes) - near,
                                        written if written > FRESH else 0, 1))
        return result

    def visit(self, nodes: int) -> None:
        """Count nodes that an interpreter comes by."""
        self.work = self.work.then(Work(visits=nodes))

    def passes(self, values: Tensor, count: int) -> None:
        """Count elementwise calls of two arguments on as many numbers."""
        size = 3 * count * size_of(values)
        near = size_of(values) <= NEAR
        self.work = self.work.then(Work(near=size if near else 0, far=0 if near else size, calls=count))

    def again(self, work: Work, rise: int, kept: int) -> None:
        """Count work that was done before once more; it raises the memory by `rise` for a while, and by `kept` for good."""
        self.work, self.peak = self.work.then(work), max(self.peak, self.alive + rise)
        self.alive += kept

    def keep(self, tensor: Tensor) -> None:
        """Count a tensor's memory until it is freed."""
        storage = tensor.untyped_storage()
        if storage not in self.storages:
            self.storages.add(storage)
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self.release, storage.nbytes())

    def release(self, size: int) -> None:
        """Memory that was freed."""
        self.alive -= size


def size_of(tensor: Tensor) -> int:
    """Bytes behind a tensor; an expanded one is read from its storage."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


@dataclass(frozen=True)
class Speed:
    """What a machine does in a second, measured on a few calls of middling size, and what one call costs besides."""

    products: float
    convolutions: float
    near: float
    far: float
    fresh: float
    call: float

    def seconds(self, work: Work) -> float:
        """How long the work takes; good to a factor of about 3."""
        return (work.products / self.products + work.convolutions / self.convolutions + work.near / self.near
                + work.far / self.far + work.fresh / self.fresh + (CALL * work.calls + VISIT * work.visits) * self.call)


def measure_speed(device: torch.device, dtype: torch.dtype) -> Speed:
    """The speed of this machine with the threads that torch has now; takes less than half a second on a CPU."""
    def blank(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=dtype, device=device)

    def timed(function: Callable[[], object], times: int) -> float:
        function()
        found = []
        for _ in range(4):  # the middle one, since other work disturbs some
            settle(device)
            start = time.perf_counter()
            for _ in range(times):
                function()
            settle(device)
            found.append((time.perf_counter() - start) / times)
        return sorted(found)[len(found) // 2]

    def passes(values: Tensor) -> float:
        """Bytes a second of an elementwise product."""
        return 3 * values.numel() * values.element_size() / timed(lambda: values * values, max(1, 2**21 // len(values)))

    with torch.no_grad():
        left, right, few, huge = blank(64, 512), blank(512, 512), blank(16), blank(2**23)
        images, wide, narrow = blank(4, 32, 14, 14), blank(32, 32, 3, 3), blank(32, 32, 4, 4)
        pulled = [timed(lambda: F.conv_transpose2d(images, wide, padding=1), 2),
                  timed(lambda: F.conv_transpose2d(images, narrow, stride=2, padding=1), 2)]
        convolved = images.numel() * 32 * (wide[0, 0].numel() + narrow[0, 0].numel())
        near, far = passes(blank(2**19)), passes(blank(2**22))
        fresh = timed(lambda: huge + huge, 1) - 3 * huge.numel() * huge.element_size() / far
        return Speed(left.numel() * len(right) / timed(lambda: left @ right, 3), convolved / sum(pulled), near, far,
                     huge.numel() * huge.element_size() / max(fresh, 1e-9), timed(lambda: few + few, 200))


def settle(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
