"""Rows in groups that share free variables, each group a problem of its own: what an ascent climbs on.

A group is made of rows of one example: neurons of a node with one sign, or rows of a specification. It reads the intervals of
its example (its `owner`), and has lines of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from boundlab.affine import LinearBound
from boundlab.bounds.backward import Env, Left, Passage, Pulled, backward, concretize, plus, through
from boundlab.bounds.climb import Objective
from boundlab.bounds.intermediate import fed_by_inputs, is_affine, read_by, relaxer
from boundlab.bounds.problem import Problem
from boundlab.bounds.reference import Reference, around, reference
from boundlab.bounds.space import Family, Lines, Multipliers, Named, Prepare, Range, Space, Variables, View, free_node
from boundlab.bounds.thin import thinned
from boundlab.graph import Node
from boundlab.interval import Interval
from boundlab.maps import Dense, Rows, Select, at_owner, flat


@dataclass(frozen=True)
class Ground:
    """What groups have in common: a problem, its intervals, plain lines about references, and a space of other lines."""

    problem: Problem
    env: Env
    about: Reference
    space: Space
    made: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)

    @cached_property
    def read(self) -> set[int]:
        """Nodes whose intervals a relaxation that is not exact reads."""
        nodes = [node for node in self.problem.model.graph if node.index in self.env and not node.source]
        return {arg for node in nodes if not is_affine(node, self.env) for arg in node.args}

    def beside(self, owner: Tensor) -> Env:
        """The environment as groups with owners (n,) read it: intervals that lines are made of, one for each group.

        What all examples share stays shared.
        """
        fed = fed_by_inputs(self.problem.model.graph)

        def laid(index: int, value: Tensor | Interval) -> Tensor | Interval:
            if isinstance(value, Tensor):
                return at_owner(value, owner)
            if index not in self.read or index not in fed:
                return value
            return value.at(owner)

        return {index: laid(index, value) for index, value in self.env.items()}


def ground_of(problem: Problem, env: Env, space: Space) -> Ground:
    """The ground of a problem on some intervals."""
    return Ground(problem, env, reference(problem.model.graph, env, relaxer(env)), space)


@dataclass(frozen=True)
class Groups:
    """n groups of `size` rows of the node `target`: the `owner` (n,) of each, and a function that gives the rows of some."""

    target: int
    size: int
    owner: Tensor
    rows: Callable[[Tensor], Rows]

    def take(self, index: Tensor) -> Groups:
        """The groups `index` (m,) alone."""
        return Groups(self.target, self.size, self.owner[index], lambda places: self.rows(index[places]))


@dataclass(frozen=True)
class Lower(Objective, View):
    """Lower bounds of the rows of groups, by lines with their free variables."""

    ground: Ground
    groups: Groups

    def take(self, index: Tensor) -> Lower:
        return Lower(self.ground, self.groups.take(index))

    @cached_property
    def env(self) -> Env:
        """The intervals as these groups read them."""
        return self.ground.beside(self.groups.owner)

    @property
    def top(self) -> int:
        """The node at which rows begin to go back."""
        return self.groups.target

    @property
    def begin(self) -> Rows:
        """The rows with which they begin there."""
        return self.rows

    @cached_property
    def families(self) -> dict[int, Family]:
        """What is free at the node where rows begin and at every node that its value depends on: rows reach no other."""
        graph, space = self.ground.problem.model.graph, self.ground.space
        behind = read_by(graph, self.top)
        found = ((node.index, space.family(node, self)) for node in graph if node.index in behind)
        return {index: family for index, family in found if family is not None}

    def arrived(self, node: Node) -> Tensor:
        return self.plain_rows[node.index]

    def prepared(self, node: Node, prepare: Prepare) -> tuple[Tensor, ...]:
        made = self.ground.made
        if node.index not in made:
            made[node.index] = prepare(node, self.ground.env)
        return tuple(at_owner(value, self.groups.owner) for value in made[node.index])

    @cached_property
    def plain_rows(self) -> dict[int, Tensor]:
        """The rows that reach every node by plain lines, (n, g, *shape)."""
        return self.arriving({})

    def arriving(self, variables: Variables) -> dict[int, Tensor]:
        """The rows that reach every node, (n, g, *shape)."""
        found: dict[int, Tensor] = {}
        passing = self.passing(variables)

        def noting(node: Node) -> Passage:
            def note(rows: Rows) -> Left:
                found[node.index] = rows.dense()
                return through(passing(node), rows)

            return note

        backward(self.ground.problem.model.graph, self.env, noting, self.top, self.begin)
        return found

    def meeting(self, variables: Variables) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """The rows that reach every node (n, g, *shape), and the values of the nodes at which these lines take the least value.

        A value is how the least value of the rows grows with the coefficient: (n, g, *shape), too.
        """
        arrived: dict[int, Tensor] = {}
        probes: dict[int, Tensor] = {}
        passing = self.passing(variables)

        def noting(node: Node) -> Passage:
            def note(rows: Rows) -> Left:
                dense = rows.dense()
                arrived[node.index] = dense.detach()
                probes[node.index] = dense.new_zeros(len(self.groups.owner), *dense.shape[1:]).requires_grad_()
                return through(passing(node), Dense(node.shape, None, dense + probes[node.index]))

            return note

        with torch.enable_grad():
            pulled = backward(self.ground.problem.model.graph, self.env, noting, self.top, self.begin)
            lower = self.concretized(pulled).sum()
        found = torch.autograd.grad(lower, list(probes.values()), materialize_grads=True)
        return arrived, {index: value + self.reference(index).unsqueeze(1) for index, value in zip(probes, found, strict=True)}

    def slopes(self, variables: Variables) -> dict[int, list[Tensor]]:
        """The slopes by which rows pass functions of single coordinates: of each such node those of its perturbed arguments.

        (n, g, *shape) each, NaN where no row arrives. With the intercepts that are best for them they give the same bounds.
        """
        found: dict[int, list[Tensor]] = {}
        passing = self.passing(variables)

        def noting(node: Node) -> Passage:
            step = passing(node)

            def note(rows: Rows) -> Left:
                left = through(step, rows)
                if free_node(node, self.env) and self.fixed(node).elementwise:
                    arrived = self.weighed(node, rows, variables).dense()
                    found[node.index] = [part.dense() / torch.where(arrived == 0, math.nan, arrived) for part in left[0]]
                return left

            return note

        backward(self.ground.problem.model.graph, self.env, noting, self.top, self.begin)
        return found

    def weighed(self, node: Node, rows: Rows, variables: Variables) -> Rows:
        """What rows that arrive at a node are before they pass it."""
        return rows

    @cached_property
    def ranges(self) -> dict[tuple[int, str], Range]:
        return {(index, name): free for index, family in self.families.items() for name, free in family.free.items()}

    @cached_property
    def rows(self) -> Rows:
        """The rows themselves, (n, g, *shape)."""
        return self.groups.rows(torch.arange(len(self.groups.owner), device=self.groups.owner.device))

    @cached_property
    def fixed(self) -> Callable[[Node], LinearBound]:
        """Plain lines about references, each made once."""
        relax = thinned(self.env, relaxer(self.env))
        made: dict[int, LinearBound] = {}

        @torch.no_grad()
        def relax_about(node: Node) -> LinearBound:
            if node.index not in made:
                made[node.index] = self.about(node, relax(node))
            return made[node.index]

        return relax_about

    def reference(self, index: int) -> Tensor:
        """The reference value of a node, (n or 1, *shape)."""
        return at_owner(self.ground.about.value(index), self.groups.owner)

    def about(self, node: Node, bound: LinearBound) -> LinearBound:
        """Lines between distances from reference values."""
        arguments = [] if bound.exact else [self.reference(arg) for arg in node.args if isinstance(self.env[arg], Interval)]
        return around(bound, arguments, self.reference(node.index))

    @cached_property
    def middle(self) -> Tensor:
        """The rows at the reference value, (n, g)."""
        return self.rows.dot(self.reference(self.groups.target).unsqueeze(1))

    def at(self, variables: Variables) -> Tensor:
        return self.concretized(self.pulled(variables))

    def pulled(self, variables: Variables) -> Pulled:
        """The rows at the sources."""
        return backward(self.ground.problem.model.graph, self.env, self.passing(variables), self.top, self.begin)

    def passing(self, variables: Variables) -> Callable[[Node], LinearBound | Passage]:
        """How rows pass a node: by the lines, or the family, at its free variables."""
        def relax(node: Node) -> LinearBound | Passage:
            family = self.families.get(node.index) if node.index in variables else None
            if family is None:
                return self.fixed(node)
            named = variables[node.index]
            if isinstance(family, Lines):
                return self.about(node, family.at(named))
            return lambda rows: self.replaced(node, rows, family, named)

        return relax

    def replaced(self, node: Node, rows: Rows, family: Multipliers, named: Named) -> Left:
        """Rows of a node's argument that a family of multipliers puts in the place of the node's own, and what these leave."""
        a = rows.dense()
        m = family.at(a, named)
        least = family.support(a.detach(), m.detach())
        (argument,) = (arg for arg in node.args if isinstance(self.env[arg], Interval))
        place, height = (self.reference(index).unsqueeze(1) for index in (argument, node.index))
        value = least.value + m.detach() * place - a.detach() * height
        return [Dense(node.shape, None, m)], Sum.apply(a, m, least.place - place, least.height - height, value)

    def concretized(self, pulled: Pulled) -> Tensor:
        """The least value of pulled rows about references on the groups' sets, (n, g)."""
        owned = {index: rows.owned_by(self.groups.owner) for index, rows in pulled.coefficients.items()}
        references = {index: self.ground.about.value(index) for index in owned}
        whole = Pulled(owned, plus(pulled.bias, self.middle), references)
        return concretize(whole, self.ground.env, self.ground.problem.sets)


