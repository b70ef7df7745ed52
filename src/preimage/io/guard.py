"""The one door that every file passes: it is there, it is a plain file, it keeps to the limits.

A file may be anything. What it holds is bounded by its length, but its header may ask for more:
for tensors beyond number, for shapes beyond memory, for members that inflate a thousandfold. So
every size is compared with a limit, or with the bytes that are there, before anything of that size
is made.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from preimage.errors import FormatError, InputError

# The largest size that anything in a file may have along one dimension.
MAX_ENTRIES = 2**24


@dataclass(frozen=True)
class Limits:
    """What a file may ask for. Raise one only for a file that you trust.

    Args:
        file_bytes: Size of a file, and of all that a packed one inflates to.
        header_bytes: What describes the tensors: the header of a safetensors file, the directory
            of an archive, the pickle in a torch file, metadata.
        tensors: Number of tensors, members or nodes.
        entries: Of an array whose size a file asks for without holding its entries, as ONNX's
            ``Expand`` does; all such arrays of a file together may have four times as many.
        inflation: How many times larger than the file all that it inflates to may be.

    Raises:
        InputError: A limit is not a positive integer.
    """

    file_bytes: int = 512 * 2**20
    header_bytes: int = 4 * 2**20
    tensors: int = 4096
    entries: int = 2**22
    inflation: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise InputError(f"{field.name}: expected a positive integer, got {value!r}")

    def check(self, name: str, found: int, what: str) -> None:
        """Compare a number that a file asks for with a limit.

        Raises:
            FormatError: It is more; the message says which limit, and how to raise it.
        """
        allowed = getattr(self, name)
        if found > allowed:
            raise FormatError(
                f"{what}: {found}, more than the limit {name}={allowed}; if you trust the file, "
                f"pass limits=Limits({name}={found})"
            )

    def check_inflation(self, total: int, size: int, what: str) -> None:
        """Compare what a file of ``size`` bytes becomes with the limits; a little is always fine.

        Raises:
            FormatError: It is more than ``file_bytes``, or too many times the file.
        """
        self.check("file_bytes", total, f"bytes of {what}")
        if total > self.inflation * size + _ALWAYS_FINE:
            self.check("inflation", -(-total // size), f"times that {what} are larger than it")


_ALWAYS_FINE = 2**24
LIMITS = Limits()

# Shapes are computed deep inside the lowering of a graph, far from the door with the argument.
_in_force: ContextVar[Limits] = ContextVar("limits", default=LIMITS)


@contextmanager
def in_force(limits: Limits) -> Iterator[None]:
    """``check_entries`` keeps to these limits meanwhile.

    Raises:
        InputError: No ``Limits``.
    """
    if not isinstance(limits, Limits):
        raise InputError(f"limits: expected preimage.Limits(...), got {limits!r}")
    token = _in_force.set(limits)
    try:
        yield
    finally:
        _in_force.reset(token)


def check_file(path: str | os.PathLike[str], limits: Limits = LIMITS) -> Path:
    """Return the path of a file that may be read.

    Raises:
        FormatError: No such file, not a regular file, or more than ``limits.file_bytes``.
    """
    path = Path(path)
    if not path.exists():
        raise FormatError(f"{path}: no such file")
    if not path.is_file():
        raise FormatError(f"{path}: expected a regular file")
    limits.check("file_bytes", path.stat().st_size, f"{path}: bytes of the file")
    return path


def check_entries(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that may be allocated.

    Raises:
        InputError: A negative size, or more entries than the limit.
    """
    shape = tuple(map(int, shape))
    if any(n < 0 for n in shape):
        raise InputError(f"expected sizes that are not negative, got {shape}")
    _in_force.get().check("entries", math.prod(shape), f"entries of an array of shape {shape}")
    return shape


def check_total(entries: int) -> None:
    """Refuse arrays that a file asks for, and that are too large together.

    Raises:
        FormatError: As said.
    """
    limits = _in_force.get()
    if entries > 4 * limits.entries:
        limits.check("entries", -(-entries // 4), "a quarter of the entries of all arrays together")


def check_stored(name: str, shape: Iterable[int], itemsize: int, stored: int) -> tuple[int, ...]:
    """Return the shape of an array that a file holds, if it holds so many bytes.

    Raises:
        FormatError: A negative size, or another number of bytes.
    """
    shape = tuple(shape)
    if any(n < 0 for n in shape) or math.prod(shape) * itemsize != stored:
        raise FormatError(
            f"{name}: expected {math.prod(shape) * itemsize} bytes for shape {shape}, got {stored}"
        )
    return shape


_JSON: dict[type, str] = {dict: "object", list: "array"}


def parse_json(text: str | bytes, what: str, limits: Limits = LIMITS, kind: type = dict) -> Any:
    """The object (or what else JSON calls ``kind``) that a text is.

    Raises:
        FormatError: Not JSON, of another kind, too long or too deep, or a key that is there twice.
    """
    limits.check("header_bytes", len(text), f"bytes of {what}")
    try:
        found = json.loads(text, object_pairs_hook=unique)
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what}: expected a JSON {_JSON[kind]}, got {error!r:.200}") from error
    if not isinstance(found, kind):
        raise FormatError(f"{what}: expected a JSON {_JSON[kind]}, got a {type(found).__name__}")
    return found


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of pairs, each name once.

    Raises:
        FormatError: A name is there twice, so that two readers may see two different files.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise FormatError(f"{name!r:.200} is there twice")
        found[name] = value
    return found


def as_text_map(values: Any, what: str) -> Mapping[str, str]:
    """A map from text to text, such as metadata.

    Raises:
        FormatError: Anything else.
    """
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise FormatError(f"{what}: expected an object of texts")
    return values


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
        flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk."""
    if os.name == "nt":
        return  # Windows has no such call
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
