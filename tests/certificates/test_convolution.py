"""Convolutions that keep their kernel are the sparse matrices that they stand for; rows of a proof leave out what they miss."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import boundlab.certificates.convolution as convolutions
from boundlab.certificates.convolution import Convolution, Transposed, Windows, convolution
from boundlab.certificates.known import Slopes, derive
from boundlab.certificates.network import Network, Part
from boundlab.certificates.reach import reached
from boundlab.certificates.reading import read_network
from boundlab.certificates.rounding import UNIT
from tests.certificates.models import model


def drawn(seed: int) -> tuple[Windows, np.ndarray, np.random.Generator]:
    """Windows and a weight with some zeros, of any stride, dilation and padding."""
    rng, outputs = np.random.default_rng(seed), [0]
    while min(outputs) < 1:
        size, kernel, strides, dilations, pads, more = (rng.integers(low, high, 2).tolist() for low, high in
                                                        ((3, 9), (1, 4), (1, 4), (1, 3), (0, 3), (0, 2)))
        outputs = [(n + 2 * pad + extra - step * (k - 1) - 1) // jump + 1 for n, pad, extra, step, k, jump in
                   zip(size, pads, more, dilations, kernel, strides, strict=True)]
    weight = rng.normal(size=(*rng.integers(1, 4, 2).tolist(), *kernel)) * (rng.random(kernel) < 0.8)
    return Windows(*map(tuple, (size, outputs, kernel, strides, pads, dilations))), weight, rng


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_a_kept_kernel_is_the_matrix(seed, turned):
    windows, weight, rng = drawn(seed)
    matrix, kept = convolution(windows.sources(), weight, 1, np.prod(windows.inputs)).toarray(), Convolution(windows, weight)
    if turned:
        matrix, kept = matrix.T, Transposed(kept)
    assert kept.error >= max((matrix != 0).sum(axis=axis).max() for axis in range(2)) * UNIT
    assert kept.near().shape == matrix.shape[:1] and kept.near().min() >= 0
    assert kept.shape == matrix.shape and kept.terms >= (matrix != 0).sum(axis=1).max()
    values, rows = rng.normal(size=(matrix.shape[1], 3)), rng.normal(size=(matrix.shape[0], 3))
    np.testing.assert_allclose(kept.times(values), matrix @ values, atol=1e-12)
    np.testing.assert_allclose(kept.times_absolute(values), np.abs(matrix) @ values, atol=1e-12)
    np.testing.assert_allclose(kept.pulled(Part(None, rows)).of(matrix.shape[1]), matrix.T @ rows, atol=1e-12)
    for share in (0.0, 0.1, 0.5, 0.9):
        read = np.flatnonzero(rng.random(len(matrix)) < share)
        some = rng.normal(size=(len(read), 3)) * (rng.random((len(read), 1)) < 0.7)
        pulled = kept.pulled(Part(read, some))
        assert pulled.read is None or (np.diff(pulled.read) > 0).all()
        np.testing.assert_allclose(pulled.of(matrix.shape[1]), matrix[read].T @ some, atol=1e-12)
        mask = np.isin(np.arange(len(matrix)), read)
        assert (kept.reads(mask) >= (matrix[read] != 0).any(axis=0)).all()
    chosen = rng.integers(0, len(matrix), 4)
    assert (kept.rows(chosen).of(matrix.shape[1]) == matrix[chosen].T).all()


def test_results_that_read_the_same_places_are_near():
    windows = Windows((6, 6), (3, 3), (2, 2), (2, 2), (0, 0), (1, 1))
    kept = Transposed(Convolution(windows, np.ones((2, 3, 2, 2))))
    wanted = np.array([[0, 1, 4], [2, 3, 6], [8, 9, 12]]).repeat(2, axis=0).repeat(2, axis=1).reshape(-1)
    np.testing.assert_array_equal(kept.near(), np.tile(wanted, 3))


@pytest.mark.parametrize("more", [(3, 0), (0, 3), (6, 6)])
def test_rows_that_read_nothing_but_padding_read_nothing(more):
    size, kernel = (4, 5), (2, 1)
    outputs = tuple(n + pad - k + 1 for n, pad, k in zip(size, more, kernel, strict=True))
    windows, weight = Windows(size, outputs, kernel, (1, 1), (0, 0), (1, 1)), np.ones((2, 3, *kernel))
    matrix, kept = convolution(windows.sources(), weight, 1, np.prod(size)).toarray(), Convolution(windows, weight)
    for row in range(len(matrix)):
        pulled = kept.pulled(Part(np.array([row]), np.ones((1, 2)))).of(matrix.shape[1])
        np.testing.assert_array_equal(pulled, np.repeat(matrix[row][:, None], 2, axis=1))


def residual() -> Network:
    """Three convolutions, two of them along a residual connection, as the checker reads them."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["r"]),
             helper.make_node("Conv", ["r", "b"], ["d"], pads=[1, 1, 1, 1]), helper.make_node("Add", ["r", "d"], ["s"]),
             helper.make_node("Relu", ["s"], ["t"]), helper.make_node("Conv", ["t", "e"], ["f"]),
             helper.make_node("Relu", ["f"], ["y"])]
    weights = {"a": (3, 1, 3, 3), "b": (3, 3, 3, 3), "e": (2, 3, 2, 2)}
    constants = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    return read_network(model(nodes, (1, 1, 8, 9), constants))


