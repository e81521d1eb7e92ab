"""Where and when a run was made."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def processor() -> str:
    """The processor's name."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text(encoding="utf-8").splitlines() if names.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def cuda(device: str) -> str:
    """Whether CUDA is there, and whether it was used."""
    if not torch.cuda.is_available():
        return "not available, not tried"
    name = torch.cuda.get_device_name()
    return f"{name}, measured on" if device != "cpu" else f"{name}, not tried (--device cuda)"


def commit() -> str:
    """The commit of the code that is measured, with a mark if files differ from it."""
    try:
        told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True,
                              text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


def installed(package: str) -> str:
    """A package's version, if it is installed as one."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


def describe(device: str) -> dict[str, Any]:
    """The machine, versions, and the command."""
    return {
        "date": datetime.date.today().isoformat(), "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "processor": processor(), "cores": os.cpu_count(), "threads": 1, "python": platform.python_version(),
        "system": platform.system(), "torch": torch.__version__, "boundlab": installed("boundlab"), "commit": commit(),
        "device": device, "cuda": cuda(device), "clock": "CPU seconds" if device == "cpu" else "wall seconds, synchronised"}
