"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> Path:
    """A file's new content, whole or not at all, whoever else writes it, and even if process or machine die on the way.

    OSError names the file; what was there stays then.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as problem:  # what a full disk says does not name the file
        with suppress(OSError):
            part.unlink()
        raise OSError(problem.errno, problem.strerror, str(path)) from problem
    return path
