"""What we hold ourselves to: at least so many times faster and smaller than the peer, at equal or tighter bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import OURS, PEER, STEP_NETWORK, Line
from boundlab.cli.answer import Table

ROUNDING = 1e-4
"""Part of its size by which a mean lower bound may be below the peer's and still count as equal: float32, other summation."""
NETWORKS = ("mlp", "cnn7", "cnn7_smalleps", "resnet2b", "transformer1_novar", "transformer1_std", "transformer2_novar", "lstm")


@dataclass(frozen=True)
class Target:
    """A case, and by what factors the peer's time and extra memory should exceed ours (None: it should finish)."""

    network: str
    method: str
    batch: int
    faster: float | None
    smaller: float | None = None


TARGETS = (
    Target("resnet2b", "CROWN", 1, 3.5, 4.0),
    Target("resnet2b", "CROWN", 8, 9.0, 4.0),
    Target("resnet2b", "CROWN", 64, None),
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


def held(target: Target, entry: Mapping[str, Any]) -> str:
    """Whether an entry meets its target: yes, no, or unknown where the peer gives no figure."""
    if target.faster is None:
        return "yes" if entry[OURS]["state"] == "done" else "no"
    looser = tightness(entry)
    wanted = [(target.faster, entry.get("times_faster", entry.get("times_faster_at_least")))]
    wanted += [] if target.smaller is None else [(target.smaller, entry.get("times_smaller"))]
    if looser or any(found is not None and found < least for least, found in wanted):
        known_only_from_below = "times_faster" not in entry and not looser
        return "unknown" if known_only_from_below else "no"
    return "unknown" if any(found is None for _, found in wanted) else "yes"


def tightness(entry: Mapping[str, Any]) -> bool:
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
            wanted = "finishes" if target.faster is None else f"{target.faster:g}x faster"
            wanted += "" if target.smaller is None else f", {target.smaller:g}x smaller"
            rows.append((f"{target.network}, {target.method}, {target.batch}", wanted, found(entry), held(target, entry)))
    for entry in results["training"]:
        most, own = STEP_TARGETS.get(entry["step"]), entry.get(OURS)
        if entry["network"] == STEP_NETWORK and most is not None and own is not None and own["times_natural"]:
            rows.append((f"{entry['network']}, step {entry['step']}", f"at most {most:g} x natural",
                         f"{own['times_natural']:.2f} x natural", "yes" if own["times_natural"] <= most else "no"))
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
    if tightness(entry):
        told.append("looser")
    return ", ".join(told)
