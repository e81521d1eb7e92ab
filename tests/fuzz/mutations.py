"""Damaged files: VNN-LIB texts and ONNX networks, changed in bytes and in structure, by a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import onnx
from onnx import TensorProto, helper

Text = Callable[[random.Random, str], str]
Network = Callable[[random.Random, onnx.ModelProto], None]
NUMBERS = (
    "1e400", "-1e400", "1e999999999", "-1e-999999999", "1e308", "1e-400", "nan", "inf", "-inf", "0x10", "1_000", "1.", ".5",
    "+.5e+3", "--1", "1e", "1,5", "\u0661", "0." + "9" * 5000, "9" * 5000, "(/ 1 0)", "(/ 1 3)", "(* 2 0.5)", "(- 1)",
    "(- (- 1))", "(+)", "()", "0", "-0.0")
WORDS = (
    "assert", "and", "or", "not", "<=", ">=", "<", ">", "=", "+", "-", "*", "/", "X_0", "Y_0", "X_99999999999", "X_-1", "Y_",
    "Z_0", "declare-const", "declare-fun", "Real", "Int", "let", "check-sat", "\x000", "\x00", "\u00a0", "\ufeff", ";", "|a b|",
    '"')
OPERATORS = (
    "Wobble", "", "Relu", "MatMul", "Conv", "Reshape", "ConstantOfShape", "Expand", "Tile", "Loop", "If", "Range", "NonZero",
    "Softmax", "Concat", "Split", "LSTM", "Resize", "Einsum", "Identity",
    "BatchNormalization")
ATTRIBUTES = ("axis", "axes", "perm", "to", "pads", "kernel_shape", "group", "alpha", "wobble", "value", "keepdims")
FLOATS = (float("nan"), float("inf"), 1e38, -1e38, 1e-42, 0.0, 3.0)
SIZES = (0, -1, 1, 2, 3, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, -2**63)


def spliced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def place(chance: random.Random, text: str, pattern: str) -> tuple[int, int]:
    """A random match of a pattern, or the start."""
    found = [match.span() for match in re.finditer(pattern, text)]
    return chance.choice(found) if found else (0, 0)


# -- any bytes ------------------------------------------------------------------------------------------------------------

def cut(chance: random.Random, data: bytes) -> bytes:
    return data[:chance.randrange(len(data) + 1)]


def flipped(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def swapped(chance: random.Random, data: bytes) -> bytes:
    first, second = sorted(chance.randrange(len(data)) for _ in range(2))
    size = min(chance.randrange(1, 20), second - first)
    one, other = data[first:first + size], data[second:second + size]
    return data[:first] + other + data[first + size:second] + one + data[second + size:]


def dropped(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 60):]


def doubled(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data))
    end = start + chance.randrange(1, 200)
    return data[:end] + data[start:end] + data[end:]


BYTES = (cut, flipped, swapped, dropped, doubled)


# -- VNN-LIB --------------------------------------------------------------------------------------------------------------

def other_number(chance: random.Random, text: str) -> str:
    return spliced(text, *place(chance, text, r"(?<=[ (])[-+]?\d[\d.e+-]*"), chance.choice(NUMBERS))


def other_word(chance: random.Random, text: str) -> str:
    return spliced(text, *place(chance, text, r"[^\s()]+"), chance.choice(WORDS))


def nested(chance: random.Random, text: str) -> str:
    depth, word = chance.choice((3, 40, 900, 1100, 30_000)), chance.choice(("and", "or", "not", "+", "-", "*", ""))
    start, end = place(chance, text, r"\([<>]= [XY]_\d+ [^()]+\)|(?<= )[-\d.]+(?=\))")
    return spliced(text, start, end, f"({word} " * depth + text[start:end] + ")" * chance.choice((depth, depth, depth - 1, 0)))


def contradictory(chance: random.Random, text: str) -> str:
    start, end = place(chance, text, r"<=|>=")
    return spliced(text, start, end, chance.choice((">=", "<=", "<", ">", "=")))


def declared_twice(chance: random.Random, text: str) -> str:
    start, end = place(chance, text, r"\(declare-const [^()]+\)")
    line = text[start:end]
    return spliced(text, end, end, "\n" + chance.choice((line, line.replace("_0", "_1"), line.replace("X_", "Y_"), line * 3)))


def many_cases(chance: random.Random, text: str) -> str:
    one = "(assert (or (<= Y_0 0.5) (>= Y_0 0.25) (and (<= X_0 0.5) (>= Y_0 0.1))))\n"
    return text + one * chance.choice((1, 2, 3, 13, 60))


def unbalanced(chance: random.Random, text: str) -> str:
    start, end = place(chance, text, r"[()]")
    return spliced(text, start, end, chance.choice(("", "((", "))", ")(", "(" * 5000, ")" * 5000)))


TEXTS: tuple[Text, ...] = (
    other_number, other_number, other_word, nested, contradictory, declared_twice, many_cases, unbalanced)


def damaged_text(text: str, seed: int) -> bytes:
    """A VNN-LIB text after one to three changes."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 2, 3))):
        if text and chance.random() < 0.8:
            text = chance.choice(TEXTS)(chance, text)
    data = text.encode()
    return chance.choice(BYTES)(chance, data) if data and chance.random() < 0.3 else data


