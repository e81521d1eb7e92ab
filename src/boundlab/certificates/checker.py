"""The independent checker: from a network, a query and a certificate to whether the proof holds.

It trusts the `onnx` package, numpy's and scipy's arithmetic, and the parser of queries; it imports nothing of the search, and
whatever the certificate says, it accepts only what it has derived itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from boundlab.certificates.batches import Batch, batch_of, gathered
from boundlab.certificates.certificate import Argument, CaseProof, Checked, Semantics
from boundlab.certificates.coverage import uncovered
from boundlab.certificates.failing import Failing, assumed_on, learn_failing
from boundlab.certificates.functions import Ends
from boundlab.certificates.known import FEWEST, Known, Rows, Slopes, derive
from boundlab.certificates.leaves import Leaves, Places, columns, inner_slopes, places_of
from boundlab.certificates.network import Network, Nonlinear
from boundlab.certificates.pull import Read
from boundlab.certificates.reach import reached
from boundlab.certificates.single import running
from boundlab.certificates.unsafe import conjuncts_of, summed
from boundlab.certificates.work import ALONE, Work
from boundlab.errors import CertificateError
from boundlab.question.exact import Atom, Case, Query

MOST_NUMBERS = 2**20
"""Numbers of one kind that the leaves, or the frames, of a chunk may hold over the whole network."""


def check_proofs(network: Network, query: Query, proofs: Sequence[CaseProof], *, semantics: Semantics = Semantics.REAL
                 ) -> Checked:
    """Whether proofs, one for each case of the query, hold for the network; CertificateError for what does not fit."""
    if (query.inputs, query.outputs) != (sizes := sizes_of(network)):
        raise CertificateError(f"the query is about {query.inputs} inputs and {query.outputs} outputs, the network has "
                               f"{sizes[0]} and {sizes[1]}.")
    leaves, margin = sum(proof.leaves for proof in proofs), np.inf
    for number, found in each_case(running(network, semantics), query.cases, proofs):
        if not found.accepted:
            return Checked(False, found.margin, leaves, f"case {number}: {found.reason}")
        margin = min(margin, found.margin)
    return Checked(True, margin, leaves)


def each_case(network: Network, cases: Sequence[Case], proofs: Sequence[CaseProof], work: Work = ALONE
              ) -> Iterator[tuple[int, Checked]]:
    """The numbers of cases with what is to be said of their proofs, in some order; CertificateError for what does not fit.

    Cases are checked in batches. One that a batch does not show is checked alone, so that no case depends on others. Those
    that are not reached in time are left out, or not shown.
    """
    fitting(network, cases, proofs)
    places, covered = places_of(network), []
    for number, (case, proof) in enumerate(zip(cases, proofs, strict=True)):
        named(proof, places)
        missing = uncovered(proof, len(case.unsafe))
        if missing is None:
            covered.append(number)
        else:
            yield number, Checked(False, float("-inf"), proof.leaves, missing)
    for place, bounds in all_bounds(network, [cases[number] for number in covered], [proofs[number] for number in covered],
                                    places, work):
        yield covered[place], said(proofs[covered[place]], bounds)


def said(proof: CaseProof, bounds: np.ndarray) -> Checked:
    """What the bounds of a proof's leaves (n,) say."""
    worst = int(np.argmin(np.where(np.isnan(bounds), -np.inf, bounds)))
    # NaN is never a proof.
    if bounds[worst] > 0:
        return Checked(True, float(bounds[worst]), proof.leaves)
    return Checked(False, float(bounds[worst]), proof.leaves, (
        f"leaf {worst} shows clause {int(proof.clause[worst])} only down to {bounds[worst]:.6g}"),
        tuple(np.flatnonzero(~(bounds > 0)).tolist()))


def sizes_of(network: Network) -> tuple[int, int]:
    """How many inputs and outputs a network has."""
    return sum(step.size for step in network.inputs), network.steps[network.output].size


def fitting(network: Network, cases: Sequence[Case], proofs: Sequence[CaseProof]) -> None:
    """CertificateError unless network, cases and proofs are about each other."""
    if any(len(case.lower.nearest) != sizes_of(network)[0] for case in cases):
        raise CertificateError("a case has another number of inputs than the network.")
    asked = [atom for case in cases for conjunct in conjuncts_of(case, sizes_of(network)[1]) for atom in conjunct]
    if network.groups is not None and not all(orders(atom, network.groups) for atom in asked):
        raise CertificateError("the network ends in a softmax, of which the checker knows the order only, and the query asks "
                               "for more than which of two outputs is larger.")
    if len(proofs) != len(cases):
        raise CertificateError(f"the certificate has {len(proofs)} cases, the query {len(cases)}.")


def orders(atom: Atom, groups: np.ndarray) -> bool:
    """Whether a constraint says no more than which of two compared outputs is larger."""
    terms = {index: weight for index, weight in summed(atom).items() if weight}
    return (atom.constant == 0 and len(terms) == 2 and sum(terms.values()) == 0
            and len({int(groups[index]) for index in terms}) == 1)


