"""What float64 rounding can do, from above: the constants with which the checker moves every result outward.

A sum of n products, in any order, with or without fused multiply-adds, differs from the exact sum by at most gamma(n) times
the sum of absolute products (Higham 2002, "Accuracy and Stability of Numerical Algorithms", Sec. 3.1), plus TINY for underflow.
"""

from __future__ import annotations

import numpy as np

from boundlab.errors import CertificateError

UNIT = 2.0**-53
"""The relative error of one rounded operation."""
TINY = 2.0**-1000
"""More than underflow can do to one sum of products."""
LARGEST = 2.0**600
"""Larger values count as infinite, and nothing is proven with them."""
UNDERFLOW = 2.0**-400
"""More than underflow in all coefficients can do to a bound (2^24 * 2^24 * LARGEST * 2^-1074 at each step)."""
LONGEST = 2**24
"""The longest sum for which the constants here leave room for second-order terms."""


def gamma(terms: int) -> float:
    """The relative error of a sum of so many products and of a few operations after it, with room to spare."""
    if terms > LONGEST:
        raise CertificateError(f"the network has sums of {terms} terms; the checker's error analysis ends at {LONGEST}.")
    return 1.01 * (terms + 16) * UNIT


def below(x: np.ndarray) -> np.ndarray:
    """The next float below each entry: a lower bound of the exact result that x is the rounding of.

    NaN for what is not finite: of a sum that overflowed on its way, nothing is known.
    """
    return np.where(np.isfinite(x), np.nextafter(x, -np.inf), np.nan)


def above(x: np.ndarray) -> np.ndarray:
    """The next float above each entry; NaN for what is not finite."""
    return np.where(np.isfinite(x), np.nextafter(x, np.inf), np.nan)


def largest(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The largest absolute value between two ends."""
    return np.maximum(np.abs(lower), np.abs(upper))
