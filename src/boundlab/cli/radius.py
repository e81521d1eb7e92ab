"""boundlab radius: how far around each input the label is proven to stay, and where an attack changes it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import boundlab as bl
from boundlab.cli.answer import Answer
from boundlab.cli.loading import Clip, NetworkChoice, Norm, domain_of, load_examples, margins_of, norm_of, shape_in
from boundlab.cli.methods import NAMES, method_named
from boundlab.cli.verb import Misuse, Session
from boundlab.table import Table, number

Data = Annotated[Path, typer.Option(help="Inputs (batch, ...) in a .npy file, or as x (with labels y) in an .npz file.")]
Label = Annotated[list[int] | None, typer.Option(help="Class to keep, once for all inputs or once for each; else the file's "
                                                      "labels, else the network's own answers.")]
Targets = Annotated[str | None, typer.Option(help="Against one class at a time: random, runner-up, all, or a class; else "
                                                  "against all together.")]
MethodName = Annotated[str, typer.Option(help=f"One of {NAMES}.")]
Tolerance = Annotated[float, typer.Option(help="How close a proof and a failure must come, as a share of the radius.")]
AttackFlag = Annotated[bool, typer.Option(help="Search counterexamples beyond the proven radii.")]
Memory = Annotated[str | None, typer.Option(help="Memory to hold at once, such as 4GB; by default a quarter of what is free.")]


@dataclass(frozen=True)
class Growing:
    """Balls that grow around given inputs, and the labels to keep."""

    data: Data
    norm: Norm = "inf"
    clip: Clip = None
    label: Label = None
    targets: Targets = None


@dataclass(frozen=True)
class How:
    """How to prove, how closely, and whether to attack."""

    method: MethodName = "crown"
    tolerance: Tolerance = 0.01
    attack: AttackFlag = True
    memory: Memory = None


def radius(session: Session, network: NetworkChoice, growing: Growing, how: How = How()) -> Answer:
    """Find the largest ball around each input in which its label is proven to stay.

    Every radius was itself proven, and is printed rounded down. The attacked radius is the smallest at which a counterexample
    was found, rounded up.
    """
    method, family = methods_of(how), family_of(growing)
    model = network.load(session, like=lambda: shape_in(growing.data))
    examples = load_examples(growing.data, model, growing.label)
    outputs = bl.evaluate(model, {model.graph.inputs[0].name: examples.x})
    labels = examples.labels if examples.labels is not None else outputs.flatten(1).argmax(1)
    margins_of(model, labels)  # refuses outputs that are no logits, and labels that are no classes
    targets = None if growing.targets is None else targets_of(growing.targets, labels, outputs)
    started = time.perf_counter()
    with session.working(f"growing balls around {len(labels)} inputs by {how.method}"):
        found = bl.radius(model, examples.x, labels if targets is None else bl.Targeted(labels, targets), family=family,
                          method=method, search=search_of(how))
    data = {"network": network.net, "data": str(growing.data), "norm": growing.norm, "clip": growing.clip,
            "method": how.method, "tolerance": how.tolerance, "labels": labels, "targets": targets,
            "seconds": time.perf_counter() - started}
    return report(found, data, given=examples.labels is not None)


def methods_of(how: How) -> tuple[bl.Method, ...]:
    """The method that is named; CROWN before it where its bounds are never below CROWN's, which is cheaper."""
    method = method_named(how.method, how.memory)
    if isinstance(method, bl.Optimised | bl.Dual | bl.LP | bl.MILP):
        return method_named("crown", how.memory), method
    return (method,)


def search_of(how: How) -> bl.Search:
    """The search that the options ask for."""
    search = bl.Search(tolerance=how.tolerance)
    return search if how.attack else replace(search, attack=None)


def family_of(growing: Growing) -> bl.Family:
    """The balls that --norm and --clip name."""
    p = norm_of(growing.norm)
    return bl.balls(p, domain_of(growing.clip) if p == 0 else growing.clip)


