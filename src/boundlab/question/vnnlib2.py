"""VNN-LIB 2.0 through the `vnnlib` package: networks that a file declares, and its query. Decimals keep their exact value.

Grammar and types: VNN-LIB Standard 2.0 (https://www.vnnlib.org), "Query Language"; the package checks both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np

from boundlab.errors import MissingPackage, SpecError
from boundlab.question.exact import Atom, Formula, Query
from boundlab.question.formula import cases_of, joint
from boundlab.question.normal_form import MOST_DIGITS, NO_POINT, Linear, checked_number

TYPES = {"F32": "float32", "F64": "float64", "Unknown": "Real"}
"""Element types that boundlab takes, under the names of the package; Real says that any type will do."""
MOST_DEPTH = 100
"""Lists that may lie in each other; the package's parser calls itself for each."""
COMPARISONS = {
    "LessEqual": ((1, False),), "LessThan": ((1, True),), "GreaterEqual": ((-1, False),), "GreaterThan": ((-1, True),),
    "Equal": ((1, False), (-1, False)), "NotEqual": ((1, True), (-1, True)),
}
"""left - right times this sign is at most 0 (or below, if True): all of them, but for NotEqual one of them."""


@dataclass(frozen=True)
class Declared:
    """A tensor that a file declares: an input, an output, or a value inside, which `onnx` names."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    onnx: str = ""

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class DeclaredNetwork:
    """A network that a file declares; `same` is the network whose file it is, if it is declared equal to one."""

    name: str
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    hidden: tuple[Declared, ...]
    same: str | None = None


@dataclass(frozen=True)
class Statement:
    """What a file says: its networks, and a query about them side by side.

    The query's inputs are those of all networks in turn, without those that are equal to another one: these are in `shared`,
    by name. Its outputs are the outputs of all networks in turn, behind each network's outputs its values inside.
    """

    networks: tuple[DeclaredNetwork, ...]
    shared: Mapping[str, str]
    query: Query

    @property
    def alone(self) -> bool:
        """Whether it is about one network's inputs and outputs."""
        return len(self.networks) == 1 and not self.networks[0].hidden and not self.shared


def parse_statement(text: str) -> Statement:
    """What the text of a VNN-LIB 2.0 file says; SpecError for what is no such text, not linear, or without bounds."""
    vnnlib = package()
    check_depth(text)
    try:
        parsed = vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as problem:
        raise SpecError(f"VNN-LIB 2.0: {reason(str(problem))}.") from problem
    except (LookupError, ValueError, RuntimeError, MemoryError) as problem:  # what C++ throws, such as at numbers of any length
        raise SpecError(f"VNN-LIB 2.0: the package 'vnnlib' does not read the text: {problem}.") from problem
    networks = tuple(map(declared, parsed.networks))
    inputs = [tensor for network in networks for tensor in network.inputs]
    outputs = [tensor for network in networks for tensor in (*network.outputs, *network.hidden)]
    first = dict(zip((tensor.name for tensor in [*outputs, *inputs]),
                     np.cumsum([0, *(tensor.size for tensor in [*outputs, *inputs])]).tolist(), strict=False))
    reader = Reader(vnnlib, first)
    unsafe = joint([reader.formula(assertion.expr) for assertion in parsed.assertions], True)
    shared = equal_inputs(unsafe, networks, first)
    count = sum(tensor.size for tensor in outputs)
    if shared:
        unsafe = substituted(unsafe, places_after(inputs, shared, first))
    own = sum(tensor.size for tensor in inputs if tensor.name not in shared)
    cases = cases_of(unsafe, own, count)
    if not cases:
        raise SpecError(NO_POINT)
    return Statement(networks, shared, Query(own, count, cases))


def package() -> ModuleType:
    """The `vnnlib` package; MissingPackage if it is not installed."""
    try:
        import vnnlib
    except ImportError as problem:
        raise MissingPackage("reading VNN-LIB 2.0 needs the package 'vnnlib', which is not installed; "
                             "pip install 'boundlab[vnnlib]'.") from problem
    return vnnlib


def check_depth(text: str) -> None:
    """SpecError for lists nested so deeply that the package's parser would run out of stack."""
    brackets = np.frombuffer(text.encode(), np.uint8)
    depth = np.cumsum((brackets == ord("(")).astype(np.int64) - (brackets == ord(")")))
    if depth.size and depth.max() > MOST_DEPTH:
        raise SpecError(f"VNN-LIB 2.0: more than {MOST_DEPTH} lists lie in each other.")


def reason(text: str) -> str:
    """The package's message as words: it gives JSON where types are wrong."""
    try:
        errors = json.loads(text)["errors"]
        first = errors[0]
        return f"line {first['line']}: '{first['offendingSymbol']}': {first['message']}: {first['hint']}".rstrip(". ")
    except (ValueError, KeyError, IndexError, TypeError):
        return text.rstrip(". ")


def declared(network: Any) -> DeclaredNetwork:
    """A network's declaration as our record; SpecError for element types that boundlab does not take."""
    inputs, outputs, hidden = (tuple(map(tensor_of, tensors)) for tensors in (network.inputs, network.outputs, network.hidden))
    return DeclaredNetwork(network.name, inputs, outputs, hidden, network.equal_to or None)


