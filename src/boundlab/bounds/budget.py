"""How many problems and rows are worked on at once: as many as are fastest, within the memory that the caller grants.

Sizes of parts change time and memory, never results (but for rounding). The least part is one problem, and a few rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psutil
import torch

from boundlab.errors import SpecError

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
MODEST = 2**26
"""Numbers that any machine has room for."""
FREE_SHARE = 4
"""Without a budget, one part in so many of the memory that is free."""
COLUMN_BUDGET = 2**25
"""Numbers that the columns of the problems in one pass hold at the widest node: more do not make a pass faster."""
MATRIX_BUDGET = 2**20
"""Weights of the largest linear layer, times the problems of a pass. Neurons that are dead in all problems of a pass are left
out of products with large matrices, and the fewer problems, the more neurons that are."""
MOST_PROBLEMS = 1024
"""Problems in one pass at most."""
CACHED = 2**19
"""Coefficients of a chunk at its widest node that a CPU's caches still serve well: more rows of narrow networks at once."""
FASTEST_ROWS, FEWEST_ROWS = 256, 16
"""Rows of a chunk of a wide network if memory allows (measured on two CPU cores, 128 to 512 are alike), and if it does not."""
ROW_COPIES, COLUMN_COPIES = 4, 8
"""Tensors of a chunk's, and of a zonotope's, largest size that are alive at once. A zonotope's size is that of the inputs'
columns; neurons add columns, so that convolutions on small images held 6 to 7 times as much (measured)."""


def bytes_of(memory: str | int) -> int:
    """A budget in bytes from a number, or from text such as "4GB" or "512 MiB"; SpecError for anything else."""
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)?\s*", str(memory), re.IGNORECASE)
    size = int(float(parts[1]) * UNITS[(parts[2] or "").upper()]) if parts else 0
    if parts and isinstance(memory, str) and not parts[2]:
        raise SpecError(f"memory {memory!r} has no unit; say '{memory.strip()}GB', or give bytes as a number.")
    if size < 1 or isinstance(memory, bool):
        raise SpecError(f"memory is a number of bytes or text such as '4GB' or '512 MiB', got {memory!r}.")
    return size


@dataclass(frozen=True)
class Budget:
    """Memory that a pass may hold: so many `bytes`, or a share of what is free (None); numbers take `size` bytes each."""

    bytes: int | None
    device: torch.device
    size: int

    def share(self, wanted: int) -> int:
        """As many numbers as are wanted, or fewer: half of what the budget has room for. The other half is for other work."""
        if self.bytes is None and wanted <= MODEST:  # to ask what is free takes longer than to bound a small network
            return wanted
        room = self.bytes if self.bytes is not None else free_bytes(self.device) // FREE_SHARE
        return min(wanted, room // (2 * self.size))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def problems_at_once(columns: int, matrix: int, budget: Budget) -> int:
    """How many problems share a pass of CROWN with a zonotope.

    `columns` are the numbers that one problem's columns may hold at the widest node, `matrix` the weights of the largest linear
    layer.
    """
    fastest = max(1, min(MOST_PROBLEMS, COLUMN_BUDGET // columns, MATRIX_BUDGET // matrix))
    return max(1, budget.share(fastest * columns * COLUMN_COPIES) // (columns * COLUMN_COPIES))


def rows_at_once(widest: int, budget: Budget) -> int:
    """How many neurons are pulled at once, two rows each, through nodes of `widest` coordinates at most."""
    row = 2 * widest * ROW_COPIES
    fastest = max(FASTEST_ROWS, CACHED // (2 * widest))
    return max(FEWEST_ROWS, budget.share(fastest * row) // row)


def problems_pulled(problems: int, numbers: int, budget: Budget) -> int:
    """How many of so many problems have their rows pulled at once, each of `numbers` coefficients at the widest node."""
    one = numbers * ROW_COPIES
    return max(1, budget.share(problems * one) // one)
