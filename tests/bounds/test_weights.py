"""Perturbed parameters: bounds worked by hand, points of the sets inside all bounds, one problem as in a batch, gradients."""

import copy
import functools
import itertools
import math

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab import CROWN, IBP, Box, Forward, LpBall, Model, at_least, bound
from boundlab.bounds.problem import problem_of
from boundlab.evaluate import evaluate_all
from boundlab.interval import Interval
from boundlab.maps import RankOne
from boundlab.perturbations.joint import apart, joint_ball
from tests.bounds.networks import Attention

F64 = torch.float64
METHODS = {"IBP": IBP(), "Forward": Forward(), "CROWN-IBP": CROWN(intermediate=IBP()), "CROWN": CROWN(),
           "CROWN unfiltered": CROWN(filter=None), "CROWN alone": CROWN(problems=1)}
ORDERS = {"l1": 1.0, "l1.02": 1.02, "l2": 2.0, "l3": 3.0, "linf": math.inf}


class Positions(nn.Module):
    """Learned vectors, looked up and added to the tokens."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)

    def forward(self, x):
        return torch.relu(x + self.table(torch.tensor([4, 1, 1])))


class Tied(nn.Module):
    """One weight read twice, the second time turned."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        return torch.relu(torch.relu(x @ self.weight) @ self.weight.t())


class LowRank(nn.Module):
    """A weight that is made of two, and a learned scale of the result."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(5, 2)), nn.Parameter(torch.randn(2, 4))
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x):
        return torch.relu(nn.functional.linear(x, self.first @ self.second)) * self.scale


def frozen(layer):
    """Batch norm with statistics and parameters as after training."""
    with torch.no_grad():
        for tensor, low, high in ((layer.running_mean, -0.5, 0.5), (layer.running_var, 0.5, 2.0), (layer.weight, -1.5, 1.5),
                                  (layer.bias, -0.5, 0.5)):
            tensor.uniform_(low, high)
    return layer


NETWORKS = {
    "mlp": ((4,), lambda: [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)]),
    "smooth": ((4,), lambda: [nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)]),
    "conv": ((2, 5, 4), lambda: [nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(),
                                 nn.Linear(6, 3)]),
    "conv transposed": ((2, 5), lambda: [nn.Conv1d(2, 3, 3, padding=2, dilation=2), nn.Sigmoid(),
                                         nn.ConvTranspose1d(3, 2, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)]),
    "batch norm": ((2, 4, 4), lambda: [nn.Conv2d(2, 3, 3), frozen(nn.BatchNorm2d(3)), nn.ReLU(), nn.Flatten(),
                                       nn.Linear(12, 4, bias=False), frozen(nn.BatchNorm1d(4)), nn.ReLU(), nn.Linear(4, 3)]),
    "batch norm apart": ((2, 3, 3), lambda: [frozen(nn.BatchNorm2d(2)), nn.ReLU(), frozen(nn.BatchNorm2d(2)), nn.Flatten(),
                                             nn.Linear(18, 3)]),
    "tokens": ((3, 4), lambda: [nn.Linear(4, 4), nn.LayerNorm(4), Attention(4), nn.Flatten(), nn.Linear(12, 3)]),
    "embedding": ((3, 4), lambda: [Positions(), nn.Linear(4, 2), nn.Flatten(), nn.Linear(6, 3)]),
    "tied": ((4,), lambda: [Tied(), nn.Linear(4, 3)]),
    "low rank": ((4,), lambda: [LowRank(), nn.Linear(5, 3)]),
}


@functools.cache
def network(name, seed=0):
    """A network of double precision, with inputs for two problems."""
    shape, layers = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(*layers()).double().eval()
        x = torch.randn(2, *shape, dtype=F64)
    return module, bl.capture(module, x).detached(), x


def sets_of(module, model, x, kind, p, eps=0.02):
    """Sets for all parameters of a module: each its own, all in one, or each its own beside a ball around the inputs."""
    names = [name for name, _ in module.named_parameters()]
    entry = model.graph.inputs[0].name
    own = bl.weight_ball(model, names, eps=eps, norm=p, joint=kind == "joint")
    return {entry: LpBall(x, eps) if kind == "with input" else x, **own}


def draws(model, sets, count, seed=0):
    """Points of all sets by name, (count * b, *shape): every problem meets every draw."""
    generator, found = torch.Generator().manual_seed(seed), {}
    batch = max(len(value) if torch.is_tensor(value) else len(value.box().lower) for value in sets.values())
    for key, value in sets.items():
        points = value.expand(count, *value.shape) if torch.is_tensor(value) else value.sample(count, generator)
        names, parts = ((key,), (points,)) if isinstance(key, str) else (
            key, apart(points, [model.graph.source_named(name).shape for name in key]))
        for name, part in zip(names, parts, strict=True):
            found[name] = part.expand(count, batch, *part.shape[2:]).flatten(0, 1)
    return found


def outside(model, result, points, batch):
    """How far values of any perturbed node lie outside their interval."""
    values, worst = evaluate_all(Model(result.graph, model.params), points), -math.inf
    for index, interval in result.env.items():
        if isinstance(interval, Interval):
            value = values[index].expand(len(next(iter(points.values()))), *values[index].shape[1:])
            value = value.reshape(-1, batch, *value.shape[1:])
            worst = max(worst, float(torch.maximum(interval.lower - value, value - interval.upper).max()))
    return worst


# -- bounds worked by hand -----------------------------------------------------------------------------------------------

@functools.cache
def two_layers(bias=(0.0, 0.0)):
    """y = (1, 2) . relu(W x) with W the identity."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(2))
        module[0].bias.copy_(torch.tensor(bias))
        module[2].weight.copy_(torch.tensor([[1.0, 2.0]]))
    return bl.capture(module, torch.zeros(1, 2, dtype=F64)).detached()


