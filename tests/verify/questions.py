"""Questions on both sides of a true minimum, in Python and as files, that several searches are asked."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

import boundlab as bl
from boundlab.verify.verdict import Verdict
from tests.certificates.models import inner_values, perceptron, query_text
from tests.programs.test_milp import minimum_by_patterns

D = torch.float64
Asked = tuple[bl.Model, bl.Box, bl.Specification, Verdict, float]


def both_sides_of_the_minimum(seed: int) -> Iterator[Asked]:
    """A small network, a box, a row that holds and one that does not, the verdict, and by how much."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    model, x = bl.capture(module, torch.zeros(1, 2, dtype=D)).detached(), torch.randn(1, 2, dtype=D)
    box, row = bl.Box(x - 1, x + 1), torch.randn(2, dtype=D)
    exact = minimum_by_patterns(module, row, box.lower[0], box.upper[0])
    for least, verdict in ((1e-3, Verdict.VERIFIED), (-1e-3, Verdict.FALSIFIED)):
        spec = bl.at_least(row[None, None], torch.tensor([[least - exact]], dtype=D))
        yield model, box, spec, verdict, least


@functools.cache
def files_of(function: str, seed: int, share: float, folder: Path) -> tuple[Path, Path]:
    """Files of a small network and of a property of two clauses that samples say is true by a share of the output's range."""
    content = perceptron((3, 10, 10, 2), seed=seed, function=function, scale=1.5)
    rng = np.random.default_rng(seed)
    center = rng.normal(size=3)
    lower, upper = center - 0.4, center + 0.4
    y = inner_values(content, function, rng.uniform(lower, upper, (20000, 3)))["y"]
    first, second = (y.min(axis=0) - share * np.ptp(y, axis=0) - 1e-3).tolist()
    unsafe = f"(or (and (<= Y_0 {first!r}) (<= Y_1 1000.0)) (and (<= Y_1 {second!r})))"
    network, spec = folder / f"{function}{seed}.onnx", folder / f"{function}{seed}{share}.vnnlib"
    network.write_bytes(content)
    spec.write_text(query_text(lower, upper, 2, unsafe))
    return network, spec
