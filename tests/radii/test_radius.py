"""Laws of certified radii: what is returned was proven, no witness lies inside, and linear networks have closed forms."""

import copy
import itertools
import math
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import boundlab as bl
from boundlab.bounds.problem import Bounds
from boundlab.radii.search import Outcome, narrowed, untried

NORMS = [1, 1.5, 2, math.inf]
SILENT = bl.Search(attack=None)


def captured(*layers):
    net = nn.Sequential(*layers).double()
    return net, bl.capture(net, torch.zeros(2, net[0].in_features, dtype=torch.float64)).detached()


@cache
def network(seed=0, size=6, classes=3):
    """A steep network whose classes are close together in the middle of the unit cube, so that attacks succeed within it."""
    torch.manual_seed(seed)
    layers = nn.Linear(size, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, classes)
    with torch.no_grad():
        layers[0].weight *= 3
        layers[-1].bias -= nn.Sequential(*layers)(inputs(40, size).float()).mean(0)
    return captured(*layers)


@cache
def linear(seed=0, inputs=6, classes=3):
    torch.manual_seed(seed)
    return captured(nn.Linear(inputs, classes))


def inputs(count=4, size=6, seed=0):
    return torch.rand(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_of(net, x, labels):
    """Margins (b, classes - 1) of a linear network and their rows over the inputs."""
    spec = bl.margins(labels, net[0].out_features, torch.float64)
    return spec.values(net(x)).detach(), (spec.rows @ net[0].weight).detach()


def others(net, x):
    """Labels and every other class of each input, (b, classes - 1)."""
    labels = net(x).argmax(1)
    classes = net[-1].out_features
    return labels, (labels[:, None] + torch.arange(1, classes)) % classes


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 3), place=st.integers(0, 1000), p=st.sampled_from(NORMS),
       tolerance=st.sampled_from([0.1, 0.01, 1e-4]))
def test_a_linear_network_has_the_radius_of_its_margin_over_the_dual_norm(seed, place, p, tolerance):
    net, model = linear(seed)
    x = inputs(seed=place)
    labels = net(x).argmax(1)
    margins, rows = rows_of(net, x, labels)
    dual = {1: math.inf, math.inf: 1}.get(p) or p / (p - 1)
    exact = (margins / torch.linalg.vector_norm(rows, dual, dim=2)).amin(1)
    found = bl.radius(model, x, labels, family=bl.balls(p), search=bl.Search(tolerance=tolerance, attack=None))
    assert (found.proven <= exact * (1 + 1e-9)).all()
    assert (found.proven >= exact * (1 - tolerance) * (1 - 1e-9)).all()
    assert found.holds.all() and found.attacked.isinf().all()


def test_pixels_of_a_linear_network_are_counted():
    net, model = linear(3)
    x = inputs(6)
    labels = net(x).argmax(1)
    margins, rows = rows_of(net, x, labels)
    at_ends = torch.stack([rows * (end - x[:, None]) for end in (0, 1)])
    gains = at_ends.amin(0).clamp(max=0).sort(2).values.cumsum(2)
    exact = ((margins[:, :, None] + gains) > 0).sum(2).amin(1)
    found = bl.radius(model, x, labels, family=bl.balls(0, (0, 1)))
    assert torch.equal(found.proven, exact.double())
    reached = exact < 6
    assert torch.equal(found.attacked[reached], exact[reached] + 1.0) and found.attacked[~reached].isinf().all()


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("p", NORMS)
def test_every_radius_was_proven_and_no_witness_lies_inside(p, clip):
    net, model = network()
    x = inputs(3)
    labels = net(x).argmax(1)
    found = bl.radius(model, x, labels, family=bl.balls(p, clip), search=bl.Search(attack=bl.PGD(10, 1, targets=1)))
    assert (found.proven > 0).all() and found.witnesses
    spec = bl.margins(labels, 3, torch.float64)
    assert (bl.bound(model, bl.LpBall(x, found.proven, p, clip), spec=spec).lower > 0).all()
    assert (found.proven < found.attacked).all() and torch.equal(found.gap, found.attacked - found.proven)
    assert found.attacked.isfinite().nonzero().flatten().tolist() == [key for (key,) in sorted(found.witnesses)]
    for (key,), witness in found.witnesses.items():
        point = witness.inputs[model.graph.inputs[0].name]
        assert float(torch.linalg.vector_norm(point - x[key], p)) <= float(found.attacked[key]) * (1 + 1e-12)
        assert clip is None or ((point >= 0).all() and (point <= 1).all())
        assert int(net(point).argmax()) != labels[key]


