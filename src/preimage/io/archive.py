"""Zip archives, the form of npz and torch files: their directory is checked before it is read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from preimage.errors import FormatError
from preimage.io.guard import Limits, unique

# Offset of the directory's length in the record that ends an archive, and in that of large ones.
_END, _END_LENGTH, _LENGTH_AT = b"PK\5\6", 22, 12
_LARGE_END, _LARGE_END_LENGTH, _LARGE_LENGTH_AT = b"PK\6\6", 56, 40
_LOCATOR, _LOCATOR_LENGTH = b"PK\6\7", 20


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """An archive within the limits, open for reading.

    Members are stored or deflated, none is there twice, and reading one gives no more bytes than
    the directory says, which ``zipfile`` sees to.

    Raises:
        FormatError: Not an archive, a broken one, or one beyond the limits.
    """
    try:
        with path.open("rb") as file:
            _check_directory(file, path.stat().st_size, limits)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                _check_members(archive.infolist(), path.stat().st_size, limits)
                yield archive
    except FormatError:
        raise
    except Exception as error:  # zipfile and zlib raise much else on broken archives
        raise FormatError(f"not an archive, or a broken one: {error!r:.200}") from error


def _check_directory(file: BinaryIO, size: int, limits: Limits) -> None:
    """Its length, which bounds the members that ``zipfile`` makes objects of."""
    file.seek(max(0, size - _END_LENGTH - _LOCATOR_LENGTH - _LARGE_END_LENGTH))
    tail = file.read()
    end = tail[-_END_LENGTH:]
    # No comment may follow: with one, two readers can disagree on where the directory is.
    if not end.startswith(_END) or end[-2:] != b"\0\0":
        raise FormatError("not an archive, or a broken one: it does not end as a zip file does")
    length = int.from_bytes(end[_LENGTH_AT : _LENGTH_AT + 4], "little")
    locator = tail[-_END_LENGTH - _LOCATOR_LENGTH : -_END_LENGTH]
    if locator.startswith(_LOCATOR):
        large = tail[: -_END_LENGTH - _LOCATOR_LENGTH][-_LARGE_END_LENGTH:]
        if not large.startswith(_LARGE_END):
            raise FormatError("not an archive, or a broken one: the end of a large one is missing")
        length = int.from_bytes(large[_LARGE_LENGTH_AT : _LARGE_LENGTH_AT + 8], "little")
    limits.check("header_bytes", length, "bytes of the archive's directory")


def _check_members(members: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    limits.check("tensors", len(members), "members of the archive")
    unique((member.filename, None) for member in members)
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(f"member {member.filename!r}: packed in a way that is not supported")
        if member.flag_bits & 1:
            raise FormatError(f"member {member.filename!r}: it is encrypted")
    total = sum(member.file_size for member in members)
    limits.check_inflation(total, size, "the members of the archive")
