"""What certificates call the values of a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Argument:
    """A varying argument of a nonlinear operator; with number 0 an input of the network, or the value of a linear operator.

    `step` is the name of the operator's ONNX output tensor, or of the ONNX input; `number` counts varying arguments.
    """

    step: str
    number: int = 0
