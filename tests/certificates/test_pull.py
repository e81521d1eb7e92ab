"""Rooms of steps in the entries that rows read are those of all entries, and rows of one frame share its column."""

from __future__ import annotations

import numpy as np
import pytest

from boundlab.certificates.known import Known, Rows, Slopes, derive, parted, room_of
from boundlab.certificates.pull import Room, at
from tests.certificates.test_convolution import residual


@pytest.mark.parametrize("owner", [[2, 0, 2], [1, 1, 1], []])
@pytest.mark.parametrize("read", [None, [0, 3], []])
def test_columns_of_a_table(owner: list[int], read: list[int] | None) -> None:
    table, columns = np.random.default_rng(0).normal(size=(4, 3)), np.array(owner, dtype=np.int64)
    rows = None if read is None else np.array(read, dtype=np.int64)
    wanted = (table if rows is None else table[rows])[:, columns]
    found = at(table, columns, rows)
    np.testing.assert_array_equal(np.broadcast_to(found, wanted.shape), wanted)
    assert found.shape[1] == (1 if len(set(owner)) == 1 else len(owner))
    np.testing.assert_array_equal(at(table[:, :1], columns, rows), table[:, :1] if rows is None else table[rows, :1])


def two_frames() -> Known:
    """What is known of a network of convolutions on two boxes."""
    middle = np.random.default_rng(1).random((72, 2))
    return derive(residual(), [(middle - 0.05, middle + 0.05)], Slopes())


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("frame", [[0, 1, 0], [1, 1, 1]])
def test_rooms_of_some_entries_are_those_of_all(own: bool, frame: list[int]) -> None:
    known = two_frames()
    rows = Rows((len(known.network.steps) - 1, 0), np.array([0, 1, 2]), np.array(frame))
    for place, step in enumerate(known.network.steps[:-1]):
        slopes = np.random.default_rng(place).random((2, step.size, 3))

        def given(place: int, rows: Rows, read: np.ndarray | None, slopes: np.ndarray = slopes) -> list | None:
            chosen = slopes if read is None else slopes[:, read]
            return [(chosen[0], chosen[1])] if own else None

        read = np.arange(1, step.size, 3)
        every, some = (room_of(known, given, rows, place, which) for which in (None, read))
        for name in ("low", "high"):  # shorter sums round less
            np.testing.assert_allclose(*broadcast(vars(some)[name], vars(every)[name][read]), rtol=0, atol=1e-12)
            assert (vars(some)["low"] <= vars(some)["high"]).all()
        for mine, its in zip((*some.lower, *some.upper), (*every.lower, *every.upper), strict=True):
            np.testing.assert_array_equal(*broadcast(mine, its if len(its) == 1 else its[read]))


def broadcast(first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """Two arrays of one shape."""
    return [np.broadcast_to(one, np.broadcast_shapes(first.shape, second.shape)) for one in (first, second)]


def test_one_array_of_slopes_stays_one() -> None:
    slope = np.ones((4, 2))
    room = Room(slope, slope, (slope,), (slope,)).at(np.array([0, 1]), np.array([1]))
    assert room.lower[0] is room.upper[0] and room.lower[0].shape == (1, 2)


def test_rows_go_back_in_parts_that_end_where_what_they_read_does() -> None:
    frames, near = np.array([0] * 7 + [1] * 6 + [2] * 2), np.array([0, 1, 2, 3, 4, 5, 6, 0, 1, 4, 5, 6, 7, 0, 1])
    found = list(parted(frames, near, 4))
    assert [(part.start, part.stop) for part in found] == [(0, 4), (4, 7), (7, 9), (9, 13), (13, 15)]
    rng = np.random.default_rng(0)
    for together in (1, 2, 5, 64):
        frames, near = np.sort(rng.integers(0, 5, 60)), rng.integers(0, 40, 60)
        places = [np.arange(60)[part] for part in parted(frames, near, together)]
        np.testing.assert_array_equal(np.concatenate(places), np.arange(60))
        assert all(together / 2 <= len(part) <= together for part in places[:-1])
    assert list(parted(frames[:0], near[:0], 4)) == []
