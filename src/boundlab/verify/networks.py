"""The networks that a VNN-LIB 2.0 file declares as one network, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boundlab.capture.joined import joined, renamed
from boundlab.errors import SpecError
from boundlab.graph import Model, Node
from boundlab.question.vnnlib2 import Declared, DeclaredNetwork, Statement


def model_of(statement: Statement, models: Mapping[str, Model]) -> Model:
    """The network that a statement's query is about, from those that the file names, by name.

    A network's inputs and outputs are the declared ones in order, and behind its outputs come the values inside that the file
    asks for. One that is declared equal to another may be left out. SpecError for networks that are missing, unknown or do
    not fit their declaration.
    """
    declared = {network.name: network for network in statement.networks}
    unknown = sorted(set(models) - set(declared))
    if unknown:
        raise SpecError(f"the file declares no network '{unknown[0]}'; it has {', '.join(map(repr, declared))}.")
    parts: dict[str, Model] = {}
    for name, network in declared.items():
        source = name if network.same is None else network.same
        own = models.get(name) or models.get(source) or parts.get(source)
        if own is None:
            raise SpecError(f"the file declares a network '{name}', which is not given.")
        check(network, own)
        parts[name] = own
    if statement.alone:
        return next(iter(parts.values()))
    return joined(**{name: renamed(own, names(declared[name], own, statement.shared)) for name, own in parts.items()})


def names(network: DeclaredNetwork, model: Model, shared: Mapping[str, str]) -> dict[str, str]:
    """What each input of a network is called beside the others: its declared name, or that of the input that it is equal to."""
    return {node.name: shared.get(one.name, one.name) for node, one in zip(model.graph.inputs, network.inputs, strict=True)}


def check(network: DeclaredNetwork, model: Model) -> None:
    """SpecError unless a network has the inputs and outputs that are declared of it."""
    kind = str(model.dtype).removeprefix("torch.")
    for what, tensors, nodes in (("inputs", network.inputs, model.graph.inputs),
                                 ("outputs", (*network.outputs, *network.hidden), tuple(model.outputs.values()))):
        if list(map(sizes, tensors)) != list(map(sizes, nodes)):
            raise SpecError(f"the network '{network.name}' has {what} of shapes {shapes(nodes)} (without the batch), and the "
                            f"file declares {shapes(tensors)}.")
        wrong = [tensor for tensor in tensors if tensor.dtype not in ("Real", kind)]
        if wrong:
            raise SpecError(f"'{wrong[0].name}' is declared as {wrong[0].dtype}, and the network '{network.name}' computes in "
                            f"{kind}.")


def sizes(tensor: Declared | Node) -> tuple[int, ...]:
    """A shape without axes of size 1, which files write and leave out as they like."""
    return tuple(size for size in tensor.shape if size != 1)


def shapes(tensors: Sequence[Declared | Node]) -> str:
    """Shapes for a message."""
    return ", ".join(str(list(tensor.shape)) for tensor in tensors) or "none"


