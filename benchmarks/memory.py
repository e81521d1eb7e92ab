"""Memory of a call, and a limit of it in this process."""

from __future__ import annotations

import resource

from boundlab.reproduce.memory import most_since, start

__all__ = ["limit", "most_since", "start"]


def limit(gigabytes: float) -> None:
    """Let allocations beyond a limit fail in this process, rather than let the system end another one."""
    size = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
