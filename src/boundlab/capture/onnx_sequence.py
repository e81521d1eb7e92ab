"""ONNX layers over sequences: cumulated sums, einsum, attention, recurrent networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from boundlab.capture import composed, resample
from boundlab.capture.builder import Builder
from boundlab.capture.einsum import einsum
from boundlab.capture.onnx_lowering import OnnxLowering, OnnxNode, Value, lowers
from boundlab.errors import CaptureError, UnsupportedOperator

# -- sums ----------------------------------------------------------------------------------------------------------------


@lowers("CumSum")
def cumulated(low: OnnxLowering, node: OnnxNode) -> Value:
    """Sums of all entries up to each along one axis, itself left out on demand, from either end."""
    x = low.value(node)
    axis = low.axis(x, int(low.array(node, 1, "axis").reshape(-1)[0]))
    index, left_out = low.open(x, [axis])
    options = {name: bool(node.attributes.get(name, 0)) for name in ("exclusive", "reverse")}
    return low.closed(resample.cumulated(low.builder, index, axis - left_out, **options), left_out)


@lowers("Einsum")
def einstein(low: OnnxLowering, node: OnnxNode) -> Value:
    """Sums of products over named axes."""
    found = einsum(low.builder, node.attributes["equation"], [low.whole(value) for value in low.everything(node)])
    return low.closed(found, 0)


# -- attention -----------------------------------------------------------------------------------------------------------

@lowers("Attention")
def attention(low: OnnxLowering, node: OnnxNode) -> Value:
    """softmax(scale * Q K' + mask) V for each head; queries may share heads of keys and values."""
    settings = node.attributes
    if len(node.outputs) > 1 or len(node.inputs) > 4 or settings.get("softcap", 0.0):
        raise UnsupportedOperator("it has a past, further outputs or a soft cap; plain attention is supported")
    values = [low.value(node, position) for position in range(3)]
    heads = [settings.get("q_num_heads"), *[settings.get("kv_num_heads")] * 2]
    build, flat = low.builder, len(values[0].shape) == 3
    query, key, value = (split_heads(low, part, count) for part, count in zip(values, heads, strict=True))
    shape = build.shape(query)
    key, value = (composed.repeated(build, part, 1, shape[1]) for part in (key, value))
    mask = None if low.given(node, 3) is None else mask_of(low, node)
    scale = float(settings.get("scale", 1 / math.sqrt(shape[-1])))
    if settings.get("is_causal", 0):
        if mask is not None:
            raise UnsupportedOperator("it has a mask and is causal; one of the two is supported")
        mask = build.constant(torch.ones(shape[-2], build.shape(key)[-2], dtype=torch.bool).tril())
    found = composed.attention(build, query, key, value, scale, mask)
    if flat:
        found = build.add("permute", found, dims=(0, 2, 1, 3))
        *front, count, width = build.shape(found)
        found = build.add("reshape", found, shape=(*front, count * width))
    return low.closed(found, 0)


def mask_of(low: OnnxLowering, node: OnnxNode) -> int:
    """The mask of attention: truth values as they are, numbers to be added as a graph value."""
    given = low.given(node, 3)
    if isinstance(given, np.ndarray) and given.dtype == bool:
        return low.builder.constant(torch.from_numpy(given))
    return low.whole(low.value(node, 3))


def split_heads(low: OnnxLowering, x: Value, heads: int | None) -> int:
    """(batch, length, heads * width) as (batch, heads, length, width); four axes stay as they are."""
    whole = low.whole(x)
    if len(x.shape) == 4:
        return whole
    if not heads:
        raise CaptureError(f"its operand has the shape {list(x.shape)} and no number of heads")
    batch, length, width = x.shape
    return low.builder.add("permute", low.builder.add("reshape", whole, shape=(batch, length, heads, width // heads)),
                           dims=(0, 2, 1, 3))


# -- recurrent networks --------------------------------------------------------------------------------------------------

ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu"}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULT = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


@dataclass(frozen=True)
class Cell:
    """One direction of a recurrent layer: weights and biases by gate as nodes, and its activations as operators."""

    build: Builder
    inner: tuple[int, ...]
    outer: tuple[int, ...]
    inner_bias: tuple[int, ...]
    outer_bias: tuple[int, ...]
    activations: tuple[str, ...]
    reset_last: bool

    def sums(self, gate: int, x: int, h: int) -> tuple[int, int]:
        """What the input and the state contribute to a gate."""
        return (self.build.add("linear", x, self.inner[gate], self.inner_bias[gate]),
                self.build.add("linear", h, self.outer[gate], self.outer_bias[gate]))

    def gate(self, gate: int, x: int, h: int, activation: int) -> int:
        """One gate."""
        return self.build.add(self.activations[activation], self.build.add("add", *self.sums(gate, x, h)))


def rnn_step(cell: Cell, x: int, h: int, c: int) -> tuple[int, int]:
    """The plain cell."""
    return cell.gate(0, x, h, 0), c


def lstm_step(cell: Cell, x: int, h: int, c: int) -> tuple[int, int]:
    """Gates in ONNX's order: input, output, forget, cell."""
    build = cell.build
    enter, leave, forget, new = (cell.gate(gate, x, h, activation) for gate, activation in ((0, 0), (1, 0), (2, 0), (3, 1)))
    c = build.add("add", build.add("mul", forget, c), build.add("mul", enter, new))
    return build.add("mul", leave, build.add(cell.activations[2], c)), c


def gru_step(cell: Cell, x: int, h: int, c: int) -> tuple[int, int]:
    """Gates in ONNX's order: update, reset, hidden; the reset is applied before or after the state's matrix."""
    build, update, reset = cell.build, cell.gate(0, x, h, 0), cell.gate(1, x, h, 0)
    if cell.reset_last:
        own, past = cell.sums(2, x, h)
        total = build.add("add", own, build.add("mul", reset, past))
    else:
        total = build.add("add", *cell.sums(2, x, build.add("mul", reset, h)))
    new = build.add(cell.activations[1], total)
    return build.add("add", new, build.add("mul", update, build.add("sub", h, new))), c


STEPS: dict[str, Callable[[Cell, int, int, int], tuple[int, int]]] = {"RNN": rnn_step, "LSTM": lstm_step, "GRU": gru_step}


@lowers("RNN", "LSTM", "GRU")
def recurrent(low: OnnxLowering, node: OnnxNode) -> list[Value]:
    """A recurrent layer, step by step: all states, the last state, and (of an LSTM) the last cell."""
    settings, build, x = node.attributes, low.builder, low.value(node)
    check_recurrent(low, node)
    whole = low.whole(x) if not settings.get("layout", 0) else build.add("permute", low.whole(x), dims=(1, 0, 2))
    length, batch, _ = build.shape(whole)
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[settings.get("direction", "forward")]
    states, ends, cells = [], [], []
    for way, backwards in enumerate(ways):
        cell, h, c = cell_of(low, node, way), start(low, node, 5, way, batch), start(low, node, 6, way, batch)
        found: dict[int, int] = {}
        for time in reversed(range(length)) if backwards else range(length):
            now = build.add("reshape", part(build, whole, 0, time, 1), shape=build.shape(whole)[1:])
            h, c = STEPS[node.op](cell, now, h, c)
            found[time] = h
        rows = [build.add("reshape", found[time], shape=(1, 1, *build.shape(h))) for time in range(length)]
        states.append(build.add("concat", *rows, dim=0))
        ends.append(build.add("reshape", h, shape=(1, *build.shape(h))))
        cells.append(build.add("reshape", c, shape=(1, *build.shape(c))))
    joined = [build.add("concat", *parts, dim=axis) for parts, axis in ((states, 1), (ends, 0), (cells, 0))]
    if settings.get("layout", 0):
        joined = [build.add("permute", joined[0], dims=(2, 0, 1, 3)), *(build.add("permute", end, dims=(1, 0, 2))
                                                                         for end in joined[1:])]
    return [low.closed(index, 0) for index in joined]


def check_recurrent(low: OnnxLowering, node: OnnxNode) -> None:
    """UnsupportedOperator for options that change the cell beyond what is known here."""
    settings, length = node.attributes, low.value(node).shape[1 if node.attributes.get("layout", 0) else 0]
    names = settings.get("activations") or []
    odd = [name for name in names if name not in ACTIVATIONS]
    if settings.get("clip") or settings.get("input_forget", 0) or low.given(node, 7) is not None or odd:
        raise UnsupportedOperator(f"it has a clip, coupled gates, peepholes or activations {odd}; none of these is supported")
    lengths = low.given(node, 4)
    if lengths is not None and (not isinstance(lengths, np.ndarray) or (lengths != length).any()):
        raise UnsupportedOperator("its sequences have lengths of their own; pad them outside, or give all their full length")


def part(build: Builder, index: int, axis: int, start: int, length: int) -> int:
    """A block along one axis."""
    shape = build.shape(index)
    slices = tuple(slice(start, start + length, 1) if d == axis else slice(0, size, 1) for d, size in enumerate(shape))
    return build.add("slice", index, slices=slices)


def cell_of(low: OnnxLowering, node: OnnxNode, way: int) -> Cell:
    """The weights of one direction, cut into gates."""
    build, gates, hidden = low.builder, GATES[node.op], int(node.attributes["hidden_size"])

    def cut(index: int, parts: int) -> tuple[int, ...]:
        own = part(build, index, 0, way, 1)
        own = build.add("reshape", own, shape=build.shape(own)[1:])
        return tuple(part(build, own, 0, gate * hidden, hidden) for gate in range(parts))

    inner, outer = (cut(low.whole(low.value(node, place)), gates) for place in (1, 2))
    biases = cut(low.whole(low.value(node, 3)), 2 * gates) if low.given(node, 3) is not None else \
        (build.constant(torch.zeros(hidden, dtype=build.dtype)),) * (2 * gates)
    count = len(DEFAULT[node.op])
    names = tuple(node.attributes.get("activations") or DEFAULT[node.op] * 2)
    own = names[way * count:(way + 1) * count] or names[:count]
    return Cell(build, inner, outer, biases[:gates], biases[gates:], tuple(ACTIVATIONS[name] for name in own),
                bool(node.attributes.get("linear_before_reset", 0)))


def start(low: OnnxLowering, node: OnnxNode, place: int, way: int, batch: int) -> int:
    """The state or cell that one direction begins with, (batch, hidden); zeros if none is given."""
    build, hidden = low.builder, int(node.attributes["hidden_size"])
    if low.given(node, place) is None:
        return build.constant(torch.zeros(batch, hidden, dtype=build.dtype))
    whole = low.whole(low.value(node, place))
    whole = build.add("permute", whole, dims=(1, 0, 2)) if node.attributes.get("layout", 0) else whole
    return build.add("reshape", part(build, whole, 0, way, 1), shape=(batch, hidden))
