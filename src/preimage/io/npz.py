"""Tensors in npz files; no pickles."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.io import archive, npy
from preimage.io.guard import LIMITS, Limits, as_text_map, parse_json, unique


def read(path: Path, limits: Limits = LIMITS) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every array, and the record in the member ``metadata``.

    Raises:
        FormatError: Not an npz file of plain arrays, or one beyond the limits.
    """
    with archive.opened(path, limits) as opened:
        members = unique((m.filename.removesuffix(".npy"), m) for m in opened.infolist())
        record = members.pop("metadata", None)
        metadata: dict[str, Any] = {}
        if record is not None:
            limits.check("header_bytes", record.file_size, "bytes of member 'metadata'")
            with opened.open(record) as file:
                text = npy.read(file, record.file_size, "member 'metadata'", "U")  # type: ignore[arg-type]
            metadata = parse_json(str(text.reshape(-1)[0]), "member 'metadata'", limits)
        tensors = {}
        for name, member in members.items():
            with opened.open(member) as file:
                tensors[name] = npy.read(file, member.file_size, f"member {name!r}")  # type: ignore[arg-type]
    return tensors, dict(as_text_map(metadata, "member 'metadata'"))


def to_bytes(tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """An npz file."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {**tensors, "metadata": np.array(json.dumps(metadata))}
    np.savez(buffer, **members)
    return buffer.getvalue()
