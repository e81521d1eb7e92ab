"""Building a `Network`: values of the file's tensors, affine and nonlinear steps, and moves of entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from scipy.sparse import csr_array

from boundlab.certificates.functions import Function
from boundlab.certificates.network import Affine, Linear, Nonlinear, Range, Step, matrix_of
from boundlab.certificates.rounding import TINY, UNIT
from boundlab.errors import CertificateError

SMALLEST = 2.0**-900
"""Computed coefficients may not be smaller than this, or underflow would spoil their relative error."""


@dataclass(frozen=True)
class Varying:
    """A tensor that depends on the inputs: the step that computes its entries, in flat order, and its shape with the batch."""

    step: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


Value = Varying | np.ndarray


@dataclass(frozen=True)
class Operator:
    """A node of the file: its inputs' values (None where left out) and its attributes."""

    proto: onnx.NodeProto
    inputs: tuple[Value | None, ...]
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of its first output tensor."""
        return str(self.proto.output[0])

    def refuse(self, why: str) -> NoReturn:
        """CertificateError that names the node."""
        raise CertificateError(f"the checker does not know {self.proto.op_type} {why} (node '{self.name}').")

    def varying(self, place: int) -> Varying:
        """An input that has to depend on the network's inputs."""
        found = self.inputs[place] if place < len(self.inputs) else None
        if not isinstance(found, Varying):
            self.refuse(f"with a constant input {place}")
        return found

    def constant(self, place: int) -> np.ndarray | None:
        """An input that must not depend on the network's inputs; None if it is left out."""
        found = self.inputs[place] if place < len(self.inputs) else None
        if isinstance(found, Varying):
            self.refuse(f"with an input {place} that depends on the network's inputs")
        return found

    def needed(self, place: int) -> np.ndarray:
        """A constant input that may not be left out."""
        found = self.constant(place)
        if found is None:
            self.refuse(f"without its input {place}")
        return found


@dataclass
class Builder:
    """The steps so far, and the operator sets that the file uses.

    `close` are steps whose intervals follow closely from those of earlier ones, so that it does not pay to derive better ones.
    """

    opsets: dict[str, int]
    steps: list[Step] = field(default_factory=list)
    close: set[int] = field(default_factory=set)

    def add(self, step: Step, shape: Sequence[int]) -> Varying:
        """A step, as the tensor that it computes."""
        self.steps.append(step)
        return Varying(len(self.steps) - 1, tuple(shape))

    def affine(self, name: str, parts: Sequence[tuple[Varying, Linear]], bias: np.ndarray | float, shape: Sequence[int],
               slack: np.ndarray | float = 0.0, scale: np.ndarray | float | None = None) -> Varying:
        """sum of matrix @ value + bias; the bias is wrong by at most `slack`, its terms have the absolute sum `scale`."""
        size = math.prod(shape)
        bias, slack, scale = (np.broadcast_to(np.asarray(part, dtype=np.float64), (size,)) for part in
                              (bias, slack, np.abs(bias) if scale is None else scale))
        arguments, matrices = tuple(value.step for value, _ in parts), tuple(matrix for _, matrix in parts)
        return self.add(Affine(name, size, arguments, matrices, bias, slack, scale), shape)

    def nonlinear(self, name: str, arguments: Sequence[Varying], function: Function, shape: Sequence[int],
                  asks: Sequence[Varying] | None = None) -> Varying:
        """A function of arguments that all have the same number of entries, for whose lines intervals of `asks` are derived."""
        asked = None if asks is None else tuple(one.step for one in asks)
        return self.add(Nonlinear(name, math.prod(shape), tuple(one.step for one in arguments), function, asked), shape)

    def narrow(self, value: Varying, range_: Range) -> None:
        """Says what more is known of the range of an affine step than its intervals tell."""
        step = self.steps[value.step]
        assert isinstance(step, Affine)
        self.steps[value.step] = replace(step, range=range_)

    def scaled(self, name: str, value: Varying, factor: np.ndarray, bias: np.ndarray | float, operations: int = 0) -> Varying:
        """factor * value + bias with broadcasting; `operations` roundings went into the factor."""
        shape = np.broadcast_shapes(value.shape, factor.shape, np.shape(bias))
        part = (value, matrix_of(entries(places(value, shape), factor, value.size), operations))
        return self.affine(name, [part], np.broadcast_to(bias, shape).reshape(-1), shape)

    def shifted(self, value: Varying, shape: tuple[int, ...], shift: np.ndarray) -> Varying | None:
        """value + shift as a step of its own beside the affine one that computes the value; None if that has a bias already."""
        step = self.steps[value.step]
        if not isinstance(step, Affine) or step.bias.any() or step.slack.any() or value.size != math.prod(shape):
            return None
        spread = np.broadcast_to(shift, shape).reshape(-1)
        # What is known of the value's range is not true of the sum.
        return self.add(replace(step, bias=spread, scale=np.abs(spread), range=None), shape)

    def total(self, name: str, terms: Sequence[tuple[Value, float]]) -> Varying:
        """The sum of tensors times 1 or -1, with broadcasting."""
        shape = np.broadcast_shapes(*(term.shape for term, _ in terms))
        bias, slack, scale = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        parts: dict[tuple[int, int], tuple[Varying, csr_array]] = {}
        for number, (term, sign) in enumerate(terms):
            if isinstance(term, Varying):
                matrix = entries(places(term, shape), np.array(sign), term.size)
                # Of several terms those that are the same may cancel only in the end, when rounding has happened.
                key = term.step, number if len(terms) > 2 else 0
                known = parts.get(key)
                parts[key] = (term, matrix if known is None else known[1] + matrix)
            else:
                bias, scale = bias + sign * term, scale + np.abs(term)
                slack = slack + (UNIT * np.abs(bias) if len(terms) - len(parts) > 1 else 0)
        varying = [(term, sign) for term, sign in terms if isinstance(term, Varying)]
        if len(terms) == 2 and len(varying) == 1 and varying[0][1] == 1:  # a tensor and a constant
            found = self.shifted(varying[0][0], shape, bias)
            if found is not None and not slack.any():
                return found
        return self.affine(name, [(term, matrix_of(matrix)) for term, matrix in parts.values()], bias.reshape(-1), shape,
                           2 * slack.reshape(-1), scale.reshape(-1))

    def broadcast(self, name: str, value: Varying, shape: tuple[int, ...]) -> Varying:
        """A tensor with its entries repeated to a shape."""
        if value.size == math.prod(shape):
            return Varying(value.step, shape)
        return self.scaled(f"{name}:expand", value, np.ones(shape), 0.0)


