"""Networks on images in the style of the usual libraries, written in plain torch and kept small."""

import torch
import torch.nn.functional as F
from torch import nn


def conv(inner, outer, kernel=3, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outer)]
    return nn.Sequential(*layers, *([act()] if act else []))


def head(channels, classes=3):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Branches(nn.Module):
    """Side by side, joined along the channels."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class Residual(nn.Module):
    """A branch beside a skip connection, and what follows the sum."""

    def __init__(self, branch, skip=None, after=None):
        super().__init__()
        self.branch, self.skip, self.after = branch, skip or nn.Identity(), after or nn.Identity()

    def forward(self, x):
        return self.after(self.branch(x) + self.skip(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, reduced, gate=nn.Sigmoid):
        super().__init__()
        self.fc1, self.fc2, self.gate = nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1), gate()

    def forward(self, x):
        return x * self.gate(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


def basic(inner, outer, stride=1):
    skip = conv(inner, outer, 1, stride, act=None) if stride > 1 or inner != outer else None
    return Residual(nn.Sequential(conv(inner, outer, 3, stride), conv(outer, outer, act=None)), skip, nn.ReLU())


def resnet18(width=2):
    stages = [basic(width * 2**max(stage - 1, 0) if first else width * 2**stage, width * 2**stage, 2 if stage and first else 1)
              for stage in range(4) for first in (True, False)]
    return nn.Sequential(conv(3, width, 3), nn.MaxPool2d(3, 2, 1), *stages, head(width * 8))


def resnext():
    inner = nn.Sequential(conv(6, 4, 1), conv(4, 4, groups=2), conv(4, 6, 1, act=None))
    return nn.Sequential(conv(3, 6, 3, 2), Residual(inner, None, nn.ReLU()), head(6))


def preactivation():
    block = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                          nn.Conv2d(4, 4, 3, padding=1))
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Residual(block), nn.BatchNorm2d(4), nn.ReLU(), head(4))


class Dense(nn.Module):
    """A dense block: every layer reads all before it."""

    def __init__(self, inner, growth, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(inner + place * growth), nn.ReLU(),
                                                  nn.Conv2d(inner + place * growth, growth, 3, padding=1, bias=False))
                                    for place in range(count))

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def densenet():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Dense(4, 2, 3), conv(10, 4, 1), nn.AvgPool2d(2), Dense(4, 2, 2), head(8))


def mobilenet2():
    block = nn.Sequential(conv(4, 8, 1, act=nn.ReLU6), conv(8, 8, 3, groups=8, act=nn.ReLU6), conv(8, 4, 1, act=None))
    return nn.Sequential(conv(3, 4, 3, 2, act=nn.ReLU6), Residual(block), nn.Dropout(.2), head(4))


def mobilenet3():
    block = nn.Sequential(conv(4, 8, 1, act=nn.Hardswish), conv(8, 8, 5, groups=8, act=nn.Hardswish),
                          SqueezeExcite(8, 4, nn.Hardsigmoid), conv(8, 4, 1, act=None))
    return nn.Sequential(conv(3, 4, 3, 2, act=nn.Hardswish), Residual(block), head(4))


def efficientnet():
    block = nn.Sequential(conv(4, 8, 1, act=nn.SiLU), conv(8, 8, 3, 2, groups=8, act=nn.SiLU), SqueezeExcite(8, 2),
                          conv(8, 6, 1, act=None))
    return nn.Sequential(conv(3, 4, 3, 2, act=nn.SiLU), block, head(6))


class ConvNeXt(nn.Module):
    """Depthwise convolution, layer norm with channels last, two linear layers, a scale for each channel."""

    def __init__(self, width):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 5, padding=2, groups=width), nn.LayerNorm(width, eps=1e-2)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(.5 * torch.ones(width))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


def squeezenet():
    fire = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(), Branches(nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU()),
                                                               nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU())))
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), fire, nn.Conv2d(6, 3, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())


def inception():
    block = Branches(conv(4, 2, 1), nn.Sequential(conv(4, 2, 1), conv(2, 2, 3)),
                     nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(4, 2, 1)),
                     nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(4, 2, 1)))
    return nn.Sequential(conv(3, 4, 3, 2), block, head(8))


class Shuffle(nn.Module):
    """ShuffleNet's unit: half of the channels pass, then all are shuffled."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(conv(2, 2, 1), conv(2, 2, 3, groups=2, act=None), conv(2, 2, 1))

    def forward(self, x):
        left, right = x.chunk(2, 1)
        y = torch.cat([left, self.branch(right)], 1)
        batch, channels, height, width = y.shape
        return y.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class UNet(nn.Module):
    """Down, up and across; `up` doubles the map."""

    def __init__(self, up):
        super().__init__()
        self.down1, self.down2, self.up, self.out = conv(3, 4), conv(4, 6), up, nn.Sequential(conv(8, 4), nn.Conv2d(4, 2, 1))

    def forward(self, x):
        first = self.down1(x)
        deep = self.up(self.down2(F.max_pool2d(first, 2)))
        gap = [first.shape[axis] - deep.shape[axis] for axis in (3, 2)]
        deep = F.pad(deep, [gap[0] // 2, gap[0] - gap[0] // 2, gap[1] // 2, gap[1] - gap[1] // 2])
        return self.out(torch.cat([first, deep], 1))


def unet():
    return UNet(nn.ConvTranspose2d(6, 4, 2, 2))


def unet_bilinear():
    return UNet(nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(6, 4, 1)))


def autoencoder():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, 2, 1), nn.ReLU(),
                         nn.ConvTranspose2d(2, 4, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.Sigmoid())


