"""What a certificate says of intervals that hold where a clause fails: multipliers of its atoms, and slopes.

To exclude that a clause's atoms are all 0 or less, it may be assumed that they are: their sum with multipliers of at least 0 is
then 0 or less, and may be added to whatever is bounded from below (Kotha et al. 2023, INVPROP, Sec. 3), whatever they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.certificates.naming import Argument
from boundlab.errors import CertificateError


@dataclass(frozen=True)
class Assumption:
    """How k `neurons` of an argument are bounded, first their lower ends, then their upper ends, on f frames.

    neurons (k,) integers in increasing order; multipliers (f or 1, 2, k, a) >= 0 of the atoms of the frame's clause;
    lines: slopes (f or 1, 2, k, size) by argument, NaN where the checker shall take its own.
    """

    neurons: np.ndarray
    multipliers: np.ndarray
    lines: Mapping[Argument, np.ndarray]

    def at(self, frames: np.ndarray) -> Assumption:
        """The same for some frames."""
        return Assumption(self.neurons, of_frames(self.multipliers, frames),
                          {argument: of_frames(slopes, frames) for argument, slopes in self.lines.items()})

    @property
    def layout(self) -> tuple[object, ...]:
        """What has to agree for two to stand in one list of frames."""
        lines = tuple((argument, slopes.shape[1:]) for argument, slopes in sorted(self.lines.items()))
        return self.neurons.tobytes(), self.multipliers.shape[1:], lines


Assumptions = Mapping[Argument, Assumption]
"""By the argument whose neurons are bounded."""


def of_frames(array: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The entries of some frames; what all share stays shared."""
    return array if len(array) == 1 else array[frames]


def stacked_assumptions(parts: Sequence[Assumptions], counts: Sequence[int]) -> dict[Argument, Assumption]:
    """Those of several proofs of one layout, which have so many frames, in one list."""
    def whole(arrays: Sequence[np.ndarray]) -> np.ndarray:
        if all(array is arrays[0] for array in arrays) and len(arrays[0]) == 1:
            return arrays[0]
        return np.concatenate([np.broadcast_to(array, (count, *array.shape[1:]))
                               for array, count in zip(arrays, counts, strict=True)])

    found = {}
    for target, first in parts[0].items():
        own = [part[target] for part in parts]
        lines = {argument: whole([one.lines[argument] for one in own]) for argument in first.lines}
        found[target] = Assumption(first.neurons, whole([one.multipliers for one in own]), lines)
    return found


def validate_assumptions(assumed: Assumptions, frame: np.ndarray, clause: np.ndarray, atoms: int) -> None:
    """CertificateError unless arrays have their types, shapes and ranges, and all leaves of a frame are about one clause."""
    frames = int(frame.max()) + 1
    first = np.zeros(frames, dtype=np.int64)
    first[frame] = clause
    if assumed and (first[frame] != clause).any():
        refuse("assumes that a clause fails on a frame that is about several")
    for target, one in assumed.items():
        count = len(one.neurons) if one.neurons.ndim == 1 else -1
        whole = np.issubdtype(one.neurons.dtype, np.signedinteger) and count > 0
        if not whole or one.neurons[0] < 0 or (np.diff(one.neurons) <= 0).any():
            refuse(f"names neurons of '{target.step}' that are not whole numbers in increasing order")
        if one.multipliers.dtype != np.float64 or not fits(one.multipliers, (frames, 2, count, atoms)):
            refuse(f"has multipliers for '{target.step}' of shape {one.multipliers.shape} or of another type than float64")
        if not np.isfinite(one.multipliers).all() or (one.multipliers < 0).any():
            refuse(f"has multipliers for '{target.step}' below 0, or that are not finite")
        for argument, slopes in one.lines.items():
            known = slopes.dtype in (np.float32, np.float64)
            if not known or not fits(slopes, (frames, 2, count, None)) or np.isinf(slopes).any():
                refuse(f"has slopes for '{argument.step}' under '{target.step}' of a wrong shape or type, or infinite")


def fits(array: np.ndarray, shape: tuple[int | None, ...]) -> bool:
    """Whether an array has this shape, of which None is any size, and the first may be 1."""
    same = array.ndim == len(shape) and len(array) in (1, shape[0])
    return same and all(wanted is None or size == wanted for size, wanted in zip(array.shape[1:], shape[1:], strict=True))


def refuse(why: str) -> None:
    """CertificateError with what is wrong."""
    raise CertificateError(f"the certificate {why}.")
