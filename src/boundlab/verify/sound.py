"""Verdicts that count rounding: what was proven in floating point is derived again by the checker of certificates.

The checker reads the ONNX file that was captured. Where there is none, or it cannot read it, the captured graph is written down
as ONNX in float64: then VERIFIED is a theorem about that graph as a function of real numbers, whose constants are those that
torch computes in float64 from the network's parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.problem import Rigour
from boundlab.capture.onnx import OnnxFile, load_onnx, onnx_reference
from boundlab.certificates.certificate import CaseProof, Semantics
from boundlab.certificates.network import Network
from boundlab.certificates.reading import read_network
from boundlab.certificates.single import running
from boundlab.certificates.work import Work
from boundlab.errors import CaptureError, CertificateError, MissingRule, UnsupportedOperator
from boundlab.exchange.onnx_file import onnx_of
from boundlab.graph import PARAMETER, Graph, Model, check_model
from boundlab.perturbations.joint import Regions
from boundlab.question.exact import Case, Query
from boundlab.spec import Specification
from boundlab.verify.exactly import queries_of
from boundlab.verify.query import Reduced, own_values
from boundlab.verify.recording import Check, Said, Short, accepted, shown
from boundlab.verify.standing import Clock
from boundlab.verify.task import Replay
from boundlab.verify.team import ALONE, Team
from boundlab.verify.verdict import Result, Verdict

MOVES = ("reshape", "permute", "slice", "gather", "expand", "concat")
"""Operators whose results have no rounding."""


@dataclass(frozen=True)
class Original:
    """A model with what it was captured from, as far as that can be asked: a runtime for witnesses, an ONNX file's bytes.

    The bytes have to be those that the model is of: a model with other parameters is another network.
    """

    model: Model
    replay: Replay | None = None
    content: bytes | None = None

    def __post_init__(self) -> None:
        check_model(self.model)

    def detached(self) -> Original:
        """The same with parameters that carry no gradient."""
        return replace(self, model=self.model.detached())


@dataclass(frozen=True)
class Part:
    """An ONNX file, and what a model that it is a part of calls its inputs (None: the same)."""

    file: OnnxFile
    names: Mapping[str, str] | None = None


def load_original(path: str | Path) -> Original:
    """The network of an ONNX file with the file itself; CaptureError if onnxruntime does not take it."""
    return original_of([Part(onnx_reference(path))], load_onnx(path))


def original_of(parts: Sequence[Part], model: Model) -> Original:
    """A model with the files whose outputs it has, one after the other; proofs are about a file that is the only one.

    CaptureError if onnxruntime does not take a file: then it is not said what the network computes, and no verdict is given.
    """
    sessions = [part.file.session() for part in parts]
    shape = own_values(model).graph.output.shape

    def replay(inputs: Mapping[str, Tensor]) -> Tensor:
        values = {name: value.detach().cpu().numpy() for name, value in inputs.items()}
        found: list[np.ndarray] = []
        for part, session in zip(parts, sessions, strict=True):
            own = values if part.names is None else {name: values[called] for name, called in part.names.items()}
            found += [output.reshape(-1) for output in part.file.replay_all(own, session).values()]
        return torch.from_numpy(np.concatenate(found)).reshape(1, *shape)

    alone = len(parts) == 1 and parts[0].names is None
    return Original(model, replay, parts[0].file.content if alone else None)


def written(original: Original, asked: Reduced) -> Original:
    """What proofs of a reduced query are about: the file only where nothing had to be added to the network or the query."""
    alone = asked.model is original.model and asked.query.cases == asked.cases
    return Original(asked.model, original.replay, original.content if alone else None)


def exact_query(asked: Reduced) -> Query | str:
    """The query, or why it is not what was asked, exactly."""
    return asked.query if asked.exact else "a coefficient under an or in an and has no exact float in the network's type"


def exactly(model: Model, sets: Regions, spec: Specification, count: int) -> Sequence[Query | str]:
    """The problems in exact numbers, or why they have none."""
    try:
        return queries_of(model, sets, spec, torch.arange(count))
    except MissingRule as problem:
        return [str(problem)] * count


@dataclass(frozen=True)
class Reading:
    """A network as the checker reads it, or why it does not; and what a proof about it is called.

    `content` is the file, and `runs` says whether proofs are about what runs in float32.
    """

    network: Network | str
    rigour: Rigour
    content: bytes = b""
    runs: bool = False

    def accepted(self, cases: Sequence[Case], proofs: Mapping[int, Short], clock: Clock, team: Team) -> Said:
        """Which proofs of cases, by their number, the checker accepts by the deadline, with the help of a team."""
        assert isinstance(self.network, Network)
        here = functools.partial(accepted, network=self.network, cases=cases, short=proofs)
        return team.joint(here, accepted_of_file, (self.content, self.runs, cases, proofs), clock.deadline)


def accepted_of_file(work: Work, content: bytes, runs: bool, cases: Sequence[Case], proofs: Mapping[int, Short]) -> Said:
    """The same in another process, which reads the file for itself."""
    network = read(content, runs)
    return accepted(work, network, cases, proofs) if isinstance(network, Network) else {}


def readings(original: Original, rigour: Rigour) -> Iterator[Reading]:
    """The file, if there is one, and the captured graph as a file; about what runs in float32 if that is the rigour.

    What runs is the file where there is one, and a graph only where nothing in it was computed from parameters: how such a
    constant was rounded, a normalisation folded into a layer for instance, the graph does not say.
    """
    runs = rigour is Rigour.FLOAT32
    if original.content is not None:
        yield reading_of(original.content, rigour if runs else Rigour.CHECKED, runs)
    if runs and original.content is not None:
        return
    computed = computed_constant(original.model.graph) if runs else None
    if computed is not None:
        yield Reading(f"in float32 it is not known how {computed} was rounded, which is computed from parameters", rigour)
        return
    try:
        content = onnx_of(original.model, original.model.dtype if runs else torch.float64)
    except (CaptureError, UnsupportedOperator) as problem:
        yield Reading(str(problem), rigour)
    else:
        yield reading_of(content, rigour, runs)


def computed_constant(graph: Graph) -> str | None:
    """The first value that is computed from parameters alone, and not only moved; None if there is none."""
    constant = {node.index for node in graph if node.op == PARAMETER}
    for node in graph:
        if not node.source and constant.issuperset(node.args):
            constant.add(node.index)
            if node.op not in MOVES:
                return node.describe()
    return None


def reading_of(content: bytes, rigour: Rigour, runs: bool) -> Reading:
    """A file as the checker reads it."""
    return Reading(read(content, runs), rigour, content, runs)


def read(content: bytes, runs: bool) -> Network | str:
    """A network as the checker reads it, as a function of real numbers or as it runs in float32; or why it does not."""
    try:
        return running(read_network(content), Semantics.FLOAT32 if runs else Semantics.REAL)
    except CertificateError as problem:
        return str(problem)


def sounded(original: Original, results: Sequence[Result], queries: Sequence[Query | str], clock: Clock, rigour: Rigour,
            team: Team = ALONE) -> tuple[Result, ...]:
    """The results, VERIFIED only where the checker sees it; `queries` are the problems in exact numbers, or why not.

    A team helps the checker.
    """
    found, reasons, waiting = list(results), dict[int, str](), dict[int, Query]()
    for place, (result, query) in enumerate(zip(results, queries, strict=True)):
        if result.verdict is Verdict.VERIFIED and isinstance(query, Query):
            waiting[place] = query
        elif result.verdict is Verdict.VERIFIED:
            reasons[place] = str(query)
    for reading in readings(original, rigour) if waiting else ():
        check = functools.partial(reading.accepted, clock=clock, team=team)
        for place, proof in attempts(original.model.graph, reading, results, waiting, check).items():
            if isinstance(proof, str):
                reasons.setdefault(place, proof)
                continue
            found[place] = replace(results[place], rigour=reading.rigour, certified=proof, seconds=clock.spent)
            del waiting[place]
    return tuple(float_only(result, reasons[place]) if place in reasons and result.rigour is Rigour.FLOAT else result
                 for place, result in enumerate(found))


def attempts(graph: Graph, reading: Reading, results: Sequence[Result], queries: Mapping[int, Query], check: Check
             ) -> dict[int, tuple[CaseProof, ...] | str]:
    """For each query the proofs of its cases that the checker accepts, or what is missing."""
    if isinstance(reading.network, str):
        return dict.fromkeys(queries, reading.network)
    found: dict[int, tuple[CaseProof, ...] | str] = {
        place: f"{len(query.cases) - len(results[place].proofs)} of its {len(query.cases)} cases were decided without a proof"
        for place, query in queries.items() if len(results[place].proofs) != len(query.cases)}
    asked = [(place, case, proof) for place, query in queries.items() if place not in found
             for case, proof in zip(query.cases, results[place].proofs, strict=True)]
    try:
        said = shown([proof for _, _, proof in asked], [case for _, case, _ in asked], graph, reading.network, check)
    except CertificateError as problem:  # what one question asks beyond the checker's means spoils no other
        if len(queries) == 1:
            return dict.fromkeys(queries, str(problem))
        alone = (attempts(graph, reading, results, {place: query}, check) for place, query in queries.items())
        return {place: proof for one in alone for place, proof in one.items()}
    accepted: dict[int, list[CaseProof]] = {place: [] for place, _, _ in asked}
    for (place, _, _), (proof, reason) in zip(asked, said, strict=True):
        if proof is not None and reason is None:
            accepted[place].append(proof)
        else:
            found[place] = str(reason)
    return {place: tuple(proofs) for place, proofs in accepted.items()} | found


def float_only(result: Result, why: str) -> Result:
    """A result that holds in floating point, and why no more is known."""
    said = f"rounding is not accounted for: {why.removesuffix('.')}; the rigour FLOAT takes floating point at its word."
    return replace(result, verdict=Verdict.FLOAT_ONLY, notes=(*result.notes, said))
