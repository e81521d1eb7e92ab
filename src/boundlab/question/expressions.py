"""What a specification in Python is written with: linear expressions of inputs and outputs, and conditions on them.

Every number is kept as the exact rational that it is, floats included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np

from boundlab.errors import SpecError
from boundlab.question.exact import Atom, Formula
from boundlab.question.formula import joint, negated
from boundlab.question.normal_form import Linear

NOTHING = Linear((), Fraction(0))
BRACKETS = "put brackets around comparisons that '&', '|' or '~' joins, as in (y[0] > 1) & (y[1] > 2)"


def fraction(number: object) -> Fraction:
    """A number as the exact rational that it is; SpecError for what is no finite number."""
    if isinstance(number, (int, Fraction)) or (isinstance(number, (float, Decimal)) and math.isfinite(number)):
        return Fraction(number)
    raise SpecError(f"a specification needs finite numbers, got {number!r}.")


def constants(value: object) -> np.ndarray:
    """Numbers, or an array or tensor of them, as an array of linear expressions without variables."""
    if isinstance(value, (Fraction, Decimal, int, float)):
        plain: list[object] = [value]
        shape: tuple[int, ...] = ()
    else:
        try:
            array = np.asarray(value)
            plain, shape = array.reshape(-1).tolist(), array.shape
        except (RuntimeError, TypeError, ValueError) as problem:
            raise SpecError(f"a specification needs numbers, or arrays of them on the CPU without gradients, got a "
                            f"{type(value).__name__}: {problem}.") from problem
    return filled([Linear((), fraction(number)) for number in plain], shape)


def filled(items: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """An array of objects."""
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found.reshape(shape)


def total(entries: np.ndarray) -> Linear:
    """The sum of linear expressions."""
    terms: dict[int, Fraction] = {}
    constant = Fraction(0)
    for entry in entries.reshape(-1).tolist():
        constant += entry.constant
        for variable, weight in entry.terms:
            terms[variable] = terms.get(variable, Fraction(0)) + weight
    return Linear(tuple((variable, weight) for variable, weight in terms.items() if weight), constant)


def paired(function: Callable[[Linear, Linear], Linear], one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A function of two expressions over arrays that broadcast."""
    try:
        left, right = np.broadcast_arrays(one, other)
    except ValueError as problem:
        shapes = f"{list(one.shape[1:])} and {list(other.shape[1:])}"
        raise SpecError(f"expressions of shapes {shapes} do not fit together.") from problem
    found = [function(a, b) for a, b in zip(left.reshape(-1).tolist(), right.reshape(-1).tolist(), strict=True)]
    return filled(found, left.shape)


def product(one: Linear, other: Linear) -> Linear:
    """A product of which one factor is a number."""
    if one.terms and other.terms:
        raise SpecError("a product of two expressions that both read inputs or outputs is not linear, and specifications are: "
                        "let the network compute the product.")
    return other.times(one.constant) if not one.terms else one.times(other.constant)


