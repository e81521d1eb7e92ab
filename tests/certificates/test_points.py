"""Rows end at steps that hardly vary: what is read of inputs that are points costs nothing, and no precision."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from boundlab.certificates import known as module
from boundlab.certificates.known import Known, Slopes, derive
from boundlab.certificates.network import Network
from boundlab.certificates.pull import Pull
from boundlab.certificates.reading import read_network
from tests.certificates.models import model

SIZES = (5, 6, 4)


def two_branches(rng: np.random.Generator) -> tuple[Network, dict[str, np.ndarray]]:
    """y = relu(relu(x A) B + tanh(c D) E) F, where x are the first two inputs and c the others."""
    weights = {"a": rng.normal(size=(2, 6)), "b": rng.normal(size=(6, 4)), "d": rng.normal(size=(3, 6)),
               "e": rng.normal(size=(6, 4)), "f": rng.normal(size=(4, 2))}
    held = {name: value.astype(np.float32) for name, value in weights.items()}
    ends = {f"{name}{place}": np.array([value]) for name, pair in {"v": (0, 2), "c": (2, 5)}.items()
            for place, value in enumerate(pair)} | {"axis": np.array([1])}
    nodes = [helper.make_node("Slice", ["x", f"{name}0", f"{name}1", "axis"], [f"{name}i"]) for name in "vc"]
    nodes += [helper.make_node("MatMul", ["vi", "a"], ["p"]), helper.make_node("Relu", ["p"], ["q"]),
              helper.make_node("MatMul", ["q", "b"], ["r"]), helper.make_node("MatMul", ["ci", "d"], ["s"]),
              helper.make_node("Tanh", ["s"], ["t"]), helper.make_node("MatMul", ["t", "e"], ["u"]),
              helper.make_node("Add", ["r", "u"], ["z"]), helper.make_node("Relu", ["z"], ["w"]),
              helper.make_node("MatMul", ["w", "f"], ["y"])]
    return read_network(model(nodes, (1, 5), held | ends)), {name: value.astype(np.float64) for name, value in held.items()}


def run(held: dict[str, np.ndarray], i: np.ndarray) -> np.ndarray:
    inner = np.maximum(i[:, :2] @ held["a"], 0) @ held["b"] + np.tanh(i[:, 2:] @ held["d"]) @ held["e"]
    return np.maximum(inner, 0) @ held["f"]


@pytest.mark.parametrize("seed", range(4))
def test_rows_end_where_nothing_varies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    network, held = two_branches(rng)
    middle, radius = rng.normal(size=(5, 3)), np.array([0.5, 0.5, 0, 0, 0])[:, None] * rng.uniform(0.1, 1, 3)
    boxes = [(middle - radius, middle + radius)]
    crossed, through = [], Pull.through
    monkeypatch.setattr(Pull, "through", lambda pull, step, *rest: (crossed.append(step), through(pull, step, *rest))[1])
    found = derive(network, boxes, Slopes(thorough=True))
    short = len(crossed)
    monkeypatch.setattr(module, "NARROW", -1.0)
    every = derive(network, boxes, Slopes(thorough=True))
    assert found.points and not every.points and 2 * short < len(crossed)
    compare(found, every)
    for frame in range(3):
        y = run(held, middle[:, frame] + radius[:, frame] * rng.uniform(-1, 1, (500, 5)))
        low, high = (end[:, frame] for end in found.ends[network.output])
        assert (low <= y.min(0) + 1e-12).all() and (y.max(0) - 1e-12 <= high).all()


def compare(found: Known, every: Known) -> None:
    """No end lies further out than without points, but for rounding."""
    for (low, high), (least, most) in zip(found.ends, every.ends, strict=True):
        size = 1 + np.maximum(np.abs(least), np.abs(most))
        assert (low >= least - 1e-10 * size).all() and (high <= most + 1e-10 * size).all()
