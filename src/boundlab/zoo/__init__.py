"""The networks of the papers in plain torch, by name; nothing here knows of bounds."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from boundlab.errors import BoundlabError, ShapeError
from boundlab.zoo import convolutional, densenet, language, lipschitz, perceptron, residual
from boundlab.zoo.language import Worded
from boundlab.zoo.lipschitz import AOLConv2d, AOLLinear, MaxMin
from boundlab.zoo.record import Record, Shape, parameter_count

__all__ = ["NAMES", "RECORDS", "AOLConv2d", "AOLLinear", "MaxMin", "Record", "Worded", "build", "parameter_count", "record"]

FAMILIES = (convolutional, perceptron, residual, densenet, language, lipschitz)
RECORDS: Mapping[str, Record] = {record.name: record for family in FAMILIES for record in family.records()}
"""Every network by its name."""
NAMES: tuple[str, ...] = tuple(RECORDS)


class UnknownNetwork(BoundlabError):
    """The zoo has no network of that name."""


def record(name: str) -> Record:
    """What is known of the network `name`; UnknownNetwork lists the nearest names."""
    if name not in RECORDS:
        alike = [known for known in NAMES if known.split("-")[0] == name.split("-")[0]] or list(NAMES)
        raise UnknownNetwork(f"the zoo has no network '{name}'; near it are {', '.join(alike[:8])} (`boundlab zoo` lists all "
                             f"{len(NAMES)}).")
    return RECORDS[name]


def build(name: str, shape: Shape | None = None, classes: int | None = None) -> nn.Module:
    """The network `name` with new weights, in training mode, for inputs (b, *shape); left out, shape and classes are its own.

    ShapeError if the network does not fit the shape.
    """
    known = record(name)
    if classes is not None and classes < 1:
        raise ShapeError(f"a classifier needs at least one class, got {classes}.")
    return known.make(known.shape if shape is None else tuple(shape), known.classes if classes is None else classes)
