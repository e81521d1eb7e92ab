"""A budget of memory changes the size of parts, and nothing else."""

import functools

import pytest
import torch
from torch import nn

import boundlab as bl
from boundlab.bounds.budget import Budget, bytes_of, problems_at_once, rows_at_once
from boundlab.bounds.observe import Recorder
from boundlab.check.tally import Tally

METHODS = {
    "CROWN": bl.CROWN, "CROWN unfiltered": lambda memory: bl.CROWN(filter=None, memory=memory), "Forward": bl.Forward,
    "forward-CROWN": lambda memory: bl.CROWN(bl.Forward(), memory=memory),
    "Optimised": lambda memory: bl.Optimised(steps=3, memory=memory),
    "IBP": bl.IBP, "CROWN-IBP": lambda memory: bl.CROWN(bl.IBP(), memory=memory),
}
ASCENT = 1e-4
"""Steps of an ascent turn on the sign of slopes that are nearly zero: inputs moved by 1e-15 move these bounds by up to 1e-5."""
WHOLE = ("IBP", "CROWN-IBP")
"""Methods that bound all problems' nodes in one pass, whatever the budget."""


@functools.cache
def case():
    """A network, and five inputs."""
    torch.manual_seed(0)
    x = torch.rand(5, 2, 8, 8, dtype=torch.float64)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU(), nn.Flatten(),
                        nn.Linear(36, 30), nn.Tanh(), nn.Linear(30, 3)).double()
    return bl.capture(net, x).detached(), x


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("norm", [2, torch.inf])
def test_results_are_the_same_whatever_the_budget(name, norm):
    (model, x), spec = case(), bl.margins(torch.arange(5) % 3, 3, dtype=torch.float64)
    ball = bl.LpBall(x, 0.1, p=norm)
    parts, results, linear = set(), [], []
    for memory in (None, "4GB", "1MB", 50_000):
        recorder = Recorder()
        bounds = bl.bound(model, ball, method=METHODS[name](memory=memory), spec=spec, observe=recorder)
        results.append(bounds.lower)
        if bounds.linear is not None:
            linear.append(torch.cat([rows.dense().flatten(2) for rows in bounds.linear.coefficients.values()], dim=2))
        parts.add(sum(step.work == "interval" for step in recorder.steps) if name in WHOLE else len(recorder.steps))
    assert len(parts) == 1 if name in WHOLE else len(parts) > 1
    assert len(linear) == (0 if name == "Optimised" else len(results))
    near = ASCENT if name == "Optimised" else 1e-11
    for found in (results, linear):
        assert all(torch.allclose(result, found[0], rtol=near, atol=near) for result in found)


def test_neurons_that_all_problems_want_may_be_pulled_together_or_apart():
    """Every neuron before tanh is wanted by all five problems; fewer rows at once than problems go one owner at a time."""
    (model, x), found = case(), []
    for most in (1, 7, 1000):
        recorder = Recorder()
        bounds = bl.bound(model, bl.LpBall(x, 0.1), method=bl.CROWN(max_rows=most), observe=recorder)
        before_tanh = [step for step in recorder.steps if step.work == "rows" and step.node.shape == (30,)]
        found.append((len(before_tanh), torch.stack([bounds.lower, bounds.upper])))
    assert [count for count, _ in found] == [150, 30, 1]
    assert all(torch.allclose(ends, found[0][1], rtol=1e-11, atol=1e-11) for _, ends in found)


def test_a_specification_of_many_problems_is_pulled_in_parts():
    torch.manual_seed(0)
    x = torch.rand(40, 3, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(3, 500), nn.ReLU(), nn.Linear(500, 6), nn.ReLU(), nn.Linear(6, 10)).double()
    model, spec = bl.capture(net, x).detached(), bl.margins(torch.arange(40) % 10, 10, dtype=torch.float64)
    peaks = {}
    for memory in ("1GB", "1MB"):
        with torch.no_grad(), Tally() as tally:
            bl.bound(model, bl.LpBall(x, 0.1), method=bl.CROWN(bl.IBP(), memory=memory), spec=spec)
        peaks[memory] = tally.peak
    rows = 40 * 9 * 500 * 8  # bytes of all rows at the widest node
    assert peaks["1GB"] > 2 * rows and peaks["1MB"] < peaks["1GB"] - rows


def test_a_smaller_budget_makes_smaller_parts():
    sizes = [Budget(2**power, torch.device("cpu"), 4) for power in range(10, 40)]
    for counts in ([rows_at_once(5000, held) for held in sizes], [problems_at_once(10**5, 1, held) for held in sizes]):
        assert counts == sorted(counts) and counts[0] < counts[-1] and counts[0] >= 1
    assert problems_at_once(100, 2**20, sizes[-1]) == 1  # a large matrix: neurons that are dead in one problem are left out


@pytest.mark.parametrize(("memory", "size"), [("4GB", 4e9), ("512 MiB", 2**29), ("1.5kb", 1500), (77, 77)])
def test_sizes_are_read(memory, size):
    assert bytes_of(memory) == size


@pytest.mark.parametrize("memory", ["4 horses", "", "-1GB", 0, True, "0.1GiBs"])
@pytest.mark.parametrize("method", [bl.CROWN, bl.IBP, bl.Forward])
def test_other_sizes_are_refused(method, memory):
    with pytest.raises(bl.SpecError, match="memory is a number of bytes or text such as '4GB'"):
        method(memory=memory)


def test_a_number_in_text_needs_a_unit():
    """`--memory 4` means gigabytes to whoever types it, and 4 bytes to a parser."""
    with pytest.raises(bl.SpecError, match="'4' has no unit; say '4GB'"):
        bl.CROWN(memory="4")