@pytest.mark.parametrize("margin", [0.1, 1.0, 1.9, math.nan])
@pytest.mark.parametrize("most", [1.0, 2.0, 6.0, 9.0])
def test_the_next_whole_radius_is_tried_by_a_method_that_goes_on(margin, most):
    """From 1 a tenth more is no whole number: radii grow by one at least, up to the largest set (9)."""
    known, cap = torch.ones(1), torch.full((1,), 9.5)
    begun = replace(untried(torch.tensor([2.0])), low=known, above=torch.tensor([margin]), leap=1.1)

    def trial(index, eps, turn):
        assert torch.equal(eps, eps.floor())
        return Outcome(eps <= most, margins=most + 0.5 - eps)

    end = narrowed(begun, trial, known, cap, bl.Search(), whole=True)
    assert end.low.item() == most and end.high.item() == (most + 1 if most < 9 else math.inf)


@pytest.mark.parametrize("family", [bl.balls(2), bl.balls(math.inf, (0, 1)), bl.balls(0, (0, 1))])
def test_a_batch_is_its_examples_alone(family):
    net, model = network(2)
    x = inputs(3, seed=2)
    labels, targets = others(net, x)
    labels[1] = targets[1, 0]
    together = bl.radius(model, x, labels, family=family)
    for place in range(3):
        alone = bl.radius(model, x[place:place + 1], labels[place:place + 1], family=family)
        torch.testing.assert_close(alone.proven[0], together.proven[place])
        torch.testing.assert_close(alone.attacked[0], together.attacked[place])


def test_the_worst_target_is_no_worse_than_all_together():
    net, model = network(1)
    x = inputs(6, seed=1)
    labels, targets = others(net, x)
    together = bl.radius(model, x, labels, search=SILENT)
    each = bl.radius(model, x, bl.Targeted(labels, targets), search=bl.Search())
    assert each.proven.shape == each.attacked.shape == each.holds.shape == (6, 2)
    torch.testing.assert_close(each.proven.amin(1), together.proven, rtol=0.011, atol=0)
    assert all(net(witness.inputs[model.graph.inputs[0].name])[0, targets[key]] >=
               net(witness.inputs[model.graph.inputs[0].name])[0, labels[key[0]]] for key, witness in each.witnesses.items())
    for place in range(2):
        one = bl.radius(model, x, bl.Targeted(labels.tolist(), targets[:, place].tolist()), search=SILENT)
        torch.testing.assert_close(one.proven, each.proven[:, place])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_no_point_of_a_fine_grid_inside_a_proven_ball_violates(seed):
    net, model = network(seed, size=2)
    x = inputs(3, 2, seed)
    labels = net(x).argmax(1)
    steps = torch.linspace(-1, 1, 201, dtype=torch.float64)
    away = torch.cartesian_prod(steps, steps)
    for p in (1, 2, math.inf):
        found = bl.radius(model, x, labels, family=bl.balls(p))
        length = torch.linalg.vector_norm(away, p, dim=1)
        for place in range(3):
            wrong = net(x[place] + away).argmax(1) != labels[place]
            exact = float(length[wrong].min()) if wrong.any() else math.inf
            assert found.proven[place] < exact
            if exact < 0.8:
                assert exact - 0.03 <= found.attacked[place] <= 1.2 * exact


def test_what_fails_at_the_input_has_radius_0():
    net, model = network()
    x = inputs(3)
    labels, targets = others(net, x)
    labels[1] = targets[1, 0]
    found = bl.radius(model, x, labels)
    assert found.holds.tolist() == [True, False, True]
    (point,) = found.witnesses[1,].inputs.values()
    assert found.proven[1] == found.attacked[1] == 0 and torch.equal(point, x[1:2])


def test_a_tie_fails():
    net = copy.deepcopy(linear()[0])
    with torch.no_grad():
        net[0].weight.zero_(), net[0].bias.zero_()
    found = bl.radius(bl.capture(net, inputs()).detached(), inputs(), [0, 1, 2, 0])
    assert not found.holds.any() and (found.proven == 0).all() and (found.attacked == 0).all()


