"""Tensors in safetensors files.

Eight bytes with the length of the header, the header (JSON: for each tensor its type, shape and
place; under ``__metadata__`` texts), then the entries, without a gap.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.io.guard import LIMITS, Limits, as_text_map, check_stored, parse_json

# A bfloat16 is the upper half of a float32.
_DTYPES = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8",
           "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "U32": "<u4", "U64": "<u8",
           "BOOL": "?"}  # fmt: skip


class Place(NamedTuple):
    """Where a tensor stands: its type's name, shape, and first byte in the file."""

    kind: str
    shape: tuple[int, ...]
    start: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored entries."""
        return np.dtype(_DTYPES[self.kind])


def read_header(path: Path, limits: Limits = LIMITS) -> tuple[dict[str, Place], dict[str, str]]:
    """Where each tensor of a file stands, and its metadata.

    Raises:
        FormatError: Not a safetensors file, or one beyond the limits; its length may be anything.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise FormatError("not a safetensors file, or one that was cut off")
        limits.check("header_bytes", length, "bytes of the header")
        header = parse_json(file.read(length), "not a safetensors file: header", limits)
    metadata = as_text_map(header.pop("__metadata__", {}), "__metadata__")
    limits.check("tensors", len(header), "tensors")
    try:
        spans = {name: tuple(map(_whole, entry["data_offsets"])) for name, entry in header.items()}
        places = {
            name: Place(entry["dtype"], tuple(map(_whole, entry["shape"])), 8 + length + start)
            for (name, entry), (start, _) in zip(header.items(), spans.values(), strict=True)
        }
    except (TypeError, KeyError, ValueError) as error:
        raise FormatError(f"not a safetensors file: malformed header, {error!r:.200}") from error
    for name, place in places.items():
        if not isinstance(place.kind, str) or place.kind not in _DTYPES:
            raise FormatError(
                f"tensor {name!r}: expected one of {', '.join(_DTYPES)}, got {str(place.kind)[:50]}"
            )
        start, stop = spans[name]
        check_stored(f"tensor {name!r}", place.shape, place.dtype.itemsize, stop - start)
    _check_spans(sorted(spans.values()), size - 8 - length)
    return places, dict(metadata)


def _whole(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"expected a whole number, got {number!r:.50}")
    return number


def _check_spans(spans: list[tuple[int, ...]], size: int) -> None:
    """One after the other, to the last byte: else a byte could count twice, or hide."""
    at = 0
    for start, stop in spans:
        if start != at:
            raise FormatError("not a safetensors file: tensors overlap, or leave a gap")
        at = stop
    if at != size:
        raise FormatError(f"not a safetensors file: expected {at} bytes of tensors, got {size}")


def decode(stored: NDArray[Any], kind: str) -> NDArray[Any]:
    """The numbers that stored entries stand for; floats as float64."""
    if kind == "BF16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64) if stored.dtype.kind == "f" else stored


def read(path: Path, limits: Limits = LIMITS) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every tensor, floats as float64, and the metadata of the header.

    Raises:
        FormatError: As ``read_header``.
    """
    places, metadata = read_header(path, limits)
    data = path.read_bytes()
    tensors = {}
    for name, (kind, shape, start) in places.items():
        stored = np.frombuffer(data, _DTYPES[kind], math.prod(shape), start).reshape(shape)
        tensors[name] = decode(stored, kind)
    return tensors, metadata


def to_bytes(tensors: dict[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(v) for name, v in tensors.items()}, metadata)
