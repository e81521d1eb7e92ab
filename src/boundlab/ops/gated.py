"""Activations that are nearly 0 on the left and nearly x on the right: GELU, SiLU, Mish, ELU, hard swish."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from boundlab.ops.curves import curve_op
from boundlab.ops.hull import Curve
from boundlab.ops.op import register
from boundlab.ops.sshaped import sigmoid_slope, tanh_slope

# -- smooth, with a dip: concave, convex, concave -------------------------------------------------------------------------

def gelu_slope(x: Tensor) -> Tensor:
    """Phi(x) + x phi(x), with the normal distribution and its density."""
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    return torch.special.erfc(-x * math.sqrt(0.5)) / 2 + x * density


def tanh_gelu_slope(x: Tensor) -> Tensor:
    """Derivative of x (1 + tanh(c (x + 0.044715 x^3))) / 2 with c = sqrt(2 / pi); beyond 20, tanh is flat."""
    scale, near = math.sqrt(2 / math.pi), x.clamp(-20, 20)
    inner = scale * (near + 0.044715 * near ** 3)
    return (1 + torch.tanh(inner)) / 2 + near / 2 * tanh_slope(inner) * scale * (1 + 3 * 0.044715 * near.square())


def silu_slope(x: Tensor) -> Tensor:
    """sigmoid(x) (1 + x sigmoid(-x))."""
    return torch.sigmoid(x) + x * sigmoid_slope(x)


def mish_slope(x: Tensor) -> Tensor:
    """tanh(s) + x sigmoid(x) / cosh(s)^2 with s = softplus(x)."""
    soft = F.softplus(x)
    return torch.tanh(soft) + x * torch.sigmoid(x) * tanh_slope(soft)


gelu = register(curve_op("gelu", Curve(
    F.gelu, gelu_slope, (-math.sqrt(2), math.sqrt(2)), convex=False, turns=(-0.7517915246935644575,)),
    meaning="x times the normal distribution of x", sources=("onnx:Gelu",)))
"""Hendrycks and Gimpel 2016."""
tanh_gelu = register(curve_op("tanh_gelu", Curve(
    lambda x: F.gelu(x, approximate="tanh"), tanh_gelu_slope, (-1.4185040087908283555, 1.4185040087908283555), convex=False,
    turns=(-0.7524614220710162585,)), meaning="GELU with tanh for the normal distribution"))
"""Hendrycks and Gimpel 2016, the approximation with tanh."""
silu = register(curve_op("silu", Curve(
    F.silu, silu_slope, (-2.3993572805154676678, 2.3993572805154676678), convex=False, turns=(-1.2784645427610737951,)),
    meaning="x sigmoid(x)", sources=("aten.silu.default",)))
mish = register(curve_op("mish", Curve(
    F.mish, mish_slope, (-2.2563763963607931200, 1.4905714911794854293), convex=False, turns=(-1.1924312145154952121,)),
    meaning="x tanh(softplus(x))", sources=("aten.mish.default", "onnx:Mish")))
"""Misra 2019."""


# -- with kinks ----------------------------------------------------------------------------------------------------------

def hard_swish_slope(x: Tensor) -> Tensor:
    """0, then the parabola's slope from -1/2 to 3/2, then 1; at the kinks that of the parabola."""
    return torch.where(x < -3, 0.0, torch.where(x > 3, 1.0, (2 * x + 3) / 6))


hard_swish = register(curve_op("hard_swish", Curve(
    F.hardswish, hard_swish_slope, (-3.0, 3.0), convex=False, turns=(-1.5,)),
    meaning="x clip(x + 3, 0, 6) / 6", sources=("aten.hardswish.default", "onnx:HardSwish")))
"""Howard et al. 2019 (MobileNetV3), Sec. 5.2."""


def elu_curve(*, scale: float = 1.0, rate: float = 1.0) -> Curve:
    """x above zero, scale (exp(rate x) - 1) below, both numbers at least 0: a kink at zero unless scale rate = 1."""

    def f(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, scale * torch.expm1(rate * x.clamp(max=0)))

    def slope(x: Tensor) -> Tensor:
        return torch.where(x > 0, 1.0, scale * rate * torch.exp(rate * x.clamp(max=0)))

    return Curve(f, slope, (0.0,) if scale * rate > 1 else ())


elu = register(curve_op("elu", elu_curve, meaning="x above 0, scale (e^(rate x) - 1) below: ELU, SELU, CELU"))
"""Clevert et al. 2015; with other numbers SELU (Klambauer et al. 2017) and CELU (Barron 2017)."""
