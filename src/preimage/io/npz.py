"""Tensors in npz files; no pickles."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every array, and the record in the member ``metadata``."""
    try:
        # Opened here, since a broken archive would leave NumPy's own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            tensors = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise FormatError(f"not an npz file of plain arrays: {error}") from error
    metadata = tensors.pop("metadata", np.array("{}"))
    try:
        record = json.loads(str(metadata[()]))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise FormatError("member 'metadata': expected a JSON object")
    return tensors, record


def to_bytes(tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """An npz file."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {**tensors, "metadata": np.array(json.dumps(metadata))}
    np.savez(buffer, **members)
    return buffer.getvalue()
