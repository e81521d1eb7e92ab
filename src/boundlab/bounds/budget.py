"""How many problems and rows are worked on at once: as many as are fastest, within the memory that the caller grants.

Sizes of parts change time and memory, never results (but for rounding). The least part is one problem, and a few rows.
"""

from __future__ import annotations

import re

import psutil
import torch

from boundlab.errors import SpecError

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
FREE_SHARE = 4
"""Without a budget, one part in so many of the memory that is free."""
COLUMN_BUDGET = 2**25
"""Numbers that the columns of the problems in one pass hold at the widest node: more do not make a pass faster."""
MATRIX_BUDGET = 2**20
"""Weights of the largest linear layer, times the problems of a pass. Neurons that are dead in all problems of a pass are left
out of products with large matrices, and the fewer problems, the more neurons that are."""
MOST_PROBLEMS = 1024
"""Problems in one pass at most."""
CACHED = 2**20
"""Coefficients of a chunk at its widest node that a CPU's caches still serve well: more rows of narrow networks at once."""
FASTEST_ROWS, FEWEST_ROWS = 256, 16
"""Rows of a chunk of a wide network if memory allows (measured on two CPU cores, 128 to 512 are alike), and if it does not."""
ROW_COPIES, COLUMN_COPIES = 4, 2
"""Tensors of a chunk's, and of a zonotope's, largest size that are alive at once."""


def bytes_of(memory: str | int) -> int:
    """A budget in bytes from a number, or from text such as "4GB" or "512 MiB"; SpecError for anything else."""
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)?\s*", str(memory), re.IGNORECASE)
    size = int(float(parts[1]) * UNITS[(parts[2] or "").upper()]) if parts else 0
    if size < 1 or isinstance(memory, bool):
        raise SpecError(f"memory is a number of bytes or text such as '4GB' or '512 MiB', got {memory!r}.")
    return size


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def granted(memory: int | None, device: torch.device) -> int:
    """Bytes that a pass may hold: what the caller grants, else a share of what is free."""
    return free_bytes(device) // FREE_SHARE if memory is None else memory


def problems_at_once(columns: int, matrix: int, held: int) -> int:
    """How many problems share a pass of CROWN with a zonotope.

    `columns` are the numbers that one problem's columns may hold at the widest node, `matrix` the weights of the largest linear
    layer, `held` the numbers that memory has room for.
    """
    room = held // (2 * COLUMN_COPIES)  # the other half is for rows
    return max(1, min(MOST_PROBLEMS, COLUMN_BUDGET // columns, room // columns, MATRIX_BUDGET // matrix))


def rows_at_once(widest: int, held: int) -> int:
    """How many neurons are pulled at once, two rows each, through nodes of `widest` coordinates at most."""
    room = held // (2 * ROW_COPIES)
    return min(max(FASTEST_ROWS, CACHED // (2 * widest)), max(FEWEST_ROWS, room // (2 * widest)))
