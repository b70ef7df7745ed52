"""Observations in files: arrays, MNIST's IDX form, PNG images."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, InputError, MissingExtraError
from preimage.generator import as_float64
from preimage.io import npy, npz, safetensors_file
from preimage.io.guard import LIMITS, Limits, check_entries, check_file, check_stored, in_force

Array = NDArray[np.float64]
Named = TypeVar("Named")

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def load_observations(path: str | os.PathLike[str], *, limits: Limits = LIMITS) -> Array:
    """Read observations, one a row.

    Arrays (``.npy``; ``.npz`` and ``.safetensors`` with a single array, or one that is named
    ``observations``) are taken as they are. Images (``.png``, a folder of such in the order of
    their names, or an IDX file such as ``t10k-images-idx3-ubyte``) become gray levels in [0, 1].

    Args:
        path: The file or folder.
        limits: What a file may ask for.

    Returns:
        (batch, n) float64: dimensions after the first are flattened, last fastest; one vector or
        one image is a batch of one.

    Raises:
        FormatError: The file is missing, too large, of another format, or holds NaN or infinity.
        MissingExtraError: PNG images need pillow.
    """
    with in_force(limits):
        if Path(path).is_dir():
            return _read_folder(Path(path), limits)
        path = check_file(path, limits)
        try:
            values = as_float64(_read(path, limits), "observations")
        except InputError as error:
            raise FormatError(f"{path}: {error}") from error
    if values.ndim == 0:
        raise FormatError(f"{path}: expected a vector or an array of vectors, got one number")
    values = np.atleast_2d(values)
    return values.reshape(len(values), math.prod(values.shape[1:]))


def read_idx(path: str | os.PathLike[str], *, limits: Limits = LIMITS) -> NDArray[np.uint8]:
    """Read an IDX file of bytes: MNIST's images (count, rows, columns) or labels (count,).

    Raises:
        FormatError: The file is missing, too large, or not an IDX file of unsigned bytes.
    """
    path = check_file(path, limits)
    shape, start = read_idx_header(path)
    return np.frombuffer(path.read_bytes(), np.uint8, offset=start).reshape(shape)


def read_idx_header(path: Path) -> tuple[tuple[int, ...], int]:
    """Shape of the array in an IDX file of bytes, and where its entries begin.

    Raises:
        FormatError: Not an IDX file of unsigned bytes, or not as many bytes as the shape needs.
    """
    # Two zero bytes, the type (8 is unsigned byte), the number of dimensions; then the sizes.
    with path.open("rb") as file:
        data = file.read(4 + 4 * 255)
    dimensions = data[3] if len(data) > 3 else 0
    start = 4 + 4 * dimensions
    if data[:3] != b"\0\0\x08" or not dimensions or len(data) < start:
        raise FormatError(
            f"{path}: expected an IDX file of bytes, which starts with 00 00 08 and the number of "
            f"dimensions, got {data[:4].hex(' ') or 'an empty file'}"
            + ("; unpack it first" if data[:2] == b"\x1f\x8b" else "")
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, 4))
    return check_stored(str(path), shape, 1, path.stat().st_size - start), start


def _read(path: Path, limits: Limits) -> NDArray[Any]:
    match path.suffix.lower():
        case ".npy":
            with path.open("rb") as file:
                return npy.read(file, path.stat().st_size)
        case ".npz":
            return only(npz.read(path, limits)[0])
        case ".safetensors":
            return only(safetensors_file.read(path, limits)[0])
        case ".png":
            return read_png(path)[None]
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"\0\0":
        raise FormatError("expected npy, npz, safetensors, png, a folder of png, or an IDX file")
    images = read_idx(path, limits=limits)
    if images.ndim < 2:
        raise FormatError("expected images, got an IDX file of labels")
    return images / 255


def only(tensors: Mapping[str, Named]) -> Named:
    """The observations among named arrays.

    Raises:
        FormatError: Several, and none is named ``observations``.
    """
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    if "observations" in tensors:
        return tensors["observations"]
    raise FormatError(
        "expected a single array, or one that is named 'observations', got "
        f"{', '.join(tensors)[:500] or 'none'}"
    )


def _read_folder(folder: Path, limits: Limits) -> Array:
    paths, images = list_png(folder), []
    for path in paths:
        try:
            images.append(read_png(check_file(path, limits)))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        if images[-1].shape != images[0].shape:
            raise FormatError(
                f"{path}: expected {images[0].shape} pixels as in {paths[0].name}, "
                f"got {images[-1].shape}"
            )
    return np.stack(images).reshape(len(images), -1)


def list_png(folder: Path) -> list[Path]:
    """The PNG images of a folder, in the order of their names.

    Raises:
        FormatError: There is none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
    if not paths:
        raise FormatError(f"{folder}: expected a folder with PNG images, found none")
    return paths


def read_png(path: Path) -> Array:
    """Gray levels in [0, 1], (rows, columns).

    Raises:
        FormatError: No PNG image of 8 bits, or one with more pixels than the limit in force.
        MissingExtraError: pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "data") from error
    data = path.read_bytes()
    # A signature of 8 bytes, then the first chunk: length, name, width, height.
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    check_entries((height, width))
    if _PNG_END not in data:
        raise FormatError("not a PNG image, or one that was cut off")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.size != (width, height):
                raise FormatError("not a PNG image: its size is not where it has to be")
            if image.mode.startswith("I"):
                raise FormatError(f"expected a PNG image of 8 bits, got mode {image.mode}")
            return np.asarray(image.convert("L"), dtype=np.float64) / 255
    except FormatError:
        raise
    except Exception as error:  # what a foreign parser raises on a foreign file is open-ended
        raise FormatError(f"not a PNG image: {error!r:.200}") from error