X = torch.tensor([[3.0, 4.0]], dtype=F64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("p", "dual"), [(1.0, 4.0), (2.0, 5.0), (math.inf, 7.0)])
def test_weights_of_the_last_layer_cost_the_dual_norm_of_what_they_meet(method, p, dual):
    """v . h with h = (3, 4) and v around (1, 2): 11, give or take eps |h|_q."""
    result = bound(two_layers(), {"input": X, "2.weight": LpBall(torch.tensor([[[1.0, 2.0]]], dtype=F64), 0.1, p)},
                   method=METHODS[method])
    assert torch.allclose(torch.cat([result.lower, result.upper]).flatten(), torch.tensor([11 - 0.1 * dual, 11 + 0.1 * dual],
                                                                                          dtype=F64), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_the_first_layer_through_active_neurons(method):
    """W x lies within eps |x| = 0.5 of (3, 4), so both neurons are active and y = (1, 2) W x: 11 -+ eps |(1, 2)| |x|.

    Intervals see each neuron alone: 11 -+ (1 * 0.5 + 2 * 0.5).
    """
    ball = LpBall(torch.eye(2, dtype=F64)[None], 0.1, 2)
    result = bound(two_layers(), {"input": X, "0.weight": ball}, method=METHODS[method])
    reach = 1.5 if method == "IBP" else 0.1 * math.sqrt(5) * 5
    assert torch.allclose(result.upper - 11, torch.full((1, 1), reach, dtype=F64), rtol=1e-12)
    assert torch.allclose(11 - result.lower, torch.full((1, 1), reach, dtype=F64), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("p", "reach"), [(1.0, 8.0), (2.0, math.sqrt(5) * math.sqrt(26)), (math.inf, 3 * 8.0)])
def test_weight_and_bias_in_one_ball_meet_the_input_and_a_one(method, p, reach):
    """y = (1, 2) (W x + b): over (W, b) jointly eps |(1, 2) (x) (3, 4, 1)|_q; intervals: 3 eps |(3, 4, 1)|_q."""
    model = two_layers()
    ball = joint_ball([torch.eye(2, dtype=F64)[None], torch.zeros(1, 2, dtype=F64)], 0.1, p)
    result = bound(model, {"input": X, ("0.weight", "0.bias"): ball}, method=METHODS[method])
    by_intervals = {1.0: 3 * 4.0, 2.0: 3 * math.sqrt(26), math.inf: 3 * 8.0}[p]
    expected = 0.1 * (by_intervals if method == "IBP" else reach)
    assert torch.allclose(result.upper - 11, torch.full((1, 1), expected, dtype=F64), rtol=1e-12)


def test_inputs_and_weights_of_both_signs_by_corners():
    """w x + b over boxes: a sum of products is smallest at corners."""
    x, w, b = (torch.tensor(v, dtype=F64) for v in ([[0.3, -0.2, 1.0]], [[[0.5, -1.0, -0.1]]], [[0.2]]))
    module = nn.Sequential(nn.Linear(3, 1)).double()
    model = bl.capture(module, x).detached()
    boxes = {"input": Box(x - 0.4, x + 0.4), "0.weight": Box(w - 0.3, w + 0.3), "0.bias": Box(b - 0.1, b + 0.1)}
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=6)), dtype=F64)
    values = ((x + 0.4 * corners[:, :3]) * (w[0] + 0.3 * corners[:, 3:])).sum(1) + b[0]
    for method in METHODS.values():
        result = bound(model, boxes, method=method)
        assert result.lower.item() <= values.min() - 0.1 + 1e-12 and values.max() + 0.1 - 1e-12 <= result.upper.item()
    definite = {"input": Box(x.abs(), x.abs() + 0.4), "0.weight": Box(w - 0.05, w + 0.05)}
    ends = torch.stack([(x.abs() + 0.4 * a) * (w[0] + 0.05 * c) for a, c in itertools.product((0, 1), (-1, 1))])
    exact = ends.amin(0).sum() + module[0].bias.detach()
    assert torch.allclose(bound(model, definite, method=IBP()).lower, exact, rtol=1e-12)
    assert torch.allclose(bound(model, definite, method=CROWN()).lower, exact, rtol=1e-12)


