"""The most memory that a call holds beyond what there was before it."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import torch

from boundlab.bounds.observe import peak_memory

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def held_and_peak() -> tuple[int, int]:
    """Bytes that the process holds now, and the most it held since the peak was last forgotten."""
    if not STATUS.exists():
        most = peak_memory(torch.device("cpu")) or 0
        return most, most
    fields = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("Vm"))
    held, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return held, peak


def start(device: str) -> int:
    """Give free memory back to the system, forget the peak, and say what is held (Linux and CUDA; elsewhere: the peak)."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        RESET.write_text("5", encoding="utf-8")
    return held_and_peak()[0]


def most_since(device: str, before: int) -> int:
    """Bytes beyond `before` at the peak since `start`."""
    most = torch.cuda.max_memory_allocated(device) if device != "cpu" else held_and_peak()[1]
    return max(0, most - before)
