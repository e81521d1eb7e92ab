"""nn.Module to Model, through torch.export: live parameters, a batch of any size, and a check against the module itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from boundlab.capture import aten, aten_derivative, aten_functions, aten_layers, aten_moves, aten_shape, aten_windows
from boundlab.capture.agreement import check_capture
from boundlab.capture.builder import Builder
from boundlab.capture.export import USER_INPUT, Call, Program, export, key_text
from boundlab.capture.lowering import Lowering, batched, lower_by_source, where_from
from boundlab.capture.table import LOWERINGS
from boundlab.errors import CaptureError, UnsupportedOperator
from boundlab.graph import Model
from boundlab.ops import Op, by_source

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.export.graph_signature import InputSpec

TABLES = (aten, aten_derivative, aten_functions, aten_layers, aten_moves, aten_shape, aten_windows)
"""The modules whose import fills the table of rules."""
EXPORTED = 13
"""Examples that a module is exported with: a number that no other axis is likely to have."""
Handle = Callable[[Lowering, fx.Node, dict[str, Op]], Any]


def capture(module: nn.Module, *example: Any, **named: Any) -> Model:
    """A PyTorch module as a Model.

    `example` and `named` are inputs as the module takes them: tensors (batch, ...), alone or in dictionaries, lists and
    tuples, and plain values, which are fixed. Only shapes and types of the tensors matter, and the batch may be of any size
    later. Inputs are named after the module's arguments (`Model.graph.inputs`), outputs after their keys (`Model.outputs`);
    an output whose batch is not its first axis has it first in the Model. The module's parameters stay the live objects, so
    gradients of bounds reach them. Layers are captured in the mode that the module is in.

    UnsupportedOperator names what nobody registered and where it stands in the source; CaptureError says that the module
    cannot be exported, mixes examples of a batch, changes its own buffers, or differs from its graph.
    """
    given = call_of(module, example, named)
    program = export(module, given)
    low = lower(program, type_of(module, given))
    check_mutation(program.exported)
    check_capture(model_of(low, program), module, given,
                  [low.batch(node).place if batched(node) else None for _, node in outputs_of(program.exported)])
    return model_of(low, program)


def call_of(module: nn.Module, example: tuple[Any, ...], named: Mapping[str, Any]) -> Call:
    """The call that a module is exported with; CaptureError if there is no module, no example, or numbers without bounds."""
    given = Call(example, named)
    if not isinstance(module, nn.Module):
        raise CaptureError(f"capture takes a torch.nn.Module, got {type(module).__name__}; put a function into a Module.")
    if not given.tensors() or any(tensor.dim() == 0 for tensor in given.tensors()):
        raise CaptureError("capture needs an example tensor for each input of the module, with a batch axis first.")
    check_numbers(module)
    return given.map(repeated)


def type_of(module: nn.Module, given: Call) -> torch.dtype:
    """The floating type of the inputs, of the parameters where inputs are whole numbers, float32 if there is none."""
    tensors = [*given.tensors(), *module.parameters()]
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def model_of(low: Lowering, program: Program) -> Model:
    """The graph with the module's results as named outputs."""
    results = outputs_of(program.exported)
    return low.builder.model([low.index(node) for _, node in results], names_of(results))


def check_numbers(module: nn.Module) -> None:
    """CaptureError if a parameter is NaN or infinite, or a buffer NaN (an infinite one may be an attention mask)."""
    bad = [name for name, tensor in module.named_parameters() if not bool(torch.isfinite(tensor).all())]
    bad += [name for name, tensor in module.named_buffers() if bool(torch.isnan(tensor).any())]
    if bad:
        raise CaptureError(f"'{bad[0]}' of {type(module).__name__} holds NaN or infinite numbers; a network that computes "
                           "with them has no bounds.")


