"""Balls of cases: the least value of linear functions over them, outward of all rounding.

Over a ball with center c and radius r in the norm of order p a function a . x is at least a . c - r ||a||_q, where
1/p + 1/q = 1 (Hoelder's inequality).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boundlab.certificates.functions import Ends
from boundlab.certificates.rounding import TINY, UNIT, above, below, gamma
from boundlab.certificates.unsafe import nearest
from boundlab.errors import CertificateError
from boundlab.question.exact import Ball


@dataclass(frozen=True)
class Balls:
    """Nearest floats of n balls' centers (d, n), radii (n,) that are not below the exact ones, and their common order p."""

    center: np.ndarray
    radius: np.ndarray
    p: float

    def at(self, chosen: np.ndarray) -> Balls:
        """Some of them, in that order."""
        return Balls(self.center[:, chosen], self.radius[chosen], self.p)

    def within(self, box: Ends) -> Ends:
        """Ends (d, n) of the parts of boxes that lie in the balls' boxes; the box where there would be none."""
        reach = above(self.radius + UNIT * np.abs(self.center) + TINY)
        low = np.fmax(box[0], below(self.center - reach))
        high = np.fmin(box[1], above(self.center + reach))
        return np.where(low <= high, low, box[0]), np.where(low <= high, high, box[1])

    def least(self, coefficients: np.ndarray) -> np.ndarray:
        """What linear functions with coefficients (d, n) are above on their balls, (n,)."""
        size = np.abs(coefficients)
        # The dot product's own rounding, and that of the center.
        lost = (gamma(len(size)) + 2 * UNIT) * np.einsum("dn,dn->n", size, np.abs(self.center)) + TINY * (1 + size.sum(axis=0))
        middle = below(np.einsum("dn,dn->n", coefficients, self.center) - lost)
        return below(middle - above(self.radius * dual_norm(size, self.p)))


def dual_norm(size: np.ndarray, p: float) -> np.ndarray:
    """A number (n,) that is not below the norm of columns of absolute values (d, n), of the order that is dual to p."""
    top = size.max(axis=0, initial=0.0)
    if p == 1:
        return top
    room = 1 + 2 * gamma(len(size))
    if math.isinf(p):
        return above(room * size.sum(axis=0))
    # A norm of a smaller order is larger, so that the quotient is rounded down.
    order = max(1.0, math.nextafter(math.nextafter(p / (p - 1), -math.inf), -math.inf)) if p != 2 else 2.0
    share = size / np.where(top > 0, top, 1)
    total = (share * share if p == 2 else share**order).sum(axis=0) + TINY
    root = np.sqrt(total) if p == 2 else total ** (1 / order) * (1 + (4 * order + 64) * UNIT * (1 + np.log(total + 1)))
    return above(above(top * root) * room)


def balls_of(balls: Sequence[Ball | None], inputs: int) -> Balls | None:
    """The balls of cases, or None if they have none; CertificateError for one of another dimension."""
    found = [ball for ball in balls if ball is not None]
    if not found:
        return None
    if len(found) < len(balls) or len({ball.p for ball in found}) > 1:
        raise CertificateError("cases that are checked together need balls of the same order, or none.")
    if any(len(ball.center) != inputs for ball in found):
        raise CertificateError(f"a ball of the query does not have the {inputs} coordinates of the inputs.")
    radius = nearest([ball.radius for ball in found])
    return Balls(np.stack([nearest(ball.center) for ball in found], axis=1), above(radius), found[0].p)
