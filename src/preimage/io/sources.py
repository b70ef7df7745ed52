"""Where samples are stored: arrays in files, folders of pictures, Zarr arrays, arrays in memory.

A source is read a few samples at a time, in any order; nothing is read when it is opened but
headers, of pictures the first, and npz files. A file of another format, or beyond the limits, is a
``FormatError`` that begins with its path.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, InputError, extra
from preimage.io.limits import LIMITS, Limits, check_file
from preimage.io.tensors import open_safetensors, read_npz, reading
from preimage.io.zarr_folder import METADATA, open_array

_FORMATS = "npy, npz, safetensors, PNG, JPEG, IDX, a folder of pictures or a Zarr array"
SUFFIXES = (".png", ".jpg", ".jpeg")
_PICTURES = ("PNG", "JPEG")
_FITTED = (*_PICTURES, "GIF", "BMP", "WEBP", "TIFF")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
# Rec. 601, as pillow and OpenCV turn colours into gray.
LUMINANCE = np.array([0.299, 0.587, 0.114])
# Arrays that a file holds may have any size: they are read in parts.
_ANY_SIZE = 2**63


@dataclass(frozen=True, eq=False)
class Source:
    """Samples that can be read in any order, and again."""

    name: str  # for errors
    shape: tuple[int, ...]  # the number of samples, then the shape of one
    read: Callable[[int, int], NDArray[Any]]  # from a first sample up to another, left out
    is_pixels: bool = False  # whether values are levels 0 to 255 of pictures


def open_source(source: Any, limits: Limits = LIMITS) -> Source:
    """Open samples without reading them; see ``preimage.io.observations.open_observations``."""
    if not isinstance(source, (str, os.PathLike)):
        if hasattr(source, "shape") and hasattr(source, "__getitem__"):
            return _sliced("observations", lambda: source)
        raise InputError(f"source: expected a path or an array, got {type(source).__name__}")
    path = Path(source)
    try:
        return _from_folder(path, limits) if path.is_dir() else _from_file(path, limits)
    except InputError as error:
        text = str(error)
        raise FormatError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def _sliced(name: str, open_: Callable[[], Any], is_pixels: bool = False) -> Source:
    """Anything that gives samples when sliced: an array, a mapped file, Zarr, HDF5.

    A file is opened for each read, so that no more of it stays in memory than one read takes.
    """
    shape = tuple(map(int, open_().shape))
    return Source(name, shape, lambda start, stop: np.array(open_()[start:stop]), is_pixels)


def _from_folder(path: Path, limits: Limits) -> Source:
    if any((path / mark).exists() for mark in METADATA):
        array = open_array(path, limits)
        return _sliced(str(path), lambda: array)
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise FormatError(f"expected a folder with pictures ({', '.join(SUFFIXES)}), found none")
    return _pictures(path, paths, limits)


def _pictures(name: Path, paths: Sequence[Path], limits: Limits) -> Source:
    """Pictures of one size, gray ones (rows, columns), coloured ones (3, rows, columns)."""
    # One coloured picture makes all of them coloured; only the first few are looked at.
    shape = max((read_picture(path, limits).shape for path in paths[:8]), key=len)

    def read_one(path: Path) -> NDArray[np.uint8]:
        picture = read_picture(path, limits)
        if picture.shape == shape[1:]:  # a gray one among coloured
            return np.broadcast_to(picture, shape)
        if picture.shape != shape:
            raise FormatError(
                f"{path}: expected {shape} pixels as in {paths[0].name}, got {picture.shape}"
            )
        return picture

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        return np.array([read_one(p) for p in paths[start:stop]], np.uint8).reshape(-1, *shape)

    return Source(str(name), (len(paths), *shape), read, is_pixels=True)


def _from_file(path: Path, limits: Limits) -> Source:
    check_file(path, Limits(_ANY_SIZE, limits.entries))
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return _pictures(path, [path], limits)
    match suffix:
        case ".npy":
            return _sliced(str(path), lambda: _map_npy(path))
        case ".npz":
            arrays, _ = read_npz(path, limits)
            array = arrays[_only(list(arrays))]
            return _sliced(str(path), lambda: array)
        case ".safetensors":
            return _from_safetensors(path, limits)
    shape, start = read_idx_header(path)
    if len(shape) < 2:
        raise FormatError("expected pictures, got an IDX file of labels; pass the one of images")
    return _sliced(str(path), lambda: np.memmap(path, np.uint8, "r", start, shape), is_pixels=True)


def _map_npy(path: Path) -> NDArray[Any]:
    """The array of an npy file, of which only what is read is taken into memory."""
    with reading("an npy file of a plain array, without pickled objects"):
        return np.lib.format.open_memmap(path, mode="r")


def _from_safetensors(path: Path, limits: Limits) -> Source:
    with open_safetensors(path, limits) as opened:
        key = _only(list(opened.keys()))
        shape = tuple(opened.get_slice(key).get_shape())

    def read(start: int, stop: int) -> NDArray[Any]:
        with open_safetensors(path, limits) as opened:
            values = np.array(opened.get_slice(key)[start:stop])
        return values.astype(np.float64) if values.dtype.kind == "V" else values  # bfloat16

    return Source(str(path), shape, read)


def _only(names: Sequence[str]) -> str:
    """The name of the observations among those of some arrays."""
    if len(names) == 1 or "observations" in names:
        return "observations" if "observations" in names else names[0]
    raise FormatError(
        "expected a single array, or one that is named 'observations', got "
        f"{', '.join(names)[:500] or 'none'}"
    )


def read_idx_header(path: Path) -> tuple[tuple[int, ...], int]:
    """Shape of the array in an IDX file of unsigned bytes, and where its entries begin."""
    # Two zero bytes, the type (8 is unsigned byte), the number of dimensions; then the sizes.
    with path.open("rb") as file:
        data = file.read(4 + 4 * 255)
    if data[:2] != b"\0\0":
        hint = "; unpack it first" if data[:2] == b"\x1f\x8b" else ""
        raise FormatError(f"{path}: expected {_FORMATS}{hint}")
    dimensions = data[3] if len(data) > 3 else 0
    start = 4 + 4 * dimensions
    if data[:3] != b"\0\0\x08" or not dimensions or len(data) < start:
        raise FormatError(
            f"{path}: expected an IDX file of bytes, which starts with 00 00 08 and the number of "
            f"dimensions, got {data[:4].hex(' ')}"
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, 4))
    expected, found = math.prod(shape), path.stat().st_size - start
    if expected != found:
        raise FormatError(f"{path}: expected {expected} bytes for shape {shape}, got {found}")
    return shape, start


# Pictures of eight bits ---------------------------------------------------------------------------


def read_picture(
    path: Path, limits: Limits = LIMITS, fit: tuple[int, ...] | None = None
) -> NDArray[np.uint8]:
    """Levels 0 to 255: (rows, columns) of a gray picture, (3, rows, columns) of a coloured one.

    A coloured file whose three channels are equal is gray. Pictures are turned upright as their
    EXIF data say. With ``fit``, (rows, columns) or (3, rows, columns), a picture is scaled to that:
    each pixel is the mean of those that it replaces, and transparent ones are black. GIF, BMP, WEBP
    and TIFF are read as well then, beside PNG and JPEG.
    """
    with extra("data", "pillow"):
        from PIL import Image, ImageOps
    data, formats = check_file(path, limits).read_bytes(), _PICTURES if fit is None else _FITTED
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            # Opening reads the header alone; only now are pixels decoded.
            limits.check_shape(image.size[::-1])
            if image.format == "PNG" and _PNG_END not in data:
                raise FormatError("a PNG picture that was cut off; copy or save it again")
            if image.mode.startswith(("I", "F")):
                raise FormatError(
                    f"expected a picture of 8 bits, got mode {image.mode}; convert it first"
                )
            upright = ImageOps.exif_transpose(image)
            return _channels(upright) if fit is None else _scaled(upright, fit)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except Exception as error:  # what a foreign parser raises on a foreign file is open-ended
        raise FormatError(
            f"{path}: expected a picture ({', '.join(formats)}): {error!r:.200}"
        ) from error


def _scaled(image: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from PIL import Image

    rgba = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    flat = flat.convert("RGB" if len(shape) == 3 else "L")
    rows, columns = shape[-2:]
    small = np.asarray(flat.resize((columns, rows), Image.Resampling.BOX))
    return small if small.ndim == 2 else np.moveaxis(small, -1, 0)


def _channels(image: Any) -> NDArray[np.uint8]:
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    has_alpha = "A" in image.mode or "transparency" in image.info
    if has_alpha and np.asarray(image.convert("RGBA"))[..., 3].min(initial=255) < 255:
        raise FormatError(
            "expected an opaque picture, got one with transparent pixels; flatten it first"
        )
    colours = np.asarray(image.convert("RGB"))
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    return np.moveaxis(colours, -1, 0)