def targets_of(text: str, labels: Tensor, outputs: Tensor) -> Tensor:
    """The classes that --targets names: (b,), or (b, classes - 1) for all; random ones are the same in every run."""
    count, classes = outputs.shape
    if text == "random":
        shift = torch.randint(1, classes, (count,), generator=torch.Generator().manual_seed(0)).to(labels.device)
        return (labels + shift) % classes
    if text == "all":
        return (labels[:, None] + torch.arange(1, classes, device=labels.device)) % classes
    if text == "runner-up":
        return outputs.scatter(1, labels[:, None], -torch.inf).argmax(1)
    if not text.isdigit() or int(text) >= classes:
        raise Misuse(f"--targets '{text}' is none of random, runner-up, all and the classes 0 to {classes - 1}.")
    same = (labels == int(text)).nonzero().flatten().tolist()
    if same:
        raise Misuse(f"--targets {text} is the label of input {same[0]} itself; choose another class, or runner-up.")
    return torch.full_like(labels, int(text))


def radius_rows(found: bl.Radius, labels: Tensor, targets: Tensor | None) -> Table:
    """Proven and attacked radii by example, or by example and target."""
    rows = []
    for place in torch.cartesian_prod(*map(torch.arange, found.proven.shape)).reshape(-1, found.proven.dim()).tolist():
        key = tuple(place)
        against = () if targets is None else (str(int(targets[key])),)
        attacked = rounded(found.attacked[key], ROUND_CEILING)
        gap = number(float(found.gap[key])) if torch.isfinite(found.gap[key]) else "-"
        rows.append((str(key[0]), str(int(labels[key[0]])), *against, rounded(found.proven[key], ROUND_FLOOR), attacked, gap))
    columns = ("input", "label", *(() if targets is None else ("target",)), "proven", "attacked", "gap")
    return Table(columns, rows, numbers=frozenset(columns))


def rounded(radius: Tensor, direction: str) -> str:
    """A radius with five digits, rounded so that what is printed holds as well; a dash where it is infinite."""
    value = float(radius)
    return f"{Context(prec=5, rounding=direction).create_decimal(value).normalize():g}" if math.isfinite(value) else "-"


def report(found: bl.Radius, data: dict[str, Any], given: bool) -> Answer:
    """The answer of `radius`: radii, and their means over the inputs that have the label at all."""
    rigour = found.rigour.name.lower()
    witnesses = [{"problem": key, "inputs": {name: value.squeeze(0) for name, value in witness.inputs.items()},
                  "output": witness.output.squeeze(0)} for key, witness in sorted(found.witnesses.items())]
    table = radius_rows(found, data["labels"], data["targets"])
    each = data["seconds"] / len(data["labels"])
    said = [f"mean proven radius {mean(found.proven[found.holds])}, by {data['method']}, norm {data['norm']}, "
            f"{each:.3f} s an input ({rigour})."]
    broken = found.holds & torch.isfinite(found.attacked)
    if bool(broken.any()):
        said += [f"counterexamples to {int(broken.sum())} of {found.holds.numel()}, at a mean radius of "
                 f"{mean(found.attacked[broken])}; their mean proven radius is {mean(found.proven[broken])}."]
    if not bool(found.holds.all()):
        said += [f"{int((~found.holds).sum())} of {found.holds.numel()} fail at the input itself; means leave them out."]
    if not given:
        said += ["no labels were given: the network's own answers are kept."]
    data |= {"rigour": rigour, "proven": found.proven, "attacked": found.attacked, "holds": found.holds,
             "evaluations": found.evaluations, "notes": found.notes, "witnesses": witnesses}
    return Answer(data, (table,), (*said, *found.notes))


def mean(radii: Tensor) -> str:
    """The mean for people; a dash of none."""
    return number(float(radii.double().mean())) if radii.numel() else "-"