def test_a_network_that_is_nan_at_the_input_is_neither_proven_nor_refuted():
    net = copy.deepcopy(linear()[0])
    with torch.no_grad():
        net[0].weight.fill_(1e308)
    assert net(inputs()).isinf().all()
    found = bl.radius(bl.capture(net, torch.zeros(2, 6, dtype=torch.float64)).detached(), inputs(), [0, 1, 2, 0])
    assert not found.holds.any() and (found.proven == 0).all() and found.attacked.isinf().all() and not found.witnesses


def eps_of(problem):
    (region,) = problem.sets.values()
    return region.radius.reshape(-1)


@dataclass(frozen=True)
class Rule:
    """A method that proves where a function of the radii says so."""

    proves: object

    def environment(self, problem):
        return {}

    def run(self, problem):
        lower = torch.where(self.proves(eps_of(problem), problem), 1.0, -1.0)[:, None].to(problem.spec.offset)
        return Bounds(lower.expand(-1, problem.spec.rows.shape[1]), None, problem.model.graph, {})


def test_a_method_that_is_not_monotone_is_believed_only_where_it_proves():
    _, model = network()
    x = inputs(8)
    asked = {}

    def odd(eps, problem):
        (region,) = problem.sets.values()
        found = (eps * (1000 + 100 * region.center[:, 0])).long() % 2 == 1
        asked.update(zip(eps.tolist(), found.tolist(), strict=True))
        return found

    labels = model_labels(model, x)
    found = bl.radius(model, x, labels, method=Rule(odd), search=bl.Search(start=0.013, tolerance=1e-3, attack=None))
    assert len(set(asked.values())) == 2, "the test needs proofs and failures"
    assert (found.proven > 0).any()
    assert all(radius == 0 or asked[radius] for radius in found.proven.tolist())


def model_labels(model, x):
    return bl.evaluate(model, {model.graph.inputs[0].name: x}).argmax(1)


def test_a_problem_that_cannot_be_bounded_spoils_no_other():
    _, model = network()
    x = inputs(5)
    labels = model_labels(model, x)

    class Choosy(bl.CROWN):
        def run(self, problem):
            (region,) = problem.sets.values()
            if bool((region.center[:, 0] == x[3, 0]).any()):
                raise bl.BoundError("no.")
            return super().run(problem)

    found, plain = (bl.radius(model, x, labels, method=how, search=SILENT) for how in (Choosy(), bl.CROWN()))
    good = torch.tensor([0, 1, 2, 4])
    assert found.proven[3] == 0 and found.holds[3] and "1 of 5 problems are still open" in found.notes[0]
    torch.testing.assert_close(found.proven[good], plain.proven[good])


@pytest.mark.parametrize("lower", [math.nan, math.inf])
def test_bounds_that_are_no_numbers_prove_nothing(lower):
    _, model = network()

    class Broken(Rule):
        def run(self, problem):
            return Bounds(torch.full_like(problem.spec.offset, lower), None, problem.model.graph, {})

    x, search = inputs(), bl.Search(rounds=3, attack=None)
    found = bl.radius(model, x, model_labels(model, x), method=Broken(None), search=search)
    assert found.holds.all() and (found.proven == 0).all()


def test_a_proof_that_an_attack_refutes_is_an_error():
    _, model = network()
    x = inputs()
    with pytest.raises(bl.BoundError, match="has a counterexample"):
        bl.radius(model, x, model_labels(model, x), method=Rule(lambda eps, problem: eps > 0), search=bl.Search(rounds=8))


def test_methods_in_turn_go_on_where_the_one_before_ended():
    _, model = network()
    x = inputs()
    labels = model_labels(model, x)
    ibp, crown, both = (bl.radius(model, x, labels, method=how, search=SILENT)
                        for how in (bl.IBP(), bl.CROWN(), (bl.IBP(), bl.CROWN())))
    assert (ibp.proven < crown.proven).all() and (both.proven >= 0.99 * crown.proven).all()
    kept = bl.radius(model, x, labels, method=[bl.CROWN(), Rule(lambda eps, problem: eps < 0)], search=SILENT)
    assert torch.equal(kept.proven, crown.proven)


def test_a_family_of_ones_own():
    net, model = linear(5)
    x, weights = inputs(), torch.arange(6, dtype=torch.float64)
    labels = net(x).argmax(1)
    margins, rows = rows_of(net, x, labels)
    family = bl.Family(lambda x, eps: bl.Box(x - eps[:, None] * weights, x + eps[:, None] * weights))
    found = bl.radius(model, x, labels, family=family)
    exact = (margins / (rows.abs() @ weights)).amin(1)
    assert (found.proven <= exact).all() and (found.proven >= 0.99 * exact).all()
    assert (found.attacked >= exact * (1 - 1e-9)).all() and (found.attacked <= 1.06 * exact).all()


