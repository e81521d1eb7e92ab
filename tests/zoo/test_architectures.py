"""Every network of the zoo has the layers and the number of parameters that the papers give, worked out here by hand."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from boundlab import ShapeError, zoo
from boundlab.zoo.layers import Conv

DATA = os.environ.get("BOUNDLAB_DATA")

# Convolutions as (channels, kernel, stride, padding), then hidden layers. CROWN-IBP, Table 4: padding 1, but 0 at stride 4,
# whose kernel is 4 whatever is printed.
PRINTED = {
    "a": "4 4/2, 8 4/2; 128", "b": "8 4/2, 16 4/2; 256", "c": "4 3/1, 8 3/1, 8 4/4; 64", "d": "8 3/1, 16 3/1, 16 4/4; 128",
    "e": "4 5/1, 8 5/1, 8 4/4; 64", "f": "8 5/1, 16 5/1, 16 4/4; 128", "g": "4 3/1, 4 4/2, 8 3/1, 8 4/2; 256 256",
    "h": "8 3/1, 8 4/2, 16 3/1, 16 4/2; 256 256", "i": "4 3/1, 4 4/2, 8 3/1, 8 4/2; 512 512",
    "j": "8 3/1, 8 4/2, 16 3/1, 16 4/2; 512 512", "k": "16 3/1, 16 4/2, 32 3/1, 32 4/2; 256 256",
    "l": "16 3/1, 16 4/2, 32 3/1, 32 4/2; 512 512", "m": "32 3/1, 32 4/2, 64 3/1, 64 4/2; 512 512",
    "n": "64 3/1, 64 4/2, 128 3/1, 128 4/2; 512 512", "o": "64 5/1, 128 5/1, 128 4/4; 512", "p": "32 5/1, 64 5/1, 64 4/4; 512",
    "q": "16 5/1, 32 5/1, 32 4/4; 512", "r": "32 3/1, 64 3/1, 64 4/4; 512", "s": "32 4/2, 64 4/2; 128",
    "t": "64 4/2, 128 4/2; 256",
}
SEVEN = "64 3/1, 64 3/1, 128 3/2, 128 3/1, 128 3/{}; 512"
CHAINS = {
    **{f"crown-ibp-{letter}": text for letter, text in PRINTED.items()},
    "dm-large": SEVEN.format(1), "cnn7-cifar": SEVEN.format(1), "cnn7-tiny": SEVEN.format(2),
    "cnn7-imagenet64": SEVEN.format(2), "cnn7-bn-cifar": SEVEN.format(1), "cnn7-bn-tiny": SEVEN.format(2),
    "cnn7-bn-imagenet64": SEVEN.format(2), "cnn-small": "16 4/2, 32 4/2; 100",
    "cnn-wide-1": "4 4/2, 8 4/2; 128", "cnn-wide-2": "8 4/2, 16 4/2; 256", "cnn-wide-4": "16 4/2, 32 4/2; 512",
    "cnn-wide-8": "32 4/2, 64 4/2; 1024", "cnn-deep-1": "8 4/2, 16 4/2; 100", "cnn-deep-2": "8 3/1, 8 4/2, 16 3/1, 16 4/2; 100",
    "4c3f": PRINTED["m"], "6c2f-cifar": "32 3/1, 32 3/1, 32 4/2, 64 3/1, 64 3/1, 64 4/2; 512",
    "8c2f-tiny": "64 3/1, 64 3/1, 64 4/2:0, 128 3/1, 128 3/1, 128 4/2:0, 256 3/1, 256 4/2:0; 256",
    "mlp-a": "; 500", "mlp-b": "; 100 100", "flat-mlp": "; 64 64",
    "mlp-9-100": "; " + "100 " * 9, "mlp-9-500": "; " + "500 " * 9,
}


def chain_of(name):
    """The chain that a network should have, or None."""
    if name.startswith("frown-"):
        layers, width = map(int, name.split("-")[1].split("x"))
        return "; " + f"{width} " * (layers - 1)
    return next((text for start, text in CHAINS.items() if name == start or name.removesuffix("-mnist") == start
                 or name.removesuffix("-cifar") == start), None)


def worked_out(text, shape, classes):
    """The layers of a chain for inputs of a shape: (kind, in, out, kernel, stride, padding), and its weights and biases."""
    convolutions, hidden = text.split(";")
    layers, size = [], math.prod(shape)
    if convolutions.strip():
        channels, height, width = shape
        for entry in convolutions.split(","):
            out, kernel, stride, *padding = (int(part) for part in entry.replace("/", " ").replace(":", " ").split())
            pad = padding[0] if padding else 0 if stride == 4 else 1
            layers.append(("conv", channels, out, kernel, stride, pad))
            channels = out
            height, width = ((side + 2 * pad - kernel) // stride + 1 for side in (height, width))
        size = channels * height * width
    for out in (*map(int, hidden.split()), classes):
        layers.append(("linear", size, out, 1, 1, 0))
        size = out
    return layers, sum(out * (before * kernel**2 + 1) for _, before, out, kernel, _, _ in layers)


def layers_of(module):
    """The layers with weights of a module, in the order of its source."""
    found = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            sizes = (layer.kernel_size[0], layer.stride[0], layer.padding[0])
            found.append(("conv", layer.in_channels, layer.out_channels, *sizes))
        elif isinstance(layer, nn.Linear):
            found.append(("linear", layer.in_features, layer.out_features, 1, 1, 0))
    return found


@pytest.mark.parametrize("name", [name for name in zoo.NAMES if chain_of(name)])
def test_chains_have_their_layers_and_counts(name):
    record, module = zoo.record(name), zoo.build(name)
    layers, count = worked_out(chain_of(name), record.shape, record.classes)
    norms = sum(2 * out for kind, _, out, *_ in layers if kind == "conv") if "-bn-" in name else 0
    assert layers_of(module) == layers
    assert zoo.parameter_count(module) == count + norms
    activations = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
    wanted = next((kind for word, kind in activations.items() if word in name), nn.ReLU)
    between = [layer for layer in module if isinstance(layer, (nn.ReLU, nn.Sigmoid, nn.Tanh))]
    assert len(between) == len(layers) - 1 and all(type(layer) is wanted for layer in between)


PUBLISHED = {"4c3f-mnist": 1974762, "4c3f-cifar": 2466858, "6c2f-cifar": 2250378, "wrn-cifar": 4214850, "8c2f-tiny": 4342984}


def test_published_counts():
    """Lee et al. 2020 (BCP), Table 2; no other paper prints counts."""
    assert {name: record.published for name, record in zoo.RECORDS.items() if record.published} == PUBLISHED
    assert {name: zoo.parameter_count(zoo.build(name)) for name in PUBLISHED} == PUBLISHED


def conv(before, out, kernel, groups=1):
    return out * (before // groups * kernel**2 + 1)


def wide(widths, second_norm, size, hidden, classes):
    """Blocks of a WideResNet: norm, 3x3, (norm,) 3x3, and a 1x1 shortcut, since every block changes the shape."""
    total, before = conv(3, 16, 3), 16
    for width in widths:
        total += 2 * before + conv(before, width, 3) + second_norm * 2 * width + conv(width, width, 3) + conv(before, width, 1)
        before = width
    total += second_norm * 2 * before
    return total + sum((a + 1) * b for a, b in zip((size, *hidden), (*hidden, classes), strict=True))


def resnext(widths, depth, size, classes):
    total, before = conv(3, 16, 3), 16
    for stage, width in enumerate(widths):
        for place in range(depth):
            total += conv(before, width, 1) + 2 * width + conv(width, width, 3, 2) + conv(width, 2 * width, 1)
            changes = before != 2 * width or (place == 0 and stage > 0)
            total += conv(before, 2 * width, 1) if changes else 0
            before = 2 * width
    return total + (size + 1) * 512 + 513 * classes


def dense(size, classes):
    """Blocks 2, 4, 4 of growth 32 from 64 channels; transitions halve 128 to 64 and 192 to 96; 224 channels at the end."""
    total = conv(3, 64, 3)
    for start, count in ((64, 2), (64, 4), (96, 4)):
        for place in range(count):
            before = start + 32 * place
            total += 2 * before + conv(before, 128, 1) + 2 * 128 + conv(128, 32, 3)
    total += 2 * 128 + conv(128, 64, 1) + 2 * 192 + conv(192, 96, 1) + 2 * 224
    return total + (size + 1) * 512 + 513 * classes


WIDE = (128, 256, 512), False, 512 * 8 * 8, (512,), 10
BY_HAND = {
    "wideresnet-cifar": wide(*WIDE), "wideresnet-tiny": wide((160, 320, 640), True, 640 * 2 * 2, (), 200),
    "wideresnet-imagenet64": wide((160, 320, 640), True, 640 * 2 * 2, (), 1000),
    "resnext-cifar": resnext((64, 128, 256), 1, 512 * 8 * 8, 10), "resnext-tiny": resnext((16, 32, 64), 2, 128 * 14 * 14, 200),
    "resnext-imagenet64": resnext((16, 32, 64), 2, 128 * 14 * 14, 1000),
    "densenet-cifar": dense(224 * 8 * 8, 10), "densenet-tiny": dense(224 * 14 * 14, 200),
    "densenet-imagenet64": dense(224 * 14 * 14, 1000),
    "wrn-cifar": 4214850, "aol-small-mnist": conv(4, 16, 3) + conv(64, 32, 3) + (32 * 49 + 1) * 128 + 129 * 10,
    # two directions of 4 gates from 64 numbers and 64 states with two biases; 128 means to 2 classes
    "bag-sst2": 2 * (64 + 1) * 64 + 65 * 2,
    "lstm-sst2": 2 * 4 * (64 * 64 + 64 * 64 + 2 * 64) + 129 * 2,
    # linear in, 3 norms, query/key/value/out, 64-128-64, pooler, 2 classes
    "transformer-sst2": 6 * 65 * 64 + 3 * 2 * 64 + 65 * 128 + 129 * 64 + 65 * 2,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_other_counts(name):
    assert zoo.parameter_count(zoo.build(name)) == BY_HAND[name]


def test_every_network_is_counted_by_hand():
    assert all(chain_of(name) or name in BY_HAND for name in zoo.NAMES)
    assert len(zoo.NAMES) == len(set(zoo.NAMES)) > 100


@pytest.mark.parametrize("name", [name for name in zoo.NAMES if zoo.record(name).classes <= 200])
def test_outputs_are_logits_and_depend_on_their_example_only(name):
    record, module = zoo.record(name), zoo.build(name).eval()
    x = torch.rand(2, *record.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both, alone = module(x), module(x[1:])
    assert both.shape == (2, record.classes) and torch.allclose(both[1:], alone, rtol=1e-3, atol=1e-5)


def test_wong_s_blocks():
    """Wong et al. 2018: 3x3 and 3x3 beside 1x1, and where the size halves 4x4 and 3x3 beside 2x2."""
    layers = layers_of(zoo.build("wrn-cifar"))
    blocks = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 64, 2)]
    wanted = [("conv", 3, 16, 3, 1, 1)]
    for before, out, stride in blocks:
        wanted += [("conv", before, out, 2 + stride if stride == 2 else 3, stride, 1), ("conv", out, out, 3, 1, 1),
                   ("conv", before, out, stride, stride, 0)]
    assert layers == [*wanted, ("linear", 4096, 1000, 1, 1, 0), ("linear", 1000, 10, 1, 1, 0)]


def test_other_shapes_and_classes():
    assert zoo.build("4c3f-mnist", (3, 32, 32), 7)[-1].out_features == 7
    assert zoo.parameter_count(zoo.build("4c3f-mnist", (3, 32, 32))) == PUBLISHED["4c3f-cifar"]
    for name, shape in (("densenet-cifar", (1, 8, 12)), ("wrn-cifar", (1, 12, 8)), ("resnext-cifar", (3, 10, 9)),
                        ("wideresnet-tiny", (3, 30, 60)), ("wideresnet-cifar", (2, 7, 9)), ("lstm-sst2", (5, 10))):
        assert zoo.build(name, shape, 3).eval()(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: zoo.build("4c3f"), "no network '4c3f'.*4c3f-mnist, 4c3f-cifar"), (lambda: zoo.record("nothing"), "lists all"),
    (lambda: zoo.build("mlp-b", classes=0), "at least one class"), (lambda: zoo.build("8c2f-tiny", (3, 8, 8)), "does not fit"),
    (lambda: zoo.build("cnn7-cifar", (10,)), "takes images"), (lambda: zoo.build("transformer-sst2", (3, 4, 5)), "sentences"),
])
def test_bad_requests_are_refused(call, said):
    from boundlab.errors import BoundlabError
    with pytest.raises(BoundlabError, match=said):
        call()
    with pytest.raises(ShapeError):
        Conv(1, 5, padding=0).after((1, 3, 3))


def test_the_lstm_is_torch_s_own():
    """The mean over the words of nn.LSTM with two directions and the same weights."""
    torch.manual_seed(0)
    ours, theirs = zoo.build("lstm-sst2"), nn.LSTM(64, 64, batch_first=True, bidirectional=True)
    for suffix, cell in (("", ours.forwards), ("_reverse", ours.backwards)):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            cell.get_parameter(kind).data = theirs.get_parameter(f"{kind}_l0{suffix}").data
    x = torch.randn(3, 5, 64)
    assert torch.allclose(ours(x), ours.last(theirs(x)[0].mean(1)), atol=1e-6)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", ["lstm-sst2", "transformer-sst2"])
def test_an_embedding_in_front(name, mask):
    """It feeds the same classifier; padding that the mask hides does not matter to a Transformer's other words."""
    torch.manual_seed(0)
    classifier = zoo.build(name).eval()
    worded = zoo.Worded(classifier, 11)
    tokens = torch.tensor([[3, 7, 1, 0, 0]])
    given = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]]) if mask else None
    assert torch.equal(worded(tokens, given), classifier(worded.embedding(tokens), given))
    assert zoo.parameter_count(worded) == zoo.parameter_count(classifier) + 11 * 64
    other = torch.tensor([[3, 7, 1, 9, 5]])
    assert torch.allclose(worded(tokens, given), worded(other, given)) is mask


@pytest.mark.skipif(DATA is None, reason="BOUNDLAB_DATA names no folder with published weights")
@pytest.mark.parametrize(("name", "file"), [
    ("mlp-b", "lp_all_salman2019/experiment_1/ADV_MLP_B_0.03.pth.npz"),
    ("mlp-b", "lp_all_salman2019/experiment_2/mnist_MLP_2_100_NOR.pth.npz"),
    ("cnn-small-mnist", "lp_all_salman2019/experiment_2/mnist_cnn_small_LPD.pth.npz"),
    ("frown-3x100-relu-mnist", "frown_aaai2020/mnist/net_3_100_relu/merged_bn_net.npz"),
    ("frown-3x100-sigmoid-mnist", "frown_aaai2020/mnist/net_3_100_sigmoid/merged_bn_net.npz"),
])
def test_published_weights_fit(name, file):
    """Those of Salman et al. under their own names; FROWN's modules have other names and the same shapes in the same order."""
    held = np.load(Path(DATA) / "paper_models" / file)
    weights = {key: torch.from_numpy(held[key]) for key in held.files}
    module = zoo.build(name)
    if "frown" in file:
        weights = dict(zip(module.state_dict(), weights.values(), strict=True))
    module.load_state_dict(weights)
