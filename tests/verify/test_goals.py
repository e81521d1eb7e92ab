"""Rows of a clause that are far below its best one are not sought, and proofs still name the places that rows have in it."""

import torch

from boundlab.spec import Specification
from boundlab.verify.parts import goals_of


def test_rows_far_below_the_best_one_are_left_out():
    spec = Specification(torch.zeros(1, 5, 2), torch.zeros(1, 5), torch.tensor([0, 1, 0, 1, 0]))
    goals = goals_of(spec, torch.tensor([[-9.0, -1.0, -1.0, -3.9, -3.0], [-5.0, -1.0, -5.0, -4.1, -30.0]]),
                     torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]))
    assert goals.problem.tolist() == [0, 0, 1, 1]
    assert goals.every.tolist() == [[0, 2, 4], [1, 3, 1]] * 2
    assert [set(rows) for rows in goals.rows.tolist()] == [{2, 4}, {1, 3}, {0, 2}, {1}]
    best = goals.rows[:, 0]
    assert goals.margin.tolist() == torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])[best].tolist()
    assert goals.every.gather(1, goals.place_in_clause(torch.arange(4), best)[:, None]).squeeze(1).tolist() == best.tolist()


def test_a_clause_whose_rows_are_alike_keeps_all():
    spec = Specification(torch.zeros(1, 3, 2), torch.zeros(1, 3), torch.zeros(3, dtype=torch.long))
    goals = goals_of(spec, torch.tensor([[-2.0, 0.5, -1.0], [-1.0, -2.0, -3.0]]), torch.zeros(1, 3))
    assert [set(rows) for rows in goals.rows.tolist()] == [{1}, {0, 1, 2}]
