"""What we hold ourselves to: at least so many times faster and smaller than the peer, at equal or tighter bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import OURS, PEER, STEP_NETWORK, Line
from boundlab.cli.answer import Table

EIGHT = 8
ROUNDING = 1e-4
"""Part of its size by which a mean lower bound may be below the peer's and still count as equal: float32, other summation."""
NETWORKS = ("mlp", "cnn7", "cnn7_smalleps", "resnet2b", "transformer1_novar", "transformer1_std", "transformer2_novar", "lstm")


@dataclass(frozen=True)
class Target:
    """A case, and by what factors the peer's time and extra memory should exceed ours (None: it should finish).

    `within` is for a large batch: at most so many times our own time at batch 8.
    """

    network: str
    method: str
    batch: int
    faster: float | None
    smaller: float | None = None
    within: float | None = None

    def __str__(self) -> str:
        if self.within is not None:
            return f"at most {self.within:g} times batch {EIGHT}"
        faster = "finishes" if self.faster is None else f"{self.faster:g}x faster"
        return faster if self.smaller is None else f"{faster}, {self.smaller:g}x smaller"


TARGETS = (
    Target("resnet2b", "CROWN", 1, 3.5, 4.0),
    Target("resnet2b", "CROWN", 8, 9.0, 4.0),
    Target("resnet2b", "CROWN", 64, None, within=15.0),
    Target("cnn7_smalleps", "CROWN", 1, 12.0, 5.0),
    Target("cnn7_smalleps", "CROWN", 8, None),
    Target("cnn7", "CROWN", 1, 3.5),
    Target("mlp", "CROWN", 1, 2.5),
    Target("mlp", "CROWN", 8, 2.5),
    Target("transformer1_novar", "CROWN", 1, 20.0),
    Target("lstm", "CROWN", 1, 10.0),
    Target("lstm", "CROWN", 8, 10.0),
    Target("resnet2b", "Forward", 8, 10.0, 10.0),
    Target("resnet2b", "Forward+Backward", 8, 10.0, 10.0),
    *(Target(network, method, 64, 1.5) for method in ("IBP", "CROWN-IBP") for network in NETWORKS),
)
STEP_TARGETS: Mapping[str, float] = {
    "IBP": 2.4, "IBP, clean pass": 3.0, "CROWN-IBP, a row a class": 9.0, "CROWN-IBP, fused": 4.0,
    "CROWN-IBP, fused, clean pass": 4.7}
"""Training steps on cnn7: at most so many times the natural step."""


def target_lines() -> list[Line]:
    """The cases of the targets."""
    lines: dict[tuple[str, str], list[int]] = {}
    for target in TARGETS:
        lines.setdefault((target.network, target.method), []).append(target.batch)
    return [Line(network, method, tuple(batches)) for (network, method), batches in lines.items()]


def held(target: Target, entry: Mapping[str, Any], eight: Mapping[str, Any] | None = None) -> str:
    """Whether an entry (and that of batch 8) meets its target: yes, no, or unknown where the peer gives no figure."""
    if entry[OURS]["state"] != "done" or looser(entry):
        return "no"
    if target.within is not None:
        known = eight is not None and eight[OURS]["seconds"]
        return "unknown" if not known else word(entry[OURS]["seconds"] <= target.within * known)
    if target.faster is None:
        return "yes"
    if "times_faster" not in entry:  # the peer was stopped, or refused
        return "yes" if target.smaller is None and entry.get("times_faster_at_least", 0) >= target.faster else "unknown"
    small = target.smaller is None or entry.get("times_smaller", math.inf) >= target.smaller
    return word(entry["times_faster"] >= target.faster and small)


def word(answer: bool) -> str:
    """An answer as a table holds it."""
    return "yes" if answer else "no"


def looser(entry: Mapping[str, Any]) -> bool:
    """Whether our mean lower bound is looser than the peer's by more than rounding."""
    if not isinstance(entry.get("mean_gain"), float):
        return False
    return bool(entry["mean_gain"] < -ROUNDING * abs(entry[PEER]["mean"]))


def targets_table(results: Mapping[str, Any]) -> Table:
    """The targets among the measured cases."""
    entries = {(entry["network"], entry["method"], entry["batch"]): entry for entry in results["bounds"]}
    rows = []
    for target in TARGETS:
        entry = entries.get((target.network, target.method, target.batch))
        if entry is not None:
            eight = entries.get((target.network, target.method, EIGHT))
            rows.append((f"{target.network}, {target.method}, {target.batch}", str(target), found(entry),
                         held(target, entry, eight)))
    for entry in results["training"]:
        most, own = STEP_TARGETS.get(entry["step"]), entry.get(OURS)
        if entry["network"] == STEP_NETWORK and most is not None and own is not None and own["times_natural"]:
            rows.append((f"{entry['network']}, step {entry['step']}", f"at most {most:g} x natural",
                         f"{own['times_natural']:.2f} x natural", word(own["times_natural"] <= most)))
    return Table(("case", "target", "measured", "held"), rows, "Targets")


def found(entry: Mapping[str, Any]) -> str:
    """What was measured of a target, in words."""
    if entry[OURS]["state"] != "done":
        return entry[OURS]["note"] or entry[OURS]["state"]
    told = [f"{entry[OURS]['seconds']:.3g} s"]
    if "times_faster" in entry:
        told.append(f"{entry['times_faster']:.2g}x faster")
    elif "times_faster_at_least" in entry:
        told.append(f"over {entry['times_faster_at_least']:.2g}x faster")
    if "times_smaller" in entry:
        told.append(f"{entry['times_smaller']:.2g}x smaller")
    if looser(entry):
        told.append("looser")
    return ", ".join(told)
