"""nn.Module to Model, through torch.export: live parameters, a batch of any size, and a check against the module itself."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec

from boundlab.capture import aten, aten_functions, aten_layers, aten_shape
from boundlab.capture.builder import Builder
from boundlab.capture.composed import known_value
from boundlab.capture.lowering import Lowering, batched, lower_by_source, where_from
from boundlab.capture.table import LOWERINGS
from boundlab.errors import CaptureError, UnsupportedOperator
from boundlab.evaluate import evaluate_all
from boundlab.graph import Model
from boundlab.ops import Op, by_source

TABLES = (aten, aten_functions, aten_layers, aten_shape)
"""The modules whose import fills the table of rules."""
DECOMPOSED = (
    "lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input", "lstm_cell.default", "gru_cell.default",
    "rnn_tanh_cell.default", "rnn_relu_cell.default", "einsum.default", "_weight_norm.default", "cross_entropy_loss.default",
)
"""Composite operators that are captured through their parts; all others are kept whole."""
Handle = Callable[[Lowering, fx.Node, dict[str, Op]], Any]
TOLERANCE = 1e-3
"""How far graph and module may differ, relative to the largest output, before a capture is refused."""


def capture(module: nn.Module, *example: Tensor) -> Model:
    """A PyTorch module as a Model.

    `example` are inputs as the module takes them, (batch, ...) each; only their shapes and types matter, and the batch
    may be of any size later. The module's parameters stay the live objects, so gradients of bounds reach them. Dropout,
    batch norm and the like are captured in the mode that the module is in.

    UnsupportedOperator names what nobody registered and where it stands in the source; CaptureError says that the module
    cannot be exported, mixes examples of a batch, or differs from its graph.
    """
    if not example or not all(isinstance(tensor, Tensor) and tensor.dim() > 0 for tensor in example):
        raise CaptureError("capture needs one example tensor for each input of the module, with a batch axis first.")
    check_numbers(module)
    inputs = tuple(two_examples(tensor) for tensor in example)
    program = export(module, inputs)
    model = lower(program, next((tensor.dtype for tensor in inputs if tensor.is_floating_point()), torch.float32))
    check_capture(model, module, inputs)
    return model


def check_numbers(module: nn.Module) -> None:
    """CaptureError if a parameter is NaN or infinite, or a buffer NaN (an infinite one may be an attention mask)."""
    bad = [name for name, tensor in module.named_parameters() if not bool(torch.isfinite(tensor).all())]
    bad += [name for name, tensor in module.named_buffers() if bool(torch.isnan(tensor).any())]
    if bad:
        raise CaptureError(f"'{bad[0]}' of {type(module).__name__} holds NaN or infinite numbers; a network that computes "
                           "with them has no bounds.")


def two_examples(tensor: Tensor) -> Tensor:
    """The first two examples, or the only one twice: a batch of one would be captured as a constant."""
    return tensor.detach()[:2] if tensor.shape[0] >= 2 else torch.cat([tensor.detach()] * 2)


def export(module: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """The module as a functional program over a dynamic batch; CaptureError if torch cannot export it."""
    shapes = tuple({0: Dim.DYNAMIC} for _ in inputs)
    try:
        with quiet(), warnings.catch_warnings():  # recurrent modules list their weights in every call, which torch remarks on
            warnings.filterwarnings("ignore", message="The tensor attributes.*were assigned during export")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # torch's own bookkeeping
            program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
            table = {key: rule for key, rule in torch.export.default_decompositions().items()
                     if str(key).removeprefix("aten.") in DECOMPOSED}
            return program.run_decompositions(table)
    except Exception as problem:  # torch raises many kinds; all of them mean that the module cannot be captured
        reason = (str(problem).strip().splitlines() or [repr(problem)])[0].rstrip(".")
        shapes_given = ", ".join(str(list(tensor.shape)) for tensor in inputs)
        remedy = "Branches that depend on values of a tensor must be rewritten." if "data-dependent" in reason else \
            f"Its inputs had the shapes {shapes_given}, the batch axis first."
        raise CaptureError(f"torch.export cannot capture {type(module).__name__}{raised_at(problem)}: {reason}. "
                           f"{remedy}") from problem


@contextmanager
def quiet() -> Iterator[None]:
    """Without the graphs and tracebacks that torch writes to standard error before it raises; the error says it all."""
    loggers = [logger for name, logger in logging.root.manager.loggerDict.items()
               if name.split(".")[0] == "torch" and isinstance(logger, logging.Logger) and not logger.disabled]
    try:
        for logger in loggers:
            logger.disabled = True
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger in loggers:
            logger.disabled = False


def raised_at(problem: BaseException) -> str:
    """", from file:line" of the innermost line of the user's own source that an exception went through."""
    own = [torch.__path__[0], str(Path(__file__).parent)]
    frames = traceback.extract_tb(problem.__traceback__)
    places = [frame for frame in frames if not frame.filename.startswith((*own, "<"))]
    return f", from {places[-1].filename}:{places[-1].lineno}" if places else ""


