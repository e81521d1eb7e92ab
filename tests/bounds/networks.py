"""Random networks: a list of block names and a seed make an nn.Module; blocks keep batches apart and values moderate."""

import math

import torch
from torch import nn

from boundlab.capture.torch import capture


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Crop(nn.Module):
    """A convolution without padding, beside a 1x1 convolution that is cropped."""

    def __init__(self, channels, out):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(channels, out, 3), nn.Conv2d(channels, out, 1)

    def forward(self, x):
        return self.wide(x) + self.narrow(x)[:, :, 1:-1, 1:-1]


class Downsample(nn.Module):
    """Two paths of one stride and different kernels."""

    def __init__(self, channels, out):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(channels, out, 3, 2, 1), nn.Conv2d(channels, out, 1, 2)

    def forward(self, x):
        return torch.relu(self.wide(x)) - self.narrow(x)


class Concat(nn.Module):
    """[f(x), x] along the first axis."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return torch.cat([self.inner(x), x], 1)


class Product(nn.Module):
    """f(x) * g(x)."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.first(x) * self.second(x)


class Quotient(nn.Module):
    """f(x) / (1 + g(x)^2)."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        below = self.second(x)
        return self.first(x) / (1.0 + below * below)


class Shared(nn.Module):
    """One value read three times: h = f(x), then relu(h) - h / 2 + mean(h)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        h = self.inner(x)
        return torch.relu(h) - h / 2 + h.mean(1, keepdim=True)


class Attention(nn.Module):
    """Softmax attention of one head over tokens, added to its input."""

    def __init__(self, width):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        scores = self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(x.shape[-1])
        return x + torch.softmax(scores, -1) @ self.value(x)


