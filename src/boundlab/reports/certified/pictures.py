"""Inputs as pictures: small PNG files as data URIs, and differences that are made visible."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np

CHANNELS = (1, 3)
SMALLEST, LARGEST = 4, 128
"""What is narrower is no picture; what is wider is shown smaller."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_picture(shape: Sequence[int]) -> bool:
    """Whether examples of a shape are pictures: height and width, perhaps with 1 or 3 channels first or last."""
    plane = plane_of(shape)
    return plane is not None and min(plane) >= SMALLEST


def plane_of(shape: Sequence[int]) -> tuple[int, int] | None:
    """Height and width; None if there is none."""
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) == 3 and shape[0] in CHANNELS:
        return shape[1], shape[2]
    return (shape[0], shape[1]) if len(shape) == 3 and shape[2] in CHANNELS else None


def pixels(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An input of a network as the pixels (height, width, channels) of an example whose shape in the data is `shape`."""
    if len(shape) == 2:
        return x.reshape(*shape, 1)
    if shape[0] in CHANNELS and x.shape != (shape[1], shape[2], shape[0]):
        return x.reshape(shape).transpose(1, 2, 0)
    return x if shape[0] in CHANNELS else x.reshape(shape)


def shown(values: np.ndarray, low: float, high: float) -> str:
    """Pixels (height, width, channels), `low` black and `high` white, as the data URI of a PNG file."""
    scaled = (smaller(values).astype(np.float64) - low) / max(high - low, 1e-300)
    return "data:image/png;base64," + base64.b64encode(png(np.rint(255 * scaled.clip(0, 1)).astype(np.uint8))).decode()


def smaller(values: np.ndarray) -> np.ndarray:
    """The mean over squares of pixels, so that no side is longer than LARGEST."""
    step = math.ceil(max(values.shape[:2]) / LARGEST)
    if step == 1:
        return values
    for axis in (0, 1):
        own = min(step, values.shape[axis])
        kept = values.take(range(values.shape[axis] // own * own), axis)
        values = np.add.reduceat(kept, np.arange(0, kept.shape[axis], own), axis) / own
    return values


def png(values: np.ndarray) -> bytes:
    """Bytes (height, width, 1 or 3) as a PNG file (ISO/IEC 15948), without anything that differs between two runs."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), values.reshape(height, -1)], 1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return SIGNATURE + b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
                                for name, data in parts)


def amplification(difference: np.ndarray, low: float, high: float) -> float:
    """The largest factor of two digits at most by which a difference still fits between black and white around grey."""
    most = float(np.abs(difference).max(initial=0))
    if most == 0:
        return 1.0
    factor = (high - low) / 2 / most
    unit = 10.0 ** (math.floor(math.log10(factor)) - 1)
    return math.floor(factor / unit * (1 + 1e-4)) * unit