def places(value: Varying, shape: Sequence[int]) -> np.ndarray:
    """The flat index of the entry that each entry of a broadcast tensor is."""
    return np.broadcast_to(np.arange(value.size).reshape(value.shape), shape)


def entries(chosen: np.ndarray, factor: np.ndarray, size: int) -> csr_array:
    """The matrix (out, size) of y = factor * x[chosen]."""
    data = np.broadcast_to(np.asarray(factor, dtype=np.float64), chosen.shape).reshape(-1)
    return csr_array((data.copy(), chosen.reshape(-1), np.arange(chosen.size + 1)), shape=(chosen.size, size))


def evaluate(operator: Operator, feeds: Sequence[np.ndarray | None], opsets: dict[str, int]) -> list[np.ndarray]:
    """The outputs of a node for constants, by ONNX's reference implementation."""
    named = {name: value for name, value in zip(operator.proto.input, feeds, strict=True) if value is not None}
    inputs, outputs = ([onnx.helper.make_empty_tensor_value_info(name) for name in names if name]
                       for names in (dict.fromkeys(operator.proto.input), operator.proto.output))
    versions = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    # A whole model, because a lone node is evaluated as the newest operator set has it.
    model = onnx.helper.make_model(onnx.helper.make_graph([operator.proto], "node", inputs, outputs),
                                   opset_imports=versions)
    try:
        found = ReferenceEvaluator(model).run(None, named)
    except Exception as problem:  # the reference implementation raises many kinds
        raise CertificateError(f"the checker cannot evaluate {operator.proto.op_type} (node '{operator.name}'): "
                               f"{problem}.") from problem
    return [np.asarray(value) for value in found]


def moved(builder: Builder, operator: Operator, data: Sequence[int]) -> list[Value]:
    """A node that only moves entries of its inputs `data`: it is run on their numbers (from 1; 0 is a filled-in zero)."""
    labels, feeds, start = [], list(operator.inputs), 1
    for place in data:
        value = operator.inputs[place] if place < len(operator.inputs) else None
        if value is None:
            continue
        size = value.size
        labels.append((value, start))
        feeds[place] = np.arange(start, start + size, dtype=np.int64).reshape(value.shape)
        start += size
    fixed = [operator.constant(place) if place not in data else feed for place, feed in enumerate(feeds)]
    chosen = evaluate(operator, fixed, builder.opsets)  # type: ignore[arg-type]
    return [selected(builder, str(name), labels, numbers) for name, numbers in zip(operator.proto.output, chosen, strict=False)]


def selected(builder: Builder, name: str, labels: Sequence[tuple[Value, int]], numbers: np.ndarray) -> Value:
    """The tensor whose entries are those that the numbers say."""
    flat, bias, parts = numbers.reshape(-1), np.zeros(numbers.size), []
    for value, start in labels:
        inside = np.flatnonzero((flat >= start) & (flat < start + value.size))
        if isinstance(value, Varying):
            whole = len(inside) == value.size == flat.size
            if whole and (flat == np.arange(start, start + value.size)).all():
                return Varying(value.step, numbers.shape)
            if len(inside):
                matrix = csr_array((np.ones(len(inside)), (inside, flat[inside] - start)), shape=(flat.size, value.size))
                parts.append((value, matrix_of(matrix)))
        else:
            bias[inside] = exact(value).reshape(-1)[flat[inside] - start]
    if not parts:
        return bias.reshape(numbers.shape)
    return builder.affine(name, parts, bias, numbers.shape)


def exact(array: np.ndarray) -> np.ndarray:
    """A constant of the file as float64; CertificateError unless its entries are finite."""
    found = np.asarray(array, dtype=np.float64)
    if not np.isfinite(found).all():
        raise CertificateError("the network has a constant with entries that are not finite.")
    return found


def computed(operator: Operator, array: np.ndarray) -> np.ndarray:
    """Coefficients that were computed, after a look for underflow and for numbers that are not finite."""
    size = np.abs(array[array != 0])
    if not np.isfinite(array).all() or (size.size and float(size.min()) < SMALLEST):
        operator.refuse("with coefficients that are too small, too large or not numbers")
    return array


def slack_of(scale: np.ndarray, operations: int) -> np.ndarray:
    """The error of a bias that so many operations on numbers of size `scale` made."""
    return 1.01 * operations * UNIT * scale + TINY
