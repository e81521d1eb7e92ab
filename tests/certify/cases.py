"""A small classifier with examples that are safe, broken, open and misclassified; and stages that go wrong."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import boundlab as bl

MARK = 0.625
"""The first coordinate of an example at which a stage goes wrong."""
EPS = (0.01, 0.05, 0.1, 0.2)
COUNT = 12


def module(dtype=torch.float32, seed=13):
    """Three classes on the unit square."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 3))
        for layer in (net[0], net[2], net[4]):
            nn.init.normal_(layer.weight, std=1.2)
            nn.init.normal_(layer.bias, std=0.3)
    return net.to(dtype)


def examples(count=COUNT, wrong=2, seed=0):
    """Points of the square with the labels that the network gives them, but the first few with others."""
    x = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        labels = module()(x).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 3
    return bl.Examples(x, labels)


def model(dtype=torch.float32, seed=13):
    return bl.capture(module(dtype, seed), torch.zeros(2, 2, dtype=dtype)).detached()


def table(found):
    """The records without what may differ between two runs."""
    return [{key: value for key, value in record.row().items() if key != "seconds"} for record in found.records]


def statuses(found):
    return {(record.index, record.eps): record.status for record in found.records}


@dataclass(frozen=True)
class Trap:
    """IBP, which goes wrong in some way at an example that begins with MARK."""

    way: str = "raise"

    def environment(self, problem):
        return bl.IBP().environment(problem)

    def run(self, problem):
        (ball,) = problem.sets.values()
        if bool((ball.center.flatten(1)[:, 0] == MARK).any()):
            spring(self.way)
        return bl.IBP().run(problem)


def spring(way):
    if way == "raise":
        raise ZeroDivisionError("a trap")
    if way == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "hang":
        while True:
            time.sleep(0.01)
    if way == "torch memory":
        torch.zeros(2**28)
    if way == "numpy memory":
        np.ones(2**28)
    if way == "full disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    raise AssertionError(f"no such way: {way}")
