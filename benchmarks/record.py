"""What one case leaves in the JSON: each library's figures, and ratios where both have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.cases import OURS, PEER
from benchmarks.turns import Measured


def side(measured: Measured) -> dict[str, Any]:
    """One library's figures: state, median and single seconds, extra bytes at the peak, mean of the lower bounds (or loss)."""
    return {"state": measured.state, "seconds": measured.seconds, "runs": list(measured.runs), "memory": measured.memory,
            "mean": measured.mean, "build": measured.build, "note": measured.note}


def bounds_entry(case: Mapping[str, Any], found: Mapping[str, Measured]) -> dict[str, Any]:
    """One case of bounds. Ratios are there only where both libraries were measured; above 1 is better for us."""
    sides = {library: side(measured) for library, measured in found.items()}
    ratios = compared(found[OURS], found[PEER]) if PEER in found and found[OURS].state == "done" else {}
    return {**case, **sides, **ratios}


def compared(ours: Measured, theirs: Measured) -> dict[str, Any]:
    """How many times faster and smaller we are, and by how much our lower bounds are higher: on average, at the worst row."""
    if theirs.state != "done":
        assert ours.seconds is not None
        return {} if theirs.at_least is None else {"times_faster_at_least": theirs.at_least / ours.seconds}
    assert ours.seconds is not None and theirs.seconds is not None
    assert ours.mean is not None and theirs.mean is not None
    ratios = {"times_faster": theirs.seconds / ours.seconds, "mean_gain": ours.mean - theirs.mean,
              "least_gain": min(our - their for our, their in zip(ours.values, theirs.values, strict=True))}
    if ours.memory and theirs.memory:
        ratios["times_smaller"] = theirs.memory / ours.memory
    return ratios


def step_entry(case: Mapping[str, Any], sides: Mapping[str, dict[str, Any]],
               naturals: Mapping[str, Measured]) -> dict[str, Any]:
    """One training step, with its multiple of the natural step of the same run and library."""
    entry: dict[str, Any] = dict(case)
    for library, figures in sides.items():
        natural = naturals[library].seconds
        ratio = figures["seconds"] / natural if natural and figures["seconds"] else None
        entry[library] = {**figures, "times_natural": ratio}
    return entry