def generator() -> Network:
    """Two transposed convolutions, with a normalisation, and a convolution."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("ConvTranspose", ["x", "a"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
             helper.make_node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"]), helper.make_node("Relu", ["n"], ["r"]),
             helper.make_node("ConvTranspose", ["r", "b"], ["d"], strides=[2, 3], pads=[0, 1, 1, 0], output_padding=[1, 0]),
             helper.make_node("Relu", ["d"], ["t"]), helper.make_node("Conv", ["t", "e"], ["f"]),
             helper.make_node("Relu", ["f"], ["y"])]
    weights = {"a": (1, 3, 4, 4), "b": (3, 2, 3, 3), "e": (2, 2, 2, 2), "s": (3,), "o": (3,), "m": (3,)}
    constants = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    return read_network(model(nodes, (1, 1, 8, 9), {**constants, "v": rng.random(3).astype(np.float32)}))


def bounded(network: Network, reach: list[np.ndarray] | None = None) -> list[np.ndarray]:
    """The ends of all steps on a box."""
    middle = np.random.default_rng(1).random((72, 1))
    return derive(network, [(middle - 0.05, middle + 0.05)], Slopes(), reach=reach).ends


@pytest.mark.parametrize("made", [residual, generator])
def test_intervals_are_the_same_with_kernels_and_with_matrices(monkeypatch, made):
    written = bounded(made())
    monkeypatch.setattr(convolutions, "MOST_ENTRIES", 0)
    network = made()
    held = [matrix for step in network.steps for matrix in getattr(step, "matrices", ())]
    assert sum(isinstance(matrix, Convolution | Transposed) for matrix in held) == 3
    for kept, other in zip(bounded(network), written, strict=True):
        np.testing.assert_allclose(kept, other, atol=1e-9)


def test_entries_that_rows_cannot_reach_keep_their_interval():
    network = residual()
    reach = reached(network, {network.output: np.array([0, 1])})
    every, some = bounded(network), bounded(network, reach)
    place = next(place for place, step in enumerate(network.steps) if step.name == "s")
    for mask, ends, other in zip(reach, every, some, strict=True):
        np.testing.assert_allclose(ends[0][mask], other[0][mask], atol=1e-12)
        np.testing.assert_allclose(ends[1][mask], other[1][mask], atol=1e-12)
    assert 0 < reach[place].sum() < len(reach[place]) / 4
    assert (some[place][1] - every[place][1])[~reach[place]].max() > 1e-3
