"""What a file may ask for: checked before anything of that size is allocated.

A file may hold anything. What it holds is bounded by its length, but it may declare more: arrays
beyond memory, members that inflate a thousandfold, operators that repeat. Every declared size is
compared with a limit, or with the bytes that are there. A file that is refused is a
``FormatError``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from preimage.errors import FormatError, InputError

# The largest ratio of what an archive inflates to and its own size; a little is always fine.
_INFLATION = 100
# A tensor, an archive's member or a node of a graph takes as much memory as so many numbers.
_OBJECT = 1024


@dataclass(frozen=True)
class Limits:
    """What a file may ask for. Raise one only for a file that you trust.

    Args:
        file_bytes: Size of a file, and of all that a compressed one inflates to.
        entries: What a file declares without holding it: entries of an array that an operator
            makes, pixels of a picture, characters of a header. A tensor, a member of an archive
            or a node counts as 1024 entries.

    Raises:
        InputError: A limit is not a positive integer.
    """

    file_bytes: int = 512 * 2**20
    entries: int = 2**22

    def __post_init__(self) -> None:
        for field in fields(self):
            check_whole(field.name, getattr(self, field.name), 1)

    def check(self, name: str, found: int, what: str) -> None:
        """Compare a number that a file declares with a limit.

        Raises:
            FormatError: It is more; the message says which limit, and how to raise it.
        """
        allowed = getattr(self, name)
        if found > allowed:
            raise FormatError(
                f"{what}: {found}, more than the limit {name}={allowed}; if you trust the file, "
                f"pass limits=Limits({name}={found})"
            )

    def check_shape(self, shape: Iterable[int]) -> tuple[int, ...]:
        """Return the shape of an array that may be allocated.

        Raises:
            InputError: A negative size, or more entries than the limit.
        """
        shape = tuple(map(int, shape))
        if any(n < 0 for n in shape):
            raise InputError(f"expected sizes that are not negative, got {shape}")
        self.check("entries", math.prod(shape), f"entries of an array of shape {shape}")
        return shape

    def check_count(self, count: int, what: str) -> None:
        """Compare the number of tensors, members or nodes with ``entries``."""
        self.check("entries", _OBJECT * count, f"{what}, {_OBJECT} entries each")

    def check_inflated(self, total: int, size: int) -> None:
        """Compare what a file of ``size`` bytes inflates to with the limits."""
        if total > size:
            self.check("file_bytes", total, "bytes that the file inflates to")
        if total > _INFLATION * size:
            self.check("entries", total // 4, "numbers that the file inflates to")


def check_whole(name: str, value: int, least: int) -> None:
    """Refuse what is no whole number, or less than ``least``, 0 or 1, by an ``InputError``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        kind = "a positive integer" if least else "an integer of 0 or more"
        raise InputError(f"{name}: expected {kind}, got {value!r}")


LIMITS = Limits()


def check_file(path: str | os.PathLike[str], limits: Limits = LIMITS) -> Path:
    """The path of a regular file of at most ``limits.file_bytes``."""
    if not isinstance(limits, Limits):
        raise InputError(f"limits: expected preimage.Limits(...), got {limits!r}")
    path = Path(path)
    if not path.exists():
        raise FormatError(f"{path}: no such file")
    if not path.is_file():
        raise FormatError(f"{path}: expected a regular file")
    limits.check("file_bytes", path.stat().st_size, f"{path}: bytes of the file")
    return path


def parse_json(text: str | bytes, what: str, limits: Limits = LIMITS, kind: type = dict) -> Any:
    """The dict or list that a JSON text is; neither too long nor too deep, each key once."""
    limits.check("entries", len(text), f"characters of {what}")
    expected = "array" if kind is list else "object"
    try:
        found = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what}: expected a JSON {expected}, got {error!r:.200}") from error
    if not isinstance(found, kind):
        raise FormatError(f"{what}: expected a JSON {expected}, got a {type(found).__name__}")
    return found


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of pairs, each name once: of two values, two readers may see different ones."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise FormatError(f"{name!r:.200} is there twice")
        found[name] = value
    return found


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, even if the power fails.

    It is written under another name and flushed to the disk, then renamed, and so is the name.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        if os.name != "nt":  # Windows has no call that flushes a folder
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        if error.errno:  # of the system, which names no file where a disk is full
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
