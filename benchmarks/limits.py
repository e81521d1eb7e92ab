"""What bounds the time of one call: arithmetic, memory traffic, the calls themselves, and what Python adds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch

import boundlab as bl
from benchmarks.networks import Network
from benchmarks.ours import METHODS
from benchmarks.worker import clock
from boundlab.check.tally import Speed, Tally, measure_speed
from boundlab.cli.answer import Table

MEASUREMENTS = 5
COLUMNS = ("network", "method", "batch", "s", "arithmetic s", "traffic s", "calls", "calls s", "the rest s")


def limit(network: Network, method: str, batch: int, speed: Speed, device: str = "cpu", runs: int = 5) -> dict[str, Any]:
    """Seconds of one call (median), and what its multiply-adds, its bytes and its calls alone would take on this machine."""
    loaded = network.load()
    x, rows = loaded.x[:batch].to(device), loaded.rows[:batch].to(device)
    model, ball = bl.capture(loaded.module.to(device), loaded.x[:2].to(device)).detached(), bl.LpBall(x, loaded.eps)
    spec = bl.at_least(rows)
    taken = []
    with torch.no_grad():
        for _ in range(runs + 1):
            begun = clock(device)
            bl.bound(model, ball, method=METHODS[method], spec=spec)
            taken.append(clock(device) - begun)
        with Tally() as tally:
            bl.bound(model, ball, method=METHODS[method], spec=spec)
    work, seconds = tally.work, statistics.median(taken[1:])
    parts = {"arithmetic": work.products / speed.products + work.convolutions / speed.convolutions,
             "traffic": work.near / speed.near + work.far / speed.far, "call": work.calls * speed.call}
    return {"network": network.name, "method": method, "batch": batch, "seconds": seconds, "calls": work.calls, **parts}


def fastest(found: Sequence[Speed]) -> Speed:
    """The best of several measurements of a machine: others were slowed by whoever shares it, and would limit nothing."""
    return Speed(products=max(speed.products for speed in found), convolutions=max(speed.convolutions for speed in found),
                 near=max(speed.near for speed in found), far=max(speed.far for speed in found),
                 fresh=max(speed.fresh for speed in found), call=min(speed.call for speed in found))


def measure_limits(cases: Sequence[tuple[Network, str, int]], device: str = "cpu") -> list[dict[str, Any]]:
    """The limits of several cases, with one thread."""
    torch.set_num_threads(1)
    speed = fastest([measure_speed(torch.device(device), torch.float32) for _ in range(MEASUREMENTS)])
    return [limit(network, method, batch, speed, device) for network, method, batch in cases]


def limits_table(found: Sequence[dict[str, Any]]) -> Table:
    """The limits side by side; the rest is what none of the three explains: Python between the calls, and work in them that
    is less regular than in the measurement of the machine's speed."""
    rows = []
    for entry in found:
        rest = entry["seconds"] - entry["arithmetic"] - entry["traffic"] - entry["call"]
        parts = [entry["arithmetic"], entry["traffic"], entry["calls"], entry["call"], max(rest, 0.0)]
        rows.append([entry["network"], entry["method"], str(entry["batch"]), f"{entry['seconds']:.3g}",
                     *(str(part) if isinstance(part, int) else f"{part:.2g}" for part in parts)])
    return Table(COLUMNS, rows, "What bounds the time", frozenset(COLUMNS[2:]))