def test_a_family_whose_sets_name_no_points_is_not_attacked():
    class Nameless(bl.PerturbationSet):
        def __init__(self, box):
            self.inner = box

        def box(self):
            return self.inner.box()

        def concretize(self, rows):
            return self.inner.concretize(rows)

    net, model = network()
    x = inputs()
    labels = net(x).argmax(1)
    family = bl.Family(lambda x, eps: Nameless(bl.Box(x - eps[:, None], x + eps[:, None])))
    found = bl.radius(model, x, labels, family=family)
    torch.testing.assert_close(found.proven, bl.radius(model, x, labels, search=SILENT).proven, rtol=0.01, atol=0)
    assert found.attacked.isinf().all() and "project" in found.notes[0]


@pytest.mark.slow
def test_what_holds_everywhere_ends_at_the_largest_set():
    net = copy.deepcopy(linear()[0])
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([100.0, 0, 0]))
    model, x = bl.capture(net, inputs()).detached(), inputs()
    for family, size in ((bl.balls(2, (0, 1)), torch.linalg.vector_norm(torch.maximum(x, 1 - x), dim=1)),
                         (bl.balls(0, (0, 1)), torch.full((4,), 6.0, dtype=torch.float64))):
        found = bl.radius(model, x, [0] * 4, family=family)
        torch.testing.assert_close(found.proven, size)
        assert found.attacked.isinf().all() and found.notes == ("4 of 4 problems are proven on the largest set of the family.",)


@pytest.mark.parametrize("start", [1e-6, 0.3, 1e4])
def test_the_start_does_not_matter(start):
    net, model = network()
    x = inputs()
    found, plain = (bl.radius(model, x, net(x).argmax(1), search=bl.Search(start=one, attack=None)) for one in (start, 0.01))
    torch.testing.assert_close(found.proven, plain.proven, rtol=0.011, atol=0)


def test_a_specification_and_its_labels_are_one_question():
    _, model = network()
    x = inputs()
    labels = torch.tensor([0] * 4)
    spec = bl.margins(labels, 3, torch.float64)
    first, second, shared = (bl.radius(model, x, statement) for statement in (labels, spec, spec.take(torch.tensor([0]))))
    for other in (second, shared):
        torch.testing.assert_close(first.proven, other.proven)
        torch.testing.assert_close(first.attacked, other.attacked)


def test_single_precision_stays_single_and_close():
    net, model = network()
    x = inputs()
    labels = net(x).argmax(1)
    double = bl.radius(model, x, labels, search=SILENT)
    single = bl.radius(model.to(torch.float32), x.float(), labels, search=SILENT)
    assert single.proven.dtype == torch.float32
    torch.testing.assert_close(single.proven.double(), double.proven, rtol=0.011, atol=0)


@pytest.mark.slow
def test_pixels_hold_all_channels():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    x = inputs(3, 12).reshape(3, 3, 2, 2)
    model = bl.capture(net, x).detached()
    labels = net(x).argmax(1)
    entries, pixels = (bl.radius(model, x, labels, family=bl.balls(0, (0, 1), pixels=one)).proven for one in (False, True))
    assert (pixels <= entries).all() and (pixels <= 4).all()


