"""Networks on sequences, sets, graphs and plain vectors, some with several inputs and outputs, kept small."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Sequence(nn.Module):
    """The last (or every) state of a recurrent layer, classified."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class Cells(nn.Module):
    """A cell that is called step by step."""

    def __init__(self, cell, width):
        super().__init__()
        self.cell, self.width = cell, width

    def forward(self, x):
        state = None
        for time in range(x.shape[1]):
            state = self.cell(x[:, time], state)
        return state


class Decoder(nn.Module):
    """A causal transformer as in GPT: attention with a triangular mask that is a buffer."""

    def __init__(self, width=4, heads=2, length=4):
        super().__init__()
        self.heads, self.attn, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-2), nn.LayerNorm(width, eps=1e-2)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width))
        self.register_buffer("mask", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
                   for part in self.attn(self.norm1(x)).split(width, dim=2))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
        y = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(batch, length, width)
        x = x + self.proj(y)
        return x + self.mlp(self.norm2(x))


class Cross(nn.Module):
    """Two sequences, one attending to the other, with the weights as a second output."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x, memory):
        return self.attention(x, memory, memory)


class Causal(nn.Module):
    """A dilated convolution over the past (TCN), gated as in WaveNet."""

    def __init__(self, width, step):
        super().__init__()
        self.step, self.conv = step, nn.Conv1d(width, 2 * width, 2, dilation=step)

    def forward(self, x):
        tanh, gate = self.conv(F.pad(x, (self.step, 0))).chunk(2, 1)
        return x + torch.tanh(tanh) * torch.sigmoid(gate)


class TextCnn(nn.Module):
    """Convolutions of several widths over words, and the largest answer over time."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(4, 3, width) for width in (2, 3))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = x.transpose(1, 2)
        return self.head(torch.cat([torch.relu(conv(x)).max(2)[0] for conv in self.convs], 1))


class PointNet(nn.Module):
    """The largest feature over points, seen by every point again."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 4), nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = torch.relu(self.first(x))
        whole = y.max(dim=1, keepdim=True)[0].expand(-1, x.shape[1], -1)
        return self.head(torch.relu(self.second(torch.cat([y, whole], -1))).max(1)[0])


class GraphNet(nn.Module):
    """Two graph convolutions with a fixed adjacency matrix."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("adjacency", torch.softmax(torch.randn(5, 5), 1))

    def forward(self, x):
        return self.adjacency @ self.second(torch.relu(torch.einsum("ij,bjk->bik", self.adjacency, self.first(x))))


class Messages(nn.Module):
    """Messages along edges that are lists of indices: gathered, transformed, added up at their ends."""

    def __init__(self):
        super().__init__()
        self.register_buffer("source", torch.tensor([0, 1, 2, 3, 4, 0]))
        self.register_buffer("target", torch.tensor([1, 2, 3, 4, 0, 2]))
        self.edge, self.node = nn.Linear(6, 4), nn.Linear(7, 2)

    def forward(self, x):
        ends = torch.cat([x.index_select(1, self.source), x[:, self.target]], -1)
        total = torch.zeros(x.shape[0], 5, 4, dtype=x.dtype).index_add(1, self.target, torch.relu(self.edge(ends)))
        return self.node(torch.cat([x, total], -1))


class DeepSet(nn.Module):
    def __init__(self):
        super().__init__()
        self.phi, self.rho = nn.Sequential(nn.Linear(3, 4), nn.ELU()), nn.Linear(4, 2)

    def forward(self, x):
        return self.rho(self.phi(x).sum(1))


class Flow(nn.Module):
    """Two Runge-Kutta steps of an ordinary differential equation."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, x):
        h = 0.2
        for _ in range(2):
            k1 = self.f(x)
            k2 = self.f(x + h / 2 * k1)
            k3 = self.f(x + h / 2 * k2)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + self.f(x + h * k3))
        return x


class Highway(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.way = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.relu(self.way(x)) + (1 - gate) * x


class Maxout(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 9)

    def forward(self, x):
        return self.linear(x).unflatten(1, (3, 3)).amax(2)


class Siamese(nn.Module):
    """How near two inputs are, through one shared network."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))

    def forward(self, x, y):
        first, second = self.net(x), self.net(y)
        return (first - second).abs().sum(1), (first * second).sum(1, keepdim=True)


