"""Sigmoid and tanh: increasing, convex before zero and concave after it."""

from __future__ import annotations

import torch
from torch import Tensor

from boundlab.ops.curves import s_shaped_op
from boundlab.ops.op import monotone, register


def sigmoid_slope(x: Tensor) -> Tensor:
    """Derivative of the logistic function, written so that it does not cancel for large x."""
    return torch.sigmoid(x) * torch.sigmoid(-x)


def tanh_slope(x: Tensor) -> Tensor:
    """Derivative of tanh, as 4 sigmoid'(2x), which does not cancel for large x."""
    return 4 * sigmoid_slope(2 * x)


sigmoid = register(s_shaped_op("sigmoid", torch.sigmoid, sigmoid_slope, monotone(torch.sigmoid),
                               breaks=(), sources=("aten.sigmoid.default", "onnx:Sigmoid")))
tanh = register(s_shaped_op("tanh", torch.tanh, tanh_slope, monotone(torch.tanh),
                            breaks=(), sources=("aten.tanh.default", "onnx:Tanh")))