@dataclass(frozen=True, eq=False)
class Expression:
    """Linear expressions of inputs and outputs, shaped as the tensor that they stand for, without the batch.

    `options` (k, *shape) are linear; with k > 1 an entry is the largest of its k options, or the smallest. Such an entry (from
    `abs`, `max` and `min`) may be moved, scaled and compared, but not be added to another of its kind.
    """

    options: np.ndarray
    largest: bool = True

    __array_ufunc__ = None  # numpy leaves operations with its arrays to the methods below
    __hash__ = None  # type: ignore[assignment]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, without the batch."""
        return self.options.shape[1:]

    def __repr__(self) -> str:
        return f"Expression(shape={list(self.shape)})"

    # -- entries -----------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Expression:
        places = index if isinstance(index, tuple) else (index,)
        try:
            found = self.options[(slice(None), *places)]
        except IndexError as problem:
            raise SpecError(f"an expression of shape {list(self.shape)} has no entries [{', '.join(map(str, places))}]: "
                            f"{problem}.") from problem
        return Expression(found, self.largest)

    def __len__(self) -> int:
        if not self.shape:
            raise SpecError("a single number has no entries to count.")
        return self.shape[0]

    def __iter__(self) -> Iterator[Expression]:
        return (self[place] for place in range(len(self)))

    def reshape(self, *shape: int) -> Expression:
        """The same entries in another shape."""
        try:
            return Expression(self.options.reshape(self.options.shape[0], *shape), self.largest)
        except ValueError as problem:
            raise SpecError(f"an expression of shape {list(self.shape)} does not fit the shape {list(shape)}.") from problem

    def flatten(self) -> Expression:
        """All entries in one axis."""
        return self.reshape(-1)

    # -- arithmetic --------------------------------------------------------------------------------------------------------

    def __add__(self, other: object) -> Expression:
        other = expression(other)
        if len(self.options) > 1 and len(other.options) > 1:
            raise SpecError("two absolute values, maxima or minima are added, subtracted or compared, and only one may be: "
                            "state it of each option, or let the network compute it.")
        kind = self if len(self.options) > 1 else other
        rank = max(len(self.shape), len(other.shape))
        return Expression(paired(Linear.plus, ranked(self.options, rank), ranked(other.options, rank)), kind.largest)

    def __neg__(self) -> Expression:
        return self * -1

    def __sub__(self, other: object) -> Expression:
        return self + -expression(other)

    def __rsub__(self, other: object) -> Expression:
        return -self + other

    def __mul__(self, other: object) -> Expression:
        other = expression(other)
        kind, factor = (self, other) if len(self.options) > 1 else (other, self)
        rank = max(len(self.shape), len(other.shape))
        found = paired(product, ranked(self.options, rank), ranked(other.options, rank))
        if len(kind.options) == 1:
            return Expression(found)
        factors = factor.options.reshape(-1).tolist()
        signs = {one.constant < 0 for one in factors if one.constant}
        if len(factor.options) > 1 or len(signs) > 1 or any(one.terms for one in factors):
            raise SpecError("an absolute value, maximum or minimum may be multiplied by numbers of one sign only.")
        return Expression(found, kind.largest is not (True in signs))

    def __truediv__(self, other: object) -> Expression:
        other = expression(other)
        divisors = other.options.reshape(-1).tolist()
        if any(one.terms or one.constant == 0 for one in divisors):
            raise SpecError("an expression is divided by 0, or by what reads inputs or outputs; specifications are linear.")
        return self * Expression(filled([Linear((), 1 / one.constant) for one in divisors], other.options.shape))

    def __rtruediv__(self, other: object) -> Expression:
        return expression(other) / self

    def __rmatmul__(self, other: object) -> Expression:
        """Numbers (..., k) times a vector (k,)."""
        return (self * expression(other)).sum(-1)

    __radd__ = __add__
    __rmul__ = __mul__

    def __pow__(self, other: object) -> NoReturn:
        raise SpecError("a power is not linear, and specifications are linear: let the network compute it.")

    def sum(self, axis: int | None = None) -> Expression:
        """The sum of all entries, or along an axis."""
        if len(self.options) > 1:
            raise SpecError("absolute values, maxima or minima cannot be summed up: let the network compute the sum.")
        entries = self.along(axis)
        flat = entries.reshape(-1, entries.shape[-1])
        return Expression(filled([total(row) for row in flat], entries.shape[:-1]))

    def mean(self, axis: int | None = None) -> Expression:
        """The mean of all entries, or along an axis."""
        return self.sum(axis) / (self.along(axis).shape[-1] or 1)

    def __abs__(self) -> Expression:
        if len(self.options) > 1:
            raise SpecError("the absolute value of an absolute value, maximum or minimum is not supported.")
        return Expression(np.concatenate([self.options, (-self).options]))

    def max(self) -> Expression:
        """The largest entry."""
        return self.extreme(True)

    def min(self) -> Expression:
        """The smallest entry."""
        return self.extreme(False)

    def extreme(self, largest: bool) -> Expression:
        """The largest or the smallest entry."""
        if len(self.options) > 1 and self.largest is not largest:
            raise SpecError("a maximum of minima, or a minimum of maxima, is not supported.")
        return Expression(self.options.reshape(-1), largest)

    def along(self, axis: int | None) -> np.ndarray:
        """The options with an axis (or all of them) moved to the end."""
        if axis is None:
            return self.options.reshape(len(self.options), -1)
        if not -len(self.shape) <= axis < len(self.shape):
            raise SpecError(f"an expression of shape {list(self.shape)} has no axis {axis}.")
        return np.moveaxis(self.options, axis % len(self.shape) + 1, -1)

    # -- comparisons -------------------------------------------------------------------------------------------------------

    def at_most(self, strict: bool) -> Condition:
        """Whether every entry is at most 0 (below 0 if `strict`)."""
        made = filled([Atom(one.terms, one.constant, strict) for one in self.options.reshape(-1).tolist()], self.options.shape)
        return Condition(tuple(joint(entry.tolist(), self.largest) for entry in made.reshape(len(made), -1).T))

    def __le__(self, other: object) -> Condition:
        return (self - other).at_most(False)

    def __lt__(self, other: object) -> Condition:
        return (self - other).at_most(True)

    def __ge__(self, other: object) -> Condition:
        return (-self + other).at_most(False)

    def __gt__(self, other: object) -> Condition:
        return (-self + other).at_most(True)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return each((self <= other, self >= other), True)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return each((self < other, self > other), False)

    def __bool__(self) -> NoReturn:
        raise SpecError("an expression has no truth value: compare it with something.")

    def __and__(self, other: object) -> NoReturn:
        raise SpecError(f"an expression is no comparison: {BRACKETS}.")

    __or__ = __rand__ = __ror__ = __and__

    def __invert__(self) -> NoReturn:
        raise SpecError(f"an expression is no comparison: {BRACKETS}.")