class Film(nn.Module):
    """A map scaled and shifted channel by channel by a second input (FiLM); inputs as a dictionary."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(4, 6)

    def forward(self, given):
        gamma, beta = self.scale(given["context"])[:, :, None, None].split(3, 1)
        return {"map": torch.relu(gamma * self.conv(given["image"]) + beta), "gamma": gamma.flatten(1)}


class Kernel(nn.Module):
    """A radial basis network: exp of distances to centres."""

    def __init__(self):
        super().__init__()
        self.centres, self.head = nn.Parameter(torch.randn(5, 4)), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(torch.exp(-(x.unsqueeze(1) - self.centres).pow(2).sum(-1)))


class Normalised(nn.Module):
    """Inputs normalised by constants of the forward itself, then a perceptron with tied weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4) / 2)

    def forward(self, x):
        x = (x - torch.tensor([0.1, 0.2, 0.3, 0.4])) / torch.tensor([0.5, 0.6, 0.7, 0.8])
        return F.linear(torch.relu(F.linear(x, self.weight)), self.weight)


class InPlace(nn.Module):
    """Entries written into a tensor, activations in place."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        y = torch.zeros(x.shape[0], 3, 4)
        y[:, 0] = self.linear(x)
        y[:, 1, :2] = x[:, 2:]
        y[:, 2] = (y[:, 0] * 2).relu_()
        y += 0.5
        return y


class Variational(nn.Module):
    """An encoder with two heads; what is random is an input."""

    def __init__(self):
        super().__init__()
        self.encoder, self.mean, self.spread = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(5, 2)
        self.decoder = nn.Linear(2, 4)

    def forward(self, x, *, noise):
        hidden = torch.tanh(self.encoder(x))
        mean, spread = self.mean(hidden), torch.exp(0.5 * self.spread(hidden))
        return {"decoded": self.decoder(mean + spread * noise), "latent": (mean, spread)}


class Polynomial(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.bilinear = nn.Linear(4, 3), nn.Bilinear(3, 3, 2)

    def forward(self, x):
        y = self.linear(x)
        return self.bilinear(y, y) + torch.stack([y.prod(1), y.cumsum(1)[:, -1]], 1)


def parametrized():
    from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
    return nn.Sequential(weight_norm(nn.Linear(4, 5)), nn.ReLU(), spectral_norm(nn.Linear(5, 4)), nn.ReLU(),
                         orthogonal(nn.Linear(4, 3)))


def rnn(kind, **options):
    layer = kind(3, 3, batch_first=True, **options)
    return Sequence(layer, 3 * (2 if options.get("bidirectional") else 1))


def transformer(**options):
    layer = nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True, layer_norm_eps=1e-2, **options)
    return nn.Sequential(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Flatten(1), nn.Linear(12, 2))


def volume():
    return nn.Sequential(nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2), nn.ReLU(), nn.MaxPool3d(2, 1), nn.ConvTranspose3d(2, 2, 2),
                         nn.AdaptiveAvgPool3d((1, 2, 1)), nn.Flatten(), nn.Linear(4, 2))


STEPS, POINTS, FLAT = (3, 3), (5, 3), (4,)
OTHERS = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), [FLAT]),
    "lstm, both ways and two layers": (lambda: rnn(nn.LSTM, num_layers=2, bidirectional=True), [(2, 3)]),
    "gru": (lambda: rnn(nn.GRU, bias=False), [STEPS]), "rnn with relu": (lambda: rnn(nn.RNN, nonlinearity="relu"), [STEPS]),
    "lstm cells": (lambda: Cells(nn.LSTMCell(3, 2), 2), [STEPS]), "gru cells": (lambda: Cells(nn.GRUCell(3, 2), 2), [STEPS]),
    "lstm with its states": (lambda: nn.LSTM(3, 2, batch_first=True), [(2, 3)]),
    "transformer encoder": (transformer, [(3, 4)]),
    "transformer encoder, norm first": (lambda: transformer(norm_first=True, activation="gelu"), [(3, 4)]),
    "gpt block": (Decoder, [(4, 4)]), "cross attention": (Cross, [(3, 4), (2, 4)]),
    "wavenet": (lambda: nn.Sequential(Causal(3, 1), Causal(3, 2)), [(3, 5)]), "text cnn": (TextCnn, [(5, 4)]),
    "pointnet": (PointNet, [POINTS]), "graph convolutions": (GraphNet, [POINTS]), "messages": (Messages, [POINTS]),
    "deep set": (DeepSet, [POINTS]), "runge-kutta": (Flow, [FLAT]), "highway": (Highway, [FLAT]), "maxout": (Maxout, [FLAT]),
    "siamese": (Siamese, [FLAT, FLAT]), "film": (Film, [{"image": (2, 3, 3), "context": (4,)}]),
    "radial basis": (Kernel, [FLAT]), "normalised inputs": (Normalised, [FLAT]), "in place": (InPlace, [FLAT]),
    "variational": (Variational, [FLAT], {"noise": (2,)}), "products": (Polynomial, [FLAT]),
    "parametrized": (parametrized, [FLAT]), "volume": (volume, [(1, 3, 4, 3)]),
}
"""Networks by name: how to make one, the shapes of its inputs, and of those that it takes by name."""
