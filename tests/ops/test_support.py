"""The least value of a f(z) - m z: sound for every operator that has it, nearly exact, and with the derivatives it claims."""

import pytest
import torch

from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.ops.op import REGISTRY
from boundlab.testing.cases import cases_of
from boundlab.testing.trial import trial_of

CASES = [pytest.param(name, case, id=f"{name}-{place}") for name, op in sorted(REGISTRY.items()) if op.support is not None
         for place, case in enumerate(cases_of(name))]
NEAR = {"abs": {}, "atan": {}, "clip": {"min": -1.0, "max": 1.5}, "exp": {}, "gelu": {},
        "leaky_relu": {}, "relu": {}, "sigmoid": {}, "sin": {}, "softplus": {"threshold": 1.0}, "square": {}, "tanh": {},
        "tanh_grad": {}}
"""Functions, defined everywhere, whose least value is compared with that on a fine grid."""


def numbers(shape, dtype, generator):
    """Numbers a and m of all sizes and signs, zeros among them, (b, 40, *shape)."""
    a, m = (torch.randn((shape[0], 40, *shape[1:]), generator=generator, dtype=dtype) for _ in range(2))
    a[:, :3], m[:, 2:5] = 0.0, 0.0
    a[:, 5:10] *= 1e-12
    m[:, 10:20] *= 3
    return a, m


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_value_is_lower(name, case, dtype):
    generator = torch.Generator().manual_seed(0)
    trial = trial_of(lookup(name), case, dtype, generator)
    (x,), (points,) = trial.perturbed, trial.points
    a, m = numbers(x.shape, dtype, generator)
    least = trial.op.support(*trial.arguments, **trial.attributes)(a, m)
    a, m, z, values = a.double(), m.double(), points.double().unsqueeze(2), trial.values.unsqueeze(2)
    size = (a * values).abs().amax(0) + (m * z).abs().amax(0)
    slack = 64 * trial.eps * size + a.abs() * trial.noise.unsqueeze(1) + torch.finfo(dtype).tiny
    assert bool((least.value.double() <= (a * values - m * z).amin(0) + slack).all())


@pytest.mark.parametrize("name", NEAR)
def test_it_is_the_least_value_on_a_grid_and_has_its_derivatives(name):
    op, attributes, generator = lookup(name), NEAR[name], torch.Generator().manual_seed(1)
    center, radius = (torch.rand(30, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    x = Interval(4 * center - 2 - 2 * radius, 4 * center - 2 + 2 * radius)
    z = torch.lerp(x.row_lower, x.row_upper, torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None, None, None])
    a, m = numbers((30, 4), torch.float64, generator)
    support = op.support(x, **attributes)
    least, values = support(a, m), op.evaluate(z, **attributes)
    lowest, steepest = (a * values - m * z).amin(0), values.diff(dim=0).abs().amax(0)
    assert bool((least.value >= lowest - a.abs() * steepest - m.abs() * x.width.unsqueeze(1) / 4000).all())
    step = 1e-3
    for height, (da, dm) in ((least.height, (step, 0.0)), (-least.place, (0.0, step))):
        moved = support(a + da, m + dm).value  # concave: above no tangent
        assert bool((moved <= least.value + height * step + 2e-5 * (a.abs() + m.abs()) + 1e-7).all())
