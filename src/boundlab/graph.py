"""Node, Graph and Model: a network as data. Operators are names here; their rules live in `boundlab.ops`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from boundlab.errors import CaptureError, ShapeError
from boundlab.table import FEW, Shown, Table, shortened

INPUT, PARAMETER = "input", "parameter"


AGAIN = "#"
"""Stands in names of nodes before a number where one operator of the original network became several nodes."""


@dataclass(frozen=True)
class Node:
    """One value of the network. `args` are indices of earlier nodes; `shape` and axes in `attrs` leave out the batch."""

    index: int
    op: str
    args: tuple[int, ...]
    attrs: Mapping[str, Any]
    shape: tuple[int, ...]
    name: str
    origin: str = ""

    @property
    def source(self) -> bool:
        """Whether the value enters from outside: an input, or a parameter (buffers and constants included)."""
        return self.op in (INPUT, PARAMETER)

    def describe(self) -> str:
        """The node for a message: its name, operator, shape, and where it stands in the user's source."""
        where = f", from {self.origin}" if self.origin else ""
        return f"node '{self.name}' ({self.op}, shape {list(self.shape)}{where})"


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm of the network, as a place where statistics of a batch may be put instead of those that were captured.

    `value` computes what it normalises, (channels, *space). If it is a part of the layer before it, that layer is the node
    `folded`, and `value` is the layer without it, which is no node of the graph: its index is -1. `mean` and `variance` are
    parameter nodes, `scale` and `shift` those computed from them: the result is value * scale + shift.
    """

    value: Node
    folded: int | None
    mean: int
    variance: int
    scale: int
    shift: int

    def within(self, kept: Container[int]) -> bool:
        """Whether the nodes `kept` hold all that it reads."""
        return all(index in kept for index in (*self.value.args, self.mean, self.variance, self.scale, self.shift))

    def at(self, place: Mapping[int, int]) -> BatchNorm:
        """The same in a graph whose nodes have the indices `place`."""
        args = tuple(place[arg] for arg in self.value.args)
        value = replace(self.value, index=place.get(self.value.index, -1), args=args)
        folded = None if self.folded is None else place.get(self.folded)
        return BatchNorm(value, folded, *(place[index] for index in (self.mean, self.variance, self.scale, self.shift)))


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; `outputs` are the indices of the network's results, `names` what the user calls them.

    `norms` are its batch norms.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    names: tuple[str, ...] = ()
    norms: tuple[BatchNorm, ...] = ()

    def __post_init__(self) -> None:
        if self.names and len(self.names) != len(self.outputs):
            raise CaptureError(f"{len(self.outputs)} outputs have {len(self.names)} names.")
        for place, node in enumerate(self.nodes):
            if node.index != place or any(arg >= place for arg in node.args):
                raise CaptureError(f"{node.describe()} is out of order; nodes must come after their arguments.")

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, index: int) -> Node:
        return self.nodes[index]

    @property
    def output(self) -> Node:
        """The only output; ShapeError if there are several."""
        if len(self.outputs) != 1:
            known = ", ".join(f"'{name}'" for name in self.output_names)
            raise ShapeError(f"the network has {len(self.outputs)} outputs ({known}); choose one with "
                             "Model.select_output(name or number).")
        return self.nodes[self.outputs[0]]

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs: what the user calls them, else the names of their nodes."""
        return self.names or tuple(self.nodes[index].name for index in self.outputs)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes that a caller feeds."""
        return tuple(node for node in self.nodes if node.op == INPUT)

    def source_named(self, name: str) -> Node:
        """The input or parameter called `name`."""
        for node in self.nodes:
            if node.source and node.name == name:
                return node
        known = ", ".join(f"'{node.name}'" for node in self.nodes if node.source)
        raise ShapeError(f"the network has no input or parameter '{name}'; it has {known}.")

    def node_named(self, name: str) -> Node:
        """The computed node called `name`; ShapeError if there is none, with those that there are."""
        for node in self.nodes:
            if not node.source and node.name == name:
                return node
        known = ", ".join(f"'{node.name}'" for node in self.nodes if not node.source)
        raise ShapeError(f"the network has no node '{name}'; it has {known}.")


@dataclass(frozen=True, repr=False)
class Model(Shown):
    """A graph with the tensors (*shape) that its parameter nodes name: the network, as every method takes it.

    `capture` and `load_onnx` make one. Captured parameters are the user's live ones, so that gradients of bounds reach them;
    `detached` has none.
    """

    graph: Graph
    params: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        taken = ", ".join(f"{node.name} {list(node.shape)}" for node in self.graph.inputs)
        given = ", ".join(f"{name} {list(node.shape)}" for name, node in self.outputs.items())
        numbers = sum(tensor.numel() for tensor in self.params.values())
        return shortened(f"Model({taken} -> {given}; {len(self.graph.nodes)} nodes, {numbers} numbers, {self.dtype})")

    def shown(self) -> Table:
        """What it takes and gives, and how often it has each operator, frequent ones first."""
        ends = [*((f"input {node.name}", str(list(node.shape))) for node in self.graph.inputs[:FEW]),
                *((f"output {name}", str(list(node.shape))) for name, node in list(self.outputs.items())[:FEW])]
        counts = Counter(node.op for node in self.graph if not node.source)
        rows = [*ends, *((name, str(count)) for name, count in counts.most_common(FEW))]
        return Table(("part", "shape or number"), rows, repr(self), more=max(0, len(counts) - FEW))

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the parameters (float32 if there are none)."""
        floating = [tensor.dtype for tensor in self.params.values() if tensor.is_floating_point()]
        return floating[0] if floating else torch.float32

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next((tensor.device for tensor in self.params.values()), torch.device("cpu"))

    def detached(self) -> Model:
        """The same model with parameters that carry no gradient."""
        return replace(self, params={name: tensor.detach() for name, tensor in self.params.items()})

    def to(self, target: torch.dtype | torch.device) -> Model:
        """The same model in another floating type or on another device."""
        def moved(tensor: Tensor) -> Tensor:
            if isinstance(target, torch.dtype) and not tensor.is_floating_point():
                return tensor
            return tensor.to(target)
        return replace(self, params={name: moved(tensor) for name, tensor in self.params.items()})

    @property
    def outputs(self) -> Mapping[str, Node]:
        """The nodes of the network's results by name, in the order in which the module or file gives them."""
        return {name: self.graph[index] for name, index in zip(self.graph.output_names, self.graph.outputs, strict=True)}

    def select_output(self, which: str | int) -> Model:
        """The same network with only one of its outputs, by name or by number; ShapeError if there is none such."""
        names = self.graph.output_names
        if which not in (names if isinstance(which, str) else range(-len(names), len(names))):
            known = ", ".join(f"'{name}'" for name in names)
            raise ShapeError(f"the network has no output {which!r}; it has {len(names)}: {known}.")
        place = names.index(which) if isinstance(which, str) else which
        return replace(self, graph=pruned(replace(self.graph, outputs=(self.graph.outputs[place],), names=(names[place],))))

    def with_params(self, params: Mapping[str, Tensor]) -> Model:
        """The same network with some parameters or buffers replaced, by name; ShapeError for unknown names and other shapes."""
        for name, tensor in params.items():
            if name not in self.params or self.params[name].shape != tensor.shape:
                wanted = f"has the shape {list(self.params[name].shape)}" if name in self.params else "does not exist"
                raise ShapeError(f"a value of shape {list(tensor.shape)} is given for parameter '{name}', which {wanted}; the "
                                 f"network has {', '.join(repr(known) for known in self.params)}.")
        return replace(self, params={**self.params, **params})

    def up_to(self, name: str) -> Model:
        """The part of the network that computes the node called `name`, as a network with that output.

        ShapeError if no node has that name; the message lists those that do.
        """
        index = self.graph.node_named(name).index
        return replace(self, graph=pruned(Graph(self.graph.nodes[:index + 1], (index,), norms=self.graph.norms)))

    def after(self, name: str) -> Model:
        """The part of the network behind the node called `name`, as a network with that node as an input of the same name.

        So embedded words, or any inner layer, may be perturbed. Other inputs stay where something still reads them.
        ShapeError if no node has that name; the message lists those that do.
        """
        index = self.graph.node_named(name).index
        cut = [replace(node, op=INPUT, args=(), attrs={}) if node.index == index else node for node in self.graph]
        graph = pruned(replace(self.graph, nodes=tuple(cut)), keep_inputs=False)
        return Model(graph, {node.name: self.params[node.name] for node in graph if node.op == PARAMETER})


def pruned(graph: Graph, *, keep_inputs: bool = True) -> Graph:
    """Only what the outputs need, in order, and (if asked) inputs that nothing reads."""
    needed, waiting = set[int](), list(graph.outputs)
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting.extend(graph[index].args)
    kept = [node for node in graph if node.index in needed or (keep_inputs and node.op == INPUT)]
    place = {node.index: new for new, node in enumerate(kept)}
    nodes = (replace(node, index=place[node.index], args=tuple(place[arg] for arg in node.args)) for node in kept)
    norms = tuple(norm.at(place) for norm in graph.norms if norm.within(place))
    return Graph(tuple(nodes), tuple(place[index] for index in graph.outputs), graph.names, norms)


def check_model(model: object) -> None:
    """ShapeError for anything that is no `Model`, most often a module that nobody has captured."""
    if not isinstance(model, Model):
        raise ShapeError(f"a Model is needed here, got {type(model).__name__}; bl.capture(module, example) makes one.")
