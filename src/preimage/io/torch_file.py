"""Tensors in the files that ``torch.save`` writes. torch is not needed, and no code can run."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.io import archive, pickled
from preimage.io.guard import LIMITS, Limits
from preimage.io.safetensors_file import decode

_DTYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1",
    "ByteStorage": "u1",
}  # fmt: skip
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the form before torch 1.6
_DEEPEST = 16  # dicts within dicts

Read = Callable[[pickled.Storage, int], bytes]  # a storage of so many bytes


def read(path: Path, limits: Limits = LIMITS) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every tensor of a state dict; those of dicts inside it have dotted names.

    Raises:
        FormatError: Not a file of ``torch.save``, or one beyond the limits; anything in it but
            plain values and dense tensors of real numbers.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            with archive.opened(path, limits) as opened:
                return _arrays(*_from_archive(opened, limits), path, limits), {}
        file.seek(0)
        return _arrays(*_from_legacy(file, path, limits), path, limits), {}


def _from_archive(opened: zipfile.ZipFile, limits: Limits) -> tuple[Any, Read]:
    names = {info.filename: info for info in opened.infolist()}
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"not a file of torch.save: expected one data.pkl, got {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in names and opened.read(f"{folder}byteorder") != b"little":
        raise FormatError("expected little-endian numbers, got others")
    limits.check("header_bytes", names[pickles[0]].file_size, "bytes of the pickle")

    def stored(storage: pickled.Storage, size: int) -> bytes:
        info = names.get(f"{folder}data/{storage.key}")
        if info is None or info.file_size != size:
            found = "none at all" if info is None else info.file_size
            raise FormatError(f"storage {storage.key!r:.50}: expected {size} bytes, got {found}")
        return opened.read(info)

    with opened.open(pickles[0]) as file:
        return pickled.read(file, limits), stored  # type: ignore[arg-type]


def _from_legacy(file: BinaryIO, path: Path, limits: Limits) -> tuple[Any, Read]:
    """Pickles of a magic number, a version, the system, the content and the storages' keys."""
    if file.read(1) != b"\x80":
        raise FormatError("not a file of torch.save, neither of its zip form nor of the older one")
    file.seek(0)
    magic, version, system = (pickled.read(file, limits) for _ in range(3))
    if magic != _MAGIC or version != _VERSION or not isinstance(system, dict):
        raise FormatError("not a file of torch.save: it does not begin as one")
    if system.get("little_endian") is not True:
        raise FormatError("expected little-endian numbers, got others")
    content, keys = pickled.read(file, limits), pickled.read(file, limits)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError("not a file of torch.save: the keys of its storages are missing")
    start, size = file.tell(), path.stat().st_size
    limits.check("header_bytes", start, "bytes of the pickles")

    # Storages follow in the order of their keys, each with its length in front; how long each
    # is in bytes is known from its type, which only the pickle tells.
    kinds = {tensor.storage.key: tensor.storage for _, tensor in _tensors(content, limits)}
    places: dict[str, int] = {}
    for key in keys:
        if key not in kinds or key in places:
            raise FormatError(f"storage {key!r:.50}: expected one tensor of it, or several")
        places[key] = start + 8
        start += 8 + kinds[key].entries * _dtype(kinds[key], key).itemsize
    if start != size:
        raise FormatError(f"expected {start} bytes, got {size}: not a torch file, or cut off")

    def stored(storage: pickled.Storage, length: int) -> bytes:
        if storage.key not in places:
            raise FormatError(f"storage {storage.key!r:.50}: it is missing")
        with path.open("rb") as again:
            again.seek(places[storage.key] - 8)
            count = int.from_bytes(again.read(8), "little")
            if count != storage.entries:
                raise FormatError(
                    f"storage {storage.key!r:.50}: expected {storage.entries} entries, got {count}"
                )
            return again.read(length)

    return content, stored


def _tensors(content: Any, limits: Limits) -> Iterator[tuple[str, pickled.Tensor]]:
    """Every tensor with its name; what is neither a tensor nor a dict is left out."""
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    seen = 0
    while waiting:
        name, value, depth = waiting.pop()
        # A dict that stands in many places is counted in each, or it could double at every level.
        seen += 1
        limits.check("tensors", seen, "entries of dicts")
        if isinstance(value, pickled.Tensor):
            yield name.removesuffix(".") or "tensor", value
        elif isinstance(value, dict):
            if depth > _DEEPEST:
                raise FormatError(f"dicts within dicts, more than {_DEEPEST} deep")
            limits.check("tensors", len(waiting) + len(value), "entries of dicts")
            waiting.extend((f"{name}{k}.", v, depth + 1) for k, v in reversed(value.items()))


def _dtype(storage: pickled.Storage, name: str) -> np.dtype[Any]:
    if storage.kind not in _DTYPES:
        raise FormatError(
            f"tensor {name!r:.200}: expected a dense tensor of real numbers, got a {storage.kind}"
        )
    if storage.entries < 0:
        raise FormatError(f"tensor {name!r:.200}: a storage of {storage.entries} entries")
    return np.dtype(_DTYPES[storage.kind])


def _arrays(content: Any, stored: Read, path: Path, limits: Limits) -> dict[str, NDArray[Any]]:
    size, total = path.stat().st_size, 0
    storages: dict[pickled.Storage, NDArray[Any]] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in _tensors(content, limits):
        storage = tensor.storage
        dtype = _dtype(storage, name)
        if storage not in storages:
            data = stored(storage, storage.entries * dtype.itemsize)
            storages[storage] = np.frombuffer(data, dtype)
        if name in arrays:
            raise FormatError(f"tensor {name!r:.200} is there twice")
        view = _strided(storages[storage], tensor, name)
        total += 8 * view.size
        limits.check_inflation(total, size, "the tensors of the file")
        arrays[name] = decode(view, "BF16" if storage.kind == "BFloat16Storage" else "")
    return arrays


def _strided(entries: NDArray[Any], tensor: pickled.Tensor, name: str) -> NDArray[Any]:
    """A view of a storage that stays inside it, and shows no entry more than once."""
    _, offset, shape, stride = tensor
    count = math.prod(shape)
    if len(shape) != len(stride) or len(shape) > 32:
        raise FormatError(f"tensor {name!r:.200}: shape {shape} and stride {stride} do not fit")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count and (last >= len(entries) or count > len(entries)):
        raise FormatError(
            f"tensor {name!r:.200}: shape {shape}, stride {stride} and offset {offset} ask for "
            f"{count} entries up to place {last}, the file has {len(entries)}"
        )
    if not count:
        return np.zeros(shape, entries.dtype) if max(shape) < 2**31 else entries[:0]
    steps = tuple(step * entries.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(entries[offset:], shape, steps, writeable=False)