# -- one layer of a constant: exact --------------------------------------------------------------------------------------

LAYERS = {
    "linear": ((4,), lambda: nn.Linear(4, 3)),
    "linear over tokens": ((3, 4), lambda: nn.Linear(4, 2)),
    "conv1d": ((2, 6), lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2)),
    "conv2d": ((2, 4, 3), lambda: nn.Conv2d(2, 2, (3, 2), padding=(1, 0), groups=2)),
    "conv3d": ((1, 2, 3, 3), lambda: nn.Conv3d(1, 2, 2)),
    "conv transposed": ((2, 3, 2), lambda: nn.ConvTranspose2d(2, 2, 2, stride=(2, 1), padding=(1, 0), output_padding=(1, 0))),
}


@functools.cache
def one_layer(layer):
    """A layer, inputs of three sizes, and the layer's derivative in its weight."""
    shape, make = LAYERS[layer]
    torch.manual_seed(1)
    sizes = torch.tensor([1.0, 1e-3, 0.0], dtype=F64).reshape(-1, *[1] * len(shape))
    module, x = make().double(), torch.randn(3, *shape, dtype=F64) * sizes
    weight = module.weight.detach()
    matrix = torch.autograd.functional.jacobian(lambda w: torch.func.functional_call(module, {"weight": w}, (x,)), weight)
    return module, bl.capture(module, x).detached(), x, matrix


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_of_a_constant_is_bounded_exactly(layer, order):
    """The layer is linear in its weight: eps times the dual norm of its matrix's rows, which autograd gives."""
    module, model, x, matrix = one_layer(layer)
    p, eps, weight = ORDERS[order], 0.3, module.weight.detach()
    q = 1.0 if math.isinf(p) else math.inf if p == 1 else p / (p - 1)
    reach = eps * torch.linalg.vector_norm(matrix.flatten(-weight.dim()), q, dim=-1)
    value = module(x).detach()
    ball = {model.graph.inputs[0].name: x, "weight": LpBall(weight[None], eps, p)}
    for method in METHODS.values():
        result = bound(model, ball, method=method)
        slack = 1e-10 * (1 + value.abs())
        assert bool(((result.upper - value - reach).abs() <= slack).all()), method
        assert bool(((value - result.lower - reach).abs() <= slack).all()), method


def test_vanishing_powers_never_make_a_norm_too_small():
    """Entries that are tiny beside the largest one: their powers vanish, what they allow does not."""
    x = torch.tensor([[[1.0, 0.0], [1e-4, 1e-4]]])
    module = nn.Linear(2, 2, bias=False)
    torch.nn.init.zeros_(module.weight)
    model = bl.capture(module, x).detached()
    for p in (1.0, 1.02, 1.2, 2.0):
        ball = {"input": x, **bl.weight_ball(model, "weight", eps=0.5, norm=p, relative=False)}
        needed = 0.5 * 1e-4 * 2 ** (1 - 1 / p)
        found = bound(model, ball, method=IBP())
        assert bool((found.upper[0, 1] >= needed * (1 - 1e-5)).all())


# -- points of the sets --------------------------------------------------------------------------------------------------

CASES = [(name, kind, order) for place, name in enumerate(NETWORKS)
         for turn, kind in enumerate(("apart", "joint", "with input"))
         for order in (("l2",) if (place + turn) % 3 == 0 else ("linf",) if (place + turn) % 3 == 1 else ("l1",))]
FULL = [case for case in itertools.product(NETWORKS, ("apart", "joint", "with input"), ORDERS) if case not in CASES]


