"""The most instructive example of a certified data set: where, layer by layer, the bound of its least margin is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boundlab.bounds.losses import LayerLoss, Losses, losses
from boundlab.bounds.methods import CROWN, bound
from boundlab.certify.limits import limited
from boundlab.certify.plan import Plan
from boundlab.certify.record import Record, Status
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.spec import Specification, margins


@dataclass(frozen=True)
class Explained:
    """An example at a radius, the class `other` that comes closest to its label by CROWN's bound, and where that is lost."""

    index: int
    eps: float
    other: int
    losses: Losses


def instructive(records: Sequence[Record]) -> Record | None:
    """The open question of the smallest radius that is nearest to a proof; where none is open, the barest proof; if any.

    Of an example it is the largest certified radius that counts.
    """
    waiting = [record for record in records if record.status is Status.UNKNOWN]
    if waiting:
        return min(waiting, key=lambda record: (record.eps, -record.finding.margin, record.index))
    furthest = {record.index: record for record in records if record.status is Status.CERTIFIED}  # radii ascend
    return min(furthest.values(), key=lambda record: (record.finding.margin, record.index), default=None)


def explained(model: Model, x: Tensor, records: Sequence[Record], plan: Plan) -> Explained | None:
    """The most instructive of some examples x (n, *shape) explained; None where there is none, or limits do not allow it."""
    record = instructive(records)
    if record is None:
        return None
    try:
        with limited(plan.timeout, plan.most_memory):
            found = explain(model, x[record.index:record.index + 1], record, plan)
    except Exception:  # what only explains a result never takes it away
        return None
    return found if math.isfinite(found.losses.bound) and math.isfinite(found.losses.value) else None


def explain(model: Model, x: Tensor, record: Record, plan: Plan) -> Explained:
    """Where the least bound of the margins of one example is lost."""
    ball = LpBall(x.to(model.device), record.eps, plan.p, plan.clip)
    label = torch.tensor([record.label], device=model.device)
    spec = margins(label, model.graph.output.shape[0], model.dtype)
    place = int(bound(model, ball, method=CROWN(), spec=spec).lower[0].argmin())
    rows = spec.rows[:, place:place + 1]
    row = Specification(rows, spec.offset[:, place:place + 1], torch.zeros_like(spec.clause[:1]))
    return Explained(record.index, record.eps, int(rows[0, 0].argmin()), losses(model, ball, row))


def explained_of(held: Mapping[str, Any] | None) -> Explained | None:
    """What `asdict` has made of it; KeyError and TypeError for anything else."""
    if held is None:
        return None
    layers = tuple(LayerLoss(**one) for one in held["losses"]["layers"])
    return replace(Explained(**held), losses=Losses(**(held["losses"] | {"layers": layers})))