WRONG = {
    "a module for a model": (lambda m, x, y: bl.radius(nn.Linear(6, 3), x, y), bl.ShapeError, "capture"),
    "another shape": (lambda m, x, y: bl.radius(m, x[:, :5], y), bl.ShapeError, r"\(batch, 6\)"),
    "another type": (lambda m, x, y: bl.radius(m, x.float(), y), bl.ShapeError, "float32"),
    "too few labels": (lambda m, x, y: bl.radius(m, x, y[:1]), bl.ShapeError, "4 inputs"),
    "too few specifications": (lambda m, x, y: bl.radius(m, x, bl.margins(y[:2], 3, x.dtype)), bl.ShapeError, "4 inputs"),
    "a specification of other outputs": (
        lambda m, x, y: bl.radius(m, x, bl.margins(y, 4, x.dtype)), bl.ShapeError, "reads outputs"),
    "labels in words": (lambda m, x, y: bl.radius(m, x, y / 2), bl.SpecError, "whole numbers"),
    "NaN in the input": (lambda m, x, y: bl.radius(m, x * math.nan, y), bl.SpecError, "NaN"),
    "no such class": (lambda m, x, y: bl.radius(m, x, y + 3), bl.SpecError, "classes 0 to 2"),
    "the label as target": (lambda m, x, y: bl.radius(m, x, bl.Targeted(y, y)), bl.SpecError, "another class"),
    "too few targets": (lambda m, x, y: bl.radius(m, x, bl.Targeted(y, [1])), bl.SpecError, "targets must be"),
    "a norm for a family": (lambda m, x, y: bl.radius(m, x, y, family=2), bl.SpecError, "balls"),
    "a name for a method": (lambda m, x, y: bl.radius(m, x, y, method="crown"), bl.SpecError, "method"),
    "no method": (lambda m, x, y: bl.radius(m, x, y, method=()), bl.SpecError, "at least one"),
    "an unclipped l_0": (lambda m, x, y: bl.balls(0), bl.SpecError, "clip"),
    "half a norm": (lambda m, x, y: bl.balls(0.5), bl.SpecError, "p >= 1"),
    "pixels of l_2": (lambda m, x, y: bl.balls(2, pixels=True), bl.SpecError, "p = 0"),
    "outside the clip box": (lambda m, x, y: bl.radius(m, x + 1, y, family=bl.balls(2, (0, 1))), bl.SpecError, "outside"),
    "a class for a family": (lambda m, x, y: bl.Family(bl.LpBall), bl.SpecError, "function"),
    "no tolerance": (lambda m, x, y: bl.Search(tolerance=0), bl.SpecError, "tolerance"),
    "no rounds": (lambda m, x, y: bl.Search(rounds=0), bl.SpecError, "round"),
}


@pytest.mark.parametrize("case", WRONG)
def test_misuse_is_named(case):
    call, error, message = WRONG[case]
    net, model = network()
    x = inputs()
    with pytest.raises(error, match=message):
        call(model, x, net(x).argmax(1))


def test_the_bracket_never_forgets_a_proof():
    """Whatever order of answers: `low` is the largest radius that held, and `high` lies above it."""
    for answers in itertools.product((True, False), repeat=7):
        told, held = iter(answers), [0.0]

        def trial(index, eps, turn, told=told, held=held):
            answer = next(told)
            held += [float(eps)] * answer
            return Outcome(torch.tensor([answer]), margins=torch.tensor([1.0 if answer else -1.0]))

        start, cap = torch.tensor([0.1]), torch.tensor([5.0])
        end = narrowed(untried(torch.tensor([2.0])), trial, start, cap, bl.Search(rounds=7), whole=False)
        assert float(end.low) == max(held) < float(end.high)


def test_a_search_goes_on_from_radii_that_are_known():
    net, model = network()
    x = inputs()
    labels = net(x).argmax(1)
    first = bl.radius(model, x, labels, method=bl.IBP(), search=SILENT)
    both = bl.radius(model, x, labels, method=(bl.IBP(), bl.CROWN()), search=SILENT)
    known = bl.radius(model, x, labels, method=bl.CROWN(), search=bl.Search(attack=None, known=first.proven))
    assert torch.allclose(known.proven, both.proven, rtol=0.02) and bool((known.proven >= first.proven).all())
    assert known.evaluations < both.evaluations
    with pytest.raises(bl.ShapeError, match="3 radii are known for 4 problems"):
        bl.radius(model, x, labels, search=bl.Search(known=first.proven[:3]))
    with pytest.raises(bl.SpecError, match="known to be proven"):
        bl.Search(known=torch.tensor([-1.0]))


def test_from_radii_that_are_known_the_next_one_is_near():
    """What the margin is at a radius that another method proved is unknown: it says nothing of how far to go."""
    tried = []

    class Watched(bl.IBP):
        def run(self, problem):
            tried.append(max(float(region.box().width.max()) / 2 for region in problem.sets.values()))
            return super().run(problem)

    net, model = network()
    x = inputs()
    labels = net(x).argmax(1)
    first = bl.radius(model, x, labels, method=bl.IBP(), search=SILENT)
    tried.clear()
    bl.radius(model, x, labels, method=Watched(), search=bl.Search(attack=None, known=first.proven))
    assert max(tried) <= 1.2 * float(first.proven.max())
