"""What is measured: a job for one library, and the grids of methods, batches and training steps."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.networks import Network

OURS, PEER = "boundlab", "auto_LiRPA"
NATURAL = "natural"
STEP_NETWORK, STEP_BATCH = "cnn7", 64


@dataclass(frozen=True)
class Job:
    """One library's work on one network, `batch` inputs at once: a method's bounds of the margins, or a training step."""

    library: str
    network: Network
    work: str
    batch: int
    device: str = "cpu"
    training: bool = False


@dataclass(frozen=True)
class Line:
    """A method on a network at several batches."""

    network: str
    method: str
    batches: tuple[int, ...]


@dataclass(frozen=True)
class Limits:
    """What a run may take: seconds for one call, gigabytes for the process."""

    seconds: float = 60.0
    gigabytes: float = 14.0
