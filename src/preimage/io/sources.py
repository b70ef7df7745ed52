"""Where samples are stored: arrays in files, folders of pictures, Zarr arrays, arrays in memory.

A source is read a few samples at a time, in any order; nothing is read when it is opened but
headers and, of pictures, the first.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, InputError
from preimage.io import archive, npy, safetensors_file
from preimage.io.guard import LIMITS, Limits, check_file, check_stored, in_force
from preimage.io.pictures import SUFFIXES, read_picture
from preimage.io.zarr_folder import METADATA, open_array

Named = TypeVar("Named")
_FORMATS = "npy, npz, safetensors, PNG, JPEG, IDX, a folder of pictures or a Zarr array"
_ANY_SIZE = 2**63


class Source(Protocol):
    """Samples that can be read in any order, and again."""

    @property
    def name(self) -> str:
        """For errors."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples, then the shape of one."""

    @property
    def is_pixels(self) -> bool:
        """Whether the values are levels 0 to 255 of pictures, and not numbers of any unit."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The samples from ``start`` to ``stop``, which is left out."""


@dataclass(frozen=True)
class Mapped:
    """An array in a file: only the rows that are wanted are mapped into memory, a map a read."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    fortran: bool = False
    kind: str = ""
    is_pixels: bool = False

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """See ``Source``."""
        order = "F" if self.fortran else "C"
        whole = np.memmap(self.path, self.dtype, "r", self.start, self.shape, order)  # type: ignore[call-overload]
        values = np.array(whole[start:stop])
        return safetensors_file.decode(values, self.kind) if self.kind == "BF16" else values


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size, gray ones (rows, columns), coloured ones (3, rows, columns)."""

    name: str
    paths: tuple[Path, ...]
    shape: tuple[int, ...]
    limits: Limits
    is_pixels: bool = True

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """See ``Source``."""
        pictures = []
        for path in self.paths[start:stop]:
            picture = _picture(path, self.limits)
            if len(self.shape) == 4 and picture.ndim == 2:
                picture = np.broadcast_to(picture, (3, *picture.shape))  # a gray one among coloured
            if picture.shape != self.shape[1:]:
                raise FormatError(
                    f"{path}: expected {self.shape[1:]} pixels as in {self.paths[0].name}, got "
                    f"{picture.shape}"
                )
            pictures.append(picture)
        return np.stack(pictures) if pictures else np.zeros((0, *self.shape[1:]), np.uint8)


@dataclass(frozen=True, eq=False)
class Sliced:
    """Anything with a shape that gives samples when sliced: an array, Zarr, HDF5."""

    array: Any
    name: str = "observations"
    is_pixels: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(map(int, self.array.shape))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """See ``Source``."""
        return np.asarray(self.array[start:stop])


def open_source(source: Any, limits: Limits = LIMITS) -> Source:
    """Open samples without reading them.

    Args:
        source: The path of a file of numbers (``.npy``; ``.npz`` or ``.safetensors`` with one
            array, or one that is named ``observations``; an IDX file), of a picture, of a folder
            of pictures or of a Zarr array; or an array, or what is sliced like one.
        limits: What headers and pictures may ask for. Arrays in files may have any size.

    Raises:
        FormatError: No such file, or another format; the message begins with the path.
        InputError: No path and no array.
        MissingExtraError: pillow or Zarr is not installed.
    """
    if not isinstance(source, (str, os.PathLike)):
        if hasattr(source, "shape") and hasattr(source, "__getitem__"):
            return Sliced(source)
        raise InputError(f"source: expected a path or an array, got {type(source).__name__}")
    path = Path(source)
    with in_force(limits):
        try:
            return _from_folder(path, limits) if path.is_dir() else _from_file(path, limits)
        except InputError as error:
            text = str(error)
            prefixed = text if text.startswith(str(path)) else f"{path}: {text}"
            raise FormatError(prefixed) from error


def _from_folder(path: Path, limits: Limits) -> Source:
    metadata = [path / mark for mark in METADATA if (path / mark).exists()]
    if metadata:
        return Sliced(open_array(path, metadata[0], limits), str(path))
    paths = tuple(sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES))
    if not paths:
        raise FormatError(f"expected a folder with pictures ({', '.join(SUFFIXES)}), found none")
    # One coloured picture makes all of them coloured; only the first few are looked at.
    first = max((_picture(p, limits) for p in paths[:8]), key=lambda picture: picture.ndim)
    return Pictures(str(path), paths, (len(paths), *first.shape), limits)


def _picture(path: Path, limits: Limits) -> NDArray[np.uint8]:
    with in_force(limits):
        try:
            return read_picture(check_file(path, limits))
        except InputError as error:
            raise FormatError(f"{path}: {error}") from error


def _from_file(path: Path, limits: Limits) -> Source:
    check_file(path, Limits(file_bytes=_ANY_SIZE))
    size, suffix = path.stat().st_size, path.suffix.lower()
    if suffix in SUFFIXES:
        return Pictures(str(path), (path,), (1, *_picture(path, limits).shape), limits)
    match suffix:
        case ".npy":
            with path.open("rb") as file:
                header = npy.read_header(file, size)
            return Mapped(path, header.shape, header.dtype, header.start, header.fortran)
        case ".npz":
            return _from_npz(path, limits)
        case ".safetensors":
            kind, shape, start = place = only(safetensors_file.read_header(path, limits)[0])
            return Mapped(path, shape, place.dtype, start, kind=kind)
    with path.open("rb") as file:
        if file.read(2) != b"\0\0":
            raise FormatError(f"expected {_FORMATS}")
    shape, start = read_idx_header(path)
    if len(shape) < 2:
        raise FormatError("expected pictures, got an IDX file of labels")
    return Mapped(path, shape, np.dtype(np.uint8), start, is_pixels=True)


def only(arrays: Mapping[str, Named]) -> Named:
    """The observations among named arrays.

    Raises:
        FormatError: Several, and none is named ``observations``.
    """
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if "observations" in arrays:
        return arrays["observations"]
    raise FormatError(
        "expected a single array, or one that is named 'observations', got "
        f"{', '.join(arrays)[:500] or 'none'}"
    )


def _from_npz(path: Path, limits: Limits) -> Source:
    """A member that is stored as it is can be mapped where it stands; others are read whole."""
    any_size = Limits(_ANY_SIZE, limits.header_bytes, limits.tensors, limits.entries, _ANY_SIZE)
    with archive.opened(path, any_size) as opened:
        members = {m.filename.removesuffix(".npy"): m for m in opened.infolist()}
        members.pop("metadata", None)
        member = only(members)
        with opened.open(member) as file:
            if member.compress_type != zipfile.ZIP_STORED:
                limits.check_inflation(member.file_size, path.stat().st_size, "the observations")
                return Sliced(npy.read(file, member.file_size), str(path))  # type: ignore[arg-type]
            header = npy.read_header(file, member.file_size)  # type: ignore[arg-type]
    # A member has a header of its own: 30 bytes, a name and an extra field with their lengths.
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = file.read(30)
    start = member.header_offset + 30 + sum(
        int.from_bytes(local[at : at + 2], "little") for at in (26, 28)
    )  # fmt: skip
    if local[:4] != b"PK\3\4" or start + member.file_size > path.stat().st_size:
        raise FormatError(f"not an archive, or a broken one: member {member.filename!r}")
    return Mapped(path, header.shape, header.dtype, start + header.start, header.fortran)


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
