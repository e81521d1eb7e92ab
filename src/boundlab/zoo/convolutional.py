"""Chains of convolutions and linear layers: CROWN-IBP's A to T and dm-large, CNN-small, wide and deep, 4C3F to 8C2F, CNN-7."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import nn

from boundlab.zoo.layers import Conv, Shape, convolutional
from boundlab.zoo.record import AUTO_LIRPA, CIFAR, CROPPED, MNIST, ONLY_WIDE, PLACES, TINY, Factory, Record

CROWN_IBP = "Zhang et al. 2020 (CROWN-IBP), Table 4"
DM_LARGE = "Gowal et al. 2018, model large; Zhang et al. 2020 (CROWN-IBP), published code"
SALMAN = "Salman et al. 2019, Sec. 6 and App. I.1 (from Wong et al. 2018)"
BCP = "Lee et al. 2020 (BCP), Table 2"

TWO = {"a": (4, 128), "b": (8, 256), "s": (32, 128), "t": (64, 256)}
"""Two convolutions, the second twice as wide: first width, hidden units."""
THREE = {"c": (4, 3, 64), "d": (8, 3, 128), "e": (4, 5, 64), "f": (8, 5, 128), "o": (64, 5, 512), "p": (32, 5, 512),
         "q": (16, 5, 512), "r": (32, 3, 512)}
"""Three convolutions: first width, kernel of the first two, hidden units."""
FOUR = {"g": (4, 256), "h": (8, 256), "i": (4, 512), "j": (8, 512), "k": (16, 256), "l": (16, 512), "m": (32, 512),
        "n": (64, 512)}
"""Four convolutions, widths w, w, 2w, 2w: first width, units of both hidden layers."""
ONLY = {"a": ("mnist",), "o": ("mnist",), "p": ("mnist",), "s": ("cifar",), "t": ("cifar",)}
"""Models that the paper trains on one kind of images."""
MISPRINT = "the paper prints a third convolution of {printed} with stride 4; the published code has 4x4, as built here"


def two(shape: Shape, classes: int, width: int, hidden: int) -> nn.Module:
    """4x4 convolutions of stride 2, the second twice as wide, and one hidden layer."""
    return convolutional(shape, classes, (Conv(width, 4, 2), Conv(2 * width, 4, 2)), (hidden,))


def three(shape: Shape, classes: int, width: int, kernel: int, hidden: int) -> nn.Module:
    """Two convolutions of stride 1 and one of stride 4 without padding, and one hidden layer."""
    chain = (Conv(width, kernel), Conv(2 * width, kernel), Conv(2 * width, 4, 4, 0))
    return convolutional(shape, classes, chain, (hidden,))


def four(shape: Shape, classes: int, width: int, hidden: int) -> nn.Module:
    """Twice a 3x3 convolution and a 4x4 one of stride 2, and two hidden layers."""
    chain = (Conv(width, 3), Conv(width, 4, 2), Conv(2 * width, 3), Conv(2 * width, 4, 2))
    return convolutional(shape, classes, chain, (hidden, hidden))


def deep(shape: Shape, classes: int, depth: int) -> nn.Module:
    """CNN-deep-k: two groups of k convolutions (8 and 16 channels); the last of a group is 4x4 with stride 2, others 3x3."""
    chain = [conv for width in (8, 16) for conv in (*[Conv(width, 3)] * (depth - 1), Conv(width, 4, 2))]
    return convolutional(shape, classes, chain, (100,))


def six(shape: Shape, classes: int) -> nn.Module:
    """6C2F: twice two 3x3 convolutions and a 4x4 one of stride 2, 32 and 64 channels."""
    chain = [conv for width in (32, 64) for conv in (Conv(width, 3), Conv(width, 3), Conv(width, 4, 2))]
    return convolutional(shape, classes, chain, (512,))


def eight(shape: Shape, classes: int) -> nn.Module:
    """8C2F: groups of 3x3 convolutions that a 4x4 one of stride 2 without padding ends, 64, 128 and 256 channels."""
    groups = ((64, 2), (128, 2), (256, 1))
    chain = [conv for width, count in groups for conv in (*[Conv(width, 3)] * count, Conv(width, 4, 2, 0))]
    return convolutional(shape, classes, chain, (256,))


def seven(shape: Shape, classes: int, last: int = 1, norm: bool = False) -> nn.Module:
    """CNN-7 (dm-large): five 3x3 convolutions, the third of stride 2, the fifth of stride `last`; one hidden layer of 512."""
    chain = (Conv(64, 3), Conv(64, 3), Conv(128, 3, 2), Conv(128, 3), Conv(128, 3, last))
    return convolutional(shape, classes, chain, (512,), norm)


def crown_ibp() -> Iterator[Record]:
    """Models A to T for the images that the paper trains them on, and dm-large."""
    makers: dict[str, Factory] = {letter: partial(two, width=width, hidden=hidden) for letter, (width, hidden) in TWO.items()}
    makers |= {letter: partial(three, width=width, kernel=kernel, hidden=hidden)
               for letter, (width, kernel, hidden) in THREE.items()}
    makers |= {letter: partial(four, width=width, hidden=hidden) for letter, (width, hidden) in FOUR.items()}
    for letter, make in sorted(makers.items()):
        printed = "5x5" if letter in "efq" else "3x3" if letter == "r" else ""
        for data in ONLY.get(letter, tuple(PLACES)):
            note = MISPRINT.format(printed=printed) if printed else ""
            yield Record(f"crown-ibp-{letter}-{data}", CROWN_IBP, PLACES[data], 10, make, note=note)
    for data, shape in PLACES.items():
        yield Record(f"dm-large-{data}", DM_LARGE, shape, 10, seven)


def salman() -> Iterator[Record]:
    """CNN-small, CNN-wide-k and CNN-deep-k."""
    for data, shape in PLACES.items():
        yield Record(f"cnn-small-{data}", SALMAN, shape, 10, partial(two, width=16, hidden=100))
        for k in (1, 2, 4, 8):
            yield Record(f"cnn-wide-{k}-{data}", SALMAN, shape, 10, partial(two, width=4 * k, hidden=128 * k))
        for k in (1, 2):
            yield Record(f"cnn-deep-{k}-{data}", SALMAN, shape, 10, partial(deep, depth=k))


def bcp() -> Iterator[Record]:
    """4C3F, 6C2F and 8C2F; 4C3F is CROWN-IBP's model M."""
    yield Record("4c3f-mnist", BCP, MNIST, 10, partial(four, width=32, hidden=512), 1_974_762)
    yield Record("4c3f-cifar", BCP, CIFAR, 10, partial(four, width=32, hidden=512), 2_466_858)
    yield Record("6c2f-cifar", BCP, CIFAR, 10, six, 2_250_378)
    yield Record("8c2f-tiny", BCP, TINY, 200, eight, 4_342_984,
                 "the convolutions of stride 2 have no padding: only so does the printed count come out")


def cnn7() -> Iterator[Record]:
    """CNN-7 with and without batch norm; on crops of 56 x 56 the fifth convolution has stride 2."""
    plain = "without batch norm this is dm-large"
    note = "the fifth convolution has stride 2 here, as in the published code; the paper does not say"
    for norm, name in ((False, "cnn7"), (True, "cnn7-bn")):
        yield Record(f"{name}-cifar", AUTO_LIRPA, CIFAR, 10, partial(seven, norm=norm), note="" if norm else plain)
        for data, classes in (("tiny", 200), ("imagenet64", 1000)):
            more = "" if data == "tiny" else f"; {ONLY_WIDE}"
            yield Record(f"{name}-{data}", AUTO_LIRPA, CROPPED, classes, partial(seven, last=2, norm=norm), note=note + more)


def records() -> Iterator[Record]:
    """All of this family."""
    yield from crown_ibp()
    yield from salman()
    yield from bcp()
    yield from cnn7()
