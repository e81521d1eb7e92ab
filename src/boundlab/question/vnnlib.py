"""VNN-LIB 1.0: text to Query and back. The file states the unsafe set, and decimals keep their exact value.

Grammar: SMT-LIB 2 s-expressions over real constants X_i (inputs) and Y_j (outputs); Demarchi et al. 2023, "Supporting
Standardization of Neural Networks Verification with VNNLIB and CoCoNet". Nearly all of a file is bounds of single
variables, which are cut out of the text in runs (`blocks`) and read by array operations; the rest is parsed as a tree.
"""

from __future__ import annotations

import gzip
import itertools
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from boundlab.errors import SpecError
from boundlab.question.exact import Atom, Case, Formula, Query
from boundlab.question.normal_form import Conjunct, Constraint, Disjunction, Linear, both, cases, checked_number, read_blocks
from boundlab.question.vnnlib2 import parse_statement

NUMBER = r"[-+]?(?:\d++\.?\d*+|\.\d++)(?:[eE][-+]?\d++)?"
BOUND = rf"\(\s*+[<>]=\s++[XY]_\d++\s++{NUMBER}\s*+\)"
COMMENT = re.compile(r";[^\n]*")
DECLARATION = re.compile(r"\(declare-const[ \t]+([XY]_\d+)[ \t]+Real[ \t]*\)")
# Atomic groups, and not "++" behind a group, which Python 3.11.0 to 3.11.4 takes for a match of what is cut off in its midst.
ASSERTIONS = re.compile(rf"(?>(?:\(assert\s*+{BOUND}\s*+\)\s*+)+)")
CONJUNCTION = re.compile(rf"\(\s*+and((?>(?:\s*+{BOUND})+))\s*+\)")
TOKEN = re.compile(r"\x00\d+|[()]|[^\s()\x00]+")
VARIABLE = re.compile(r"[XY]_\d+")
MOST_DEPTH = 100
"""Lists that may lie in each other before a text is refused; real properties have five."""
IGNORED = {"check-sat", "get-model", "set-logic", "set-info", "set-option", "exit"}


@dataclass(frozen=True)
class Word:
    """A symbol of the text and where it stands."""

    text: str
    place: int


Tree = Word | list["Tree"]


@dataclass
class Cutter:
    """Replaces runs of bounds by a mark and as many line breaks, and keeps what it cut out."""

    found: list[str] = field(default_factory=list)

    def __call__(self, match: re.Match[str]) -> str:
        """One run."""
        self.found.append(match[1] if match.re is CONJUNCTION else match[0].replace("assert", ""))
        mark = f" \x00{len(self.found) - 1} "
        return (mark if match.re is CONJUNCTION else f" (assert{mark})") + "\n" * match[0].count("\n")


def parse_vnnlib(source: str | Path) -> Query:
    """The query that a VNN-LIB file (a path, `.gz` too) or text states: 1.0, or 2.0 about one network.

    SpecError with line and symbol for what cannot be read, for inputs without bounds and for a query without any point.
    """
    text = COMMENT.sub("", read_text(source))
    if "\x00" in text:
        raise SpecError("the VNN-LIB text has a character of number 0, so it is damaged or binary.")
    if is_second(text):
        statement = parse_statement(text)
        if not statement.alone:
            raise SpecError("this VNN-LIB 2.0 text is about several networks, or values inside one, and one network with its "
                            "inputs and outputs was expected (see parse_statement).")
        return statement.query
    variables, cutter = DECLARATION.findall(text), Cutter()
    text = CONJUNCTION.sub(cutter, ASSERTIONS.sub(cutter, DECLARATION.sub("", text)))
    reader = Reader(text, {})
    trees = reader.trees()
    variables += [reader.declared(tree) for tree in trees if head(tree) in ("declare-const", "declare-fun")]
    reader.known.update({name: int(name[2:]) if name[0] == "X" else -1 - int(name[2:]) for name in variables})
    inputs, outputs = counted(reader.known)
    formula = [Conjunct()]
    for tree in trees:
        if head(tree) == "assert":
            formula = both(formula, reader.formula(argument(reader, tree), True))
        elif head(tree) not in ("declare-const", "declare-fun", *IGNORED):
            reader.refuse(tree, "is no command of VNN-LIB 1.0")
    return Query(inputs, outputs, tuple(cases(formula, read_blocks(cutter.found, reader.known), inputs, outputs)))


def is_second(text: str) -> bool:
    """Whether a text is VNN-LIB 2.0."""
    return "declare-network" in text or "vnnlib-version" in text


def read_text(source: str | Path) -> str:
    """The text itself, or what a file holds."""
    if isinstance(source, str) and ("(" in source or "\n" in source):
        return source
    path = Path(source)
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as problem:
        raise SpecError(f"'{path}' is no VNN-LIB text: it is damaged, cut off or binary ({problem}).") from problem


