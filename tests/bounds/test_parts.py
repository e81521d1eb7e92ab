"""Bounds on parts of sets hold at every point of the part, for any lines and any multipliers."""

import random

import pytest
import torch

import boundlab as bl
from boundlab.bounds.climb import Ascent, beginning, climb
from boundlab.bounds.groups import Groups, ground_of
from boundlab.bounds.parts import MULTIPLIER, PartLower, Splits, no_splits
from boundlab.bounds.problem import problem_of
from boundlab.bounds.space import Full, Lagrangian, Own
from boundlab.evaluate import evaluate_all
from boundlab.interval import Interval
from boundlab.maps import Dense
from tests.bounds.networks import KINDS, captured
from tests.bounds.soundness import region_of

D = torch.float64


def part_of(model, region, points, generator, space, count=3):
    """Rows on a part around one of `points` (n, *shape): the objective, the rows, and which points lie in the part."""
    problem = problem_of(model, {model.graph.inputs[0].name: region}, None)
    env = bl.CROWN().environment(problem)
    values = evaluate_all(model, {model.graph.inputs[0].name: points})
    nodes = [node.index for node in model.graph if not node.source and isinstance(env[node.index], Interval)]
    node = torch.tensor(nodes)[torch.randint(len(nodes), (1, count), generator=generator)]
    neuron, side, place = torch.zeros_like(node), torch.ones_like(node), torch.zeros(1, count, dtype=D)
    inside = torch.ones(len(points), dtype=torch.bool)
    for k in range(count):
        value = values[int(node[0, k])].flatten(1)
        j = int(torch.randint(value.shape[1], (1,), generator=generator))
        cut = value[torch.randperm(len(value), generator=generator)[:2], j].mean()
        sign = 1 if value[0, j] >= cut else -1
        neuron[0, k], side[0, k], place[0, k] = j, sign, cut
        inside &= sign * (value[:, j] - cut) >= 0
    rows = torch.randn(1, 2, *model.graph.output.shape, generator=generator, dtype=D)
    size = torch.ones_like(place)
    splits = Splits(node, neuron, side, place, torch.zeros_like(place), size)
    output = model.graph.output
    groups = Groups(output.index, 2, torch.tensor([0]), lambda index: Dense(output.shape, None, rows[index]))
    return PartLower(ground_of(problem, env, space), groups, splits), rows, inside, values[output.index]


@pytest.mark.parametrize("space", [Own(), Full(), Lagrangian()], ids=lambda space: type(space).__name__)
@pytest.mark.parametrize("seed", range(8))
def test_any_lines_and_multipliers_are_sound_on_the_part(seed, space):
    generator = torch.Generator().manual_seed(seed)
    kind = sorted(KINDS)[seed % len(KINDS)]
    shape, blocks = KINDS[kind]
    chosen = random.Random(seed).choices(sorted(blocks), k=2)
    model = captured(kind, chosen, seed)[1].detached()
    region = region_of(("box", "l2")[seed % 2], 0.4, shape, seed, batch=1)
    points = region.sample(300, generator)[:, 0]
    objective, rows, inside, outputs = part_of(model, region, points, generator, space)
    values = torch.einsum("no,so->ns", outputs.flatten(1), rows[0].flatten(1))[inside]
    assert len(values)
    start = beginning(objective, 1, None)
    for _ in range(4):
        moved = {index: {name: value + (torch.rand(value.shape, generator=generator, dtype=D) - 0.3).abs() *
                         (objective.ranges[index, name].scale if name == MULTIPLIER else 0.0)
                         for name, value in named.items()} for index, named in start.items()}
        lower = objective.at(moved)
        assert bool((lower <= values.amin(0) + 1e-7).all())
    found = climb(objective, Ascent(6, 0.5, 0.98))
    assert bool((found.best <= values.amin(0) + 1e-7).all())
    assert bool((found.best >= objective.at({}) - 1e-9).all())


def test_without_constraints_a_part_is_the_whole_set():
    generator = torch.Generator().manual_seed(0)
    model = captured("vector", ["relu", "tanh"], 3)[1].detached()
    region = region_of("box", 0.3, KINDS["vector"][0], 3, batch=1)
    objective, rows, *_ = part_of(model, region, region.sample(20, generator)[:, 0], generator, Own())
    free = PartLower(objective.ground, objective.groups, no_splits(1, rows))
    plain = bl.bound(model, region, spec=bl.at_least(rows)).lower
    torch.testing.assert_close(free.at({}), plain)


def test_ends_meet_all_constraints_and_contradictions_are_seen():
    env = {4: Interval(torch.tensor([[-1.0, -2.0]]), torch.tensor([[1.0, 2.0]]))}
    node, neuron = torch.full((2, 3), 4), torch.tensor([[1, 1, 0], [1, 1, 0]])
    side, point = torch.tensor([[1, -1, 0], [1, -1, 1]]), torch.tensor([[-1.0, 0.5, 7.0], [1.0, 0.5, 0.0]])
    one = torch.ones_like(point)
    found, empty = Splits(node, neuron, side, point, one, one).clip(env)
    assert empty.tolist() == [False, True]
    assert found[4].lower[0].tolist() == [-1.0, -1.0] and found[4].upper[0].tolist() == [1.0, 0.5]
    assert bool((found[4].lower <= found[4].upper).all())


def test_parts_without_a_constraint_that_others_had_may_bring_its_multiplier():
    """An ascent goes on with those that are left, of which none may have a constraint on some node."""
    generator, (shape, blocks) = torch.Generator().manual_seed(1), KINDS[min(KINDS)]
    model, region = captured(min(KINDS), [min(blocks)], 1)[1].detached(), region_of("box", 0.4, shape, 1, batch=1)
    objective, *_ = part_of(model, region, region.sample(20, generator)[:, 0], generator, Own())
    variables = beginning(objective, 1, None)
    free = PartLower(objective.ground, objective.groups, no_splits(1, objective.rows.dense()))
    none = {node: {name: torch.zeros_like(value) if name == MULTIPLIER else value for name, value in named.items()}
            for node, named in variables.items()}
    assert any(MULTIPLIER in named for named in none.values())
    assert bool(torch.isfinite(free.at(none)).all())
