"""Certificates from what `verify` has kept: leaves, constraints and slopes under the names of the network's file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.intermediate import perturbed_nodes
from boundlab.bounds.parts import Splits
from boundlab.bounds.problem import Rigour
from boundlab.certificates.assumption import Assumption
from boundlab.certificates.certificate import Argument, CaseProof, Certificate, Checked, Pair
from boundlab.certificates.check import fingerprint
from boundlab.certificates.checker import each_case
from boundlab.certificates.leaves import Places, places_of
from boundlab.certificates.mend import mended
from boundlab.certificates.narrowing import Narrowed
from boundlab.certificates.network import Affine, Matrix, Network, arguments_of
from boundlab.certificates.work import Work
from boundlab.errors import CertificateError
from boundlab.graph import AGAIN, Graph
from boundlab.ops import lookup
from boundlab.question.exact import Case
from boundlab.verify.proof import Inner, Proof, Slopes
from boundlab.verify.verdict import Result

MOST_SLOPES = 2**24
"""Slopes that a certificate may hold for one end of the intervals of a step: with more of them the checker takes its own."""


@dataclass(frozen=True)
class Names:
    """What a certificate calls the values of a graph: inputs, and arguments of nonlinear operators.

    `places` are what the checker knows of the network; slopes of other operators are left out.
    """

    graph: Graph
    places: Places

    @cached_property
    def varying(self) -> set[int]:
        """The nodes that inputs reach."""
        return perturbed_nodes(self.graph, {node.index for node in self.graph.inputs})

    @cached_property
    def called(self) -> dict[int, str]:
        """The names of the steps that nonlinear nodes are, by node: of several from one operator of the file the last has its
        name, and the others one of their own."""
        nodes = [node for node in self.graph if not node.source and node.index in self.varying
                 and not lookup(node.op).affine(tuple(arg in self.varying for arg in node.args))]
        last = {node.name.split(AGAIN)[0]: node.index for node in nodes}
        return {node.index: base if last[base] == node.index else f"{base}:{node.op}"
                for node in nodes for base in (node.name.split(AGAIN)[0],)}

    def argument(self, node: int) -> Argument:
        """The name of a node's value; CertificateError if the checker knows none."""
        found = self.called_argument(node)
        if found is None:
            raise CertificateError(f"a split of {self.graph[node].describe()} has no name in the network's file.")
        return found

    def called_argument(self, node: int) -> Argument | None:
        """The name of a node's value; None if the checker knows none."""
        value = self.graph[node]
        if value.source:
            return Argument(value.name)
        for reader in self.graph:
            if node in reader.args:
                name, varying = self.called.get(reader.index, reader.name), [arg for arg in reader.args if arg in self.varying]
                found = Argument(name, varying.index(node))
                if self.places.bends(found) and self.places.size(found) == math.prod(value.shape):
                    return found
        own = Argument(value.name.split(AGAIN)[0])
        if own in self.places.numbers and not self.places.bends(own) and self.places.size(own) == math.prod(value.shape):
            return own
        return None

    def slopes(self, slopes: Slopes) -> dict[Argument, Pair]:
        """Slopes (n, size) under the names of arguments that the checker knows, without those for which any will do."""
        found: dict[Argument, Pair] = {}
        for node, parts in slopes.items():
            name, pairs = self.graph[node].name, [(low.float().numpy(), high.float().numpy()) for low, high in parts]
            found |= self.compared(name, *pairs) if lookup(self.graph[node].op).ranks else {
                Argument(self.called.get(node, name), number): pair for number, pair in enumerate(pairs)}
        return self.known(found)

    def alone(self, slopes: Slopes) -> Slopes:
        """The slopes of functions of which a row meets one line only at each coordinate: not those around a softmax."""
        return {node: parts for node, parts in slopes.items() if not lookup(self.graph[node].op).ranks}

    def compared(self, name: str, share: Pair, mixing: Pair) -> dict[Argument, Pair]:
        """Slopes of the steps of a softmax or its logarithm: of shares in their logarithm, of log-sum-exp in each entry."""
        steps, first = self.places.network.steps, Argument(f"{name}:logsumexp")
        if not self.places.bends(first):
            return {}
        found = {Argument(f"{name}:exp"): share}
        for number, place in enumerate(arguments_of(steps[self.places.numbers[first][0]])):
            term = steps[place]
            assert isinstance(term, Affine) and isinstance(term.matrices[0], Matrix)
            chosen = term.matrices[0].forward
            if chosen.shape[1] == mixing[0].shape[1]:
                found[Argument(first.step, number)] = (chosen @ mixing[0].T).T, (chosen @ mixing[1].T).T
        return found

    def known(self, found: Mapping[Argument, Pair]) -> dict[Argument, Pair]:
        """The slopes of those that the checker knows, without those for which any will do."""
        return {argument: pair for argument, pair in found.items() if self.places.bends(argument)
                and pair[0].shape[1] == self.places.size(argument) and not (np.isnan(pair[0]) & np.isnan(pair[1])).all()}

    def goal(self, node: int) -> Argument:
        """The name of a node's interval: of shares that of the exponential that they are."""
        shares = Argument(f"{self.graph[node].name}:exp")
        return shares if lookup(self.graph[node].op).ranks and shares in self.places.goals else self.argument(node)

    def inner(self, inner: Mapping[int, Inner]) -> dict[tuple[Argument, Argument], Neurons]:
        """Slopes of inner intervals by whose they are and whose lines."""
        found: dict[tuple[Argument, Argument], Neurons] = {}
        for node, own in inner.items():
            target, every = self.goal(node), math.prod(self.graph[node].shape)
            if target not in self.places.goals:  # the checker derives no interval of it
                continue
            sides = [self.slopes(slopes) for slopes in (own.lower, own.upper)]
            for argument in sides[0].keys() | sides[1].keys():
                shape = every, self.places.size(argument)
                if math.prod(shape) <= MOST_SLOPES:
                    found[target, argument] = Neurons([side.get(argument) for side in sides], own.neurons.numpy(), shape)
        return found