def head(tree: Tree) -> str:
    """The first symbol of a list, or nothing."""
    first = tree[0] if isinstance(tree, list) and tree else None
    return first.text if isinstance(first, Word) else ""


def argument(reader: Reader, tree: Tree) -> Tree:
    """The only argument of a command."""
    if not isinstance(tree, list) or len(tree) != 2:
        reader.refuse(tree, "takes exactly one argument")
    return tree[1]


def counted(known: Mapping[str, int]) -> tuple[int, int]:
    """Numbers of inputs and outputs; SpecError if a number is left out."""
    inputs, outputs = sorted(v for v in known.values() if v >= 0), sorted(-1 - v for v in known.values() if v < 0)
    for letter, found in (("X", inputs), ("Y", outputs)):
        if not found or found != list(range(len(found))):
            raise SpecError(f"variables {letter}_0, {letter}_1, ... must be declared without gaps, found {len(found)} of them.")
    return len(inputs), len(outputs)


@dataclass(frozen=True)
class Reader:
    """Trees of a text, and their meaning; `known` are the declared variables."""

    text: str
    known: dict[str, int]

    def refuse(self, tree: Tree, why: str) -> NoReturn:
        """SpecError with the line and symbol at which a tree starts."""
        word = tree
        while isinstance(word, list) and word:
            word = word[0]
        if isinstance(word, list):
            raise SpecError(f"the VNN-LIB text has an empty list '()' that {why}.")
        shown = "a list of bounds" if word.text.startswith("\x00") else f"'{word.text}'"
        raise SpecError(f"VNN-LIB line {self.text.count(chr(10), 0, word.place) + 1}: {shown} {why}.")

    def trees(self) -> list[Tree]:
        """The text's lists."""
        stack: list[list[Tree]] = [[]]
        for match in TOKEN.finditer(self.text):
            word = Word(match[0], match.start())
            if word.text == "(":
                stack.append([])
                if len(stack) > MOST_DEPTH:
                    self.refuse(word, f"opens more than {MOST_DEPTH} lists in each other")
            elif word.text != ")":
                stack[-1].append(word)
            elif len(stack) == 1:
                self.refuse(word, "closes nothing")
            else:
                done = stack.pop()
                stack[-1].append(done)
        if len(stack) > 1:
            self.refuse(stack[1], "starts a list that is never closed")
        return stack[0]

    def declared(self, tree: Tree) -> str:
        """The variable that a declaration declares."""
        assert isinstance(tree, list)
        name = tree[1] if len(tree) > 1 else tree
        if not isinstance(name, Word) or not VARIABLE.fullmatch(name.text):
            self.refuse(name, "is no variable: inputs are X_i, outputs Y_j")
        return name.text

    def formula(self, tree: Tree, positive: bool) -> Disjunction:
        """A formula, or its negation, in disjunctive normal form."""
        if isinstance(tree, Word) and tree.text.startswith("\x00"):
            if not positive:
                self.refuse(tree, "stands under 'not'; write the negation out")
            return [Conjunct(blocks=(int(tree.text[1:]),))]
        symbol = head(tree)
        parts = tree[1:] if isinstance(tree, list) else []
        if symbol == "not":
            return self.formula(argument(self, tree), not positive)
        if symbol in ("and", "or"):
            found = [self.formula(part, positive) for part in parts]
            if (symbol == "and") != positive:
                return [conjunct for disjunction in found for conjunct in disjunction]
            whole = [Conjunct()]
            for disjunction in found:
                whole = both(whole, disjunction)
            return whole
        if symbol not in ("<=", ">=", "<", ">", "="):
            self.refuse(tree, "stands where and, or, not, <=, >=, <, > or = is needed")
        if len(parts) < 2:
            self.refuse(tree, "needs two arguments to compare")
        return self.comparison(symbol, parts, positive)

    def comparison(self, symbol: str, parts: Sequence[Tree], positive: bool) -> Disjunction:
        """A chain of comparisons; an equation is two of them."""
        sides = [self.linear(part) for part in parts]
        found: list[Constraint] = []
        for left, right in itertools.pairwise(sides):
            difference = left.plus(right, Fraction(-1))
            if symbol in ("<=", "<", "="):
                found.append(Constraint(difference, symbol == "<"))
            if symbol in (">=", ">", "="):
                found.append(Constraint(difference.times(Fraction(-1)), symbol == ">"))
        if positive:
            return [Conjunct(constraints=tuple(found))]
        return [Conjunct(constraints=(Constraint(one.expression.times(Fraction(-1)), not one.strict),)) for one in found]

    def linear(self, tree: Tree) -> Linear:
        """A linear expression."""
        if isinstance(tree, Word):
            if tree.text in self.known:
                return Linear(((self.known[tree.text], Fraction(1)),), Fraction(0))
            if VARIABLE.fullmatch(tree.text):
                self.refuse(tree, "is not declared")
            if not re.fullmatch(NUMBER, tree.text):
                self.refuse(tree, "is neither a number nor a variable X_i or Y_j")
            if not math.isfinite(float(tree.text)):
                self.refuse(tree, "is too large for a float64")
            return Linear((), Fraction(checked_number(tree.text)))
        symbol = head(tree)
        if symbol not in ("+", "-", "*", "/") or len(tree) < 2:
            self.refuse(tree, "stands where +, -, * or / with its arguments is needed")
        first, *rest = [self.linear(part) for part in tree[1:]]
        if symbol == "-" and not rest:
            return first.times(Fraction(-1))
        for other in rest:
            first = self.combine(tree, first, other)
        return first

    def combine(self, tree: Tree, one: Linear, other: Linear) -> Linear:
        """Two expressions under one arithmetic symbol."""
        symbol = head(tree)
        if symbol in ("+", "-"):
            return one.plus(other, Fraction(1 if symbol == "+" else -1))
        if symbol == "*" and not one.terms:
            return other.times(one.constant)
        if other.terms or (symbol == "/" and other.constant == 0):
            self.refuse(tree, "makes an expression that is not linear")
        return one.times(other.constant if symbol == "*" else 1 / other.constant)


