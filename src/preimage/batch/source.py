"""Where observations come from: rows, read a few at a time, never all at once.

A source is its rows, whatever form they are stored in: the same numbers in an npy file, an IDX
file and a folder of images are one source, with one digest.
"""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from preimage.batch.zarr_folder import open_array
from preimage.errors import FormatError, InputError
from preimage.generator import Array, as_float64
from preimage.io import archive, npy, safetensors_file
from preimage.io.guard import LIMITS, Limits, check_file, in_force
from preimage.io.observations import list_png, only, read_idx_header, read_png


class Source(Protocol):
    """Rows that can be read in any order, and again."""

    @property
    def name(self) -> str:
        """For errors."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples, then the shape of one."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The samples from ``start`` to ``stop``, which is left out."""


def rows(source: Source, start: int, stop: int) -> Array:
    """(stop - start, n) float64, each sample flattened, last dimension fastest.

    Raises:
        FormatError: NaN, infinity, numbers that are not real; or the file has changed its shape.
    """
    values = source.read(start, stop)
    if values.shape != (stop - start, *source.shape[1:]):
        raise FormatError(f"{source.name}: it has changed: got shape {values.shape}")
    try:
        checked = as_float64(values, f"samples {start} to {stop - 1}, counted from {start}")
    except InputError as error:
        raise FormatError(f"{source.name}: {error}") from error
    return checked.reshape(stop - start, math.prod(source.shape[1:]))


def digests(source: Source, size: int) -> list[str]:
    """SHA-256 of each run of ``size`` samples; this reads the whole source once."""
    count = source.shape[0]
    return [
        digest(rows(source, start, min(start + size, count))) for start in range(0, count, size)
    ]


def digest(values: Array) -> str:
    """SHA-256 of rows and their shape."""
    sha = hashlib.sha256(repr(values.shape).encode())
    sha.update((values + 0.0).astype("<f8").tobytes())  # -0.0 and 0.0 are equal numbers
    return sha.hexdigest()


@dataclass(frozen=True)
class Mapped:
    """An array that stands in a file as it is: one map of the few rows that are wanted.

    A map a read, so that the rows that were read before do not stay in memory.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    fortran: bool = False
    kind: str = ""
    scale: float = 1.0

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """See ``Source``."""
        order = "F" if self.fortran else "C"
        whole = np.memmap(self.path, self.dtype, "r", self.start, self.shape, order)  # type: ignore[call-overload]
        values = safetensors_file.decode(np.array(whole[start:stop]), self.kind)
        return values if self.scale == 1.0 else values / self.scale


@dataclass(frozen=True)
class Images:
    """PNG images of one size in a folder, in the order of their names."""

    folder: Path
    paths: tuple[Path, ...]
    shape: tuple[int, ...]
    limits: Limits

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """See ``Source``."""
        images = []
        with in_force(self.limits):
            for path in self.paths[start:stop]:
                try:
                    images.append(read_png(check_file(path, self.limits)))
                except FormatError as error:
                    raise FormatError(f"{path}: {error}") from error
                if images[-1].shape != self.shape[1:]:
                    raise FormatError(
                        f"{path}: expected {self.shape[1:]} pixels as in {self.paths[0].name}, "
                        f"got {images[-1].shape}"
                    )
        return np.stack(images)


@dataclass(frozen=True, eq=False)
class Sliced:
    """Anything with a shape that gives rows when sliced: an array, a memory map, Zarr, HDF5."""

    array: Any
    name: str = "source"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(map(int, self.array.shape))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """See ``Source``."""
        return np.asarray(self.array[start:stop])


def open_source(source: Any, limits: Limits = LIMITS) -> Source:
    """Open observations without reading them.

    Args:
        source: The path of an npy file; of an npz or safetensors file with one array, or one that
            is named ``observations`` (npz not compressed); of an IDX file of images; of a folder
            of PNG images or a Zarr array; or an array, or what is sliced like one.
        limits: What headers and images may ask for. Arrays in files may have any size.

    Raises:
        FormatError: No such file, another form, or no sample in it.
        InputError: No path and no array.
        MissingExtraError: pillow or Zarr is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with in_force(limits):
            try:
                opened = _from_path(path, limits)
            except InputError as error:
                text = str(error)
                prefixed = text if text.startswith(str(path)) else f"{path}: {text}"
                raise FormatError(prefixed) from error
    elif hasattr(source, "shape") and hasattr(source, "__getitem__"):
        opened = Sliced(source)
    else:
        raise InputError(f"source: expected a path or an array, got {type(source).__name__}")
    if len(opened.shape) < 2 or 0 in opened.shape:
        raise FormatError(
            f"{opened.name}: expected samples of one number or more, one a row, got shape "
            f"{opened.shape}"
        )
    return opened


def _from_path(path: Path, limits: Limits) -> Source:
    if path.is_dir():
        marks = ("zarr.json", ".zarray")
        found = [path / mark for mark in marks if (path / mark).exists()]
        if found:
            return Sliced(open_array(path, found[0], limits), str(path))
        return _from_folder(path, limits)
    check_file(path, Limits(file_bytes=2**63))
    size = path.stat().st_size
    match path.suffix.lower():
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
            raise FormatError(
                "expected npy, npz, safetensors, IDX, a folder of PNG images or a Zarr array"
            )
    shape, start = read_idx_header(path)
    return Mapped(path, shape, np.dtype(np.uint8), start, scale=255.0)


def _from_npz(path: Path, limits: Limits) -> Source:
    """A member that is stored as it is can be mapped where it stands."""
    limits = Limits(2**63, limits.header_bytes, limits.tensors, limits.entries, 2**63)
    with archive.opened(path, limits) as opened:
        members = {m.filename.removesuffix(".npy"): m for m in opened.infolist()}
        members.pop("metadata", None)
        member = only(members)
        if member.compress_type != zipfile.ZIP_STORED:
            raise FormatError(
                "its arrays are compressed, so that no row can be read without all before it; "
                "write it with numpy.savez, or as npy"
            )
        with opened.open(member) as file:
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


def _from_folder(folder: Path, limits: Limits) -> Source:
    paths = tuple(list_png(folder))
    first = read_png(check_file(paths[0], limits))
    return Images(folder, paths, (len(paths), *first.shape), limits)
