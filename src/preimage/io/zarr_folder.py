"""Zarr arrays in folders: the size of a chunk is checked before it is decompressed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from preimage.errors import FormatError, extra
from preimage.io.limits import Limits, parse_json
from preimage.io.tensors import reading

# What Zarr may decode with: any other codec could be one that unpickles, or that says nowhere how
# much its output is.
_COMPRESSORS = {"blosc", "zstd", "gzip", "zlib", "lz4"}
_CODECS = _COMPRESSORS | {"bytes", "crc32c", "transpose"}
METADATA = ("zarr.json", ".zarray")
_METADATA = {*METADATA, ".zattrs", ".zgroup", ".zmetadata"}
# No deflated byte stands for more than this many (zlib's technical notes).
_DEFLATE_RATIO = 1032


def open_array(path: Path, limits: Limits) -> Any:
    """Open an array of Zarr format 2 or 3, a folder with zarr.json or .zarray, to be sliced.

    When a chunk is read, it is held to ``limits.file_bytes``, packed and unpacked, and to the size
    that the metadata give it; what is not allowed is a ``FormatError``.
    """
    with extra("batch", "zarr"):
        import zarr
    metadata = next(path / name for name in METADATA if (path / name).exists())
    described = parse_json(metadata.read_bytes(), metadata.name, limits)
    with reading("a Zarr array"):
        listed = [*(described.get("codecs") or ()), *(described.get("filters") or ())]
        listed += [described["compressor"]] if described.get("compressor") else []
        names = [str(codec.get("name", codec.get("id"))) for codec in listed]
        packed = [name for name in names if name in _COMPRESSORS]
        if not set(names) <= _CODECS or len(packed) > 1:
            raise FormatError(
                f"expected no codecs but {', '.join(sorted(_CODECS))}, and one compressor, got "
                f"{', '.join(names)[:200]}"
            )
        array = zarr.open_array(str(path), mode="r")
    if np.dtype(array.dtype).kind not in "biuf":
        raise FormatError(f"expected real numbers, got dtype {array.dtype}")
    chunk = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    limits.check("file_bytes", chunk, "bytes of a chunk")
    return zarr.open_array(_guarded(path, "".join(packed), chunk, limits), mode="r")


def _guarded(path: Path, compressor: str, chunk: int, limits: Limits) -> Any:
    """A read-only store of the folder: no links out of it, no chunks of more than they declare."""
    from zarr.storage import LocalStore

    # A checksum may follow; deflated data can only be bounded, by the limit.
    most = limits.file_bytes if compressor in ("gzip", "zlib") else chunk + 8

    class Guarded(LocalStore):
        async def get(  # type: ignore[override]
            self, key: str, prototype: Any, byte_range: Any = None
        ) -> Any:
            file = path / key
            if not file.resolve().is_relative_to(path.resolve()):
                raise FormatError(f"{key}: it is a link that leads out of the folder {path}")
            if file.is_file() and file.name not in _METADATA:
                size = file.stat().st_size
                limits.check("file_bytes", size, f"{key}: bytes of the file")
                with file.open("rb") as opened:
                    unpacked = unpacked_size(opened.read(18), compressor, size)
                if unpacked > most:
                    raise FormatError(
                        f"{key}: it may unpack to {unpacked} bytes, more than the {most} that a "
                        "chunk may take"
                    )
            return await super().get(key, prototype, byte_range)

    return Guarded(path, read_only=True)


def unpacked_size(head: bytes, compressor: str, size: int) -> int:
    """The bytes that a chunk says it becomes, or for deflated data the most that it can become.

    ``head`` are its first 18 bytes, ``size`` is that of the whole chunk as stored. ``FormatError``
    if it does not say.
    """
    match compressor:
        case "gzip" | "zlib":
            return _DEFLATE_RATIO * size
        case "blosc" if len(head) >= 16:  # its header's second word
            return int.from_bytes(head[4:8], "little")
        case "lz4" if len(head) >= 4:  # the word that numcodecs writes first
            return int.from_bytes(head[:4], "little")
        # RFC 8878, 3.1.1.1
        case "zstd" if len(head) >= 6 and head[:4] == b"\x28\xb5\x2f\xfd":
            flags = head[4]
            single, width = flags & 32, (0, 2, 4, 8)[flags >> 6]
            width = width or (1 if single else 0)
            at = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
            if width and len(head) >= at + width:
                return int.from_bytes(head[at : at + width], "little") + 256 * (width == 2)
        case "":
            return size
    raise FormatError(f"a chunk of {size} bytes does not say how much {compressor} packed into it")
