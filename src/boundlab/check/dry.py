"""Dry runs: the interpreters of `bounds` on tensors without data, so that what a method will do is counted, not guessed.

Rules branch on shapes and never on values, so they run on the meta device. What depends on values, namely how many
neurons stay unsettled, is not known to a dry run: it counts rows for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.bounds.backward import backward
from boundlab.bounds.budget import Budget
from boundlab.bounds.intermediate import Pulling, Readers, consumers, is_affine, perturbed_pattern
from boundlab.bounds.methods import one_curve
from boundlab.bounds.reference import pull, reference
from boundlab.check.tally import Tally, Work
from boundlab.errors import BoundlabError
from boundlab.graph import Model, Node
from boundlab.interval import Interval
from boundlab.maps import Common, Dense, Rows, Select
from boundlab.ops import lookup
from boundlab.perturbations.sets import box_fall

META = torch.device("meta")
NEEDS_DATA = (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError)
"""What torch raises where a rule looks at the values of tensors that have none."""
SAMPLES, VISITS = 12, 2000
"""Nodes whose rows are run dry at most, and nodes that these runs may come by; what lies between them is interpolated."""
CHECKS = 3
"""Elementwise calls with which `checked` looks at an interval; it asks for values, so it is counted by hand."""
Problems = dict[int, Exception]


@dataclass(frozen=True)
class Done:
    """What a rule gave, the work it took, and the memory: how far it rose meanwhile, and what its result keeps."""

    result: Any
    work: Work
    rise: int = 0
    kept: int = 0


class DryRun:
    """One dry run over a network: what is known of every node, and the work so far.

    A rule that is called again with the same shapes does the same again; so it runs once, and is counted each time.
    """

    def __init__(self, model: Model, varying: Collection[int], batch: int) -> None:
        self.model, self.varying, self.batch = emptied(model), varying, batch
        self.env: dict[int, Any] = {}
        self.tally = Tally()
        self.made: dict[Hashable, Done] = {}
        self.about = reference(self.model.graph, self.env, self.relaxation)

    def once(self, key: Hashable, rule: Callable[[], Any]) -> Any:
        """The result of a rule, run or remembered, and counted in either case."""
        if key in self.made:
            done = self.made[key]
            self.tally.again(done.work, done.rise, done.kept)
            return done.result
        tally = self.tally
        before, alive, peak = tally.work, tally.alive, tally.peak
        tally.peak = alive
        with tally, torch.no_grad():
            result = rule()
        self.made[key] = Done(result, tally.work.since(before), tally.peak - alive, tally.alive - alive)
        tally.peak = max(peak, tally.peak)
        return result

    def arguments(self, node: Node) -> list[Any]:
        """What is known of a node's arguments."""
        return [self.env[arg] for arg in node.args]

    def blank(self, node: Node) -> Tensor:
        """A tensor without data for a node's value, (b, *shape)."""
        return torch.empty((self.batch, *node.shape), dtype=self.model.dtype, device=META)

    def intervals(self) -> Problems:
        """Fill `env` as interval bound propagation does; nodes that cannot be bounded get a blank, and their error is told."""
        problems: Problems = {}
        for node in self.model.graph:
            try:
                self.env[node.index] = found = self.value(node)
                if isinstance(found, Interval):
                    self.tally.passes(found.lower, CHECKS)
            except (BoundlabError, *NEEDS_DATA) as problem:
                problems[node.index] = problem
                varies = any(isinstance(argument, Interval) for argument in self.arguments(node))
                self.env[node.index] = Interval(self.blank(node), self.blank(node)) if varies else self.blank(node)
        self.tally.visit(len(self.perturbed()))
        return problems

    def value(self, node: Node) -> Any:
        """What is known of one node: an interval, or the constant itself."""
        if node.source:
            held = self.model.params.get(node.name)
            if node.index in self.varying:
                return Interval(self.blank(node), self.blank(node))
            return self.blank(node) if held is None else held.unsqueeze(0)
        op, arguments = lookup(node.op), self.arguments(node)
        rule = op.interval if any(perturbed_pattern(node, self.env)) else op.evaluate
        return self.once(("value", *key_of(node, arguments)), lambda: rule(*arguments, **node.attrs))

    def relax(self, node: Node) -> LinearBound:
        """The relaxation of a node."""
        arguments = self.arguments(node)
        key = ("relax", *key_of(node, arguments))
        bound: LinearBound = self.once(key, lambda: lookup(node.op).lines(*arguments, **node.attrs))
        return bound

    def relaxations(self) -> Problems:
        """All relaxations, and references for rows; the errors of those that cannot be made."""
        problems: Problems = {}
        with torch.no_grad():
            for node in self.perturbed():
                try:
                    if not node.source:
                        self.relax(node)
                except (BoundlabError, *NEEDS_DATA) as problem:
                    problems[node.index] = problem
            if not problems:
                with self.tally:
                    for node in self.perturbed():
                        self.about.value(node.index)
        return problems

    def perturbed(self) -> list[Node]:
        """Nodes that vary."""
        return [node for node in self.model.graph if isinstance(self.env[node.index], Interval)]

    def multiply_adds(self, node: Node) -> int:
        """Multiply-adds of one evaluation of a node for the whole batch; 0 if it cannot be run dry."""
        if node.source:
            return 0
        values = [part.lower if isinstance(part, Interval) else part for part in self.arguments(node)]
        key = ("evaluate", *key_of(node, values))
        if key not in self.made:
            try:
                with Tally() as tally, torch.no_grad():
                    lookup(node.op).evaluate(*values, **node.attrs)
            except (BoundlabError, *NEEDS_DATA):
                return 0
            self.made[key] = Done(None, tally.work)
        return self.made[key].work.multiply_adds

    def pull(self, target: Node, rows: Rows, stop: Callable[[Node], bool] | None = None) -> Work:
        """The work of rows of a node pulled to the sources, or to where they `stop`, and concretized on boxes there."""
        graph, env, before = self.model.graph, self.env, self.tally.work
        with self.tally, torch.no_grad():
            if stop is None:
                pulled = pull(graph, env, self.about, target.index, rows)
            else:
                pulled = backward(graph, env, self.relaxation, target.index, rows, stop)
            for index, arrived in pulled.coefficients.items():
                box_fall(env[index], arrived)
        self.tally.visit(sum(min(pulled.coefficients) <= node.index <= target.index for node in self.perturbed()))
        return self.tally.work.since(before)

    def relaxation(self, node: Node) -> LinearBound:
        """A relaxation that was made before; not counted again."""
        bound: LinearBound = self.made["relax", *key_of(node, self.arguments(node))].result
        return bound

    def output_rows(self, count: int, merged: bool = False) -> Work:
        """The work of `count` rows for each problem of every output that varies; `merged` with affine nodes only."""
        def stop(node: Node) -> bool:
            return not is_affine(node, self.env)

        total = Work()
        for index in self.model.graph.outputs:
            node = self.model.graph[index]
            if isinstance(self.env[index], Interval):
                rows = torch.empty((self.batch, count, *node.shape), dtype=self.model.dtype, device=META)
                total = total.then(self.pull(node, Dense(node.shape, None, rows), stop if merged else None))
        return total

    def inner_rows(self) -> tuple[Work, int]:
        """The work of CROWN's inner bounds if all neurons that nonlinear operators read are pulled, and how many they are."""
        nodes, total = self.pulled_nodes(), Work()
        if not nodes:
            return total, 0
        visits = sum(node.index for node in nodes) / len(nodes)
        count = max(2, min(SAMPLES, round(VISITS / max(1.0, visits))))
        chosen = nodes[:: max(1, math.ceil(len(nodes) / count))]
        pulling = Pulling(self.model, {}, self.env, self.about, Budget(None, META, self.model.dtype.itemsize))
        for node in chosen:
            rows, parts = self.chunk(node, pulling)
            total = total.then(self.pull(node, rows), parts)
        total = Work().then(total, len(nodes) / len(chosen))
        return total, sum(self.batch * math.prod(node.shape) for node in nodes)

    def chunk(self, node: Node, pulling: Pulling) -> tuple[Rows, float]:
        """Rows of as many neurons of a node as are pulled at once where all are wanted, and how many such chunks there are."""
        count, most = math.prod(node.shape), pulling.rows_a_chunk()
        signs = torch.empty(1, 2, dtype=self.model.dtype, device=META)
        together = pulling.together(node, self.batch)
        neurons, most = (count, most // self.batch) if together else (self.batch * count, most)
        picked = torch.empty(min(neurons, most), dtype=torch.long, device=META)
        rows = Common(node.shape, None, picked, signs[0]) if together else Select(node.shape, picked, picked, signs)
        return rows, neurons / len(picked)

    def pulled_nodes(self) -> list[Node]:
        """Nodes whose neurons CROWN may bound by rows: what a nonlinear operator reads, beyond the first affine layer."""
        graph, found = self.model.graph, []
        readers = Readers(consumers(graph), {node.index for node in self.perturbed()})
        for node in self.perturbed():
            if node.source or one_curve(node, self.env, self.relaxation):
                continue
            if is_affine(node, self.env) and all(graph[arg].source or isinstance(self.env[arg], Tensor) for arg in node.args):
                continue  # exact by its interval
            if readers.unsettled(node, self.env[node.index]) is not None:
                found.append(node)
        return found


def emptied(model: Model) -> Model:
    """The network with everything that holds numbers on the meta device."""
    def without_data(value: Any) -> Any:
        return value.to(META) if isinstance(value, Tensor) else value

    nodes = tuple(replace(node, attrs={name: without_data(value) for name, value in node.attrs.items()})
                  for node in model.graph)
    return Model(replace(model.graph, nodes=nodes), model.detached().to(META).params)


def key_of(node: Node, arguments: list[Any]) -> tuple[Hashable, ...]:
    """What a rule can see of a call without data: the operator, its attributes, and kinds and shapes of its arguments."""
    def kind(value: Any) -> Hashable:
        if isinstance(value, Interval):
            return "interval", tuple(value.shape)
        return tuple(value.shape), value.dtype

    def plain(value: Any) -> Hashable:
        return id(value) if isinstance(value, Tensor) else repr(value)

    attributes: Mapping[str, Any] = node.attrs
    return node.op, *((name, plain(value)) for name, value in sorted(attributes.items())), *map(kind, arguments)