def check_points(name, kind, order, seed=0):
    module, model, x = network(name, seed)
    sets = sets_of(module, model, x, kind, ORDERS[order])
    points = draws(model, sets, 16, seed)
    generator = torch.Generator().manual_seed(seed)
    spec = at_least(torch.randn((2, 4, 3), generator=generator, dtype=F64))
    worst = bl.attack(model, sets, spec, bl.PGD(steps=10, restarts=2, targets=4)).margins
    sampled = spec.values(bl.evaluate(model, points)[-2:]) if len(x) == 2 else None
    for method in METHODS.values():
        assert outside(model, bound(model, sets, method=method), points, 2) <= 1e-9, method
        lower = bound(model, sets, method=method, spec=spec).lower
        assert lower.shape == (2, 4)
        assert bool((lower <= worst + 1e-9).all() and (lower <= sampled + 1e-9).all()), method


@pytest.mark.parametrize(("name", "kind", "order"), CASES)
def test_points_lie_inside_all_bounds(name, kind, order):
    check_points(name, kind, order)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "order"), FULL)
@pytest.mark.parametrize("seed", [1, 2])
def test_points_lie_inside_all_bounds_of_more_networks(name, kind, order, seed):
    check_points(name, kind, order, seed)


@pytest.mark.parametrize("name", ["mlp", "conv", "batch norm", "tokens"])
def test_single_precision_agrees_with_double(name):
    module, model, x = network(name)
    single = model.to(torch.float32)
    for kind in ("apart", "joint"):
        sets = sets_of(module, model, x, kind, 2.0)
        near = sets_of(module, single, x.float(), kind, 2.0)
        for method in (IBP(), CROWN()):
            expected, found = bound(model, sets, method=method), bound(single, near, method=method)
            width = (expected.upper - expected.lower).max()
            assert (found.lower - expected.lower).abs().max() <= 1e-3 * width


# -- batches -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "kind"), [("mlp", "joint"), ("conv", "apart"), ("batch norm", "with input"),
                                            ("tokens", "with input")])
def test_a_problem_is_bounded_alone_as_in_a_batch(name, kind):
    module, model, x = network(name)
    spec = at_least(torch.randn((2, 3, 3), generator=torch.Generator().manual_seed(0), dtype=F64))
    for method in METHODS.values():
        whole = bound(model, sets_of(module, model, x, kind, 2.0), method=method, spec=spec).lower
        for problem in range(2):
            one = slice(problem, problem + 1)
            alone = bound(model, sets_of(module, model, x[one], kind, 2.0), method=method,
                          spec=spec.take(torch.tensor([problem]))).lower
            assert torch.allclose(whole[one], alone, rtol=1e-9, atol=1e-9), method


def test_sets_of_parameters_may_differ_between_problems():
    """The batch of a parameter's set counts problems, as everywhere."""
    module, model, x = network("conv")
    names = [name for name, _ in module.named_parameters()]
    both = {"input": x}
    for name in names:
        center = model.params[name].unsqueeze(0)
        both[name] = LpBall(torch.cat([center, center * 1.1]), torch.tensor([0.01, 0.02]), 2)
    for method in METHODS.values():
        whole = bound(model, both, method=method)
        for problem in range(2):
            index = torch.tensor([problem])
            one = {key: value[index] if torch.is_tensor(value) else value.take(index) for key, value in both.items()}
            alone = bound(model, one, method=method)
            assert torch.allclose(whole.lower[index], alone.lower, atol=1e-9), method
        assert outside(model, whole, draws(model, both, 8), 2) <= 1e-9


def test_sets_of_parameters_are_not_repeated_for_every_problem():
    _, model, x = network("mlp")
    sets = {"input": LpBall(x, 0.1), **bl.weight_ball(model, "*.weight", eps=0.1)}
    sizes = {model.graph[index].name: len(region.box().lower) for index, region in problem_of(model, sets).sets.items()}
    assert sizes == {"input": 2, "0.weight": 1, "2.weight": 1, "4.weight": 1}