# -- neurons -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Neurons:
    """(example, neuron) pairs of a node, and groups of up to g pairs of one example: `members` (groups, g) are places of pairs.

    A group with fewer holds its first pair more than once; `one` (1,) is the number 1 in the type of the rows.
    """

    node: Node
    one: Tensor
    owner: Tensor
    index: Tensor
    members: Tensor

    def both_sides(self) -> Groups:
        """Two groups of rows for each group of neurons, one after the other: lower bounds of them, and of their negatives."""
        shape, lead = self.node.shape, self.members[:, 0]

        def rows(places: Tensor) -> Rows:
            members, sign = self.members[places // 2], self.one - 2 * (places % 2)
            if members.shape[1] == 1:
                return Select(shape, None, self.index[members[:, 0]], sign[:, None])
            chosen = sign.new_zeros(*members.shape, math.prod(shape))
            chosen = chosen.scatter(2, self.index[members].unsqueeze(2), sign[:, None, None].expand(*members.shape, 1))
            return Dense(shape, None, chosen.reshape(*members.shape, *shape))

        return Groups(self.node.index, self.members.shape[1], self.owner[lead].repeat_interleave(2), rows)


def neurons_of(node: Node, known: Interval, mask: Tensor, size: int) -> Neurons:
    """The neurons that `mask` (b, *shape) selects, in groups of up to `size` of one example; `known` are their bounds."""
    owner, index = flat(mask.expand(known.shape), 1).nonzero(as_tuple=True)
    count = torch.bincount(owner, minlength=len(mask))
    groups = (count + size - 1) // size
    rank = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
    group = (groups.cumsum(0) - groups)[owner] + rank // size
    members = torch.zeros(int(groups.sum()), size, dtype=torch.long, device=owner.device)
    place = torch.arange(len(owner), device=owner.device)
    first = rank % size == 0
    members[group[first]] = place[first, None]
    members[group, rank % size] = place
    return Neurons(node, known.lower.new_ones(1), owner, index, members)


class Sum(torch.autograd.Function):
    """What rows a, with m in their place, leave: the sum of least values (n, g), whose derivatives are place and height.

    All about reference values.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, m: Tensor, *least: Tensor) -> Tensor:
        place, height, value = least
        ctx.save_for_backward(place, height)
        return flat(value, 2).sum(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> Any:
        place, height = ctx.saved_tensors
        along = given.reshape(*given.shape, *[1] * (place.dim() - 2))
        return along * height, -along * place, None, None, None
