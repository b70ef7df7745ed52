"""Observations in files: one reader for arrays, MNIST's IDX format, pictures and Zarr.

Samples become rows by one rule: dimensions after the first are flattened, the last fastest, as
``reshape`` does; nothing is transposed. Pictures and arrays of bytes are scaled from 0..255 to the
range of the network's head, and ``notes`` say so.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, InputError
from preimage.io.limits import LIMITS, Limits, check_file
from preimage.io.sources import LUMINANCE, Source, open_source, read_idx_header
from preimage.matrix import as_float64, digest_of
from preimage.network import Network
from preimage.observation import output_range
from preimage.pixels import image_shape

Array = NDArray[Any]
Levels = tuple[float, float]

_BYTES: Levels = (0.0, 255.0)
# Samples that tell in which units an array of numbers is.
_PROBED = 64


@dataclass(frozen=True, eq=False)
class Observations:
    """Rows that are read a few at a time."""

    source: Source
    size: int  # entries of a row
    levels: Levels | None  # of black and white in the source; None: values are taken as they are
    range: Levels  # what black and white become
    notes: tuple[str, ...]  # what was converted, in sentences for a user

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.source.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(count, size)."""
        return self.count, self.size

    def read(self, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop``, (stop - start, size).

        They are float64, or float32 or float16 where they are stored so, which tells ``invert``
        how they were rounded.

        Raises:
            FormatError: NaN, infinity, numbers that are not real; or the file has changed.
        """
        values = self.source.read(start, stop)
        if tuple(values.shape) != (stop - start, *self.source.shape[1:]):
            raise FormatError(f"{self.source.name}: it has changed: got shape {values.shape}")
        try:
            where = f"samples {start} to {stop - 1}, counted from {start}"
            checked = as_float64(values, where, "; write 0 where a mask hides it")
        except InputError as error:
            raise FormatError(f"{self.source.name}: {error}") from error
        rows = checked.reshape(len(checked), self.size)
        if self.levels is not None:
            (black, white), (low, high) = self.levels, self.range
            return low + (rows - black) / (white - black) * (high - low)
        dtype = str(values.dtype)
        return rows.astype(dtype) if dtype in ("float16", "float32") else rows

    def digests(self, size: int) -> list[str]:
        """SHA-256 of each run of ``size`` rows; this reads everything once."""
        starts = range(0, self.count, size)
        return [digest(self.read(start, min(start + size, self.count))) for start in starts]


def digest(rows: Array) -> str:
    """SHA-256 of rows and their shape."""
    return digest_of(repr(rows.shape), rows.astype("<f8"))


def open_observations(
    source: Any,
    network: Network | None = None,
    *,
    size: int | None = None,
    levels: Levels | None = None,
    limits: Limits = LIMITS,
) -> Observations:
    """Open observations without reading them all.

    Args:
        source: The path of a file of numbers (``.npy``; ``.npz`` or ``.safetensors`` with one
            array, or one that is named ``observations``; an IDX file), of a picture, of a folder
            of pictures or of a Zarr array; or an array, or what is sliced like one. What is open
            already is returned as it is. A single sample may have any shape with as many entries as
            the network's outputs, many samples any shape after the first dimension.
        network: Whose outputs are observed: says how many entries a sample has, and the range to
            which pictures are scaled, that of its head (tanh: [-1, 1]); [0, 1] where it has none.
        size: Entries of a sample, where it is not the network's output that is observed.
        levels: Values of black and white in ``source``; None for (0, 255) of pictures, and of
            arrays of bytes, or of whole numbers that exceed the network's range.
        limits: What headers and pictures may ask for. Arrays in files may have any size.

    Raises:
        FormatError: No such file, another format, or samples of another size.
        InputError: No path and no array; bad ``levels``.
        MissingExtraError: pillow or Zarr is not installed.
    """
    if isinstance(source, Observations):
        return source
    opened = open_source(source, limits)
    if network is not None and size not in (None, network.observation_size):
        network = None  # measurements of its output: neither its size nor its range is theirs
    wanted = size if network is None else network.observation_size
    notes: list[str] = []
    opened, size = _samples(opened, wanted, notes)
    low, high = (-math.inf, math.inf) if network is None else output_range(network)
    bounded = math.isfinite(high - low)
    scale = (low, high) if bounded else (0.0, 1.0)
    if levels is None:
        levels = _levels(opened, (low, high), bounded, notes)
    elif not (np.isfinite(levels).all() and levels[0] < levels[1]):
        raise InputError(f"levels: expected black < white, got {levels}")
    if levels is not None:
        notes.append(
            f"values {levels[0]:g} to {levels[1]:g} were scaled to [{scale[0]:g}, {scale[1]:g}]"
            + (", the range of the network's head" if bounded else "")
        )
    return Observations(opened, size, levels, scale, tuple(notes))


def load_observations(
    path: str | os.PathLike[str],
    network: Network | None = None,
    *,
    size: int | None = None,
    levels: Levels | None = None,
    limits: Limits = LIMITS,
) -> Array:
    """Read observations of at most ``limits.file_bytes``; arguments as of ``open_observations``.

    Returns:
        (batch, n) float64, or float32 or float16 if it is stored so: dimensions after the first
        are flattened, last fastest; one vector or one picture is a batch of one.

    Raises:
        FormatError: The file is missing, too large, of another format, or holds NaN or infinity.
        MissingExtraError: Pictures need pillow, Zarr arrays zarr.
    """
    if not Path(path).is_dir():
        check_file(path, limits)
    found = open_observations(path, network, size=size, levels=levels, limits=limits)
    limits.check("file_bytes", found.count * found.size, f"{path}: entries")
    return found.read(0, found.count)


def read_idx(path: str | os.PathLike[str], *, limits: Limits = LIMITS) -> NDArray[np.uint8]:
    """Read an IDX file of bytes: MNIST's images (count, rows, columns) or labels (count,).

    Raises:
        FormatError: The file is missing, too large, or not an IDX file of unsigned bytes.
    """
    path = check_file(path, limits)
    shape, start = read_idx_header(path)
    return np.frombuffer(path.read_bytes(), np.uint8, offset=start).reshape(shape)


def _samples(source: Source, size: int | None, notes: list[str]) -> tuple[Source, int]:
    """A source whose first dimension counts samples, and the entries of one."""
    shape = source.shape
    if source.is_pixels and size is not None:
        return _with_channels(source, size, notes), size
    if not shape:
        raise FormatError(
            f"{source.name}: expected a vector or an array of vectors, got one number"
        )
    entries = math.prod(shape[1:])
    if (size is None and len(shape) > 1) or entries == size:
        return source, entries
    if size in (None, math.prod(shape)):  # the whole array is one sample
        whole = partial(source.read, 0, shape[0])
        one = replace(source, shape=(1, *shape), read=lambda a, b: whole()[None][a:b])
        return one, math.prod(shape)
    raise FormatError(
        f"{source.name}: expected one sample of {size} entries, in any shape, or an array whose "
        f"first dimension counts such samples, got shape {shape}"
    )


def _with_channels(source: Source, size: int, notes: list[str]) -> Source:
    """Pictures with as many channels as the network makes: ``size`` values each."""
    shape = source.shape[1:]
    pixels, coloured = math.prod(shape[-2:]), len(shape) == 3
    if size == math.prod(shape):
        return source
    if coloured and size == pixels:
        notes.append("colours were turned into gray (luminance), as the network makes one channel")
        made, weights = shape[1:], LUMINANCE[None]
    elif not coloured and size == 3 * pixels:
        notes.append("gray pictures were repeated for the three channels that the network makes")
        made, weights = (3, *shape), np.ones((3, 1))
    else:
        wanted = image_shape(size)
        raise FormatError(
            f"{source.name}: expected {size} values a sample ({wanted[-2]} x {wanted[-1]} pixels), "
            f"as the network makes, got {'coloured' if coloured else 'gray'} pictures of "
            f"{shape[-2]} x {shape[-1]} pixels; resize them first"
        )

    def read(start: int, stop: int) -> Array:
        planes = source.read(start, stop).reshape(-1, weights.shape[1], pixels)
        return (weights @ planes).reshape(-1, *made)

    return replace(source, shape=(source.shape[0], *made), read=read)


def _levels(source: Source, range_: Levels, bounded: bool, notes: list[str]) -> Levels | None:
    """Black and white of a source whose user says nothing."""
    if source.is_pixels:
        return _BYTES
    if not bounded or 0 in source.shape:
        return None
    values = np.asarray(source.read(0, min(_PROBED, source.shape[0])))
    if values.dtype == np.uint8:
        return _BYTES
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        return None
    least, largest = values.min(), values.max()
    whole = largest > 2 * range_[1] and least >= 0 and largest <= 255
    if whole and (values == np.rint(values)).all():
        return _BYTES
    if range_[0] < 0 <= least and 0.5 < largest <= 1:
        notes.append(
            f"values lie in [0, 1], and the network's head makes [{range_[0]:g}, {range_[1]:g}]: "
            "if these are pictures, pass levels 0,1"
        )
    return None