def ranked(options: np.ndarray, rank: int) -> np.ndarray:
    """Options with at least `rank` axes behind the first."""
    return options.reshape(len(options), *(1,) * (rank - options.ndim + 1), *options.shape[1:])


def expression(value: object) -> Expression:
    """An expression as it is, numbers as one."""
    if isinstance(value, Condition):
        raise SpecError(f"a comparison is no number: {BRACKETS}.")
    return value if isinstance(value, Expression) else Expression(constants(value)[None])


def variables(shape: tuple[int, ...], first: int) -> Expression:
    """The entries of a tensor, numbered from `first`."""
    count = math.prod(shape)
    return Expression(filled([Linear(((first + place, Fraction(1)),), Fraction(0)) for place in range(count)], (1, *shape)))


@dataclass(frozen=True)
class Condition:
    """Comparisons, all of which are to hold; `&`, `|` and `~` join them.

    A comparison of arrays is one of every entry. Under `|` and `~` that might mean all or any: these want `.all()` or `.any()`.
    """

    parts: tuple[Formula, ...]

    def all(self) -> Condition:
        """That every comparison holds."""
        return Condition((self.joined(True),))

    def any(self) -> Condition:
        """That some comparison holds."""
        return Condition((self.joined(False),))

    def joined(self, every: bool) -> Formula:
        """All of the comparisons as one formula, or some of them."""
        if not self.parts:
            raise SpecError("a comparison of arrays without entries says nothing.")
        return joint(self.parts, every)

    def single(self, symbol: str) -> Formula:
        """The only comparison."""
        if len(self.parts) != 1:
            raise SpecError(f"'{symbol}' stands at {len(self.parts)} comparisons at once: say .all() or .any() of them first.")
        return self.parts[0]

    def __and__(self, other: object) -> Condition:
        other = condition(other)
        if len(self.parts) == len(other.parts) == 1:
            return Condition((joint((*self.parts, *other.parts), True),))
        return Condition(self.parts + other.parts)

    def __or__(self, other: object) -> Condition:
        return Condition((joint((self.single("|"), condition(other).single("|")), False),))

    def __invert__(self) -> Condition:
        return Condition((negated(self.single("~")),))

    def __bool__(self) -> NoReturn:
        raise SpecError("a comparison is not true or false before the network is asked: write a & b for 'a and b', a | b for "
                        "'a or b', ~a for 'not a', and (a < b) & (b < c) for a < b < c.")


def each(sides: tuple[Condition, Condition], every: bool) -> Condition:
    """Two comparisons of the same entries, entry by entry."""
    return Condition(tuple(joint(pair, every) for pair in zip(*(side.parts for side in sides), strict=True)))


def condition(value: object) -> Condition:
    """A condition as it is; SpecError for anything else."""
    if not isinstance(value, Condition):
        raise SpecError(f"a comparison was needed, such as y[0] > y[1], and a {type(value).__name__} was found; {BRACKETS}.")
    return value