@dataclass(frozen=True)
class Neurons:
    """Slopes (k, size) for lower and for upper ends of some neurons (k,), None for the checker's own; `shape` is (m, size)."""

    sides: Sequence[Pair | None]
    neurons: np.ndarray
    shape: tuple[int, int]

    def every(self) -> Pair:
        """The slopes (1, 2, m, size) of all neurons; one array if lower and upper lines agree."""
        low, high = (np.full((1, 2, *self.shape), np.nan, dtype=np.float32) for _ in range(2))
        for place, side in enumerate(self.sides):
            if side is not None:
                low[0, place, self.neurons], high[0, place, self.neurons] = side
        return low, low if np.array_equal(low, high, equal_nan=True) else high


@dataclass(frozen=True)
class Short:
    """A proof without the slopes of inner intervals, and these for the neurons that have some: few of many, often."""

    proof: CaseProof
    inner: Mapping[tuple[Argument, Argument], Neurons]

    def whole(self) -> CaseProof:
        """The proof."""
        return replace(self.proof, inner={key: neurons.every() for key, neurons in self.inner.items()})


Said = dict[int, tuple[CaseProof, str | None]]
"""Proofs by the number of their case, and why the checker does not accept them; None: it does."""
Check = Callable[[Sequence[Case], Mapping[int, Short]], Said]


def shown(proofs: Sequence[Proof], cases: Sequence[Case], graph: Graph, network: Network, check: Check
          ) -> list[tuple[CaseProof | None, str | None]]:
    """Proofs of cases under the checker's names, as `accepted` says of them, or why there is none."""
    names = Names(graph, places_of(network))
    found = [named(proof, case, names) for proof, case in zip(proofs, cases, strict=True)]
    said = check(cases, {number: proof for number, (proof, _) in enumerate(found) if proof is not None})
    return [said.get(number, (None, why)) for number, (_, why) in enumerate(found)]


def accepted(work: Work, network: Network, cases: Sequence[Case], short: Mapping[int, Short]) -> Said:
    """Proofs of cases, by their number, and why the checker does not accept them (None: it does) while there is time.

    Where the checker's bounds fall a little short of those of the search it is made to derive more, and leaves that are not
    shown are halved.
    """
    places, proofs = places_of(network), {number: one.whole() for number, one in short.items()}
    rest = rejected(network, cases, proofs, work)
    mends = {number: mended(network, cases[number], proofs[number], places, said.short, work)
             for number, said in rest.items() if said.short and not work.over()}
    again = rejected(network, cases, mends, work)
    said = {number: again.get(number) if number in mends else rest.get(number) for number in proofs}
    return {number: (mends.get(number, proof), None if (why := said[number]) is None else why.reason)
            for number, proof in proofs.items()}


