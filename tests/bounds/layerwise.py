"""The layer-wise relaxation of a plain network as a linear program, solved by HiGHS: an oracle for the dual."""

from itertools import pairwise

import numpy as np
from scipy.optimize import linprog
from torch import nn

PLACES = 1500
"""Points of a curve between which its hull is taken to be straight."""


def hull_edges(x, y):
    """Slopes and intercepts of the lower hull of points in order of x (monotone chain)."""
    kept = []
    for point in zip(x, y, strict=True):
        while len(kept) > 1 and (kept[-1][1] - kept[-2][1]) * (point[0] - kept[-2][0]) >= (
                point[1] - kept[-2][1]) * (kept[-1][0] - kept[-2][0]):
            kept.pop()
        kept.append(point)
    pairs = list(pairwise(kept))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs]
    return [(slope, a[1] - slope * a[0]) for slope, (a, _) in zip(slopes, pairs, strict=True)]


def cuts(f, low, high):
    """Lines below and above f on an interval that are its hull."""
    x = np.unique(np.concatenate([np.linspace(low, high, PLACES), [low, high, min(max(0.0, low), high)]]))
    return hull_edges(x, f(x)), [(-k, -c) for k, c in hull_edges(x, -f(x))]


class Program:
    """Columns with bounds, and rows; inputs first, then argument and value of every neuron."""

    def __init__(self, low, high):
        self.low, self.high, self.equal, self.below = list(low), list(high), [], []

    def column(self, low, high):
        self.low.append(low)
        self.high.append(high)
        return len(self.low) - 1

    def matrix(self, rows):
        whole = np.zeros((len(rows), len(self.low)))
        for place, (entries, _) in enumerate(rows):
            for column, value in entries:
                whole[place, column] += value
        return (whole, np.array([end for _, end in rows])) if rows else (None, None)

    def minimum(self, cost):
        whole = np.zeros(len(self.low))
        for column, value in cost:
            whole[column] += value
        (a, b), (c, d) = self.matrix(self.below), self.matrix(self.equal)
        ends = list(zip(self.low, self.high, strict=True))
        found = linprog(whole, A_ub=a, b_ub=b, A_eq=c, b_eq=d, bounds=ends, method="highs")
        assert found.status == 0, found.message
        return found.fun


def least(net: nn.Sequential, box, intervals, f, rows):
    """The minimum of each row of the output over the relaxation of `net` (linear layers and functions f in turns).

    `box` are the ends of the input, `intervals` those of every function's argument, all as arrays.
    """
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    program, values = Program(*box), list(range(layers[0].in_features))
    for layer, (low, high) in zip(layers[:-1], intervals, strict=True):
        weight, bias, after = layer.weight.detach().numpy(), layer.bias.detach().numpy(), []
        for neuron in range(len(bias)):
            z, y = program.column(low[neuron], high[neuron]), program.column(-np.inf, np.inf)
            program.equal.append(([(column, w) for column, w in zip(values, weight[neuron], strict=True)] + [(z, -1.0)],
                                  -bias[neuron]))
            below, above = cuts(f, low[neuron], high[neuron])
            program.below += [([(z, k), (y, -1.0)], -c) for k, c in below] + [([(y, 1.0), (z, -k)], c) for k, c in above]
            after.append(y)
        values = after
    weight, bias = layers[-1].weight.detach().numpy(), layers[-1].bias.detach().numpy()
    return np.array([program.minimum(list(zip(values, row @ weight, strict=True))) + row @ bias for row in rows])