class Apply(nn.Module):
    """A plain function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def normalised(channels):
    """Batch norm with statistics as after training, in eval mode."""
    layer = nn.BatchNorm2d(channels)
    with torch.no_grad():
        layer.running_mean.uniform_(-0.5, 0.5)
        layer.running_var.uniform_(0.5, 2.0)
        layer.weight.uniform_(-1.5, 1.5)
        layer.bias.uniform_(-0.5, 0.5)
    return layer


def linear(size, out=None):
    return nn.Linear(size, out or size)


ACTIVATIONS = {
    "relu": lambda shape: nn.ReLU(),
    "leaky": lambda shape: nn.LeakyReLU(0.2),
    "sigmoid": lambda shape: nn.Sigmoid(),
    "tanh": lambda shape: nn.Tanh(),
    "hardtanh": lambda shape: nn.Hardtanh(-0.7, 0.9),
    "abs": lambda shape: Apply(torch.abs),
    "square": lambda shape: Apply(lambda x: x * x),
    "exp": lambda shape: Apply(lambda x: torch.exp(-x.clamp(-2, 2))),
    "affine": lambda shape: Apply(lambda x: 0.5 - 1.5 * x),
    "own maximum": lambda shape: Apply(lambda x: torch.maximum(x, 0.3 - x)),
}
VECTOR = {
    "linear": lambda shape: linear(shape[0], 5),
    "residual": lambda shape: Residual(nn.Sequential(linear(shape[0]), nn.ReLU(), linear(shape[0]))),
    "concat": lambda shape: nn.Sequential(Concat(linear(shape[0], 2)), nn.ReLU(), linear(shape[0] + 2, 4)),
    "product": lambda shape: Product(linear(shape[0], 3), nn.Sequential(linear(shape[0], 3), nn.Sigmoid())),
    "quotient": lambda shape: Quotient(linear(shape[0], 3), linear(shape[0], 3)),
    "shared": lambda shape: Shared(linear(shape[0], 4)),
    "softmax": lambda shape: nn.Sequential(linear(shape[0], 3), nn.Softmax(1)),
    "layer norm": lambda shape: nn.LayerNorm(shape[0]) if shape[0] > 2 else None,
    "halves": lambda shape: Apply(lambda x: x[:, ::2].sum(1, keepdim=True) - 0.5 * x),
}
IMAGE = {
    "conv 3": lambda shape: nn.Conv2d(shape[0], 4, 3, padding=1),
    "conv stride": lambda shape: nn.Conv2d(shape[0], 4, (3, 2), stride=2, padding=(1, 0)) if min(shape[1:]) > 2 else None,
    "conv dilated": lambda shape: nn.Conv2d(shape[0], 2, 2, dilation=2, padding=1) if min(shape[1:]) > 2 else None,
    "conv groups": lambda shape: nn.Conv2d(shape[0], 4, 3, padding=2, groups=2) if shape[0] % 2 == 0 else None,
    "conv 1": lambda shape: nn.Conv2d(shape[0], 3, 1, bias=False),
    "residual": lambda shape: Residual(nn.Sequential(
        nn.Conv2d(shape[0], 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, shape[0], 3, padding=1))),
    "crop": lambda shape: Crop(shape[0], 3) if min(shape[1:]) > 3 else None,
    "downsample": lambda shape: Downsample(shape[0], 3),
    "concat": lambda shape: Concat(nn.Conv2d(shape[0], 2, 3, padding=1)),
    "batch norm": lambda shape: normalised(shape[0]),
    "average pool": lambda shape: nn.AvgPool2d(2, 1) if min(shape[1:]) > 2 else None,
    "max pool": lambda shape: nn.MaxPool2d(2) if min(shape[1:]) > 2 else None,
    "padded max pool": lambda shape: nn.MaxPool2d(3, 2, 1) if min(shape[1:]) > 2 else None,
    "pad": lambda shape: nn.ZeroPad2d((1, 0, 0, 1)) if max(shape[1:]) < 7 else None,
    "transposed": lambda shape: nn.ConvTranspose2d(shape[0], 2, 2, stride=2) if max(shape[1:]) < 4 else None,
    "product": lambda shape: Product(nn.Conv2d(shape[0], 2, 3, padding=1), nn.Conv2d(shape[0], 2, 1)),
    "shared": lambda shape: Shared(nn.Conv2d(shape[0], 2, 3, padding=1)),
    "turned": lambda shape: Apply(lambda x: x.permute(0, 1, 3, 2)),
}
TOKENS = {
    "tokenwise": lambda shape: linear(shape[1], 4),
    "attention": lambda shape: Attention(shape[1]),
    "layer norm": lambda shape: nn.LayerNorm(shape[1]),
    "mixing": lambda shape: nn.Sequential(
        Apply(lambda x: x.transpose(1, 2)), linear(shape[0], 3), Apply(lambda x: x.transpose(1, 2))),
    "residual": lambda shape: Residual(nn.Sequential(linear(shape[1]), nn.ReLU(), linear(shape[1]))),
}
KINDS = {"vector": ((4,), {**VECTOR, **ACTIVATIONS}), "image": ((2, 6, 5), {**IMAGE, **ACTIVATIONS}),
         "tokens": ((3, 4), {**TOKENS, **ACTIVATIONS})}
AFFINE = {"vector": ("linear", "affine"), "tokens": ("tokenwise", "mixing", "affine"),
          "image": ("conv 3", "conv stride", "conv dilated", "conv groups", "conv 1", "crop", "concat", "batch norm",
                    "average pool", "pad", "transposed", "turned", "affine")}


def network(kind, blocks, seed):
    """A module of double precision over inputs of KINDS[kind], ending in three outputs; blocks that do not fit are left out."""
    shape, table = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        for name in blocks:
            block = table[name](tuple(shape))
            if block is None:
                continue
            layers.append(block.eval())
            with torch.no_grad():
                shape = tuple(nn.Sequential(*layers)(torch.zeros(2, *KINDS[kind][0])).shape[1:])
        return nn.Sequential(*layers, nn.Flatten(), linear(math.prod(shape), 3)).double().eval()


def captured(kind, blocks, seed):
    """The same network as module and as model."""
    module = network(kind, blocks, seed)
    return module, capture(module, torch.zeros(2, *KINDS[kind][0], dtype=torch.float64))