def named(proof: Proof, case: Case, names: Names) -> tuple[Short | None, str | None]:
    """A proof under the checker's names, or why there is none."""
    try:
        return case_proof(proof, case, names), None
    except CertificateError as problem:
        return None, str(problem)


def rejected(network: Network, cases: Sequence[Case], proofs: Mapping[int, CaseProof], work: Work) -> dict[int, Checked]:
    """Which of some proofs, by the number of their case, the checker does not accept in time, with what it says."""
    numbers = list(proofs)
    left = {number: Checked(False, -math.inf, proof.leaves, "the time was over") for number, proof in proofs.items()}
    for place, said in each_case(network, [cases[number] for number in numbers], list(proofs.values()), work):
        if said.accepted:
            del left[numbers[place]]
        elif not work.over():
            left[numbers[place]] = said
    return left


def certificate_of(result: Result, network: str | Path, spec: str | Path) -> Certificate:
    """The certificate of a CHECKED result, about the ONNX and the VNN-LIB file that were asked about; else CertificateError."""
    if result.rigour is not Rigour.CHECKED:
        counted = result.rigour is not Rigour.FLOAT
        about = "it is about the captured graph, not the files" if counted else "rounding is not counted in"
        raise CertificateError(f"there is no certificate for '{result}': {'; '.join(result.notes) or about}.")
    return Certificate(fingerprint(network), fingerprint(spec), result.certified)


def case_proof(proof: Proof, case: Case, names: Names) -> Short:
    """The proof of one case under the names of the file."""
    clause, most = proof.clause.numpy().astype(np.int64), max(map(len, case.unsafe))
    weights = np.pad(proof.weights.numpy(), ((0, 0), (0, most - proof.weights.shape[1])))
    # Searches fill shorter clauses with their first row, and may take it at any of its places.
    filled = np.arange(most) >= np.array([len(one) for one in case.unsafe])[clause][:, None]
    weights[:, 0] += (weights * filled).sum(axis=1)
    weights[filled] = 0
    steps, (step, neuron, side, point, multiplier) = constraints_of(proof.splits, names)
    steps, narrowed = ends_of(proof, steps, names)
    number, frame = numbered(proof, clause, names)
    plain = {argument: (low[frame], high[frame]) for argument, (low, high) in names.slopes(proof.plain).items()}
    short = CaseProof(clause, weights, step, neuron, side, point, multiplier, number, steps, names.slopes(proof.slopes), {},
                      plain, assumed=assumptions_of(proof, clause[frame], case, names), narrowed=narrowed)
    return Short(short, names.inner(proof.inner))


def ends_of(proof: Proof, steps: tuple[Argument, ...], names: Names) -> tuple[tuple[Argument, ...], Narrowed | None]:
    """The ends of single leaves under the names of the file, and the names `steps` with those of ends that are not split; ends
    without a name are left out."""
    own = proof.narrowed
    if own is None:
        return steps, None
    called = {node: name for node in own.node.unique().tolist() if (name := names.called_argument(node)) is not None}
    steps = tuple(dict.fromkeys((*steps, *called.values())))
    own = own.at(torch.isin(own.node, torch.tensor(sorted(called))))
    place = torch.zeros(1 + max(called, default=0), dtype=torch.long)
    for node, name in called.items():
        place[node] = steps.index(name)
    wide = torch.nn.functional.pad(own.multiplier, (0, proof.splits.side.shape[1] - own.multiplier.shape[1]))
    multiplier = wide.gather(1, used_first(proof.splits)[own.part])
    leaf, step, neuron, side = (part.numpy() for part in (own.part, place[own.node], own.neuron, own.side))
    found = Narrowed(leaf, step, neuron, side, multiplier.float().numpy())
    return steps, found if len(own.part) else None