def lower(program: ExportedProgram, dtype: torch.dtype, handle: Handle | None = None) -> Model:
    """Every node of an exported program as nodes of our graph; `handle` makes those of one call (None: as `call` does)."""
    low = Lowering(Builder(dtype))
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    specs = {node.name: spec for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True)}
    one_to_one = by_source()
    for node in program.graph.nodes:
        low.at(node)
        if node.op == "placeholder":
            place(low, program, specs[node.name], node)
        elif node.op == "call_function":
            low.values[node] = (handle or call)(low, node, one_to_one)
        elif node.op == "output":
            mutated = len(program.graph_signature.buffers_to_mutate)
            results = [low.index(value) for value in node.args[0][mutated:] if value is not None]
            return low.builder.model(results)
    raise CaptureError("the exported program has no output.")


def place(low: Lowering, program: ExportedProgram, spec: InputSpec, node: fx.Node) -> None:
    """A placeholder: an input, or a parameter, buffer or constant under its own name."""
    if spec.kind == InputKind.USER_INPUT:
        shape = tuple(int(size) for size in node.meta["val"].shape[1:])
        low.values[node] = low.builder.input(node.name, shape)
        return
    assert spec.target is not None
    held = program.constants if spec.kind in (InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ) else program.state_dict
    value = held[spec.target] if spec.target in held else program.constants[spec.target]
    low.values[node] = low.builder.parameter(spec.target, value)


def call(low: Lowering, node: fx.Node, one_to_one: dict[str, Op]) -> Any:
    """One call of the program, lowered by the table or by the operator that names it as its source."""
    target = str(node.target)
    if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymBool, int, bool)):
        return None  # sizes are read from the program's own shape inference
    if target in LOWERINGS:
        return LOWERINGS[target](low, node)
    if target in one_to_one:
        return lower_by_source(low, node, one_to_one[target].name)
    constant = computed_now(low, node)
    if constant is not None:
        return low.builder.constant(constant)
    raise UnsupportedOperator(
        f"node '{node.name}'{where_from(node)} is {target}, which no operator declares. Register one "
        "(docs: add an operator), or rewrite that line with supported operators (`boundlab ops` lists them).")


@torch.enable_grad()
def computed_now(low: Lowering, node: fx.Node) -> Tensor | None:
    """The value of a call that depends on no input and on no trained parameter (a mask, a table of positions), else None."""
    values = {}
    for arg in node.all_input_nodes:
        index = low.values.get(arg)
        if low.varies(arg) or batched(arg) or not isinstance(index, int):
            return None
        values[arg] = known_value(low.builder, index)[0]
    function: Any = node.target
    result = function(*fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__))
    return result if isinstance(result, Tensor) and not result.requires_grad else None


@torch.enable_grad()
def check_capture(model: Model, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Graph and module agree at two batch sizes, in value and in the gradients of their parameters."""
    names = [node.name for node in model.graph.inputs]
    for batch in (2, 3):
        values = [torch.cat([tensor, tensor])[:batch] for tensor in inputs]
        expected = tensors_of(module(*values))
        found = evaluate_all(model, dict(zip(names, values, strict=True)))
        results = [found[index] for index in model.graph.outputs]
        for index, result, want in zip(model.graph.outputs, results, expected, strict=True):
            compare(model.graph[index].describe(), result, want)
    shared = [result.expand(want.shape) for result, want in zip(results, expected, strict=True)]
    compare_gradients(module, shared, expected)


def compare_gradients(module: nn.Module, results: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Both ways from the parameters to the outputs have one derivative, so that training the graph trains the module."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not named or not any(want.requires_grad for want in expected):
        return

    def gradients(outputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        reached = [output.sum() for output in outputs if output.requires_grad]
        if not reached:
            return [None] * len(named)
        return torch.autograd.grad(torch.stack(reached).sum(), [parameter for _, parameter in named], allow_unused=True)

    for (name, parameter), ours, theirs in zip(named, gradients(results), gradients(expected), strict=True):
        nothing = torch.zeros_like(parameter)
        compare(f"gradient of '{name}'", nothing if ours is None else ours, nothing if theirs is None else theirs)


def compare(place: str, found: Tensor, want: Tensor) -> None:
    """CaptureError unless the two agree to rounding, relative to the largest entry."""
    sizes = zip(found.shape, want.shape, strict=True) if found.dim() == want.dim() else [(0, 1)]
    if any(size not in (1, wanted) for size, wanted in sizes):
        raise CaptureError(f"the captured graph gives {list(found.shape)} at output {place}, where the module gives "
                           f"{list(want.shape)}; examples of a batch must not be mixed, and the batch stays the first axis.")
    found = found.expand(want.shape)
    scale = 1 + want.detach().abs().max() if want.numel() else 1
    difference = (found - want).detach().abs().max() / scale if want.numel() else torch.zeros(())
    if not bool(difference <= TOLERANCE):
        raise CaptureError(f"the captured graph disagrees with the module at output {place}: relative difference "
                           f"{float(difference):.2g}. This is a defect of the capture; please report the module.")


def tensors_of(result: Any) -> Sequence[Tensor]:
    """The tensors of a module's result, in the order in which torch.export lists them."""
    leaves, _ = torch.utils._pytree.tree_flatten(result)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
