"""The network as it runs in float32: by how much what a step computes may differ from its function of what its arguments are.

An affine step of n operations, in any order and with or without fused multiply-adds, is wrong by at most
gamma_n = n u / (1 - n u) times |W| |x| + |b|, u = 2^-24 (Higham 2002, Sec. 3.1). Its n counts those of the affine steps
before it, because a runtime may fold a normalisation, a factor or a sum into what comes before and accumulate all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from boundlab.certificates.certificate import Semantics
from boundlab.certificates.functions import Ends
from boundlab.certificates.network import Affine, Matrix, Network, Nonlinear
from boundlab.certificates.rounding import largest
from boundlab.errors import CertificateError

UNIT32 = 2.0**-24
"""The relative error of one rounded float32 operation."""
FLUSH = 2.0**-125
"""More than one operation loses where float32 numbers are too small, kept as subnormal numbers or flushed to zero."""
LARGEST32 = 2.0**126
"""Where sums of absolute terms are larger, a float32 may overflow, and nothing is proven."""
FOLDED = 8
"""Operations that go into a coefficient, a bias, or their folding into others."""


@dataclass(frozen=True)
class Single:
    """For each step the errors of its entries (size, 1): relative to sums of absolute terms, and absolute."""

    relative: Sequence[np.ndarray]
    absolute: Sequence[np.ndarray]

    def affine(self, place: int, total: np.ndarray, arguments: Sequence[np.ndarray]) -> np.ndarray:
        """The error of an affine step whose absolute terms sum up to `total` (size, 1), from the sizes of its arguments.

        Where one entry of these may overflow nothing is known of any result: what runs multiplies by coefficients of 0, too.
        """
        fits = all(bool((size <= LARGEST32).all()) for size in arguments)  # not so for NaN
        return np.where((total <= LARGEST32) & fits, self.relative[place] * total + self.absolute[place], np.inf)

    def nonlinear(self, step: Nonlinear, ends: Sequence[Ends], values: Ends) -> np.ndarray:
        """The error (size, 1) of a nonlinear step on all frames, whose exact values lie between ends (size, f).

        Nothing is known of a value of which an argument may overflow, however small it is itself: it may come from NaN.
        """
        size = largest(*values)
        found = 1.01 * step.function.float32_units(ends, size) * UNIT32 + FLUSH
        fits = size + found <= LARGEST32  # not so for NaN
        for low, high in ends:
            fits = fits & (largest(low, high) <= LARGEST32)
        return np.where(fits, found, np.inf).max(axis=1, keepdims=True)


def running(network: Network, semantics: Semantics) -> Network:
    """The network with what its steps may be wrong by as it runs; CertificateError where that is not known."""
    if semantics is Semantics.REAL:
        return network
    if network.groups is not None:
        raise CertificateError("the network ends in a softmax, whose outputs in float32 may be equal where its arguments "
                               "differ; about it as it runs in float32 the checker says nothing.")
    if network.dtype != np.float32 or network.uncovered:
        raise CertificateError("the checker knows no bounds of the network as it runs in float32: "
                               f"{network.uncovered or 'its inputs are of another type'}.")
    counts: list[int] = []
    relative, absolute = [], []
    for step in network.steps:
        count = 0
        if isinstance(step, Affine):
            before = max((counts[argument] for argument in step.arguments), default=0)
            count = sum(matrix.terms for matrix in step.matrices) + FOLDED + before
            sums = [matrix.times_absolute(np.ones((known, 1))) for known, matrix in
                    zip((network.steps[argument].size for argument in step.arguments), step.matrices, strict=True)]
            absolute.append(FLUSH * (count + sum(sums, np.zeros((step.size, 1)))))
            relative.append(np.where(copied(step), 0, gamma32(count)))
        else:
            absolute.append(np.zeros((step.size, 1)))
            relative.append(np.zeros((step.size, 1)))
        counts.append(count)
    return replace(network, single=Single(relative, absolute))


def gamma32(count: int) -> float:
    """n u / (1 - n u); CertificateError for sums that are too long for it."""
    if count * UNIT32 > 0.5:
        raise CertificateError(f"the network has sums of {count} operations, too many for the error analysis of float32.")
    return 1.01 * count * UNIT32 / (1 - count * UNIT32)


def copied(step: Affine) -> np.ndarray:
    """The entries (size, 1) of an affine step that are an entry of an argument, its negative, or a constant: exact."""
    terms = (step.scale != 0).astype(np.int64).reshape(-1, 1)
    plain = np.ones((step.size, 1), dtype=bool)
    for matrix in step.matrices:
        if not isinstance(matrix, Matrix):  # it computes sums
            return np.zeros((step.size, 1), dtype=bool)
        ones = np.asarray((matrix.absolute == 1).sum(axis=1)).reshape(-1, 1)
        nonzero = np.asarray((matrix.absolute != 0).sum(axis=1)).reshape(-1, 1)
        plain, terms = plain & (ones == nonzero), terms + nonzero
    return plain & (terms <= 1)