def constraints_of(splits: Splits, names: Names) -> tuple[tuple[Argument, ...], list[np.ndarray]]:
    """The names of what is split, and step, neuron, side, point and multiplier (n, c) without empty places before others."""
    nodes = splits.nodes
    steps = tuple(dict.fromkeys(map(names.argument, nodes)))
    place = {node: steps.index(names.argument(node)) for node in nodes}
    node, neuron, side, point, weight, _ = (part.gather(1, used_first(splits)) for part in splits.parts)
    step = torch.full_like(node, -1)
    for index, number in place.items():
        step = torch.where((node == index) & (side != 0), number, step)
    used = step >= 0
    whole = [step, torch.where(used, neuron, 0), torch.where(used, side, 0)]
    numbers = [torch.where(used, point, 0), torch.where(used, weight, 0)]
    return steps, [*(part.numpy().astype(np.int64) for part in whole), *(part.double().numpy() for part in numbers)]


def used_first(splits: Splits) -> Tensor:
    """The order (n, c) in which empty places of each part's constraints come last."""
    return (splits.side == 0).to(torch.uint8).argsort(dim=1, stable=True)


def numbered(proof: Proof, clause: np.ndarray, names: Names) -> tuple[np.ndarray, np.ndarray]:
    """A number for the frame of each leaf (n,), and the first leaf of each number."""
    if proof.frame is None:
        return frames_of(proof.splits, {node.index for node in names.graph.inputs}, clause if proof.assumed else None)
    _, first, number = np.unique(proof.frame.numpy(), return_index=True, return_inverse=True)
    return number.reshape(-1).astype(np.int64), first


def frames_of(splits: Splits, inputs: set[int], clause: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """A number for each leaf (n,), the same for those that lie in the same box; and the first leaf of each number.

    With the `clause` of each leaf (n,) only leaves of one clause have the same number.
    """
    if splits.node.shape[1] == 0 and clause is None:
        return np.zeros(len(splits.node), dtype=np.int64), np.zeros(1, dtype=np.int64)
    cut = torch.isin(splits.node, torch.tensor(sorted(inputs))) & (splits.side != 0)
    parts: list[Tensor] = [splits.node, splits.neuron, splits.side, splits.point]
    rows = np.concatenate([torch.where(cut, part, 0).double().numpy() for part in parts], axis=1)
    if clause is not None:
        rows = np.concatenate([rows, clause[:, None].astype(np.float64)], axis=1)
    _, first, number = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return number.reshape(-1).astype(np.int64), first


def assumptions_of(proof: Proof, clause: np.ndarray, case: Case, names: Names) -> dict[Argument, Assumption]:
    """How intervals are derived that hold where the clauses of frames (f,) fail, under the names of the file."""
    nodes = dict.fromkeys(node for own in proof.assumed.values() for node in own)
    targets = {node: target for node in nodes if (target := names.goal(node)) in names.places.goals}
    return {target: assumption_of(proof, clause, case, (node, names)) for node, target in targets.items()}


def assumption_of(proof: Proof, clause: np.ndarray, case: Case, about: tuple[int, Names]) -> Assumption:
    """The same for one node: of each frame what was assumed for its clause, nothing where that was not."""
    node, names = about
    found = {place: own[node] for place, own in proof.assumed.items() if node in own}
    neurons = np.unique(np.concatenate([one.neurons.numpy() for one in found.values()]))
    frames, atoms = len(clause), max(map(len, case.unsafe))
    multipliers = np.zeros((frames, 2, len(neurons), atoms))
    lines: dict[Argument, np.ndarray] = {}
    for frame, place in enumerate(clause.tolist()):
        if place not in found:
            continue
        one = found[place]
        where, size = np.searchsorted(neurons, one.neurons.numpy()), len(case.unsafe[place])
        own = one.multipliers.numpy()
        multipliers[frame, :, where, :size] = own[:, :, :size].transpose(1, 0, 2)
        multipliers[frame, :, where, 0] += own[:, :, size:].sum(axis=2).T  # shorter clauses hold their first row again
        for side, slopes in enumerate((one.lower, one.upper)):
            for argument, (chosen, _) in names.slopes(names.alone(slopes)).items():
                empty = np.full((frames, 2, len(neurons), chosen.shape[1]), np.nan, dtype=np.float32)
                lines.setdefault(argument, empty)[frame, side, where] = chosen
    return Assumption(neurons, multipliers, lines)