def repeated(tensor: Tensor) -> Tensor:
    """The examples over and over, EXPORTED of them: torch tells sizes apart by their values while it exports."""
    times = -(-EXPORTED // max(len(tensor), 1))
    return torch.cat([tensor.detach()] * times)[:EXPORTED]


# -- the walk ------------------------------------------------------------------------------------------------------------

def lower(program: Program, dtype: torch.dtype, handle: Handle | None = None) -> Lowering:
    """Every node of an exported program as nodes of our graph; `handle` makes those of one call (None: as `call` does)."""
    low, exported = Lowering(Builder(dtype)), program.exported
    placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
    specs = {node.name: spec for node, spec in zip(placeholders, exported.graph_signature.input_specs, strict=True)}
    one_to_one, read = by_source(), values_read(exported)
    for node in exported.graph.nodes:
        low.at(node)
        if node.op == "placeholder":
            place(low, program, specs[node.name], node)
        elif node.op == "call_function" and node in read:
            low.values[node] = (handle or call)(low, node, one_to_one)
    return low


def values_read(exported: ExportedProgram) -> set[fx.Node]:
    """The nodes whose values the results depend on; sizes, and what only lends its shape to a fill, do not count."""
    read, waiting = set[fx.Node](), [node for node in exported.graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in read:
            read.add(node)
            lends = node.op == "call_function" and str(node.target).removeprefix("aten.").split(".")[0] in aten.FILLS
            waiting += [] if lends or isinstance(node.meta.get("val"), torch.SymInt) else node.all_input_nodes
    return read


def place(low: Lowering, program: Program, spec: InputSpec, node: fx.Node) -> None:
    """A placeholder: an input, or a parameter, buffer or constant under its own name."""
    if spec.kind.name == USER_INPUT:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            shape = tuple(int(size) for size in value.shape[1:])
            name = program.input_name(len(low.inputs), node.name)
            low.inputs.append(node)
            low.values[node] = low.builder.input(name, shape, value.dtype)
        return
    assert spec.target is not None
    exported = program.exported
    held = exported.constants if spec.kind.name in ("CONSTANT_TENSOR", "CUSTOM_OBJ") else exported.state_dict
    value = held[spec.target] if spec.target in held else exported.constants[spec.target]
    low.values[node] = low.builder.parameter(spec.target.removeprefix(program.prefix), value)


def check_mutation(exported: ExportedProgram) -> None:
    """CaptureError if forward changes a buffer: such a module is another function at every call."""
    for result, buffer in exported.graph_signature.buffers_to_mutate.items():
        node = next((node for node in exported.graph.nodes if node.name == result), None)
        raise CaptureError(f"forward changes the buffer '{buffer}'{where_from(node)}, so the module is another function at "
                           "every call; call module.eval() if that stops it, else move the change out of forward.")


def outputs_of(exported: ExportedProgram) -> list[tuple[str, fx.Node]]:
    """The tensors that the module returns, with the path of keys and places that leads to each ("" for a lone tensor)."""
    results = next(node for node in exported.graph.nodes if node.op == "output").args[0]
    mine = len(exported.graph_signature.user_outputs)
    structure = pytree.tree_unflatten(list(results[len(results) - mine:]), exported.call_spec.out_spec)
    found = [(".".join(key_text(key) for key in path), leaf)
             for path, leaf in pytree.tree_flatten_with_path(structure, is_leaf=lambda part: isinstance(part, fx.Node))[0]]
    tensors = [(path, node) for path, node in found
               if isinstance(node, fx.Node) and isinstance(node.meta.get("val"), Tensor)]
    if not tensors:
        raise CaptureError("the module returns no tensor.")
    return tensors


def names_of(results: Sequence[tuple[str, fx.Node]]) -> tuple[str, ...]:
    """The names of the outputs; none for a lone tensor, which is called like its node."""
    return () if results[0][0] == "" else tuple(path for path, _ in results)


def call(low: Lowering, node: fx.Node, one_to_one: dict[str, Op]) -> Any:
    """One call of the program, lowered by the table or by the operator that names it as its source."""
    target = str(node.target)
    if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymBool, int, bool)):
        return None  # sizes are read from the program's own shape inference
    if target in LOWERINGS:
        return LOWERINGS[target](low, node)
    if target in one_to_one:
        return lower_by_source(low, node, one_to_one[target].name)
    found = of_parameters(low, node)
    if found is not None:
        return found
    raise UnsupportedOperator(
        f"node '{node.name}'{where_from(node)} is {target}, which no operator declares. Register one "
        "(docs: add an operator), or rewrite that line with supported operators (`boundlab ops` lists them).")


def of_parameters(low: Lowering, node: fx.Node) -> Any:
    """A call that depends on no input: its value if no trained parameter enters it (a mask), else a node; None if it does."""
    function: Any = node.target
    if torch.Tag.nondeterministic_seeded in function.tags:
        raise UnsupportedOperator(f"'{node.name}'{where_from(node)} draws random numbers, so the module is another function at "
                                  "every call; call module.eval(), or hold the numbers in a buffer.")
    places = {arg: low.values.get(arg) for arg in node.all_input_nodes}
    held = {arg: index for arg, index in places.items() if isinstance(index, int) and not low.varies(arg) and not batched(arg)}
    if len(held) < len(places):
        return None
    with torch.enable_grad():
        values = {arg: low.builder.known(index)[0] for arg, index in held.items()}
    if not any(value.requires_grad for value in values.values()):
        result = function(*fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__))
        return low.builder.constant(result) if isinstance(result, Tensor) else None
    return live(low, node, list(held))


def live(low: Lowering, node: fx.Node, tensors: list[fx.Node]) -> Any:
    """Nodes that compute a call of trained parameters anew at every use."""
    if node.kwargs or sum(isinstance(part, fx.Node) for part in node.args) != len(node.all_input_nodes):
        return None  # tensors in lists or by name
    call = tuple((True, tensors.index(part)) if isinstance(part, fx.Node) else (False, part) for part in node.args)
    several = isinstance(node.meta["val"], (list, tuple))
    results: list[int | None] = list(range(len(node.meta["val"]))) if several else [None]
    found = [low.builder.add("computed", *(low.index(part) for part in tensors), function=node.target, call=call, result=result)
             for result in results]
    return found if several else found[0]
