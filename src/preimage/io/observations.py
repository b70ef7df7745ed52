"""Observations in files: arrays, MNIST's IDX form, PNG images."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, InputError, MissingExtraError
from preimage.generator import as_float64
from preimage.io import npz, safetensors_file
from preimage.io.guard import MAX_BYTES, check_file

Array = NDArray[np.float64]


def load_observations(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Array:
    """Read observations, one a row.

    Arrays (``.npy``; ``.npz`` and ``.safetensors`` with a single array, or one that is named
    ``observations``) are taken as they are. Images (``.png``, a folder of such in the order of
    their names, or an IDX file such as ``t10k-images-idx3-ubyte``) become gray levels in [0, 1].

    Args:
        path: The file or folder.
        max_bytes: Largest file to read.

    Returns:
        (batch, n) float64: dimensions after the first are flattened, last fastest; one vector or
        one image is a batch of one.

    Raises:
        FormatError: The file is missing, too large, of another format, or holds NaN or infinity.
        MissingExtraError: PNG images need pillow.
    """
    if Path(path).is_dir():
        return _read_folder(Path(path), max_bytes)
    path = check_file(path, max_bytes)
    try:
        values = as_float64(_read(path), "observations")
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    if values.ndim == 0:
        raise FormatError(f"{path}: expected a vector or an array of vectors, got one number")
    values = np.atleast_2d(values)
    return values.reshape(len(values), math.prod(values.shape[1:]))


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> NDArray[np.uint8]:
    """Read an IDX file of bytes: MNIST's images (count, rows, columns) or labels (count,).

    Raises:
        FormatError: The file is missing, too large, or not an IDX file of unsigned bytes.
    """
    path = check_file(path, max_bytes)
    data = path.read_bytes()
    # Two zero bytes, the type (8 is unsigned byte), the number of dimensions; then the sizes.
    dimensions = data[3] if len(data) > 3 else 0
    start = 4 + 4 * dimensions
    if data[:3] != b"\0\0\x08" or not dimensions or len(data) < start:
        raise FormatError(
            f"{path}: expected an IDX file of bytes, which starts with 00 00 08 and the number of "
            f"dimensions, got {data[:4].hex(' ') or 'an empty file'}"
            + ("; unpack it first" if data[:2] == b"\x1f\x8b" else "")
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, 4))
    if len(data) - start != math.prod(shape):
        raise FormatError(
            f"{path}: expected {math.prod(shape)} bytes for shape {shape}, got {len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read(path: Path) -> NDArray[Any]:
    match path.suffix.lower():
        case ".npy":
            try:
                with path.open("rb") as file:
                    return np.lib.format.read_array(file, allow_pickle=False)
            except (ValueError, EOFError, OSError, TypeError) as error:
                raise FormatError(f"not an npy file of a plain array: {error}") from error
        case ".npz":
            return _only(npz.read(path)[0])
        case ".safetensors":
            return _only(safetensors_file.read(path)[0])
        case ".png":
            return _read_png(path)[None]
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"\0\0":
        raise FormatError("expected npy, npz, safetensors, png, a folder of png, or an IDX file")
    images = read_idx(path)
    if images.ndim < 2:
        raise FormatError("expected images, got an IDX file of labels")
    return images / 255


def _only(tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    if "observations" in tensors:
        return tensors["observations"]
    raise FormatError(
        "expected a single array, or one that is named 'observations', got "
        f"{', '.join(tensors) or 'none'}"
    )


def _read_folder(folder: Path, max_bytes: int) -> Array:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
    if not paths:
        raise FormatError(f"{folder}: expected a folder with PNG images, found none")
    images = []
    for path in paths:
        try:
            images.append(_read_png(check_file(path, max_bytes)))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        if images[-1].shape != images[0].shape:
            raise FormatError(
                f"{path}: expected {images[0].shape} pixels as in {paths[0].name}, "
                f"got {images[-1].shape}"
            )
    return np.stack(images).reshape(len(images), -1)


def _read_png(path: Path) -> Array:
    """Gray levels in [0, 1], (rows, columns)."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "data") from error
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=("PNG",)) as image:
            if image.mode.startswith("I"):
                raise FormatError(f"expected a PNG image of 8 bits, got mode {image.mode}")
            return np.asarray(image.convert("L"), dtype=np.float64) / 255
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatError(f"not a PNG image: {error}") from error
