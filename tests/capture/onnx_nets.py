"""Small ONNX networks for tests: one node of every operator that the importer lowers, with its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
KINDS: dict[Any, int] = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE, np.float16: TensorProto.FLOAT16,
                         np.int64: TensorProto.INT64, np.bool_: TensorProto.BOOL}
GIVES: dict[str, Any] = {"ArgMax": np.int64, "ArgMin": np.int64, "Equal": np.bool_}
"""What operators give that do not give floating numbers."""


@dataclass(frozen=True)
class Single:
    """One node; an argument is the shape of an input, an array for an initializer, or None where it is left out."""

    op: str
    arguments: tuple[Shape | np.ndarray | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    low: float = -2.0
    gives: Any = np.float32


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Fixed random weights in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    """A list of whole numbers, as ONNX holds axes and shapes."""
    return np.array(values, np.int64)


def one(op: str, *arguments: Shape | np.ndarray | np.generic | None, opset: int = 17, outputs: int = 1, low: float = -2.0,
        **attributes: Any) -> Single:
    """A `Single` from its parts; numpy numbers become arrays without axes."""
    parts = tuple(np.asarray(part) if isinstance(part, np.generic) else part for part in arguments)
    to = {TensorProto.INT64: np.int64, TensorProto.BOOL: np.bool_}.get(attributes.get("to"), np.float32)
    return Single(op, parts, attributes, opset, outputs, low, GIVES.get(op, to))


def save(path: Path, nodes: Sequence[Any], inputs: dict[str, Sequence[Any]], constants: dict[str, np.ndarray],
         outputs: Sequence[str], opset: int = 17, dtype: Any = np.float32, gives: Any = None) -> Path:
    """Write a network to a file without checking it."""
    kind = KINDS[dtype]
    graph = helper.make_graph(
        list(nodes), "net", [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, KINDS[gives or dtype], None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def save_single(path: Path, case: Single) -> Path:
    """Write the network of one node."""
    names = [f"{'c' if isinstance(part, np.ndarray) else 'x'}{place}" if part is not None else ""
             for place, part in enumerate(case.arguments)]
    parts = dict(zip(names, case.arguments, strict=True))
    outputs = [f"y{place}" for place in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="the_node", **case.attributes)
    constants = {name: part for name, part in parts.items() if isinstance(part, np.ndarray)}
    inputs = {name: part for name, part in parts.items() if isinstance(part, tuple)}
    return save(path, [node], inputs, constants, outputs, case.opset, gives=case.gives)


def attribute_tensor(value: np.ndarray) -> onnx.TensorProto:
    """An array as the value of an attribute."""
    return numpy_helper.from_array(value)


def seq(*shape: int, seed: int = 0) -> np.ndarray:
    """Small random weights of a recurrent layer."""
    return 0.7 * numbers(*shape, seed=seed)


GRID = np.random.default_rng(3).uniform(-1.2, 1.2, (1, 3, 2, 2)).astype(np.float32)
"""Places to sample at, some beyond the image."""
STATISTICS = (numbers(3), numbers(3, seed=1), numbers(3, seed=2), np.abs(numbers(3, seed=3)))
"""Scale, shift, mean and variance of three channels."""
ARGUMENTS: dict[str, tuple[Shape | np.ndarray, ...]] = {
    "two": ((1, 3, 4), (1, 3, 4)), "constant": ((1, 3, 4), numbers(3, 1)), "constant_first": (numbers(1, 4), (1, 3, 4)),
    "whole_constant": ((1, 3, 4), numbers(1, 3, 4)), "scalar": ((1, 3, 4), np.array(0.7, np.float32)),
    "grows": ((1, 4), numbers(3, 4)), "broadcast_two": ((1, 3, 1), (1, 1, 4)), "more_axes": ((4,), (1, 3, 4)),
    "no_batch": ((5,), (5,)), "constant_of_more_axes": ((1, 4), numbers(1, 1, 1, 4)),
}
"""Pairs of arguments that broadcast."""
POOLS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_shape": [2, 3]}, "strides": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "pads": {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "strides": [2, 1]},
    "ceil": {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    "ceil_pads": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    "same": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
}
"""Options of both kinds of pools."""
SINGLES: dict[str, Single] = {
    # one argument
    **{op.lower(): one(op, (1, 3, 4)) for op in (
        "Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Sin", "Cos", "Floor", "Ceil", "Sign", "Identity", "HardSwish")},
    **{op.lower(): one(op, (1, 3, 4), low=0.5) for op in ("Log", "Sqrt", "Reciprocal")},
    **{op.lower(): one(op, (1, 3, 4)) for op in (
        "Erf", "Atan", "Sinh", "Cosh", "Asinh", "Softplus", "Softsign", "Round", "Elu", "Selu", "Celu")},
    **{op.lower(): one(op, (1, 3, 4), opset=opset) for op, opset in (("Mish", 18), ("Gelu", 20))},
    "gelu_tanh": one("Gelu", (1, 3, 4), opset=20, approximate="tanh"),
    "tan": one("Tan", (1, 3, 4), low=1.6), "acosh": one("Acosh", (1, 3, 4), low=1.1),
    "elu_alpha": one("Elu", (1, 5), alpha=0.4), "celu_alpha": one("Celu", (1, 5), alpha=2.5),
    "selu_numbers": one("Selu", (1, 5), alpha=1.2, gamma=0.7), "thresholded_relu": one("ThresholdedRelu", (1, 5), alpha=0.4),
    "shrink_hard": one("Shrink", (1, 5), lambd=0.7), "shrink_soft": one("Shrink", (1, 5), lambd=0.7, bias=0.7),
    "mod": one("Mod", (1, 5), np.float32(0.7), fmod=1),
    "leaky_relu": one("LeakyRelu", (1, 5), alpha=0.3),
    "leaky_relu_default": one("LeakyRelu", (1, 5)),
    "prelu_one_slope": one("PRelu", (1, 3, 4), np.float32([0.3])),
    "prelu_slope_a_channel": one("PRelu", (1, 3, 4, 5), np.abs(numbers(3, 1, 1))),
    "hard_sigmoid": one("HardSigmoid", (1, 5), alpha=0.4, beta=0.3),
    "clip_6": one("Clip", (1, 5), opset=6, min=-0.5, max=0.7),
    "clip_inputs": one("Clip", (1, 5), np.float32(-0.5), np.float32(0.7)),
    "clip_below": one("Clip", (1, 5), np.float32(-0.5)),
    "clip_above": one("Clip", (1, 5), None, np.float32(0.7)),
    "clip_infinite": one("Clip", (1, 5), np.float32(0), np.float32(np.inf)),
    "clip_nothing": one("Clip", (1, 5)),
    "cast_to_its_own_type": one("Cast", (1, 5), to=TensorProto.FLOAT),
    "dropout_7": one("Dropout", (1, 5), opset=7, ratio=0.5),
    "dropout_13": one("Dropout", (1, 5), np.float32(0.5), opset=13),
    "cast_to_whole": one("Cast", (1, 5), to=TensorProto.INT64),
    "cast_to_truth": one("Cast", (1, 5), to=TensorProto.BOOL),
    # choices
    **{f"{op.lower()}_{axis}": one(op, (1, 3, 4), axis=axis, keepdims=keep)
       for op in ("ArgMax", "ArgMin") for axis, keep in ((1, 1), (2, 0), (0, 0))},
    "equal": one("Equal", (1, 4), np.float32([0.0, 1.0, -1.0, 0.5])),
    # two arguments
    **{f"{op.lower()}_{label}": one(op, *arguments)
       for op in ("Add", "Sub", "Mul", "Max", "Min") for label, arguments in ARGUMENTS.items()},
    "div": one("Div", (1, 4), (1, 3, 4), low=0.5),
    "div_by_constant": one("Div", (1, 3, 4), np.float32([2.0, 3.0, -4.0, 0.5])),
    "div_constant_by": one("Div", np.float32(2.0), (1, 3, 4), low=0.5),
    "pow_2": one("Pow", (1, 4), np.float32(2)),
    "pow_3": one("Pow", (1, 4), np.float32([3.0])),
    "pow_1": one("Pow", (1, 4), np.float32(1)),
    "pow_4_int": one("Pow", (1, 4), np.array(4, np.int64)),
    "pow_half": one("Pow", (1, 4), np.float32(0.5), low=0.5),
    "pow_minus_half": one("Pow", (1, 4), np.float32(-0.5), low=0.5),
    "pow_minus_1": one("Pow", (1, 4), np.float32(-1), low=0.5),
    "pow_minus_2": one("Pow", (1, 4), np.float32(-2), low=0.5),
    "pow_0": one("Pow", (1, 4), np.float32(0)),
    "pow_several": one("Pow", (1, 2), np.float32([2, 3]), low=0.5),
    "pow_of_two": one("Pow", (1, 4), (1, 4), low=0.5),
    "max_number": one("Max", (1, 3, 4), np.float32(0.3)),
    "min_number_of_more_axes": one("Min", (1, 4), np.full((1, 1, 1, 1), 0.3, np.float32)),
    "pow_fraction": one("Pow", (1, 4), np.float32(1.7), low=0.5),
    "sum_of_three": one("Sum", (1, 4), (1, 4), numbers(4)),
    "mean_of_three": one("Mean", (1, 4), (1, 4), numbers(4)),
    "max_of_three": one("Max", (1, 4), (1, 4), numbers(4)),
    # along axes
    **{f"{op.lower()}_{label}": one(op, (1, 3, 4), opset=11, **attributes)
       for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin") for label, attributes in {
           "last": {"axes": [-1]}, "all": {}, "all_flat": {"keepdims": 0}, "batch": {"axes": [0]},
           "batch_flat": {"axes": [0], "keepdims": 0}, "flat": {"axes": [1], "keepdims": 0}}.items()},
    "reduce_l1": one("ReduceL1", (1, 3, 4), axes=[2]),
    "reduce_l2": one("ReduceL2", (1, 3, 4), axes=[1, 2]),
    "reduce_l2_one": one("ReduceL2", (1, 3, 4), axes=[2], keepdims=0),
    "reduce_log_sum": one("ReduceLogSum", (1, 3, 4), axes=[2], low=0.5),
    "reduce_log_sum_exp": one("ReduceLogSumExp", (1, 3, 4), axes=[1, 2]),
    "reduce_sum_square": one("ReduceSumSquare", (1, 3, 4), axes=[1]),
    "reduce_sum_13": one("ReduceSum", (1, 3, 4), ints(1, -1)),
    "reduce_sum_13_noop": one("ReduceSum", (1, 3, 4), noop_with_empty_axes=1),
    "reduce_mean_18": one("ReduceMean", (2, 3, 4), ints(0), opset=18),
    "softmax_13": one("Softmax", (1, 3, 4), axis=1),
    "softmax_default": one("Softmax", (1, 3, 4)),
    "softmax_11": one("Softmax", (1, 3, 4), opset=11),
    "softmax_11_axis_2": one("Softmax", (1, 3, 4), opset=11, axis=2),
    "log_softmax": one("LogSoftmax", (1, 3, 4), axis=-1),
    # products
    "gemm": one("Gemm", (1, 4), numbers(4, 3), numbers(3)),
    "gemm_options": one("Gemm", (1, 4), numbers(3, 4), numbers(1, 3), transB=1, alpha=0.7, beta=1.3),
    "gemm_without_c": one("Gemm", (1, 4), numbers(4, 3)),
    "gemm_scalar_c": one("Gemm", (1, 4), numbers(4, 3), np.float32(0.5)),
    "gemm_rows": one("Gemm", (5, 4), numbers(4, 3), numbers(5, 1)),
    "gemm_trans_a": one("Gemm", (4, 1), numbers(4, 3), numbers(3), transA=1),
    "gemm_two": one("Gemm", (1, 4), (3, 4), (1, 3), transB=1, alpha=0.5, beta=2.0),
    "gemm_one_output": one("Gemm", (1, 4), numbers(4, 1), numbers(1)),
    **{f"matmul_{label}": one("MatMul", *arguments) for label, arguments in {
        "weight": ((1, 4), numbers(4, 3)), "weight_3d": ((1, 2, 4), numbers(4, 3)),
        "weight_one_matrix": ((1, 2, 4), numbers(1, 4, 3)), "weight_matrices": ((1, 2, 5, 4), numbers(2, 4, 3)),
        "left": (numbers(3, 4), (1, 4, 2)), "left_flat": (numbers(3, 4), (4, 2)), "left_one_row": (numbers(3, 1), (1, 4)),
        "two": ((1, 2, 3, 4), (1, 2, 4, 5)), "two_flat": ((3, 4), (4, 5)), "two_rows": ((1, 4), (4, 5)),
        "broadcast": ((1, 1, 3, 4), (1, 2, 4, 5)), "other_rank": ((3, 4), (1, 2, 4, 5)), "vector": ((1, 3, 4), numbers(4)),
        "vector_left": (numbers(3), (1, 3, 4)), "vectors": ((4,), (4,)), "no_batch": ((4,), numbers(4, 3))}.items()},
    # convolutions
    "conv": one("Conv", (1, 4, 7, 6), numbers(6, 2, 3, 2), numbers(6), strides=[2, 1], pads=[1, 0, 1, 0], dilations=[1, 2],
                group=2),
    "conv_uneven_pads": one("Conv", (1, 2, 7, 6), numbers(3, 2, 3, 3), pads=[0, 1, 2, 0]),
    "conv_same_upper": one("Conv", (1, 2, 7, 6), numbers(3, 2, 2, 3), numbers(3), auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv_same_lower": one("Conv", (1, 2, 7, 6), numbers(3, 2, 2, 3), numbers(3), auto_pad="SAME_LOWER"),
    "conv_valid": one("Conv", (1, 2, 7, 6), numbers(1, 2, 2, 3), numbers(1), auto_pad="VALID"),
    "conv_one_axis": one("Conv", (1, 2, 7), numbers(3, 2, 3), numbers(3), pads=[1, 0]),
    "conv_three_axes": one("Conv", (1, 2, 4, 5, 3), numbers(3, 2, 2, 2, 2), pads=[1, 1, 1, 1, 1, 1]),
    "conv_transpose": one("ConvTranspose", (1, 4, 3, 4), numbers(4, 2, 3, 3), numbers(4), strides=[2, 3], pads=[1, 0, 1, 2],
                          output_padding=[1, 2], group=2),
    "conv_transpose_plain": one("ConvTranspose", (1, 2, 3, 4), numbers(2, 3, 2, 2)),
    "conv_transpose_dilated": one("ConvTranspose", (1, 2, 3, 4), numbers(2, 3, 2, 2), dilations=[2, 1], strides=[1, 2]),
    "conv_transpose_shape": one("ConvTranspose", (1, 2, 3, 4), numbers(2, 3, 3, 3), strides=[2, 2], output_shape=[6, 8]),
    "conv_transpose_same": one("ConvTranspose", (1, 2, 3, 4), numbers(2, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    "conv_transpose_one_axis": one("ConvTranspose", (1, 2, 5), numbers(2, 3, 3), numbers(3), strides=[2], pads=[1, 1]),
    # normalisation
    "batch_norm": one("BatchNormalization", (1, 3, 4, 5), *STATISTICS, epsilon=1e-3),
    "batch_norm_flat": one("BatchNormalization", (1, 3), *STATISTICS),
    "instance_norm": one("InstanceNormalization", (1, 3, 4, 5), numbers(3), numbers(3, seed=1), epsilon=1e-2),
    "layer_norm": one("LayerNormalization", (1, 3, 4), numbers(4), numbers(4, seed=1)),
    "layer_norm_two_axes": one("LayerNormalization", (1, 3, 4), numbers(3, 4), axis=1),
    "rms_norm": one("RMSNormalization", (1, 3, 4), numbers(4), opset=23, axis=-1),
    "group_norm": one("GroupNormalization", (1, 4, 3, 2), numbers(4), numbers(4, seed=1), opset=21, num_groups=2),
    "mean_variance_norm": one("MeanVarianceNormalization", (1, 3, 4, 2)),
    "mean_variance_norm_axes": one("MeanVarianceNormalization", (1, 3, 4, 2), axes=[2, 3]),
    "lp_norm_1": one("LpNormalization", (1, 3, 4), p=1, axis=1),
    "lp_norm_2": one("LpNormalization", (1, 3, 4), p=2),
    "local_norm": one("LRN", (1, 5, 3, 2), size=3, alpha=0.5, beta=0.6, bias=1.5),
    # pools
    **{f"{op.lower()}_{label}": one(op, (1, 2, 7, 6), **attributes)
       for op in ("MaxPool", "AveragePool") for label, attributes in POOLS.items()},
    "max_pool_dilated": one("MaxPool", (1, 2, 7, 6), kernel_shape=[2, 2], dilations=[2, 3]),
    "max_pool_one_axis": one("MaxPool", (1, 2, 7), kernel_shape=[3], strides=[2], pads=[1, 1]),
    "average_pool_counts_pads": one("AveragePool", (1, 2, 7, 6), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "average_pool_counts_pads_ceil": one("AveragePool", (1, 2, 7, 6), kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                                         count_include_pad=1, strides=[2, 2], ceil_mode=1, opset=19),
    "global_average_pool": one("GlobalAveragePool", (1, 2, 3, 4)),
    "global_max_pool": one("GlobalMaxPool", (1, 2, 3, 4)),
    **{f"lppool_{label}": one("LpPool", (1, 2, 7, 6), opset=18, p=p, **POOLS[label])
       for p, label in ((1, "plain"), (2, "pads"), (2, "ceil"), (3, "strides"))},
    "global_lp_pool": one("GlobalLpPool", (1, 2, 3, 4), p=2),
    "average_pool_dilated": one("AveragePool", (1, 2, 7, 6), kernel_shape=[2, 2], dilations=[2, 3], opset=19),
    "col2im": one("Col2Im", (1, 8, 6), ints(3, 4), ints(2, 2), opset=18),
    "col2im_pads": one("Col2Im", (1, 8, 12), ints(5, 7), ints(2, 2), opset=18, pads=[1, 1, 1, 1], strides=[2, 2],
                       dilations=[1, 1]),
    **{f"grid_sample_{mode}_{padding}": one("GridSample", (1, 2, 4, 5), GRID, mode=mode, padding_mode=padding, opset=16)
       for mode, padding in (("bilinear", "zeros"), ("nearest", "border"), ("bicubic", "reflection"))},
    # sequences
    **{f"cumsum_{exclusive}{reverse}": one("CumSum", (1, 4, 3), np.array(1, np.int64), exclusive=exclusive, reverse=reverse)
       for exclusive in (0, 1) for reverse in (0, 1)},
    "cumsum_batch": one("CumSum", (1, 3), np.array(0, np.int64)),
    **{f"einsum_{place}": one("Einsum", *shapes, equation=equation) for place, (equation, *shapes) in enumerate((
        ("bij,bjk->bik", (1, 2, 3), (1, 3, 4)), ("bij,kj->bik", (1, 2, 3), numbers(4, 3)), ("bii->b", (1, 3, 3)),
        ("...ij,...jk", (1, 2, 3, 4), (1, 2, 4, 2)), ("bi,bj->bij", (1, 3), (1, 4)), ("bij->bj", (1, 2, 3)),
        ("bij->jib", (1, 2, 3)), ("bi,bj,ij->b", (1, 3), (1, 4), numbers(3, 4)), ("bi,bi->b", (1, 3), (1, 3))))},
    "attention_four_axes": one("Attention", (1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 3), opset=23),
    "attention_three_axes": one("Attention", (1, 3, 8), (1, 5, 4), (1, 5, 4), opset=23, q_num_heads=4, kv_num_heads=2,
                                scale=0.3),
    "attention_causal": one("Attention", (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4), opset=23, is_causal=1),
    "attention_mask": one("Attention", (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4), np.tri(3, dtype=bool), opset=23),
    **{f"{op.lower()}_{direction}": one(
        op, (4, 1, 3), seq(ways, gates * 2, 3), seq(ways, gates * 2, 2, seed=1), seq(ways, gates * 4, seed=2),
        hidden_size=2, direction=direction, outputs=3 if op == "LSTM" else 2)
       for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
       for direction, ways in (("forward", 1), ("reverse", 1), ("bidirectional", 2))},
    "gru_reset_last": one("GRU", (4, 1, 3), seq(1, 6, 3), seq(1, 6, 2), seq(1, 12), hidden_size=2, linear_before_reset=1,
                          outputs=2),
    "lstm_states": one("LSTM", (2, 1, 3), seq(1, 8, 3), seq(1, 8, 2), None, None, (1, 1, 2), numbers(1, 1, 2), hidden_size=2,
                       outputs=3),
    "rnn_relu": one("RNN", (2, 1, 3), seq(1, 2, 3), seq(1, 2, 2), hidden_size=2, activations=["Relu"], outputs=2),
    # shapes
    "reshape": one("Reshape", (1, 6), ints(1, 2, 3)),
    "reshape_unknown_batch": one("Reshape", (1, 6), ints(-1, 2, 3)),
    "reshape_keeps": one("Reshape", (1, 6, 2), ints(0, -1)),
    "reshape_drops_batch": one("Reshape", (1, 6), ints(6)),
    "reshape_away": one("Reshape", (1, 6), ints(3, 2)),
    "flatten": one("Flatten", (1, 2, 3), opset=1),
    "flatten_0": one("Flatten", (1, 2, 3), axis=0),
    "flatten_negative": one("Flatten", (1, 2, 3), axis=-1),
    "squeeze_11": one("Squeeze", (1, 3, 1), opset=11, axes=[2]),
    "squeeze_13": one("Squeeze", (1, 3, 1), ints(0, 2)),
    "squeeze_all": one("Squeeze", (1, 3, 1)),
    "unsqueeze_11": one("Unsqueeze", (1, 3), opset=11, axes=[0, 3]),
    "unsqueeze_13": one("Unsqueeze", (1, 3), ints(1)),
    "transpose": one("Transpose", (1, 2, 3, 4), perm=[0, 2, 3, 1]),
    "transpose_default": one("Transpose", (1, 2, 3)),
    "transpose_batch": one("Transpose", (1, 2, 3), perm=[1, 2, 0]),
    "slice_1": one("Slice", (1, 5, 4), opset=1, starts=[1, 0], ends=[4, 2], axes=[1, 2]),
    "slice_10": one("Slice", (1, 5, 4), ints(1), ints(5), ints(1), ints(2)),
    "slice_all_axes": one("Slice", (1, 5, 4), ints(0, -3, 0), ints(1, 9, 2)),
    "slice_backwards": one("Slice", (1, 5, 4), ints(-1), ints(-(2**62)), ints(1), ints(-2)),
    "split_equal": one("Split", (1, 6), opset=11, outputs=3, axis=1),
    "split_sizes": one("Split", (1, 6), ints(1, 3, 2), outputs=3, axis=-1),
    "split_uneven_18": one("Split", (1, 7), opset=18, outputs=3, axis=1, num_outputs=3),
    "gather_scalar": one("Gather", (1, 5, 4), np.array(2, np.int64), axis=1),
    "gather_list": one("Gather", (1, 5, 4), ints(3, 0, -1), axis=1),
    "gather_range": one("Gather", (1, 5, 4), ints(1, 2, 3), axis=1),
    "gather_matrix": one("Gather", (1, 5, 4), ints(1, 2, 3, 0).reshape(2, 2), axis=2),
    "gather_batch": one("Gather", (1, 5), np.array(0, np.int64), axis=0),
    "gather_elements": one("GatherElements", (1, 3, 2), ints(0, 2, 1, 1).reshape(1, 2, 2), axis=1),
    "gather_nd_batch": one("GatherND", (1, 3, 2), ints(2, 0).reshape(1, 2, 1), batch_dims=1),
    "trilu_upper": one("Trilu", (1, 3, 4)),
    "trilu_lower": one("Trilu", (1, 3, 4), np.array(-1, np.int64), upper=0),
    "compress": one("Compress", (1, 4, 2), np.array([True, False, True, True]), axis=1),
    "reverse_sequence": one("ReverseSequence", (1, 4, 2), ints(3), batch_axis=0, time_axis=1),
    "gather_nd": one("GatherND", (1, 3, 2), ints(0, 2, 0, 0).reshape(2, 2)),
    "concat": one("Concat", (1, 3), (1, 2), axis=1),
    "concat_constant": one("Concat", (1, 2, 3), numbers(1, 2, 2), (1, 2, 1), axis=-1),
    "concat_rows": one("Concat", (1, 3), (1, 3), numbers(2, 3), axis=0),
    "pad": one("Pad", (1, 2, 3), ints(0, 1, 0, 0, 0, 2), np.float32(0.5)),
    "pad_2": one("Pad", (1, 2, 3), opset=2, pads=[0, 0, 1, 0, 0, 1]),
    "pad_cuts": one("Pad", (1, 2, 5), ints(0, 1, -1, 0, 0, -1)),
    "pad_reflect": one("Pad", (1, 2, 5), ints(0, 0, 2, 0, 0, 1), mode="reflect"),
    "pad_edge": one("Pad", (1, 2, 5), ints(0, 1, 2, 0, 0, 1), mode="edge"),
    "pad_axes": one("Pad", (1, 2, 5), ints(1, 2), np.float32(-1), ints(2), opset=18),
    "pad_rows": one("Pad", (1, 2), ints(1, 0, 0, 0)),
    "expand": one("Expand", (1, 1, 3), ints(1, 4, 3)),
    "expand_axes": one("Expand", (1, 3), ints(2, 1, 1)),
    "expand_nothing": one("Expand", (1, 3), ints(1)),
    "tile": one("Tile", (1, 2, 3), ints(1, 2, 2)),
    "depth_to_space": one("DepthToSpace", (1, 8, 2, 3), blocksize=2),
    "depth_to_space_crd": one("DepthToSpace", (1, 8, 2, 3), blocksize=2, mode="CRD"),
    "space_to_depth": one("SpaceToDepth", (1, 2, 4, 6), blocksize=2),
    "where": one("Where", np.array([[True, False, True]]), (1, 2, 3), numbers(2, 1)),
    "where_two": one("Where", np.array([True, False, True]), (1, 3), (1, 2, 3)),
    "scatter_nd": one("ScatterND", (1, 3, 2), ints(0, 2, 0, 0).reshape(2, 2), (2, 2)),
    "scatter_elements": one("ScatterElements", numbers(1, 4), ints(3, 1).reshape(1, 2), (1, 2), axis=1),
    # resizing
    "upsample": one("Upsample", (1, 2, 3, 4), np.float32([1, 1, 2, 3]), opset=9),
    "resize_10": one("Resize", (1, 2, 3, 4), np.float32([1, 1, 2, 0.5]), opset=10),
    "resize_sizes": one("Resize", (1, 2, 3, 4), None, None, ints(1, 2, 5, 6), coordinate_transformation_mode="asymmetric",
                        nearest_mode="floor"),
    **{f"resize_{mode}_{where}": one("Resize", (1, 2, 3, 4), None, np.float32([1, 1, 2, 1.5]), mode=mode,
                                     coordinate_transformation_mode=where)
       for mode in ("nearest", "linear") for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")},
    **{f"resize_cubic_{where}": one("Resize", (1, 2, 3, 4), None, np.float32([1, 1, 2, 1.5]), mode="cubic",
                                    coordinate_transformation_mode=where)
       for where in ("half_pixel", "align_corners", "pytorch_half_pixel")},
    "resize_cubic_inside": one("Resize", (1, 2, 4, 4), None, np.float32([1, 1, 1.5, 2]), mode="cubic", exclude_outside=1,
                               cubic_coeff_a=-0.5),
    **{f"resize_{rule}": one("Resize", (1, 1, 4, 4), None, np.float32([1, 1, 1.5, 0.7]), nearest_mode=rule)
       for rule in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")},
}
"""One node each, by what is special about it."""
