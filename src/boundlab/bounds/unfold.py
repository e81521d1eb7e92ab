"""Batch norm taken out of the layers it was folded into, where their weights vary.

Capture multiplies the weight of a layer by the scale of the batch norm after it. That is best while both are constant. If
one of them varies, every entry of the product does, and the product hides that a whole channel moves together, or that
the weight lies in a ball. scale * layer(x) + shift is the same function, and no looser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from boundlab.graph import Graph, Model, Node

Term = tuple[int, int]
"""A sign and a node."""


@dataclass(frozen=True)
class Scaled:
    """A layer whose weight is `weight` times `scale` (one number a channel), and whose bias is offset * scale + rest."""

    weight: int
    scale: int
    offset: tuple[Term, ...]
    rest: tuple[Term, ...]


def unfolded(model: Model, perturbed: set[int]) -> Model:
    """The same network with scales outside of those layers whose scaled weight is among the `perturbed` nodes."""
    graph = model.graph
    layers = {node.index: layer for node in graph if (layer := scaled_layer(graph, node, perturbed)) is not None}
    if not layers:
        return model
    writer = Writer([], {})
    for node in graph:
        if node.index in layers:
            writer.write_layer(graph, node, layers[node.index])
        else:
            writer.add(replace(node, args=tuple(writer.place[arg] for arg in node.args)))
    norms = tuple(replace(norm, folded=None) if norm.folded in layers else norm for norm in graph.norms)
    outputs = tuple(writer.place[index] for index in graph.outputs)
    norms = tuple(norm.at(writer.place) for norm in norms)
    return replace(model, graph=replace(graph, nodes=tuple(writer.nodes), outputs=outputs, norms=norms))


def scaled_layer(graph: Graph, node: Node, perturbed: set[int]) -> Scaled | None:
    """How a node is a layer with a scale folded into its perturbed weight; None if it is not."""
    if node.op not in ("conv", "linear") or node.args[1] not in perturbed or graph[node.args[1]].op != "mul":
        return None
    weight, factor = (graph[arg] for arg in graph[node.args[1]].args)
    factor = graph[factor.args[0]] if factor.op == "expand" else factor
    channels = weight.shape[:1]
    if factor.op != "reshape" or factor.shape != (*channels, *[1] * (len(weight.shape) - 1)):
        return None
    scale = graph[factor.args[0]]
    if scale.shape != channels or (node.op == "linear" and len(node.shape) > 1):
        return None
    terms = list(terms_of(graph, node.args[2], scale.index)) if len(node.args) > 2 else []
    return Scaled(weight.index, scale.index, tuple(term for times, term in terms if times),
                  tuple(term for times, term in terms if not times))


def terms_of(graph: Graph, index: int, scale: int, sign: int = 1) -> Iterator[tuple[bool, Term]]:
    """A value as a sum: for each term whether it is to be multiplied by `scale`, its sign and its node."""
    node = graph[index]
    if node.op == "add":
        for arg in node.args:
            yield from terms_of(graph, arg, scale, sign)
    elif node.op == "neg":
        yield from terms_of(graph, node.args[0], scale, -sign)
    elif node.op == "mul" and scale in node.args:
        yield True, (sign, node.args[0] if node.args[1] == scale else node.args[1])
    else:
        yield False, (sign, index)


@dataclass(frozen=True)
class Writer:
    """A graph in the making: its nodes, and where the nodes of the old graph are in it."""

    nodes: list[Node]
    place: dict[int, int]

    def add(self, node: Node) -> int:
        """The node at the next place, which stands for the old node of its index."""
        self.place[node.index] = len(self.nodes)
        self.nodes.append(replace(node, index=len(self.nodes)))
        return len(self.nodes) - 1

    def write(self, node: Node, part: str, op: str, *args: int, **attrs: object) -> int:
        """A new node of `node`'s shape (or of `shape`), named after it."""
        shape = attrs.get("shape", node.shape)
        self.nodes.append(Node(len(self.nodes), op, args, attrs, shape, f"{node.name}.{part}{len(self.nodes)}", node.origin))  # type: ignore[arg-type]
        return len(self.nodes) - 1

    def write_layer(self, graph: Graph, node: Node, layer: Scaled) -> None:
        """(layer(x) + offset) * scale + rest, the last node under the old name."""
        shape, x = node.shape, self.place[node.args[0]]
        wide = (shape[0], *[1] * (len(shape) - 1))

        def channel(index: int) -> int:
            """One number a channel, for every cell of the map."""
            laid = self.write(node, "channel", "reshape", index, shape=wide)
            return laid if wide == shape else self.write(node, "channel", "expand", laid, shape=shape)

        def plus(total: int, terms: tuple[Term, ...]) -> int:
            for sign, term in terms:
                total = self.write(node, "sum", "add" if sign > 0 else "sub", total, channel(self.place[term]))
            return total

        total = self.write(node, "layer", node.op, x, self.place[layer.weight], **node.attrs)
        total = plus(total, layer.offset)
        total = self.write(node, "scaled", "mul", total, channel(self.place[layer.scale]))
        total = plus(total, layer.rest)
        self.nodes[total] = replace(self.nodes[total], name=node.name)
        self.place[node.index] = total
