"""Tensors in the files that ``torch.save`` writes, read by torch with ``weights_only``."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.io import archive
from preimage.io.guard import LIMITS, Limits
from preimage.torch_modules import import_torch

_DEEPEST = 16  # dicts within dicts
_OVERRIDE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # makes torch unpickle anything
_OF_NO_USE = "read its weights with torch, and pass a state dict saved by torch.save"


def read(path: Path, limits: Limits = LIMITS) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every dense tensor of real numbers in a state dict; those of dicts inside have dotted names.

    Whatever else the file holds, such as numbers, the state of an optimizer, complex or sparse
    tensors, is left out. The file is mapped, so that no more is read than there is.

    Raises:
        FormatError: Not a file of ``torch.save``, or one beyond the limits.
        MissingExtraError: torch is not installed.
    """
    if os.environ.get(_OVERRIDE, "").lower() in ("1", "y", "yes", "true"):
        raise FormatError(f"{_OVERRIDE} is set, with which torch runs code in files; unset it")
    torch = import_torch()
    _check_archive(path, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what torch raises on a foreign file is open-ended
        reason = str(error).partition("\n")[0][:200]
        raise FormatError(
            f"torch.load(weights_only=True) refuses it: {type(error).__name__}: {reason}; a whole "
            "module goes through preimage.from_torch"
        ) from error
    return _arrays(content, path.stat().st_size, limits), {}


def _check_archive(path: Path, limits: Limits) -> None:
    """An archive as torch writes them: nothing is packed, and there is one pickle."""
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK":
        raise FormatError(f"not a file of torch.save in its present form; {_OF_NO_USE}")
    with archive.opened(path, limits) as opened:
        members = opened.infolist()
        pickles = [m for m in members if m.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise FormatError(
                f"not a file of torch.save: expected one data.pkl, got {len(pickles)}"
            )
        limits.check("header_bytes", pickles[0].file_size, "bytes of the pickle")
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise FormatError("not a file of torch.save: its members are compressed")
        order = f"{pickles[0].filename.removesuffix('data.pkl')}byteorder"
        if order in opened.namelist() and opened.read(order) != b"little":
            raise FormatError("expected little-endian numbers, got others")


def _arrays(content: Any, size: int, limits: Limits) -> dict[str, NDArray[Any]]:
    torch = import_torch()
    arrays: dict[str, NDArray[Any]] = {}
    total = 0
    for name, tensor in _tensors(content, limits):
        if name in arrays:
            raise FormatError(f"tensor {name!r:.200} is there twice")
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            continue
        stored = tensor.untyped_storage().nbytes() // max(tensor.element_size(), 1)
        if tensor.numel() > stored or max(tensor.shape, default=0) >= 2**31:
            raise FormatError(
                f"tensor {name!r:.200}: it shows {tensor.numel()} entries, the file has {stored}"
            )
        total += 8 * tensor.numel()
        limits.check_inflation(total, size, "the tensors of the file")
        wide = tensor.double() if tensor.is_floating_point() else tensor.clone()
        arrays[name] = np.asarray(wide.numpy())
    return arrays


def _tensors(content: Any, limits: Limits) -> Iterator[tuple[str, Any]]:
    """Every tensor with its name, in the order of the file."""
    torch = import_torch()
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    seen = 0
    while waiting:
        name, value, depth = waiting.pop()
        # A dict that stands in many places is counted in each, or it could double at every level.
        seen += 1
        limits.check("tensors", seen, "entries of dicts")
        if isinstance(value, torch.Tensor):
            yield name.removesuffix(".") or "tensor", value.detach()
        elif isinstance(value, dict):
            if depth > _DEEPEST:
                raise FormatError(f"dicts within dicts, more than {_DEEPEST} deep")
            limits.check("tensors", len(waiting) + len(value), "entries of dicts")
            pairs = [(k, v) for k, v in value.items() if isinstance(k, str)]
            waiting.extend((f"{name}{k}.", v, depth + 1) for k, v in reversed(pairs))
