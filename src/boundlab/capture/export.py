"""A module as a functional program over a dynamic batch: torch.export, after a tracer where modules call autograd."""

from __future__ import annotations

import inspect
import io
import itertools
import logging
import operator
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from boundlab.capture.table import LOWERINGS
from boundlab.errors import CaptureError
from boundlab.ops import by_source

if TYPE_CHECKING:  # torch.export loads sympy, which takes longer than the rest of boundlab; who reads ONNX files needs neither
    from torch.export import ExportedProgram

DECOMPOSED = (
    "lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input", "lstm_cell.default", "gru_cell.default",
    "rnn_tanh_cell.default", "rnn_relu_cell.default", "cross_entropy_loss.default",
    "_weight_norm.default", "_weight_norm_interface.default", "addcmul.default", "addcdiv.default",
    "tensordot.default", "diff.default", "hstack.default", "vstack.default", "dstack.default", "column_stack.default",
    "broadcast_tensors.default", "meshgrid.default", "meshgrid.indexing", "affine_grid_generator.default", "outer.default",
    "kron.default", "trace.default", "cosine_similarity.default", "pairwise_distance.default", "smooth_l1_loss.default",
    "take_along_dim.default", "linalg_norm.default", "atleast_1d.default", "atleast_1d.Sequence", "atleast_2d.default",
    "atleast_2d.Sequence", "atleast_3d.default", "atleast_3d.Sequence", "lerp.Scalar", "lerp.Tensor", "mse_loss.default",
    "gelu_backward.default", "silu_backward.default", "native_layer_norm_backward.default",
    "native_batch_norm_backward.default", "native_group_norm_backward.default", "_softmax_backward_data.default",
    "_log_softmax_backward_data.default", "std_mean.correction", "std_mean.default", "std_mean.dim", "var_mean.default",
    "var_mean.dim", "deg2rad.default", "rad2deg.default", "linalg_cross.default", "linalg_matrix_norm.default",
    "linalg_matrix_norm.str_ord", "inner.default", "l1_loss.default", "huber_loss.default", "trapezoid.dx", "trapezoid.x",
    "block_diag.default",
)
"""Composite operators that are captured through their parts; all others are kept whole."""

USER_INPUT = "USER_INPUT"
"""What torch calls the kind of a placeholder that is an argument of forward."""


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a module, nested as the user nests them."""

    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order in which torch.export lists them."""
        return [leaf for leaf in pytree.tree_leaves((self.positional, dict(self.named))) if isinstance(leaf, Tensor)]

    def map(self, function: Any) -> Call:
        """The call with a function applied to each tensor."""
        positional, named = pytree.tree_map_only(Tensor, function, (self.positional, dict(self.named)))
        return Call(positional, named)

    def run(self, module: nn.Module) -> Any:
        """What the module gives."""
        return module(*self.positional, **self.named)

    def describe(self) -> str:
        """The shapes, for a message."""
        return ", ".join(str(list(tensor.shape)) for tensor in self.tensors())


@dataclass(frozen=True)
class Program:
    """An exported program; of a traced module, what stands before the names of its parameters, and the names of its inputs."""

    exported: ExportedProgram
    prefix: str = ""
    inputs: tuple[str, ...] = ()

    def input_name(self, place: int, name: str) -> str:
        """What the user calls the input that has a place and a name in the program."""
        return self.inputs[place] if self.inputs else name


class Traced(nn.Module):
    """A module whose calls of autograd have been replaced by what they compute: a flat graph over its parameters and inputs."""

    def __init__(self, module: nn.Module, graph: nn.Module) -> None:
        super().__init__()
        self.module, self.graph = module, graph

    def forward(self, *positional: Any, **named: Any) -> Any:
        """The graph on the module's own parameters."""
        return self.graph(state_of(self.module), positional, named)


def argument_names(module: nn.Module, call: Call) -> tuple[str, ...]:
    """What the module's forward calls each tensor, with the keys that lead to it in a nested argument."""
    bound = inspect.signature(module.forward).bind(*call.positional, **call.named)
    paths = pytree.tree_flatten_with_path(dict(bound.arguments))[0]
    names = {id(leaf): "_".join(key_text(key) for key in path) for path, leaf in paths}
    return tuple(names[id(tensor)] for tensor in call.tensors())