def named(proof: CaseProof, places: Places) -> None:
    """CertificateError for a name that the network does not have, a neuron out of range, or slopes of a wrong size."""
    assumed = [(target, one, slopes) for target, own in proof.assumed.items() for one, slopes in own.lines.items()]
    lined = {*proof.lines, *proof.plain, *(one for _, one in proof.inner), *(one for _, one, _ in assumed)}
    named_ = {*proof.steps, *(target for target, _ in proof.inner)}
    unknown = named_ - set(places.numbers) | {one for one in lined if not places.bends(one)}
    unknown |= proof.assumed.keys() - places.goals
    if unknown:
        one = min(unknown)
        raise CertificateError(f"the certificate names argument {one.number} of '{one.step}', which is no input or nonlinear "
                               "operator of the network.")
    sizes = np.array([places.size(one) for one in proof.steps] or [0])
    beyond = any(own.neurons[-1] >= places.size(target) for target, own in proof.assumed.items())
    beyond |= proof.narrowed is not None and bool((proof.narrowed.neuron >= sizes[proof.narrowed.step]).any())
    if beyond or ((proof.step >= 0) & (proof.neuron >= sizes[proof.step.clip(min=0)])).any():
        raise CertificateError("the certificate is about a neuron that its step does not have.")
    widths = [(one, slopes.shape[1], places.size(one)) for lines in (proof.lines, proof.plain)
              for one, pair in lines.items() for slopes in pair]
    widths += [(one, slopes.shape[3], places.size(one)) for _, one, slopes in assumed]
    for (target, one), pair in proof.inner.items():
        widths += [(one, slopes.shape[3], places.size(one)) for slopes in pair]
        widths += [(target, slopes.shape[2], places.size(target)) for slopes in pair if slopes.shape[2] != 1]
    for one, found, size in widths:
        if found != size:
            raise CertificateError(f"the certificate has {found} slopes for '{one.step}', which has {size} entries.")


def all_bounds(network: Network, cases: Sequence[Case], proofs: Sequence[CaseProof], places: Places, work: Work = ALONE
               ) -> Iterator[tuple[int, np.ndarray]]:
    """For each case its number and what its leaves' rows are above, in the order of batches; proofs fit their cases."""
    frames, leaves = together(network), 4 * max(together(network), FEWEST)

    def found(numbers: list[int], work: Work) -> list[np.ndarray]:
        batch = batch_of(network, [cases[number] for number in numbers], [proofs[number] for number in numbers])
        bounds = np.split(batch_bounds(network, batch, places, work), batch.first[1:-1])
        return [own if len(numbers) == 1 or bool((own > 0).all()) or work.over() else
                case_bounds(network, cases[number], proofs[number], places, work)
                for number, own in zip(numbers, bounds, strict=True)]

    for numbers, bounds in work.each(found, gathered(cases, proofs, frames, leaves)):
        yield from zip(numbers, bounds, strict=True)


