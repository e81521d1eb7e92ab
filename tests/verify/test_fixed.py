"""Pieces of inputs that do not vary are constants: the same network, bounds that hold, and proofs about the file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import boundlab as bl
from boundlab.bounds.intermediate import perturbed_nodes
from boundlab.interval import Interval
from boundlab.verify.fixed import fixed
from boundlab.verify.task import task_of_sets

torch.manual_seed(3)


class Table(nn.Module):
    """A table of three rows: two go through one layer, the last one through another, and their products are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        head = torch.relu(self.first(x[:, :2])).sum(1)
        return self.out(head * torch.relu(self.second(x[:, 2])))


class Beside(nn.Module):
    """A table of two rows, whose values lie side by side in the last layer but one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([torch.relu(self.first(x[:, 0])), torch.relu(self.second(x[:, 1]))], 1))


MODEL = bl.capture(Table(), torch.zeros(2, 3, 4)).detached()
NAME = MODEL.graph.inputs[0].name
STAGES = {"bounds": (bl.CROWN(),), "boxes": (bl.Bisection(),), "neurons": (bl.Branching(),)}


def boxes(rows: slice, count: int = 4) -> bl.Box:
    """Boxes in which some rows of the table vary."""
    center, radius = torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(1)), torch.zeros(count, 3, 4)
    radius[:, rows] = 0.3
    return bl.Box(center - radius, center + radius)


@pytest.mark.parametrize("rows", [slice(2, 3), slice(0, 1)])
def test_the_network_is_the_same_on_the_box(rows: slice) -> None:
    box = boxes(rows)
    model, regions = fixed(MODEL, {NAME: box})
    assert model.graph.nodes != MODEL.graph.nodes and model.params is MODEL.params
    assert all(new.index == old.index and new.name == old.name for new, old in zip(model.graph, MODEL.graph, strict=True))
    constants = {name: value for name, value in regions.items() if isinstance(value, Tensor)}
    for x in box.sample(8, torch.Generator().manual_seed(2)):
        torch.testing.assert_close(bl.evaluate(model, {NAME: x, **constants}), bl.evaluate(MODEL, {NAME: x}))


@pytest.mark.parametrize("method", [bl.IBP(), bl.CROWN(bl.IBP()), bl.CROWN(), bl.Forward()])
def test_bounds_hold_and_nothing_is_bounded_behind_constants(method: bl.Method) -> None:
    box = boxes(slice(2, 3))
    model, regions = fixed(MODEL, {NAME: box})
    found, before = bl.bound(model, regions, method=method), bl.bound(MODEL, box, method=method)
    for x in box.sample(200, torch.Generator().manual_seed(2)):
        y = bl.evaluate(MODEL, {NAME: x})
        assert bool(((found.lower <= y + 1e-5) & (y <= found.upper + 1e-5)).all())
    assert bool((found.lower >= before.lower - 1e-5).all() and (found.upper <= before.upper + 1e-5).all())
    assert len(found.intermediate) < len(before.intermediate)


def test_only_what_is_a_point_in_all_problems_is_constant() -> None:
    one, other = boxes(slice(2, 3)), boxes(slice(0, 1))
    both = bl.Box(torch.cat([one.lower, other.lower]), torch.cat([one.upper, other.upper]))
    assert fixed(MODEL, {NAME: both}) == (MODEL, {NAME: both})


def test_a_network_of_which_nothing_varies_stays_as_it_is() -> None:
    point = boxes(slice(0, 0))
    assert fixed(MODEL, {NAME: point}) == (MODEL, {NAME: point})


@pytest.mark.parametrize("kind", STAGES)
def test_proofs_are_about_the_network_itself(kind: str) -> None:
    box = boxes(slice(2, 3))
    y = bl.evaluate(MODEL, {NAME: (box.lower + box.upper) / 2})
    spec = bl.Specification(torch.eye(2).expand(4, 2, 2), 1.0 - y, torch.tensor([0, 1]))
    results = bl.verify(MODEL, box, spec, stages=STAGES[kind], timeout=20)
    assert {result.verdict for result in results} == {bl.Verdict.VERIFIED}
    assert all(result.rigour is bl.Rigour.SOUND for result in results)


@pytest.mark.parametrize("kind", ["boxes", "neurons"])
def test_witnesses_are_values_of_the_inputs_alone(kind: str) -> None:
    box = boxes(slice(2, 3))
    low = torch.stack([bl.evaluate(MODEL, {NAME: x}) for x in box.sample(500, torch.Generator().manual_seed(2))]).amin(0)
    spec = bl.Specification(torch.eye(2).expand(4, 2, 2), -low - 0.01, torch.tensor([0, 1]))
    results = bl.verify(MODEL, box, spec, stages=STAGES[kind], timeout=20)
    assert {result.verdict for result in results} == {bl.Verdict.FALSIFIED}
    for place, result in enumerate(results):
        assert result.witness is not None and set(result.witness.inputs) == {NAME}
        x = result.witness.inputs[NAME]
        assert bool(Interval(box.lower[place:place + 1], box.upper[place:place + 1]).contains(x).all())
        assert bool((bl.evaluate(MODEL, {NAME: x}) + spec.offset[place] <= 0).any())


def test_what_depends_on_a_parameter_that_varies_stays_perturbed() -> None:
    box, weight = boxes(slice(2, 3)), next(name for name, value in MODEL.params.items() if value.shape == (6, 4))
    ball = bl.LpBall(MODEL.params[weight][None], 0.01, p=torch.inf)
    model, regions = fixed(MODEL, {NAME: box, weight: ball})
    varying = {model.graph.source_named(name).index for name in (NAME, weight)}
    assert model.graph.output.index in perturbed_nodes(model.graph, varying)
    found = bl.bound(model, regions)
    for shift in (-0.01, 0.01):
        moved = replace(MODEL, params={**MODEL.params, weight: MODEL.params[weight] + shift})
        y = bl.evaluate(moved, {NAME: box.upper})
        assert bool(((found.lower <= y + 1e-5) & (y <= found.upper + 1e-5)).all())


def test_constants_beside_intervals_serve_any_number_of_parts() -> None:
    model = bl.capture(Beside(), torch.zeros(2, 2, 4)).detached()
    center, radius = torch.randn(40, 2, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([[0.0], [2.0]])
    box = bl.Box(center - radius, center + radius)
    tight, loose = (bl.bound(model, box, method=method).lower for method in (bl.Optimised(), bl.CROWN()))
    assert bool((tight > loose + 1e-3).any())
    spec = bl.Specification(torch.ones(40, 1, 1), -(tight + loose) / 2, torch.tensor([0]))
    results = bl.verify(model, box, spec, stages=(bl.Branching(),), timeout=20)
    assert {result.verdict for result in results} == {bl.Verdict.VERIFIED}


def test_a_point_without_the_constant_inputs_may_be_a_witness() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return x + z

    model = bl.capture(Sum(), torch.zeros(2, 1), torch.zeros(2, 1)).detached()
    x, z = (node.name for node in model.graph.inputs)
    spec = bl.Specification(torch.ones(1, 1, 1), torch.zeros(1, 1), torch.tensor([0]))
    task = task_of_sets(model, {x: bl.Box(-torch.ones(1, 1), torch.ones(1, 1)), z: torch.zeros(1, 1)}, spec, None)
    found = task.witnesses(torch.tensor([0]), {x: torch.full((1, 1), -0.5)})
    assert set(found[0].inputs) == {x, z}
