"""Mean lower bounds on fixed networks are at least those that auto_LiRPA 0.7.1 gave on the same weights and inputs.

The figures and networks are outside data: `bench/auto_lirpa_0.7.1_cpu.json` and `bench/networks.py` in the folder that
BOUNDLAB_DATA names.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import boundlab as bl

FOLDER = Path(os.environ.get("BOUNDLAB_DATA", "")) / "bench"
FIGURES = FOLDER / "auto_lirpa_0.7.1_cpu.json"
NETWORKS = ("resnet2b", "lstm", "transformer1_novar", "transformer1_std")
METHODS: dict[str, bl.Method] = {
    "IBP": bl.IBP(), "CROWN-IBP": bl.CROWN(intermediate=bl.IBP()), "CROWN": bl.CROWN(), "forward": bl.Forward(),
    "forward+backward": bl.CROWN(intermediate=bl.Forward()),
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("BOUNDLAB_DATA" not in os.environ or not FIGURES.exists(), reason="BOUNDLAB_DATA has no bench figures"),
]


def networks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_networks", FOLDER / "networks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures() -> list[Any]:
    entries = json.loads(FIGURES.read_text()) if "BOUNDLAB_DATA" in os.environ and FIGURES.exists() else []
    chosen = [entry for entry in entries if entry["model"] in NETWORKS and entry["method"] in METHODS
              and entry["batch"] in (1, 8) and math.isfinite(entry.get("mean_lb", math.nan))]
    return [pytest.param(entry, id=f"{entry['model']}-{entry['method']}-{entry['batch']}") for entry in chosen]


@pytest.mark.parametrize("entry", figures())
def test_not_looser_than_published(entry: dict[str, Any], record_property: Any) -> None:
    module, fixture = networks().load(entry["model"])
    model = bl.capture(module, fixture["x"][:2]).detached()
    x, rows = fixture["x"][:entry["batch"]], fixture["C"][:entry["batch"]]
    box = bl.Box(x - fixture["eps"], x + fixture["eps"])
    with torch.no_grad():
        mean = float(bl.bound(model, box, method=METHODS[entry["method"]], spec=bl.at_least(rows)).lower.mean())
    record_property("ours", mean)
    record_property("published", entry["mean_lb"])
    assert mean >= entry["mean_lb"] - 1e-4 * abs(entry["mean_lb"])
