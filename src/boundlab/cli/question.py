"""What `verify` and `attack` ask: a network with a VNN-LIB file, or with labelled inputs and a ball; and how they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import boundlab as bl
from boundlab.capture.onnx import onnx_reference
from boundlab.cli.answer import FALSIFIED, OK, UNKNOWN, Answer
from boundlab.cli.loading import (
    Clip,
    NetworkChoice,
    NetworksChoice,
    Norm,
    ball_of,
    load_examples,
    margins_of,
    quotient,
    shape_in,
)
from boundlab.cli.verb import Misuse, Session
from boundlab.perturbations.sets import PerturbationSet
from boundlab.question.exact import Query
from boundlab.question.vnnlib import is_second, parse_vnnlib, read_text
from boundlab.question.vnnlib2 import parse_statement
from boundlab.table import Table, number
from boundlab.verify.networks import model_of
from boundlab.verify.query import flat_values, problems
from boundlab.verify.sound import Original, Part, original_of
from boundlab.verify.verdict import Result, Verdict

Spec = Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="A VNN-LIB file, 1.0 or 2.0 (.vnnlib or .vnnlib.gz).")]
Data = Annotated[Path | None, typer.Option(help="Instead of SPEC: inputs (batch, ...) in a .npy or .npz file.")]
Eps = Annotated[float | None, typer.Option(
    parser=quotient, metavar="<float>", help="With --data: radius of the ball; for norm 0, how many inputs.")]
Label = Annotated[list[int] | None, typer.Option(help="With --data: the class to keep; once for all inputs or once for each.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds for all problems together.")]
Format = Annotated[Literal["text", "vnncomp"], typer.Option("--format", help="vnncomp: unsat, sat and its witness, ...")]
WORDS = {Verdict.VERIFIED: "unsat", Verdict.FALSIFIED: "sat", Verdict.FLOAT_ONLY: "unknown", Verdict.UNKNOWN: "unknown",
         Verdict.TIMEOUT: "timeout"}


@dataclass(frozen=True)
class Region:
    """Where the inputs may lie, if no VNN-LIB file says so: balls around labelled data."""

    data: Data = None
    eps: Eps = None
    norm: Norm = "inf"
    clip: Clip = None
    label: Label = None


REGION = Region()
"""No balls: a VNN-LIB file says where the inputs may lie."""


@dataclass(frozen=True)
class Question:
    """A network, and a query or balls with a specification; not `alone` if it is several networks or has values inside."""

    original: Original
    sets: Query | PerturbationSet
    spec: bl.Specification | None
    alone: bool = True

    @property
    def model(self) -> bl.Model:
        """The network as a graph."""
        return self.original.model


def ask(session: Session, network: NetworksChoice, spec: Path | None, region: Region) -> Question:
    """The question that the command line states; Misuse unless it states exactly one."""
    if (spec is None) == (region.data is None):
        raise Misuse("say what to prove: either a VNN-LIB file after the network, or --data with --eps and a label.")
    if spec is not None:
        question = stated(session, network, read_spec(spec))
        assert isinstance(question.sets, Query)
        problems(question.sets, question.model)  # refuses one about another number of inputs or outputs, before anything is run
        return question
    data = region.data
    assert data is not None
    if network.network:
        raise Misuse("--network names the networks of a VNN-LIB 2.0 file, and --data has one, NET.")
    model = network.load(session, like=lambda: shape_in(data))
    original = on_disk(network.net, model)
    if region.eps is None:
        raise Misuse("--data needs --eps, the radius of the ball around each input.")
    examples = load_examples(data, model, region.label)
    if examples.labels is None:
        raise Misuse("--data needs labels: give --label, or labels y in an .npz file.")
    ball = ball_of(examples.x, region.eps, region.norm, region.clip)
    return Question(original, ball, margins_of(model, examples.labels))


def stated(session: Session, network: NetworksChoice, text: str) -> Question:
    """The question that the text of a VNN-LIB file states; Misuse where the networks given are not those that it is about."""
    if not is_second(text):
        if network.network:
            raise Misuse("--network names the networks of a VNN-LIB 2.0 file, and this is version 1.0, which has one, NET.")
        query, model = parse_vnnlib(text), network.load(session)
        return Question(on_disk(network.net, model), query, None)
    statement = parse_statement(text)
    chosen = network.named([declared.name for declared in statement.networks if declared.same is None])
    models: dict[str, bl.Model] = {}
    loaded: dict[tuple[NetworkChoice, tuple[str, ...]], bl.Model] = {}
    parts: list[Part | None] = []
    for declared in statement.networks:
        choice, also = chosen[declared.same or declared.name], tuple(value.onnx for value in declared.hidden)
        if (choice, also) not in loaded:
            loaded[choice, also] = choice.load(session, also)
        models[declared.name] = own = loaded[choice, also]
        called = [statement.shared.get(tensor.name, tensor.name) for tensor in declared.inputs]
        names = dict(zip((node.name for node in own.graph.inputs), called, strict=False))
        file = onnx_reference(choice.net, also=also) if Path(choice.net).is_file() else None
        parts.append(None if file is None else Part(file, None if statement.alone else names))
    model, known = model_of(statement, models), [part for part in parts if part is not None]
    original = original_of(known, model) if len(known) == len(parts) else Original(model)
    return Question(original, statement.query, None, statement.alone)


def on_disk(net: str, model: bl.Model) -> Original:
    """A model with its ONNX file, if it is one; CaptureError if onnxruntime does not take that."""
    return original_of([Part(onnx_reference(net))], model) if Path(net).is_file() else Original(model)


def named(network: NetworksChoice, spec: Path | None, region: Region) -> dict[str, Any]:
    """What was asked, as JSON holds it."""
    others = {"networks": network.network} if network.network else {}
    return {"network": network.net, **others, "spec": spec and str(spec), "data": region.data and str(region.data)}


def read_spec(spec: Path) -> str:
    """A VNN-LIB file; Misuse if it is no text with lists."""
    text = read_text(spec)
    if "(" not in text:
        raise Misuse(f"'{spec}' is not readable as VNN-LIB text.")
    return text


def exit_code(results: Sequence[Result]) -> int:
    """10 if one problem is falsified, else 20 if one is undecided, else 0."""
    verdicts = {result.verdict for result in results}
    if Verdict.FALSIFIED in verdicts:
        return FALSIFIED
    return OK if verdicts == {Verdict.VERIFIED} else UNKNOWN


def witness_text(result: Result, model: bl.Model) -> str:
    """A counterexample as the competition writes it: ((X_0 v) ... (Y_0 v) ...), one variable a line."""
    assert result.witness is not None
    values = {"X": flat_values(result.witness.inputs, model).tolist(), "Y": result.witness.output.flatten().tolist()}
    return "(" + "\n ".join(f"({name}_{place} {value!r})" for name in values for place, value in enumerate(values[name])) + ")"


def competition_text(results: Sequence[Result], model: bl.Model) -> str:
    """The verdict as VNN-COMP wants it, with the witness if there is one."""
    if len(results) != 1:
        raise Misuse(f"--format vnncomp is for one problem, not for {len(results)}; use --json.")
    word = WORDS[results[0].verdict]
    return word if results[0].witness is None else f"{word}\n{witness_text(results[0], model)}"


def described(result: Result) -> dict[str, Any]:
    """One result as JSON holds it."""
    witness = result.witness and {
        "inputs": {name: value.squeeze(0) for name, value in result.witness.inputs.items()},
        "output": result.witness.output.squeeze(0)}
    return {"verdict": result.verdict.name.lower(), "meaning": result.verdict.value, "method": result.method,
            "rigour": result.rigour.name.lower(), "seconds": result.seconds, "lower": result.lower, "witness": witness,
            "notes": result.notes}


def answer(question: Question, results: Sequence[Result], form: str, data: dict[str, Any]) -> Answer:
    """All results: a table, a sentence with the count of each verdict, or the competition's words."""
    columns = ("problem", "verdict", "by", "seconds", *(("least margin above",) if question.spec else ()))
    rows = [(str(place), verdict_text(result), result.method or "-", f"{result.seconds:.2f}", *least_margin(question, result))
            for place, result in enumerate(results)]
    table = Table(columns, rows, numbers=frozenset({"problem", "seconds", "least margin above"}))
    counts = [f"{sum(result.verdict is verdict for result in results)} {verdict.name.lower()}" for verdict in Verdict
              if any(result.verdict is verdict for result in results)]
    notes = tuple(dict.fromkeys(note for result in results if not result.verdict.decided for note in result.notes))
    text = competition_text(results, question.model) if form == "vnncomp" else None
    witness = tuple(witness_text(result, question.model) for result in results[:1] if result.witness and len(results) == 1)
    return Answer(data | {"results": [described(result) for result in results]}, (table,),
                  (", ".join(counts) + ".", *notes, *witness), exit_code(results), text)


def least_margin(question: Question, result: Result) -> tuple[str, ...]:
    """The best bound found of the worst clause; nothing for a query, whose cases have clauses of their own."""
    return () if question.spec is None else (number(float(question.spec.worst(result.lower[None]))),)


def verdict_text(result: Result) -> str:
    """The verdict, with its rigour where it is a proof."""
    name = result.verdict.name.lower()
    return f"{name} ({result.rigour.name.lower()})" if result.verdict is Verdict.VERIFIED else name
