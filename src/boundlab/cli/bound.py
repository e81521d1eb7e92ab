"""boundlab bound: bounds of a network's outputs, or of its margins, over balls around given inputs."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import boundlab as bl
from boundlab.bounds.observe import Recorder
from boundlab.cli.answer import Answer
from boundlab.cli.loading import Clip, NetworkChoice, Norm, ball_of, load_examples, margins_of, quotient, shape_in
from boundlab.cli.methods import NAMES, method_named
from boundlab.cli.profile import profile_data, profile_table
from boundlab.cli.verb import Session
from boundlab.table import Table, above, below, number

Data = Annotated[Path, typer.Option(help="Inputs (batch, ...) in a .npy file, or as x (with labels y) in an .npz file.")]
Eps = Annotated[float, typer.Option(
    parser=quotient, metavar="<float>", help="Radius of the ball around each input; for norm 0, how many coordinates.")]
MethodName = Annotated[str, typer.Option(help=f"One of {NAMES}.")]
Label = Annotated[list[int] | None, typer.Option(help="Bound the margins of this class; once for all inputs or once for each.")]
Memory = Annotated[str | None, typer.Option(help="Memory to hold at once, such as 4GB; by default a quarter of what is free.")]
Profile = Annotated[bool, typer.Option("--profile", help="Show where time and memory went, by node.")]


@dataclass(frozen=True)
class Balls:
    """Balls around given inputs, with labels if margins are asked for."""

    data: Data
    eps: Eps
    norm: Norm = "inf"
    clip: Clip = None
    label: Label = None


def output_rows(bounds: bl.Bounds) -> Table:
    """Lower and upper bounds of every output."""
    assert bounds.upper is not None
    lower, upper = bounds.lower.flatten(1).tolist(), bounds.upper.flatten(1).tolist()
    places = list(itertools.product(*map(range, bounds.lower.shape[1:])))
    rows = [(str(example), ",".join(map(str, place)) or "0", below(low), above(high), above(high - low))
            for example, (lows, highs) in enumerate(zip(lower, upper, strict=True))
            for place, low, high in zip(places, lows, highs, strict=True)]
    columns = ("input", "output", "lower", "upper", "width")
    return Table(columns, rows, numbers=frozenset(columns))


def margin_rows(lower: torch.Tensor, labels: torch.Tensor) -> Table:
    """Lower bounds of the label's logit minus each other."""
    rows = []
    for example, (margins, label) in enumerate(zip(lower.tolist(), labels.tolist(), strict=True)):
        others = [place for place in range(len(margins) + 1) if place != label]
        rows += [(str(example), str(label), str(other), number(margin)) for other, margin in zip(others, margins, strict=True)]
    columns = ("input", "label", "other", "margin above")
    return Table(columns, rows, numbers=frozenset(columns))


def bound(session: Session, network: NetworkChoice, balls: Balls, method: MethodName = "crown", memory: Memory = None,
          profile: Profile = False) -> Answer:
    """Bound the outputs of a network, or with labels its margins, over a ball around each input."""
    how = method_named(method, memory)
    model = network.load(session, like=lambda: shape_in(balls.data))
    examples = load_examples(balls.data, model, balls.label)
    ball = ball_of(examples.x, balls.eps, balls.norm, balls.clip)
    spec = None if examples.labels is None else margins_of(model, examples.labels)
    recorder = Recorder(model.device) if profile else None
    started = time.perf_counter()
    with session.working(f"bounding {len(examples.x)} inputs by {method}"):
        bounds = bl.bound(model, ball, method=how, spec=spec, observe=recorder)
    seconds = time.perf_counter() - started
    answer = report(bounds, examples.labels, {
        "network": network.net, "data": str(balls.data), "method": method, "eps": balls.eps, "norm": balls.norm,
        "clip": balls.clip, "seconds": seconds})
    return answer if recorder is None else profiled(answer, recorder, seconds)


def profiled(answer: Answer, recorder: Recorder, seconds: float) -> Answer:
    """The answer with the profile as a further table."""
    profile = profile_data(recorder.steps, seconds)
    said = "memory: by how much a node raised the peak; 0 fits in what earlier nodes had held."
    return replace(answer, data={**answer.data, "profile": profile}, tables=(*answer.tables, profile_table(profile)),
                   sentences=(*answer.sentences, said))


def report(bounds: bl.Bounds, labels: torch.Tensor | None, data: dict[str, Any]) -> Answer:
    """The answer of `bound`: numbers, and what they amount to."""
    rigour = bounds.rigour.name.lower()
    data |= {"rigour": rigour, "lower": bounds.lower, "upper": bounds.upper}
    count = len(bounds.lower)
    ending = f"by {data['method']}, {data['norm']}-norm eps {data['eps']:g}, {data['seconds']:.2f} s ({rigour})."
    if labels is None:
        mean = float((bounds.upper - bounds.lower).double().mean()) if bounds.upper is not None else math.nan
        return Answer(data, (output_rows(bounds),), (f"{count} inputs, mean width {number(mean)}, {ending}",))
    verified = (bounds.lower > 0).all(1)
    data |= {"labels": labels, "verified": verified}
    said = f"{int(verified.sum())} of {count} inputs keep their label everywhere in the ball, {ending}"
    return Answer(data, (margin_rows(bounds.lower, labels),), (said,))
