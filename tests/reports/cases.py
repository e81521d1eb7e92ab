"""Certifications made by hand, of all kinds, without a network: the statuses of an example are nested over its radii."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from boundlab.bounds.losses import LayerLoss, Losses
from boundlab.bounds.problem import Rigour
from boundlab.certify.certification import Certification, Inputs, Settings
from boundlab.certify.explained import Explained, instructive
from boundlab.certify.record import Adversary, Finding, Record, Status

EVIL = "<script>alert('1')</script>\"&|`$x_1$"
"""What must not be taken for HTML, for Markdown or for mathematics."""
EPS = (0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Case:
    """What is on a page: so many examples with statuses of some kinds; `name` stands wherever users give text."""

    count: int = 12
    eps: tuple[float, ...] = EPS
    classes: int = 4
    shape: tuple[int, ...] = (1, 6, 5)
    kinds: tuple[Status, ...] = tuple(Status)
    name: str | None = None
    rigour: Rigour = Rigour.CHECKED
    p: float = np.inf


def certification(**how):
    """The certification of a case."""
    case = Case(**how)
    count, eps, classes, shape, name, rigour = case.count, case.eps, case.classes, case.shape, case.name, case.rigour
    chance, numbers = random.Random(count + len(eps)), np.random.default_rng(count)
    x = numbers.random((count, *shape), dtype=np.float32)
    records = []
    for index in range(count):
        label = chance.randrange(classes)
        for radius, status in zip(eps, row(chance, case.kinds, len(eps)), strict=True):
            finding = found(status, x[index], radius, (label + 1 + index % (classes - 1)) % classes, (classes, rigour, name))
            predicted = (label + 1) % classes if status is Status.MISCLASSIFIED else label
            records.append(Record(index, name, label, predicted, radius, finding))
    records.sort(key=lambda record: record.eps)
    text = name or "net.onnx"
    settings = Settings("ab" * 32, "cd" * 32, tuple(eps), case.p, (0.0, 1.0), ("IBP()", text), rigour.name.lower(), 5.0, None,
                        {"boundlab": "0", "machine": text}, text, text, text)
    most = instructive(records)
    layers = (LayerLoss(name or "relu1", "relu", 1000, 12, 0.25, 0.5),)
    explained = most and Explained(most.index, most.eps, (most.label + 1) % classes, Losses(-0.25, 0.5, layers))
    return Certification(settings, classes, tuple(records), 1.5, Inputs(dict(enumerate(x)), shape), explained)


def row(chance, kinds, count):
    """The statuses of an example: certified ones first, falsified ones last."""
    first = chance.choice(kinds)
    if first is Status.MISCLASSIFIED:
        return [first] * count
    order = [Status.CERTIFIED, Status.UNKNOWN, Status.FAILED, Status.FALSIFIED]
    usable = [one for one in order if one in kinds]
    return sorted((chance.choice(usable) for _ in range(count)), key=order.index)


def found(status, x, eps, other, how):
    """A finding of a status."""
    classes, rigour, name = how
    reason = name or "the time was over, 12 parts"
    if status is Status.CERTIFIED:
        return Finding(status, name or "CROWN", "", rigour, 0.25, 0.5)
    if status is Status.FALSIFIED:
        return Finding(status, "attack", seconds=0.5, adversary=Adversary((x + eps).astype(np.float32).clip(0, 1), other,
                                                                          np.eye(classes, dtype=np.float32)[other]))
    return Finding(status, "prediction" if status is Status.MISCLASSIFIED else "", seconds=1.0,
                   reason="" if status is Status.MISCLASSIFIED else reason)


CASES = {
    "of all kinds": {}, "one radius": {"eps": (0.1,)}, "one example": {"count": 1}, "many radii": {"eps": tuple(
        round(0.01 * place, 2) for place in range(1, 31))},
    "nothing certified": {"kinds": (Status.FALSIFIED, Status.UNKNOWN)}, "all certified": {"kinds": (Status.CERTIFIED,)},
    "all failed": {"kinds": (Status.FAILED,)}, "all misclassified": {"kinds": (Status.MISCLASSIFIED,)},
    "no picture": {"shape": (7,)}, "colours last": {"shape": (9, 8, 3)}, "colours": {"shape": (3, 9, 8)},
    "wide": {"shape": (300, 40)},
    "two classes": {"classes": 2}, "many classes": {"classes": 60, "count": 200}, "evil": {"name": EVIL},
    "evil, no picture": {"name": EVIL, "shape": (7,)}, "not proven": {"rigour": Rigour.FLOAT}, "Euclidean": {"p": 2.0},
    "radius 0": {"eps": (0.0,)}, "fractions": {"eps": tuple(place / 255 for place in range(1, 9))},
    "far apart": {"eps": (1e-6, 0.001, 0.5)},
}