# -- ONNX -----------------------------------------------------------------------------------------------------------------

def other_operator(chance: random.Random, model: onnx.ModelProto) -> None:
    chance.choice(model.graph.node).op_type = chance.choice(OPERATORS)


def other_size(chance: random.Random, model: onnx.ModelProto) -> None:
    shapes = [value.type.tensor_type.shape for value in (*model.graph.input, *model.graph.output)]
    shape = chance.choice([shape for shape in shapes if shape.dim] or shapes)
    if shape.dim and chance.random() < 0.8:
        chance.choice(shape.dim).dim_value = chance.choice(SIZES)
    else:
        shape.dim.add().dim_value = chance.choice(SIZES)


def other_weights(chance: random.Random, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    kind = chance.randrange(5)
    if kind == 0 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(SIZES)
    elif kind == 1:
        tensor.data_type = chance.randrange(-1, 25)
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[:chance.randrange(len(tensor.raw_data) + 1)]
    else:
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.size:
            values.reshape(-1)[chance.randrange(values.size)] = chance.choice(SIZES if values.dtype.kind in "iu" else FLOATS)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def other_attribute(chance: random.Random, model: onnx.ModelProto) -> None:
    node = chance.choice(model.graph.node)
    if node.attribute and chance.random() < 0.8:
        entry = chance.choice(node.attribute)
        kind = chance.randrange(5)
        if kind == 0:
            node.attribute.remove(entry)
        elif kind == 1:
            entry.type = chance.randrange(0, 15)
        elif entry.ints:
            entry.ints[chance.randrange(len(entry.ints))] = chance.choice(SIZES)
        elif kind == 2:
            entry.CopyFrom(helper.make_attribute(entry.name, [chance.choice(SIZES)]))
        elif kind == 3:
            entry.CopyFrom(helper.make_attribute(entry.name, chance.choice(("", "SAME_UPPER", "x" * 5000))))
        else:
            entry.i, entry.f = chance.choice(SIZES), chance.choice((float("nan"), 1e38, -1.0))
    else:
        value = chance.choice((chance.choice(SIZES), [0, 1], [chance.choice(SIZES)], 0.5, "text"))
        node.attribute.append(helper.make_attribute(chance.choice(ATTRIBUTES), value))


def other_edge(chance: random.Random, model: onnx.ModelProto) -> None:
    node = chance.choice(model.graph.node)
    names = [name for one in model.graph.node for name in (*one.input, *one.output)] + ["", "nothing", *node.output]
    where = chance.choice((node.input, node.output))
    if where and chance.random() < 0.8:
        where[chance.randrange(len(where))] = chance.choice(names)
    elif where and chance.random() < 0.5:
        del where[chance.randrange(len(where))]
    else:
        where.append(chance.choice(names))


def other_order(chance: random.Random, model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    nodes.append(onnx.NodeProto.FromString(chance.choice(nodes).SerializeToString()))
    chance.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes[:chance.randrange(1, len(nodes) + 1)])


def other_name(chance: random.Random, model: onnx.ModelProto) -> None:
    named = [*model.graph.input, *model.graph.output, *model.graph.initializer]
    chance.choice(named).name = chance.choice(["", "x", *(one.name for one in named)])


def other_type(chance: random.Random, model: onnx.ModelProto) -> None:
    value = chance.choice((*model.graph.input, *model.graph.output))
    value.type.tensor_type.elem_type = chance.choice((TensorProto.DOUBLE, TensorProto.INT64, TensorProto.FLOAT16, 8, 0, 99))


def other_version(chance: random.Random, model: onnx.ModelProto) -> None:
    if model.opset_import:
        model.opset_import[0].version = chance.choice((0, -1, 1, 6, 9, 12, 13, 18, 21, 999, 2**40))
        model.opset_import[0].domain = chance.choice(("", "", "ai.onnx", "com.example"))
    model.ir_version = chance.choice((0, 3, 8, 99))


NETWORKS: tuple[Network, ...] = (
    other_operator, other_size, other_weights, other_weights, other_attribute, other_attribute, other_edge, other_order,
    other_name, other_type, other_version)


def damaged_network(content: bytes, seed: int) -> bytes:
    """A network after one or two changes of its structure, some bytes, or both."""
    chance = random.Random(seed)
    if chance.random() < 0.75:
        model = onnx.ModelProto.FromString(content)
        for _ in range(chance.choice((1, 1, 2))):
            try:
                chance.choice(NETWORKS)(chance, model)
            except (ValueError, TypeError, OverflowError, IndexError, KeyError):
                continue  # the change before has left nothing to change here
        content = model.SerializeToString()
        if chance.random() < 0.9:
            return content
    return chance.choice(BYTES)(chance, content) if content else content
