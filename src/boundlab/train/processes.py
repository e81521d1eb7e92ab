"""Several processes that train one network: each takes a part of every batch, and all make the same steps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.train.checks import check_numbers

Part = TypeVar("Part")


@dataclass(frozen=True)
class Processes:
    """The processes of torch.distributed as one of them sees them: its `number` from 0, and their `count`.

    Each has the whole network and all examples, and takes a part of every batch. Gradients are added, so that a run is the one
    of a single process to rounding. Batch norms have the statistics of the whole batch. Attacks before a loss go through the
    whole batch in every process, which draws the same random numbers; so methods that attack gain less. The first process
    alone writes and tells. A process that is alone, as by default, needs no group. SpecError for numbers that are none.
    """

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        check_numbers(number=self.number, count=self.count)
        if not 0 <= self.number < self.count:
            raise SpecError(f"processes are numbered from 0 to one below their count, got {self.number} of {self.count}.")

    @staticmethod
    def running() -> Processes:
        """This process among those of the default group; SpecError if there is none."""
        if not dist.is_available() or not dist.is_initialized():
            raise SpecError("there is no group of processes; start them by torchrun, and call "
                            "torch.distributed.init_process_group first.")
        return Processes(dist.get_rank(), dist.get_world_size())

    def check_running(self) -> None:
        """SpecError unless this process is the one of these that runs."""
        if not self.alone and Processes.running() != self:
            raise SpecError(f"the plan is for process {self.number} of {self.count}, and another one runs here; give the plan "
                            "Processes.running().")

    @property
    def alone(self) -> bool:
        """Whether there is no other process, and nothing to be shared."""
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.number == 0

    def own(self, parts: Sequence[Part]) -> list[Part]:
        """The parts of a batch that this process takes."""
        return list(parts[self.number::self.count])

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        value = value.detach().clone()
        if not self.alone:
            dist.all_reduce(value)
        return value

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Put the sum over the processes in the place of every gradient; one that no process has stays None."""
        if self.alone:
            return
        parameters = list(parameters)
        held = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int64)
        for parameter, count in zip(parameters, self.total(held.to(parameters[0].device)).tolist(), strict=True):
            if count:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.total(own)

    def agree(self, about: str, tensors: Iterable[Tensor]) -> None:
        """SpecError unless all processes are about the same, a text, and begin with the same numbers."""
        if self.alone:
            return
        found = hashlib.sha256(about.encode())
        place = torch.device("cpu")
        for value in tensors:
            place = value.device
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        own = torch.tensor([int.from_bytes(found.digest()[:7], "big")], dtype=torch.int64, device=place)
        every = [torch.zeros_like(own) for _ in range(self.count)]
        dist.all_gather(every, own)
        if any(not torch.equal(one, own) for one in every):
            raise SpecError(f"{self.count} processes shall train one network, but they differ in their examples, their plan, "
                            "or the weights that they begin with; give all the same, and draw weights from the same seed.")