class Pyramid(nn.Module):
    """Features of two sizes, from top to bottom, as a dictionary and a list."""

    def __init__(self):
        super().__init__()
        self.low, self.high = conv(3, 4, 3, 2), conv(4, 4, 3, 2)
        self.side, self.smooth = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        low = self.low(x)
        high = self.high(low)
        merged = self.side(low) + F.interpolate(high, size=low.shape[-2:], mode="nearest")
        return {"p1": self.smooth(merged), "others": [high, high.amax((2, 3))]}


def super_resolution():
    return nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Tanh(), nn.Conv2d(4, 12, 3, padding=1), nn.PixelShuffle(2))


def generator():
    return nn.Sequential(nn.Linear(5, 16), nn.Unflatten(1, (4, 2, 2)), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.ConvTranspose2d(4, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.ConvTranspose2d(4, 1, 4, 2, 1, bias=False), nn.Tanh())


class Patches(nn.Module):
    """Patches of an image as tokens."""

    def __init__(self, width, size):
        super().__init__()
        self.proj = nn.Conv2d(3, width, size, size)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention as in timm: one layer for queries, keys and values."""

    def __init__(self, width, heads, bias=None):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        scores = scores if self.bias is None else scores + self.bias
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


def mlp(width, hidden, act=nn.GELU):
    return nn.Sequential(nn.Linear(width, hidden), act(), nn.Linear(hidden, width))


def encoder(width, heads=2):
    return nn.Sequential(Residual(nn.Sequential(nn.LayerNorm(width, eps=1e-2), Attention(width, heads))),
                         Residual(nn.Sequential(nn.LayerNorm(width, eps=1e-2), mlp(width, 2 * width))))


class ViT(nn.Module):
    """A class token, learned positions, blocks, a norm and a head."""

    def __init__(self, width=4, blocks=1, size=4, heads=2):
        super().__init__()
        self.patches, self.token = Patches(width, size), nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (8 // size) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(encoder(width, heads) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-2), nn.Linear(width, 3)

    def forward(self, x):
        x = self.patches(x)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class Windows(nn.Module):
    """Swin's shifted windows: roll, cut into windows, attend with a bias for each place, and back."""

    def __init__(self, width=4, size=2):
        super().__init__()
        self.size, self.attention = size, Attention(width, 2, torch.randn(2, size * size, size * size))
        self.norm = nn.LayerNorm(width, eps=1e-2)

    def forward(self, x):
        batch, channels, height, width = x.shape
        size = self.size
        y = torch.roll(self.norm(x.permute(0, 2, 3, 1)), (-1, -1), (1, 2))
        y = y.view(batch, height // size, size, width // size, size, channels).permute(0, 1, 3, 2, 4, 5)
        y = self.attention(y.reshape(-1, size * size, channels))
        y = y.view(batch, height // size, width // size, size, size, channels).permute(0, 1, 3, 2, 4, 5)
        y = torch.roll(y.reshape(batch, height, width, channels), (1, 1), (1, 2))
        return x + y.permute(0, 3, 1, 2)


def swin():
    return nn.Sequential(nn.Conv2d(3, 4, 2, 2), Windows(), head(4))


class Mixer(nn.Module):
    """MLP-Mixer's block: one MLP over tokens, one over channels."""

    def __init__(self, tokens, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-2), nn.LayerNorm(width, eps=1e-2)
        self.tokens, self.channels = mlp(tokens, 2 * tokens), mlp(width, 2 * width)

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class MeanTokens(nn.Module):
    def forward(self, x):
        return x.mean(1)


def mixer():
    return nn.Sequential(Patches(4, 4), Mixer(4, 4), nn.LayerNorm(4, eps=1e-2), MeanTokens(), nn.Linear(4, 3))


class PoolFormer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.pool = nn.GroupNorm(1, width, eps=1e-2), nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, x):
        y = self.norm(x)
        return x + self.pool(y) - y


def vgg():
    return nn.Sequential(conv(3, 4), nn.MaxPool2d(2), conv(4, 6), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(),
                         nn.Dropout(), nn.Linear(8, 3))


def lenet():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"), nn.Sigmoid(), nn.AvgPool2d(2),
                         nn.Conv2d(4, 4, 3), nn.Tanh(), nn.LPPool2d(2, 2), nn.Flatten(), nn.Linear(4, 3))


SMALL = (3, 8, 8)
IMAGES = {
    "lenet": (lenet, SMALL), "vgg": (vgg, SMALL), "resnet-18": (resnet18, SMALL), "resnext": (resnext, SMALL),
    "pre-activation resnet": (preactivation, SMALL), "densenet": (densenet, SMALL), "mobilenet v2": (mobilenet2, SMALL),
    "mobilenet v3": (mobilenet3, SMALL), "efficientnet": (efficientnet, SMALL),
    "convnext": (lambda: nn.Sequential(nn.Conv2d(3, 4, 4, 4), ConvNeXt(4), head(4)), SMALL),
    "squeezenet": (squeezenet, SMALL), "inception": (inception, SMALL),
    "shufflenet": (lambda: nn.Sequential(conv(3, 4, 3, 2), Shuffle(), head(4)), SMALL),
    "u-net": (unet, (3, 6, 7)), "u-net, bilinear": (unet_bilinear, SMALL), "autoencoder": (autoencoder, SMALL),
    "feature pyramid": (Pyramid, SMALL), "super-resolution": (super_resolution, (3, 4, 4)), "generator": (generator, (5,)),
    "vision transformer": (ViT, SMALL), "swin transformer": (swin, SMALL), "mlp-mixer": (mixer, SMALL),
    "poolformer": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), PoolFormer(4), head(4)), SMALL),
}
"""Networks by name: how to make one, and the shape of its input."""
LARGE = {
    "resnet-18, full": (lambda: resnet18(64), (3, 32, 32)),
    "vision transformer, larger": (lambda: ViT(32, 4, 2, 4), SMALL),
}
"""Networks as large as in use; for the long suite."""