def write_vnnlib(query: Query) -> str:
    """VNN-LIB 1.0 text that `parse_vnnlib` reads as an equal query; SpecError for balls, which it cannot state."""
    if any(case.ball is not None for case in query.cases):
        raise SpecError("VNN-LIB 1.0 has linear constraints only, and the query has a ball; ask about its box instead.")
    lines = [f"(declare-const X_{index} Real)" for index in range(query.inputs)]
    lines += [f"(declare-const Y_{index} Real)" for index in range(query.outputs)]
    alone = len(query.cases) == 1
    lines += [f"(assert {bound})" for case in query.cases if alone for bound in box_text(case)]
    lines.append("(assert (or")
    for case in query.cases:
        bounds = "" if alone else " ".join(box_text(case)) + " "
        written = [" ".join(formula_text(part, query.outputs) for part in conjunct) for conjunct in case.unsafe]
        lines += [f"(and {bounds}{conjunct})" for conjunct in written]
    lines.append("))")
    return "\n".join(lines) + "\n"


def box_text(case: Case) -> list[str]:
    """The constraints on a case's inputs."""
    found = []
    for symbol, ends in ((">=", case.lower), ("<=", case.upper)):
        found += [f"({symbol} X_{index} {end_text(near, excess)})"
                  for index, (near, excess) in enumerate(zip(ends.nearest.tolist(), ends.excess.tolist(), strict=True))]
    return found + [formula_text(atom, 0) for atom in case.relations]


def formula_text(formula: Formula, outputs: int) -> str:
    """A formula whose values are the outputs and behind them the inputs."""
    if isinstance(formula, Atom):
        return atom_text(formula, outputs)
    return f"({'and' if formula.every else 'or'} {' '.join(formula_text(part, outputs) for part in formula.parts)})"


def end_text(near: float, excess: int) -> str:
    """A decimal with this nearest float64, on this side of it; exact where `excess` is 0."""
    with localcontext() as context:
        context.prec = 1100
        step = Decimal(math.nextafter(near, math.inf if excess > 0 else -math.inf)) - Decimal(near)
        return str(Decimal(near) + (step / 4 if excess else 0))


def number_text(number: Fraction) -> str:
    """A rational as a decimal where it has one, else as a quotient."""
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest > 1:
        return f"(/ {number.numerator} {number.denominator})"
    with localcontext() as context:
        context.prec = 1100
        return str(Decimal(number.numerator) / Decimal(number.denominator))


def atom_text(atom: Atom, outputs: int) -> str:
    """terms + constant <= 0, with the constant on the right."""
    symbol = "<" if atom.strict else "<="
    right = number_text(-atom.constant)
    named = [(f"Y_{index}" if index < outputs else f"X_{index - outputs}", weight) for index, weight in atom.terms]
    if len(named) == 1 and abs(named[0][1]) == 1:
        name, weight = named[0]
        if weight > 0:
            return f"({symbol} {name} {right})"
        return f"({symbol.replace('<', '>')} {name} {number_text(atom.constant)})"
    sums = " ".join(f"(* {number_text(weight)} {name})" for name, weight in named)
    return f"({symbol} (+ 0 {sums}) {right})" if sums else f"({symbol} 0 {right})"
