"""Certificates from what `verify` has kept: leaves, constraints and slopes under the names that the network's file has for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.intermediate import perturbed_nodes
from boundlab.bounds.parts import Splits
from boundlab.certificates.certificate import Argument, CaseProof, Certificate
from boundlab.certificates.check import content, fingerprint
from boundlab.certificates.leaves import Places, places_of
from boundlab.certificates.reading import read_network
from boundlab.errors import CertificateError
from boundlab.graph import Graph
from boundlab.question.exact import Case, Query
from boundlab.verify.proof import Proof, Slopes


@dataclass(frozen=True)
class Names:
    """What a certificate calls the values of a graph: by node the operator's argument (or input) that a constraint on it is about.

    `places` are what the checker knows of the network; slopes of other operators are left out.
    """

    graph: Graph
    places: Places

    @cached_property
    def varying(self) -> set[int]:
        """The nodes that inputs reach."""
        return perturbed_nodes(self.graph, {node.index for node in self.graph.inputs})

    def argument(self, node: int) -> Argument:
        """The name of a node's value; CertificateError if the checker knows none."""
        value = self.graph[node]
        if value.source:
            return Argument(value.name)
        for reader in self.graph:
            if node in reader.args:
                found = Argument(reader.name, [arg for arg in reader.args if arg in self.varying].index(node))
                if found in self.places.numbers and self.places.size(found) == math.prod(value.shape):
                    return found
        raise CertificateError(f"a split of {self.graph[node].describe()} has no name in the network's file.")

    def slopes(self, slopes: Slopes) -> dict[Argument, np.ndarray]:
        """Slopes (n, size) under the names of arguments that the checker knows, those that any will do for left out."""
        found = {Argument(self.graph[node].name, number): part.float().numpy()
                 for node, parts in slopes.items() for number, part in enumerate(parts)}
        return {argument: array for argument, array in found.items() if argument in self.places.numbers
                and array.shape[1] == self.places.size(argument) and not np.isnan(array).all()}


def certificate_of(proofs: Sequence[Proof], query: Query, graph: Graph, network: str | Path, spec: str | Path) -> Certificate:
    """The certificate of proofs of a query's cases, about an ONNX and a VNN-LIB file; `graph` is what was captured of it.

    CertificateError if something was split that has no name in the file.
    """
    if len(proofs) != len(query.cases):
        raise CertificateError(f"the query has {len(query.cases)} cases, and proofs of {len(proofs)} were kept: verify with "
                               "keeping(stages), and programs must not have decided.")
    names = Names(graph, places_of(read_network(content(Path(network)))))
    cases = tuple(case_proof(proof, case, names) for proof, case in zip(proofs, query.cases, strict=True))
    return Certificate(fingerprint(network), fingerprint(spec), cases)


def case_proof(proof: Proof, case: Case, names: Names) -> CaseProof:
    """The proof of one case under the names of the file."""
    first = np.cumsum([0, *map(len, case.unsafe)])
    clause = proof.clause.numpy().astype(np.int64)
    atom = proof.row.numpy() - first[clause]
    weights = np.zeros((len(clause), max(map(len, case.unsafe))))
    weights[np.arange(len(clause)), atom] = 1.0
    steps, (step, neuron, side, point, multiplier) = constraints_of(proof.splits, names)
    frame = frames_of(proof.splits, {node.index for node in names.graph.inputs})
    lines = {argument: (array, array) for argument, array in names.slopes(proof.slopes).items()}
    return CaseProof(clause, weights, step, neuron, side, point, multiplier, frame, steps, lines, {})


def constraints_of(splits: Splits, names: Names) -> tuple[tuple[Argument, ...], list[np.ndarray]]:
    """The names of what is split, and step, neuron, side, point and multiplier (n, c) without empty places before others."""
    nodes = splits.nodes
    steps = tuple(dict.fromkeys(map(names.argument, nodes)))
    place = {node: steps.index(names.argument(node)) for node in nodes}
    order = (splits.side == 0).to(torch.uint8).argsort(dim=1, stable=True)
    node, neuron, side, point, weight, _ = (part.gather(1, order) for part in splits.parts)
    step = torch.full_like(node, -1)
    for index, number in place.items():
        step = torch.where((node == index) & (side != 0), number, step)
    used = step >= 0
    whole = [step, torch.where(used, neuron, 0), torch.where(used, side, 0)]
    numbers = [torch.where(used, point, 0), torch.where(used, weight, 0)]
    return steps, [*(part.numpy().astype(np.int64) for part in whole), *(part.double().numpy() for part in numbers)]


def frames_of(splits: Splits, inputs: set[int]) -> np.ndarray:
    """A number for each leaf (n,): the same for those that lie in the same box."""
    if splits.node.shape[1] == 0:
        return np.zeros(len(splits.node), dtype=np.int64)
    cut = torch.isin(splits.node, torch.tensor(sorted(inputs))) & (splits.side != 0)
    parts: list[Tensor] = [splits.node, splits.neuron, splits.side, splits.point]
    rows = np.concatenate([torch.where(cut, part, 0).double().numpy() for part in parts], axis=1)
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
