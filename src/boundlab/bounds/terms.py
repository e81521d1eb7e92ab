"""Terms: inequalities about a node's value that hold at every point that is asked about, each with a multiplier of at least 0.

Rows less a multiplier times a function that is nowhere negative there are no larger there, so their least value bounds that of
the rows from below, whatever the multiplier is; zero is where an ascent begins. A split of a neuron is such an inequality (Wang
et al. 2021, beta-CROWN, Sec. 3.2), and so is what is assumed of the output (Kotha et al. 2023, INVPROP, Sec. 3).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Left, Passage, plus, through
from boundlab.bounds.groups import Lower
from boundlab.bounds.space import Range, Variables
from boundlab.graph import Node
from boundlab.maps import Dense, Rows

MULTIPLIER = "multiplier"
"""The name of the free variables of terms, beside those of a node's lines."""


class Term(Protocol):
    """k inequalities about one node's value, for each of n groups of rows."""

    @property
    def range(self) -> Range:
        """Where the multipliers (n, 1, k) may be."""
        ...

    def subtracted(self, rows: Tensor, multiplier: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, g, *shape) less multipliers (n, 1, k) times the functions, and the bias (n, 1) about the reference value."""
        ...


@dataclass(frozen=True)
class TermLower(Lower):
    """Lower bounds of the rows of groups at the points where the inequalities of some terms hold."""

    @property
    @abstractmethod
    def terms(self) -> Mapping[int, Term]:
        """The terms by the node that they are about."""

    @cached_property
    def ranges(self) -> dict[tuple[int, str], Range]:
        return super().ranges | {(index, MULTIPLIER): self.terms[index].range for index in sorted(self.terms)}

    def passing(self, variables: Variables) -> Callable[[Node], LinearBound | Passage]:
        relax = super().passing(variables)

        def constrained(node: Node) -> LinearBound | Passage:
            multiplier, step = self.multiplier(node, variables), relax(node)
            if multiplier is None:
                return step

            def passage(rows: Rows) -> Left:
                left, offset = self.less(node, rows, multiplier)
                pulled, bias = through(step, left)
                return pulled, plus(bias, offset)

            return passage

        return constrained

    def weighed(self, node: Node, rows: Rows, variables: Variables) -> Rows:
        multiplier = self.multiplier(node, variables)
        return rows if multiplier is None else self.less(node, rows, multiplier)[0]

    def multiplier(self, node: Node, variables: Variables) -> Tensor | None:
        """The multipliers of a node's term; None without one, which some of many groups may have had."""
        return variables.get(node.index, {}).get(MULTIPLIER) if node.index in self.terms else None

    def less(self, node: Node, rows: Rows, multiplier: Tensor) -> tuple[Rows, Tensor]:
        """Rows of a node less its term, and the bias (n, 1) that this leaves."""
        dense = rows.dense()
        dense = dense.expand(len(multiplier), *dense.shape[1:])
        left, bias = self.terms[node.index].subtracted(dense, multiplier, self.reference(node.index))
        return Dense(node.shape, None, left), bias
