"""Vectors as pictures, and pictures as PNG, with nothing but the standard library and NumPy."""

from __future__ import annotations

import base64
import math
import struct
import zlib

import numpy as np

from preimage.matrix import Array


def image_shape(size: int) -> tuple[int, ...]:
    """Guess how a vector of ``size`` entries is drawn.

    Returns:
        (s, s) for a square, (3, s, s) for three squares (channels first), else a strip (1, size).

    >>> image_shape(784), image_shape(3 * 32 * 32), image_shape(500)
    ((28, 28), (3, 32, 32), (1, 500))
    """
    side = math.isqrt(size)
    if side * side == size:
        return side, side
    side = math.isqrt(size // 3)
    return (3, side, side) if 3 * side * side == size else (1, size)


def rgba(samples: Array, shape: tuple[int, ...]) -> Array:
    """Samples (m, n) on the gray or colour scale 0..1 as (m, height, width, 4); NaN is clear."""
    size = shape[-2:]
    planes = samples.reshape(len(samples), -1, *size)
    colour = np.broadcast_to(planes, (len(samples), 3, *size)).transpose(0, 2, 3, 1)
    opaque = np.isfinite(colour).all(axis=3, keepdims=True)
    return np.concatenate([np.clip(np.where(opaque, colour, 0.0), 0.0, 1.0), opaque], axis=3)


def png(vector: Array) -> bytes:
    """One sample (n,) on the gray or colour scale 0..1 as a PNG; NaN is transparent.

    The format is that of RFC 2083: eight bits RGBA, no filter.
    """
    height, width = image_shape(vector.size)[-2:]
    bytes_ = np.rint(255 * rgba(vector[None], (height, width))[0]).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in bytes_)  # each row begins with its filter, 0
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def picture(vector: Array, text: str, width: int = 84) -> str:
    """An HTML ``img`` that holds its own PNG, with ``text`` (plain words) as its alternative."""
    height, columns = image_shape(vector.size)[-2:]
    tall = max(round(width * height / columns), 12)
    data = base64.b64encode(png(vector)).decode()
    return (
        f'<img width="{width}" height="{tall}" alt="{text}" style="image-rendering:pixelated" '
        f'src="data:image/png;base64,{data}">'
    )
