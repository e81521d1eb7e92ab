"""The order in which open boxes are taken, against a plain list that is sorted each time."""

import random

import pytest
import torch

from boundlab.spec import Specification
from boundlab.verify import boxes as module
from boundlab.verify.bounded import Bounded
from boundlab.verify.boxes import Boxes, Heap, joined
from boundlab.verify.mixing import mixed
from boundlab.verify.trimming import untrimmed


def some(bounds, owners, first):
    """Boxes with these bounds of their parents, numbered from `first`."""
    count = len(bounds)
    ends = torch.zeros(count, 2)
    return Boxes(torch.tensor(owners), ends, ends + 1, torch.tensor(bounds), torch.arange(first, first + count),
                 torch.zeros(count, 1, dtype=torch.bool))


def pairs(boxes):
    return sorted(zip(boxes.parent.tolist(), boxes.number.tolist(), boxes.owner.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_the_lowest_come_first_and_none_is_lost_or_doubled(seed, monkeypatch):
    monkeypatch.setattr(module, "NEAR", 7)
    chance = random.Random(seed)
    heap, plain, number, dropped = Heap(some([0.0], [0], 0)), [(0.0, 0, 0)], 1, set()
    for _ in range(300):
        batch, heap = heap.worst(3)
        taken = pairs(batch)
        assert [bound for bound, *_ in taken] == [bound for bound, *_ in sorted(plain)[:3]] and set(taken) <= set(plain)
        plain = [one for one in plain if one not in set(taken)]
        owners = [owner for owner in range(4) if owner not in dropped]
        new = [(chance.uniform(0, 1), chance.choice(owners)) for _ in range(chance.randint(0, 6))]
        if new:
            heap = heap.joined(some([bound for bound, _ in new], [owner for _, owner in new], number))
            plain += [(float(torch.tensor(bound)), number + k, owner) for k, (bound, owner) in enumerate(new)]
            number += len(new)
        if chance.random() < 0.02 and len(owners) > 1:
            dropped.add(owners[-1])
            heap = heap.without(dropped)
            plain = [one for one in plain if one[2] not in dropped]
        assert heap.count == len(plain) and heap.owners == {owner for *_, owner in plain}
        assert heap.least == min((bound for bound, *_ in plain), default=float("inf"))
    assert pairs(joined((heap.near, *heap.far))) == sorted(plain) and number > 500 and dropped


def test_clauses_that_are_shown_do_not_steer_the_split():
    clause, lower = torch.tensor([0, 1, 1]), torch.tensor([[-1.0, -2.0, -4.0]])
    slope = torch.eye(3)[None]  # each row depends on a coordinate of its own
    spec = margins_of(clause)
    none = Boxes(torch.zeros(1), torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1), torch.zeros(1),
                 torch.zeros(1, 2, dtype=torch.bool))
    found = Bounded(lower, slope, mixed(spec, lower, None), untrimmed(none, spec), None)
    assert found.influence(clause, torch.tensor([[False, False]])).tolist() == [[1.0, 0.5, 0.25]]
    assert found.influence(clause, torch.tensor([[False, True]])).tolist() == [[1.0, 0.0, 0.0]]


def margins_of(clause):
    """A specification of three rows in two clauses."""
    return Specification(torch.eye(3)[None], torch.zeros(1, 3), clause)
