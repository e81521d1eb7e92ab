"""What numbers of settings may be, for the values that a training plan is made of."""

from __future__ import annotations

import math

from boundlab.errors import SpecError


def check_numbers(**values: object) -> None:
    """SpecError unless all of these are real numbers (NaN is one)."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SpecError(f"{name} must be a number, got {value!r:.60}.")


def check_kind(name: str, value: object, kind: type, example: str) -> None:
    """SpecError unless a value is of the kind that is wanted; classes are not values."""
    if not isinstance(value, kind) or isinstance(value, type):
        raise SpecError(f"{name} is a value such as {example}, got {value!r:.60}.")


def check_count(name: str, count: int) -> None:
    """SpecError unless this is a whole number from 1 on."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise SpecError(f"{name} must be a whole number and at least 1, got {count}.")


def check_decay(decay: float) -> None:
    """SpecError for a decay of weights that makes them grow."""
    if not 0 <= decay < math.inf:
        raise SpecError(f"the decay of weights is finite and at least 0, got {decay}.")


def check_memory(share: float) -> None:
    """SpecError unless an optimiser forgets: what it keeps of its averages is a share below 1."""
    if not 0 <= share < 1:
        raise SpecError(f"momentum and betas are at least 0 and below 1, got {share}.")