def tensor_of(tensor: Any) -> Declared:
    """One declaration."""
    if tensor.dtype.name not in TYPES:
        raise SpecError(f"VNN-LIB 2.0: '{tensor.name}' has the element type {tensor.dtype.name}; boundlab takes float32, "
                        "float64 and Real.")
    named = tensor.onnx_name
    return Declared(tensor.name, TYPES[tensor.dtype.name], tuple(tensor.shape), json.loads(named) if named else "")


@dataclass(frozen=True)
class Reader:
    """The package's tree as formulas; `first` numbers each tensor's first entry."""

    vnnlib: ModuleType
    first: Mapping[str, int]

    def formula(self, tree: Any) -> Formula:
        """A condition."""
        if isinstance(tree, self.vnnlib.Connective):
            return joint([self.formula(part) for part in tree.args], isinstance(tree, self.vnnlib.And))
        kind = type(tree).__name__
        difference = self.linear(tree.lhs).plus(self.linear(tree.rhs), Fraction(-1))
        sides = [(difference.times(Fraction(sign)), strict) for sign, strict in COMPARISONS[kind]]
        return joint([Atom(side.terms, side.constant, strict) for side, strict in sides], kind != "NotEqual")

    def linear(self, tree: Any) -> Linear:
        """An arithmetic expression."""
        kind = type(tree)
        if kind is self.vnnlib.Var:
            place = int(np.ravel_multi_index(tree.indices, tree.shape)) if tree.indices else 0
            return Linear(((self.first[tree.name] + place, Fraction(1)),), Fraction(0))
        if isinstance(tree, self.vnnlib.Literal):
            return Linear((), Fraction(checked_number(tree.lexeme)))
        if kind is self.vnnlib.Negate:
            return self.linear(tree.expr).times(Fraction(-1))
        if kind is self.vnnlib.Minus:
            return self.total(self.linear(tree.head), tree.rest, Fraction(-1))
        if kind is self.vnnlib.Plus:
            return self.total(Linear((), Fraction(0)), tree.args, Fraction(1))
        return self.product(tree)

    def total(self, start: Linear, parts: Sequence[Any], sign: Fraction) -> Linear:
        """An expression with others added (sign 1) or taken away (-1)."""
        for part in parts:
            start = start.plus(self.linear(part), sign)
        return start

    def product(self, tree: Any) -> Linear:
        """A product of which one factor at most reads variables."""
        found = Linear((), Fraction(1))
        for part in map(self.linear, tree.args):
            if found.terms and part.terms:
                raise SpecError(f"VNN-LIB 2.0: the product {str(tree)[:80]} is not linear, and constraints have to be.")
            found = part.times(found.constant) if not found.terms else found.times(part.constant)
        if abs(found.constant) > 10 ** MOST_DIGITS:
            raise SpecError(f"VNN-LIB 2.0: the product {str(tree)[:80]} is too large.")
        return found


def equal_inputs(unsafe: Formula, networks: Sequence[DeclaredNetwork], first: Mapping[str, int]) -> dict[str, str]:
    """Inputs that are asserted to be equal, entry by entry, to one of an earlier network, {later: the first of its equals}."""
    parts = [unsafe] if isinstance(unsafe, Atom) else unsafe.parts if unsafe.every else []
    said = {differs for part in parts if (differs := difference(part)) is not None}
    found: dict[str, str] = {}
    earlier: list[Declared] = []
    for network in networks:
        for one in network.inputs:
            taken = {found.get(other.name) for other in network.inputs}
            for other in earlier:
                pairs = [(first[other.name] + entry, first[one.name] + entry) for entry in range(one.size)]
                alike = (other.shape, other.dtype) == (one.shape, one.dtype)
                origin = found.get(other.name, other.name)
                if alike and origin not in taken and all({(a, b), (b, a)} <= said for a, b in pairs):
                    found[one.name] = origin
                    break
        earlier += network.inputs
    return found


def difference(part: Formula) -> tuple[int, int] | None:
    """The variables (a, b) of a constraint a <= b."""
    if isinstance(part, Atom) and part.constant == 0 and not part.strict and len(part.terms) == 2:
        (one, weight), (other, opposite) = part.terms
        if weight == -opposite:
            return (one, other) if weight > 0 else (other, one)
    return None


def places_after(inputs: Sequence[Declared], shared: Mapping[str, str], first: Mapping[str, int]) -> dict[int, int]:
    """Where each input's entry is numbered once shared inputs are one."""
    start: dict[str, int] = {}
    following = first[inputs[0].name]
    for tensor in inputs:
        if tensor.name not in shared:
            start[tensor.name] = following
            following += tensor.size
    return {first[tensor.name] + entry: start[shared.get(tensor.name, tensor.name)] + entry
            for tensor in inputs for entry in range(tensor.size)}


def substituted(formula: Formula, places: Mapping[int, int]) -> Formula:
    """A formula with variables under other numbers, where an and has lost what has become true by that."""
    if isinstance(formula, Atom):
        total: dict[int, Fraction] = {}
        for index, weight in formula.terms:
            place = places.get(index, index)
            total[place] = total.get(place, Fraction(0)) + weight
        return Atom(tuple((place, weight) for place, weight in total.items() if weight), formula.constant, formula.strict)
    parts = [substituted(part, places) for part in formula.parts]
    if formula.every:
        parts = [part for part in parts if not (isinstance(part, Atom) and not part.terms and part.holds(()))] or parts[:1]
    return joint(parts, formula.every)
