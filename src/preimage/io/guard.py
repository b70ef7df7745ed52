"""The one door that every file passes: it exists, it is a regular file, it fits the budget."""

from __future__ import annotations

import math
import os
from pathlib import Path

from preimage.errors import FormatError, InputError

MAX_BYTES = 512 * 2**20
# The most entries that a file's sizes may ask for in one array: 512 MB. What a file holds is
# bounded by its own length, but a shape of a few bytes can ask for anything.
MAX_ENTRIES = 2**26


def check_file(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> Path:
    """Return the path of a file that may be read.

    Args:
        path: Any file.
        max_bytes: Largest size to accept.

    Raises:
        FormatError: No such file, not a regular file, or more than ``max_bytes``.
        InputError: ``max_bytes`` is not a positive integer.
    """
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes <= 0:
        raise InputError(f"max_bytes: expected a positive integer, got {max_bytes!r}")
    path = Path(path)
    if not path.exists():
        raise FormatError(f"{path}: no such file")
    if not path.is_file():
        raise FormatError(f"{path}: expected a regular file")
    size = path.stat().st_size
    if size > max_bytes:
        raise FormatError(
            f"{path}: the file has {size} bytes, more than the limit max_bytes={max_bytes}; "
            f"if you trust it, pass max_bytes={size}"
        )
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: under another name, then renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_entries(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that may be allocated.

    Raises:
        InputError: A negative size, or more than ``MAX_ENTRIES`` entries.
    """
    shape = tuple(map(int, shape))
    if any(n < 0 for n in shape) or math.prod(shape) > MAX_ENTRIES:
        raise InputError(
            f"expected sizes that are not negative and at most {MAX_ENTRIES} entries, got {shape}"
        )
    return shape
