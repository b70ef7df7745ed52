"""Tensors in safetensors files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError

_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every tensor, floats as float64, and the metadata of the header."""
    from safetensors import SafetensorError, deserialize

    data = path.read_bytes()
    try:
        parts = deserialize(data)
    except SafetensorError as error:
        raise FormatError(f"not a safetensors file: {error}") from error
    # ``deserialize`` has checked the header, eight bytes of length and then JSON.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = {name: _decoded(name, **part) for name, part in parts}
    return tensors, header.get("__metadata__") or {}


def _decoded(name: str, dtype: str, shape: list[int], data: bytes) -> NDArray[Any]:
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        upper = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        values: NDArray[Any] = upper.view(np.float32)
    elif dtype in _DTYPES:
        values = np.frombuffer(data, _DTYPES[dtype])
    else:
        raise FormatError(
            f"tensor {name!r}: expected one of BF16, {', '.join(_DTYPES)}, got {dtype}"
        )
    values = values.reshape(shape)
    return values.astype(np.float64) if values.dtype.kind == "f" else values


def to_bytes(tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """A safetensors file."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(v) for name, v in tensors.items()}, metadata)