def together(network: Network) -> int:
    """How many frames or leaves go through the network together."""
    return max(MOST_NUMBERS // sum(step.size for step in network.steps), 1)


def case_bounds(network: Network, case: Case, proof: CaseProof, places: Places, work: Work = ALONE) -> np.ndarray:
    """What each leaf's row is above, (n,); NaN for those that are not reached in time."""
    return batch_bounds(network, batch_of(network, [case], [proof]), places, work)


def batch_bounds(network: Network, batch: Batch, places: Places, work: Work = ALONE) -> np.ndarray:
    """What each leaf's row is above, (n,); `thorough` intervals are derived only for leaves that are not shown without."""
    bounds = leaf_bounds(network, batch, places, np.arange(batch.proof.leaves), False, work)
    short = np.flatnonzero(~(bounds > 0))
    if batch.proof.thorough and len(short):
        bounds[short] = np.fmax(bounds[short], leaf_bounds(network, batch, places, short, True, work))
    return bounds


def leaf_bounds(network: Network, batch: Batch, places: Places, wanted: np.ndarray, thorough: bool, work: Work) -> np.ndarray:
    """What the rows of the leaves `wanted` are above, in that order; NaN for those that are not reached in time."""
    proof, bounds, count = batch.proof, np.full(batch.proof.leaves, np.nan), together(network)
    order = wanted[np.argsort(proof.frame[wanted], kind="stable")]
    every, first = np.unique(proof.frame[order], return_index=True)
    first = np.append(first, len(order))

    def on_frames(members: Members, work: Work) -> list[tuple[np.ndarray, np.ndarray]]:
        known = derive_frames(network, batch, places, members, thorough, work)
        size = work.portion(len(members[1]), max(count, FEWEST), FEWEST)
        parts = [members[1][start:start + size] for start in range(0, len(members[1]), size)]

        def on_leaves(chosen: np.ndarray, work: Work) -> np.ndarray:
            owner = np.searchsorted(members[0], proof.frame[chosen])
            return Leaves(proof, places, known, chosen, owner).lower_bounds(batch.atoms)

        return list(work.each(on_leaves, parts))

    frames = [(every[start:start + count], order[first[start]:first[min(start + count, len(every))]])
              for start in range(0, len(every), count)]
    for _, found in work.each(on_frames, frames):
        for chosen, own in found:
            bounds[chosen] = own
    return bounds[wanted]


Members = tuple[np.ndarray, np.ndarray]
"""Some frames, in increasing order, and those of their leaves that are wanted."""


def derive_frames(network: Network, batch: Batch, places: Places, members: Members, thorough: bool,
                  work: Work = ALONE) -> Known:
    """What is known on frames."""
    proof, frames = batch.proof, members[0]
    boxes = hulls(network, batch, places, members)

    def given(step: int, rows: Rows, read: Read) -> Sequence[Ends | None] | None:
        found, goal = network.steps[step], places.goal(rows.target)
        assert isinstance(found, Nonlinear)
        pairs = [None if goal is None else proof.inner.get((goal, Argument(found.name, number)))
                 for number in range(len(found.arguments))]
        slopes = [pair and inner_slopes(pair, rows, frames[rows.frame], read) for pair in pairs]
        return slopes if any(pair is not None for pair in slopes) else None

    def plain(step: int) -> Sequence[Ends | None] | None:
        found = network.steps[step]
        assert isinstance(found, Nonlinear)
        pairs = [proof.plain.get(Argument(found.name, number)) for number in range(len(found.arguments))]
        return [pair and columns(pair, frames) for pair in pairs]

    balls = batch.balls and batch.balls.at(batch.case[frames])
    known = derive(network, boxes, Slopes(given, plain, thorough, work), balls, reached(network, beginnings(batch, places)))
    if proof.assumed:
        clause = np.zeros(proof.frames, dtype=np.int64)
        clause[proof.frame] = proof.clause
        learn_failing(known, places, Failing(assumed_on(proof.assumed, frames), clause[frames], batch.atoms, plain, work))
    return known


def beginnings(batch: Batch, places: Places) -> dict[int, np.ndarray]:
    """The entries of steps, by step, at which rows of a proof begin: at outputs, splits, ends on leaves, and assumptions."""
    proof, found = batch.proof, {places.network.output: np.unique(batch.atoms.coefficients.indices)}
    for number, argument in enumerate(proof.steps):
        tensor, neurons = places.tensor(argument), proof.neuron[proof.step == number]
        if proof.narrowed is not None:
            neurons = np.union1d(neurons, proof.narrowed.neuron[proof.narrowed.step == number])
        found[tensor] = np.union1d(found.get(tensor, neurons), neurons)
    for argument, assumption in proof.assumed.items():
        tensor = places.tensor(argument)
        found[tensor] = np.union1d(found.get(tensor, assumption.neurons), assumption.neurons)
    return found


def hulls(network: Network, batch: Batch, places: Places, members: Members) -> list[Ends]:
    """For each input the hull (size, f) of the boxes of each frame's leaves; any box where no leaf has a point."""
    (frames, leaves), proof, found = members, batch.proof, []
    for step in network.inputs:
        own = np.array([places.numbers[one] == (network.steps.index(step), 0) for one in proof.steps] or [False])
        lower, upper = (end[step.start:step.start + step.size, batch.case[frames]] for end in batch.root)
        if proof.step.size and (own[proof.step[leaves]] & (proof.step[leaves] >= 0)).any():
            lower, upper = boxes_hull(own, (lower, upper), proof, members)
        found.append((lower, upper))
    return found


def boxes_hull(own: np.ndarray, root: Ends, proof: CaseProof, members: Members) -> Ends:
    """The hull of the boxes that constraints on one input (`own`, by number of the step) leave of its ends (size, f)."""
    frames, leaves = members
    size, owner = len(root[0]), np.searchsorted(frames, proof.frame[leaves])
    low, high = np.full((size, len(frames)), np.inf), np.full((size, len(frames)), -np.inf)
    count = max(MOST_NUMBERS // size, 1)
    for part in range(0, len(leaves), count):
        chosen, column = leaves[part:part + count], owner[part:part + count]
        lower, upper = (end[:, column] for end in root)
        for depth in range(proof.step.shape[1]):
            step = proof.step[chosen, depth]
            here = np.flatnonzero((step >= 0) & own[step])
            neuron, point = proof.neuron[chosen[here], depth], proof.point[chosen[here], depth]
            over = proof.side[chosen[here], depth] > 0
            np.maximum.at(lower, (neuron[over], here[over]), point[over])
            np.minimum.at(upper, (neuron[~over], here[~over]), point[~over])
        filled = (lower <= upper).all(axis=0)
        for j in range(size):
            np.minimum.at(low[j], column[filled], lower[j, filled])
            np.maximum.at(high[j], column[filled], upper[j, filled])
    # A frame without any point may take any box: its leaves are empty by their own constraints.
    empty = low > high
    return np.where(empty, root[0], low), np.where(empty, root[1], high)