def key_text(key: Any) -> str:
    """One step into nested arguments or results: a dictionary's key, a place in a list, a field's name."""
    return str(key).strip("[].'\"")


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name."""
    return dict(itertools.chain(module.named_parameters(), module.named_buffers()))


def export(module: nn.Module, call: Call) -> Program:
    """The module as a functional program; CaptureError if neither torch.export nor the tracer can follow it.

    torch.export refuses modules that differentiate inside forward (a Jacobian). Those are first traced with `make_fx`, which
    writes derivatives out as ordinary operators.
    """
    try:
        return Program(functional(module, call))
    except Exception as problem:  # torch raises many kinds; all of them mean that the module cannot be captured
        try:
            return Program(functional(Traced(module, trace(module, call)), call), "module.", argument_names(module, call))
        except Exception:
            raise CaptureError(refusal(module, call, problem)) from problem


def functional(module: nn.Module, call: Call) -> ExportedProgram:
    """The program of torch.export without mutation, with a few composites written out."""
    shapes = torch.export.ShapesCollection()
    for tensor in call.tensors():
        shapes[tensor] = {0: torch.export.Dim.DYNAMIC}
    with quiet():
        dynamic = shapes.dynamic_shapes(module, call.positional, dict(call.named))
        program = torch.export.export(module, call.positional, dict(call.named), dynamic_shapes=dynamic, strict=False)
        check_batch(program)
        if plain(program):
            return program
        table = {key: rule for key, rule in torch.export.default_decompositions().items()
                 if str(key).removeprefix("aten.") in DECOMPOSED}
        return program.run_decompositions(table)


def plain(program: ExportedProgram) -> bool:
    """Whether every operator has a rule of its own, is kept whole and writes nothing in place: torch need not trace again.

    The second trace takes longer than the first. Whatever it would have changed, `check_capture` compares with the module.
    Arithmetic of sizes does not count: shapes are taken from the program's own inference.
    """
    known = LOWERINGS.keys() | by_source().keys()
    values = [node for node in program.graph.nodes if not isinstance(node.meta.get("val"), torch.SymInt)]
    targets = {node.target for node in values if node.op == "call_function"} - {operator.getitem}
    return all(isinstance(target, OpOverload) and str(target) in known and not target._schema.is_mutable
               and str(target).removeprefix("aten.") not in DECOMPOSED for target in targets)


def check_batch(program: ExportedProgram) -> None:
    """ValueError if torch has fixed the size of the batch without a word."""
    for node, spec in zip(program.graph.nodes, program.graph_signature.input_specs, strict=False):
        held = node.meta.get("val")
        if spec.kind.name == USER_INPUT and isinstance(held, Tensor) and not isinstance(held.shape[0], torch.SymInt):
            raise ValueError(f"Constraints violated: '{node.name}' is fixed to a batch of {held.shape[0]}")


def trace(module: nn.Module, call: Call) -> nn.Module:
    """The module as a flat graph of (parameters and buffers, positional, named), with the batch as its only unknown size."""
    from torch._dynamo.source import ConstantSource  # here: they load all of torch's compiler, which a worker never needs
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    counter = itertools.count()

    def fake(tensor: Tensor, batched: bool) -> Tensor:
        kinds = [DimDynamic.DYNAMIC if batched and axis == 0 else DimDynamic.STATIC for axis in range(tensor.dim())]
        context: Any = StatelessSymbolicContext(dynamic_sizes=kinds, constraint_sizes=[None] * len(kinds))
        return mode.from_tensor(tensor, symbolic_context=context, source=ConstantSource(f"tensor_{next(counter)}"))

    def run(state: dict[str, Tensor], positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return torch.func.functional_call(module, state, positional, named)

    state = {name: fake(tensor, False) for name, tensor in state_of(module).items()}
    inputs = call.map(lambda tensor: fake(tensor, True))
    with quiet(), mode:
        return make_fx(run, tracing_mode="symbolic", _allow_non_fake_inputs=True)(state, inputs.positional, dict(inputs.named))


def refusal(module: nn.Module, call: Call, problem: Exception) -> str:
    """One sentence on why a module cannot be exported, where, and what to do."""
    reason = (str(problem).strip().splitlines() or [repr(problem)])[0].rstrip(".")
    shapes = f"Its inputs had the shapes {call.describe()}, the batch axis first."
    text = str(problem).lower()
    remedy = next((remedy for words, remedy in REMEDIES if any(word in text for word in words)), shapes)
    return f"torch.export cannot capture {type(module).__name__}{raised_at(problem)}: {reason}. {remedy}"


REMEDIES = (
    (("data-dependent", "datadependent"),
     "Branches that depend on values of a tensor must be rewritten, since bounds need one formula for all inputs: with "
     "torch.where, relu, maximum or clamp; or capture the branch that you mean."),
    (("constraints violated",), "Forward uses the size of the batch as a fixed number; write it as x.shape[0]."),
    (("autograd", "no attribute 'constant'"),
     "Forward differentiates under torch.func in a way that fixes the size of the batch; use torch.autograd.grad on the whole "
     "batch with create_graph=True (docs/jacobian.md)."),
)
"""What to do about the errors that users meet most, by words in torch's own message."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the graphs, remarks and tracebacks that torch writes before it raises; the error says it all."""
    loggers = [logger for name, logger in logging.root.manager.loggerDict.items()
               if name.split(".")[0] == "torch" and isinstance(logger, logging.Logger) and not logger.disabled]
    try:
        for logger in loggers:
            logger.disabled = True
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The tensor attributes.*were assigned during export")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented")
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
