"""Work that processes do jointly gives what one process gives, and no process is waited for in vain."""

import math
import multiprocessing
import os
import threading
import time
from multiprocessing import Pipe

import numpy as np
import pytest

from boundlab.certificates.checker import case_bounds
from boundlab.certificates.leaves import places_of
from boundlab.certificates.reading import read_network
from boundlab.certificates.work import Work
from boundlab.engines.child import send
from boundlab.errors import CertificateError, OutOfTime
from boundlab.question.vnnlib import parse_vnnlib
from boundlab.verify.joint import Done, Hand, Helper, Lead, Order, Piece, Stop, Whole, identity, take_part
from boundlab.verify.team import Team
from tests.certificates.models import inner_values, perceptron, query_text
from tests.certificates.search import arguments
from tests.certificates.test_bounds import UNSAFE, random_leaves, random_proof

ELSEWHERE = multiprocessing.parent_process() is not None


def sums(work, numbers):
    """Of running sums, each item's needs all items of the list before; and which process has done it."""
    total, who = 0, []
    for length in numbers:
        found = list(work.each(lambda item, rest: (item + total, os.getpid()), range(length)))
        total += sum(value for _, (value, _) in found)
        who.append([pid for _, (_, pid) in found])
    return total, who


def joint(team, function, *about, deadline=math.inf):
    return team.joint(lambda work: function(work, *about), function, about, deadline)


def test_long_lists_are_shared_and_short_ones_done_by_all(team):
    alone, _ = sums(Work(), (5, 2, 9, 100))
    for _ in range(2):
        total, who = joint(team, sums, (5, 2, 9, 100))
        assert total == alone
        here = [[pid == os.getpid() for pid in pids] for pids in who]
        assert here[0] == [True, False, True, False, True] and here[1] == [True, True]
        assert here[3] == [True, False] * 50
    assert len(team.shares(8)) == 2, "the process is there for other work"


def test_a_portion_leaves_some_for_every_hand():
    assert Work().portion(100, 70, 8) == 70
    shared = Work(hands=3, deal=lambda function, items: [])
    assert [shared.portion(count, 70, 8) for count in (6000, 120, 10)] == [70, 20, 8]


def nested(work, count):
    """Lists in items of a list: many items take each its own inner list."""
    return [sorted({pid for _, pid in inner}) for _, inner in work.each(
        lambda item, rest: list(rest.each(lambda one, _: os.getpid(), range(10))), range(count))]


def test_an_item_of_a_long_list_stays_with_one_process(team):
    assert all(len(pids) == 1 for pids in joint(team, nested, 6))
    assert all(len(pids) == 2 for pids in joint(team, nested, 3))


def other_lists(work, length):
    """The other process makes other lists, fails, or ends early."""
    changed = [item + (length if ELSEWHERE else 0) for item in range(length)]
    return [(item, found) for item, found in work.each(lambda item, rest: 2 * item, changed)]


def failing(work, length):
    if ELSEWHERE:
        raise CertificateError("nothing can be read here")
    return [found for _, found in work.each(lambda item, rest: 2 * item, range(length))]


def wrong_here(work, length):
    list(work.each(lambda item, rest: item, range(length)))
    raise CertificateError("it does not fit")


def test_what_is_not_done_elsewhere_is_done_here(team):
    assert joint(team, other_lists, 8) == [(item, 2 * item) for item in range(8)], "answers about other items are none"
    assert joint(team, failing, 8) == [2 * item for item in range(8)]
    with pytest.raises(CertificateError, match="does not fit"):
        joint(team, wrong_here, 8)
    assert joint(team, sums, (9,))[0] == 36
    assert len(team.shares(8)) == 2
    assert joint(Team(), other_lists, 8) == [(item, 2 * item) for item in range(8)], "without processes all is done here"


def slow(work, length):
    def found(item, rest):
        time.sleep(0.05)
        return item

    return [item for item, _ in work.each(found, range(length))]


def test_joint_work_ends_with_its_time(team):
    started = time.perf_counter()
    found = joint(team, slow, 1000, deadline=started + 0.5)
    assert time.perf_counter() - started < 1.5 and len(found) < 40
    assert joint(team, sums, (9,))[0] == 36 and len(team.shares(8)) == 2, "the other process is ready again"


def test_a_hand_that_is_no_longer_wanted_stops():
    ours, theirs = Pipe()
    order = Order(7, "tests.verify.test_joint:sums", ((9,),), 1, 2, math.inf)
    helper = threading.Thread(target=take_part, args=(theirs, order))
    helper.start()
    piece = ours.recv()
    assert (piece.number, piece.place, piece.items) == (7, 1, identity(range(9))) and len(piece.found) == 4
    send(ours, Stop(7))
    assert ours.recv() == Done(7)
    helper.join()
    with pytest.raises(OutOfTime):
        Hand(theirs, Order(8, "", (), 1, 2, time.perf_counter())).over()


def test_a_hand_that_dies_is_not_waited_for():
    ours, theirs = Pipe()
    helper = Helper(ours)
    theirs.close()
    assert Lead(1, [helper], math.inf).deal(lambda item: 10 * item, [1, 2, 3, 4]) == [10, 20, 30, 40]
    assert not helper.keeps_up and not helper.ended(1)


@pytest.mark.parametrize("piece", [Piece(1, 1, identity([1, 2, 3, 5]), [0, 0]), Piece(1, 2, identity([1, 2, 3, 4]), [0, 0]),
                                   Piece(1, 1, identity([1, 2, 3, 4]), [0]), Done(1)])
def test_only_answers_about_the_same_items_count(piece):
    ours, theirs = Pipe()
    send(theirs, Piece(0, 1, identity([1, 2, 3, 4]), [0, 0]))  # of work that was given up
    send(theirs, piece)
    helper = Helper(ours)
    lead = Lead(1, [helper], math.inf)
    assert lead.deal(lambda item: 10 * item, [1, 2, 3, 4]) == [10, 20, 30, 40] and not helper.keeps_up
    send(theirs, Piece(1, 1, identity([1, 2, 3, 4]), [-2, -4]))
    lead = Lead(1, [Helper(ours)], math.inf)
    assert lead.deal(lambda item: 10 * item, [1, 2, 3, 4]) == [10, -2, 30, -4]
    assert theirs.recv() == Whole(1, 1, [10, -2, 30, -4])


def bounds_of(work, content, case, proof):
    network = read_network(content)
    return case_bounds(network, case, proof, places_of(network), work)


@pytest.mark.parametrize("function", ["Relu", "Tanh"])
def test_a_check_finds_the_same_with_more_hands(team, function, monkeypatch):
    rng, content = np.random.default_rng(5), perceptron((3, 300, 300, 2), 5, function, scale=0.5)
    network, x = read_network(content), rng.uniform(-0.4, 0.4, (50, 3))
    query = parse_vnnlib(query_text([-0.4] * 3, [0.4] * 3, 2, UNSAFE))
    leaves = random_leaves(rng, arguments(network), inner_values(content, function, x))
    proof, told, tell = random_proof(rng, content, query, leaves), [], Helper.tell

    def counted(helper, message):
        told.append(type(message))
        tell(helper, message)

    monkeypatch.setattr(Helper, "tell", counted)
    np.testing.assert_allclose(joint(team, bounds_of, content, query.cases[0], proof),
                               bounds_of(Work(), content, query.cases[0], proof), rtol=1e-9, atol=1e-9)
    assert told.count(Whole) >= 2, "the other process has kept up"