@pytest.mark.parametrize("p", [2.0, math.inf])
def test_rows_over_a_large_weight_keep_their_two_vectors(p):
    """784 x 100 numbers a row would be 78,400; they are 884, from the rows of the output down to the first layer."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    x = torch.rand(20, 784)
    model = bl.capture(module, x).detached()
    sets = {"input": x, **bl.weight_ball(model, "*.weight", eps=1e-3, norm=p)}
    result = bound(model, sets, method=CROWN(), spec=bl.margins([0] * 20, 10))
    kinds = {result.graph[index].name: type(rows) for index, rows in result.linear.coefficients.items()}
    assert kinds == dict.fromkeys(("0.weight", "2.weight", "4.weight"), RankOne)


# -- batch norm ----------------------------------------------------------------------------------------------------------

class Apart(nn.Module):
    """Batch norm after a layer, in one formula that capture does not fold."""

    def __init__(self, layer, norm):
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x):
        y, axes = self.layer(x), (1, -1, *[1] * (x.dim() - 2))
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
        return (y - self.norm.running_mean.reshape(axes)) * scale.reshape(axes) + self.norm.bias.reshape(axes)


@pytest.mark.parametrize("shape", [(2, 4, 4), (4,)], ids=str)
@pytest.mark.parametrize("varies", ["norm.weight", "norm.bias", "layer.weight", "layer.bias", "all"])
def test_a_folded_batch_norm_is_bounded_as_if_it_stood_apart(shape, varies):
    torch.manual_seed(0)
    image = len(shape) > 1
    layer = (nn.Conv2d(2, 3, 3) if image else nn.Linear(4, 3)).double()
    norm = frozen(nn.BatchNorm2d(3) if image else nn.BatchNorm1d(3)).double().eval()
    whole, apart = nn.Sequential(layer, norm).eval(), Apart(layer, norm).eval()
    x = torch.randn(2, *shape, dtype=F64)
    folded, plain = (bl.capture(module, x).detached() for module in (whole, apart))
    names = ["layer.weight", "layer.bias", "norm.weight", "norm.bias"] if varies == "all" else [varies]
    inner = {"layer.weight": "0.weight", "layer.bias": "0.bias", "norm.weight": "1.weight", "norm.bias": "1.bias"}
    for p, region in itertools.product((2.0, math.inf), (x, LpBall(x, 0.05))):
        own = bl.weight_ball(plain, names, eps=0.1, norm=p)
        moved = {inner[name]: ball for name, ball in own.items()}
        for method in (IBP(), CROWN(intermediate=IBP()), CROWN()):
            first = bound(plain, {plain.graph.inputs[0].name: region, **own}, method=method)
            second = bound(folded, {"input": region, **moved}, method=method)
            assert torch.allclose(first.lower, second.lower, rtol=1e-9, atol=1e-9), (method, p)
            assert torch.allclose(first.upper, second.upper, rtol=1e-9, atol=1e-9), (method, p)
            assert second.graph.output.name == folded.graph.output.name


# -- what else reads the sets --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["mlp", "conv", "batch norm"])
def test_linear_bounds_in_the_weights_hold(name):
    module, model, x = network(name)
    sets = sets_of(module, model, x, "apart", 2.0)
    points = draws(model, sets, 8)
    y = bl.evaluate(model, points)
    forms = bl.linear_bounds(model, sets)
    for draw in range(8):
        some = {key: value[2 * draw:2 * draw + 2] for key, value in points.items()}
        assert bool((forms.lower.values(some) <= y[2 * draw:2 * draw + 2] + 1e-9).all())
        assert bool((y[2 * draw:2 * draw + 2] <= forms.upper.values(some) + 1e-9).all())


DERIVED = [(*case, method) for case in (("mlp", "apart", 2.0), ("mlp", "joint", 1.5), ("mlp", "with input", math.inf),
                                        ("conv", "apart", 2.0), ("batch norm", "with input", 2.0))
           for method in ("IBP", "CROWN-IBP", "Forward", "CROWN")]


@pytest.mark.parametrize(("name", "kind", "p", "method"), [
    pytest.param(*case, marks=[] if place % 3 == 0 else pytest.mark.slow) for place, case in enumerate(DERIVED)])
def test_gradients_of_bounds_reach_the_parameters(name, kind, p, method):
    """Against finite differences: centers and relative radii follow the live parameters."""
    module, _, x = network(name)
    module = copy.deepcopy(module)
    model = bl.capture(module, x)

    def total():
        result = bound(model, sets_of(module, model, x, kind, p, 0.05), method=METHODS[method])
        return (result.lower.square() + 2 * result.upper).sum()

    leaves, generator = list(module.parameters()), torch.Generator().manual_seed(3)
    gradients = torch.autograd.grad(total(), leaves)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        direction = torch.randn(leaf.shape, generator=generator, dtype=F64)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf += sign * 1e-6 * direction
                ends.append(total())
                leaf -= sign * 1e-6 * direction
        measured, expected = (ends[0] - ends[1]) / 2e-6, (gradient * direction).sum()
        assert (measured - expected).abs() <= 1e-5 * (1e-2 + (gradient.abs() * direction.abs()).sum())
