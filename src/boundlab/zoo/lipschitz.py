"""Networks that are 1-Lipschitz in l_2 by construction: rescaled layers (AOL), and sorted pairs (MaxMin) between them.

The rescaling is a part of the forward pass, so weights are trained freely. That a layer is 1-Lipschitz is a theorem about real
numbers; what is certified of a trained network has bounds of the weights that rounding left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boundlab.errors import ShapeError
from boundlab.zoo.layers import image
from boundlab.zoo.record import MNIST, Record, Shape

AOL = "Prach and Lampert 2022 (AOL), a small network"
LEAST = 1e-12
"""Added to sums of absolute inner products, so that a row of zeros stays one; a larger divisor keeps the theorem."""


def rescaling(gram: Tensor) -> Tensor:
    """Factors (n,) for n vectors whose inner products with all others have the absolute values `gram` (n, m).

    With them the matrix of the vectors has spectral norm at most 1: D |W W^T| 1 <= 1 for D = diag(|W W^T| 1)^-1, so D^1/2 W has
    a Gram matrix that is similar to one with absolute row sums of at most 1. Prach and Lampert 2022 (AOL), Theorem 1.
    """
    return torch.rsqrt(gram.sum(1) + LEAST)


class AOLLinear(nn.Linear):
    """A linear layer, (b, in) to (b, out), whose outputs are rescaled so that it is 1-Lipschitz; inputs where they are fewer.

    Prach and Lampert 2022 (AOL), Theorem 1, on the matrix or its transpose. Its first weights are orthogonal.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        nn.init.orthogonal_(self.weight)

    @property
    def rescaled(self) -> Tensor:
        """The weights that act, (out, in)."""
        if self.out_features <= self.in_features:
            return self.weight * rescaling((self.weight @ self.weight.T).abs()).unsqueeze(1)
        return self.weight * rescaling((self.weight.T @ self.weight).abs())

    def forward(self, x: Tensor) -> Tensor:
        """The outputs."""
        return F.linear(x, self.rescaled, self.bias)


class AOLConv2d(nn.Conv2d):
    """A convolution of stride 1 whose channels are rescaled so that it is 1-Lipschitz: those of outputs, or of inputs if fewer.

    The inner products are those of kernels and all their shifts; zero padding only leaves entries out. `kernel` is odd, so that
    maps keep their size. Prach and Lampert 2022 (AOL), Theorem 2. Its first weights are an orthogonal matrix at the middle.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        if kernel % 2 == 0:
            raise ShapeError(f"the kernels of AOLConv2d have an odd size, so that maps keep theirs, got {kernel}.")
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[:, :, kernel // 2, kernel // 2] = nn.init.orthogonal_(torch.empty(outputs, inputs))

    @property
    def rescaled(self) -> Tensor:
        """The kernels that act, (out, in, k, k)."""
        if self.out_channels <= self.in_channels:
            return self.weight * rescaling(shifted_products(self.weight)).reshape(-1, 1, 1, 1)
        return self.weight * rescaling(shifted_products(self.weight.transpose(0, 1))).reshape(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The maps after it."""
        return F.conv2d(x, self.rescaled, self.bias, self.stride, self.padding)


def shifted_products(kernels: Tensor) -> Tensor:
    """Absolute inner products of kernels (n, c, k, k) with all of them at all shifts that overlap, (n, n * (2 k - 1)^2)."""
    size = kernels.shape[2]
    wide = F.pad(kernels, (size - 1,) * 4)
    windows = wide.unfold(2, size, 1).unfold(3, size, 1).permute(1, 4, 5, 0, 2, 3)
    return (kernels.reshape(len(kernels), -1) @ windows.reshape(kernels[0].numel(), -1)).abs()


class MaxMin(nn.Module):
    """The larger and the smaller one of each pair of channels (b, channels, *space): all larger ones, then all smaller ones.

    Anil et al. 2019 (GroupSort of groups of two). Written as a turn by 45 degrees, an absolute value and the turn back, so that
    every step is 1-Lipschitz on its own, for methods that look at one operator at a time.
    """

    turn: Tensor
    slope: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ShapeError(f"MaxMin sorts pairs of channels, so their number is even, got {channels}.")
        eye, one = torch.eye(channels // 2), torch.ones(channels // 2)
        self.register_buffer("turn", math.sqrt(0.5) * torch.cat([torch.cat([eye, eye], 1), torch.cat([eye, -eye], 1)]))
        self.register_buffer("slope", torch.cat([one, -one]))

    def turned(self, x: Tensor) -> Tensor:
        """Sums and differences of pairs, over the root of 2."""
        if x.dim() == 2:
            return F.linear(x, self.turn)
        return F.conv2d(x, self.turn[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """The sorted pairs."""
        return self.turned(F.prelu(self.turned(x), self.slope))


def small(shape: Shape, classes: int) -> nn.Module:
    """Two AOL convolutions on 2 x 2 pixels as channels, one hidden layer of 128, MaxMin after each; for even image sizes."""
    channels, height, width = image(shape)
    cells = (height // 4) * (width // 4)
    return nn.Sequential(
        nn.PixelUnshuffle(2), AOLConv2d(4 * channels, 16), MaxMin(16),
        nn.PixelUnshuffle(2), AOLConv2d(64, 32), MaxMin(32),
        nn.Flatten(), AOLLinear(32 * cells, 128), MaxMin(128), AOLLinear(128, classes))


def records() -> Iterator[Record]:
    """All of this family."""
    yield Record("aol-small-mnist", AOL, MNIST, 10, small)
