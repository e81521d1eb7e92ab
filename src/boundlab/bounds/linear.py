"""The affine functions of the sources between which a node lies: coefficients and biases as readable tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from boundlab.bounds.methods import CROWN, bound
from boundlab.bounds.problem import Method
from boundlab.errors import MissingRule
from boundlab.graph import Model
from boundlab.maps import flat
from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import PerturbationSet
from boundlab.spec import at_least


@dataclass(frozen=True)
class LinearForm:
    """sum over sources of coefficients[source] . x + bias: coefficients (b, *node, *source) by source name, bias (b, *node)."""

    coefficients: Mapping[str, Tensor]
    bias: Tensor

    def values(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The function at concrete sources (b, *source), (b, *node)."""
        total, axes = self.bias, self.bias.dim()
        for name, matrix in self.coefficients.items():
            value = flat(inputs[name], 1)
            total = total + torch.linalg.vecdot(flat(matrix, axes), value.reshape(-1, *[1] * (axes - 1), value.shape[1]))
        return total


@dataclass(frozen=True)
class LinearForms:
    """A node's value (b, *node) lies between `lower` and `upper` everywhere on the sets; rounding is not counted."""

    lower: LinearForm
    upper: LinearForm


def linear_bounds(model: Model, sets: PerturbationSet | Regions, *, node: str | None = None,
                  method: Method | None = None) -> LinearForms:
    """Affine lower and upper functions of the perturbed sources for one node (the output, if left out).

    They bound the node on the sets, and say nothing outside. `method` is CROWN if left out. MissingRule if it has no linear
    bounds in the sources (IBP); ShapeError for a node that the network has not, with those that it has. Xu et al. 2020
    (auto_LiRPA), Sec. 3.
    """
    part = model if node is None else model.up_to(node)
    shape = part.graph.output.shape
    size = math.prod(shape)
    eye = torch.eye(size, dtype=model.dtype, device=model.device)
    rows = torch.cat([eye, -eye]).reshape(1, 2 * size, *shape)
    found = bound(part, sets, method=method or CROWN(), spec=at_least(rows))
    pulled, graph = found.linear, found.graph
    if pulled is None or any(not graph[index].source for index in pulled.coefficients):
        raise MissingRule(f"{method} has no linear bounds in the inputs of '{part.graph.output.name}'; use CROWN or Forward.")
    batch = max(rows.dense().shape[0] for rows in pulled.coefficients.values())
    offset = pulled.offset
    bias = torch.zeros(batch, 2 * size, dtype=eye.dtype, device=eye.device) if offset is None else offset

    def side(which: slice, sign: float) -> LinearForm:
        coefficients = {
            graph[index].name: sign * rows.dense()[:, which].reshape(-1, *shape, *rows.shape)
            for index, rows in pulled.coefficients.items()}
        return LinearForm(coefficients, sign * bias[:, which].reshape(-1, *shape))

    return LinearForms(side(slice(0, size), 1.0), side(slice(size, None), -1.0))
