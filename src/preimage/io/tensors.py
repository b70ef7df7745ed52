"""Named tensors in safetensors, npz and torch files, read by the libraries of these formats.

A file of another format, or one that asks for more than the limits allow, is a ``FormatError``.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, PreimageError, extra
from preimage.io.limits import LIMITS, Limits, parse_json, unique
from preimage.matrix import Array, as_float64
from preimage.torch_modules import torch

Tensors = dict[str, NDArray[Any]]
Metadata = dict[str, str]

_DEEPEST = 16  # dicts within dicts
_OVERRIDE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # makes torch unpickle anything


@contextmanager
def reading(kind: str) -> Iterator[None]:
    """Turn what a library raises on a bad file, which can be anything, into a ``FormatError``."""
    try:
        yield
    except PreimageError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
        raise FormatError(f"not {kind}: {reason}") from error


def tensor(tensors: Tensors, name: str) -> Array:
    """A tensor of finite numbers, as float64."""
    if name not in tensors:
        found = ", ".join(sorted(tensors))[:500] or "none at all"
        raise FormatError(f"expected a tensor {name!r}, the file has {found}")
    return as_float64(tensors[name], f"tensor {name!r}")


# safetensors ------------------------------------------------------------------------------------


@contextmanager
def open_safetensors(path: Path, limits: Limits = LIMITS) -> Iterator[Any]:
    """An open safetensors file, whose tensors are read when they are asked for."""
    import ml_dtypes  # noqa: F401  # gives NumPy bfloat16
    from safetensors import safe_open

    with reading("a safetensors file"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        limits.check("entries", min(length, path.stat().st_size), "characters of the header")
        with safe_open(path, framework="np") as opened:
            yield opened


def read_safetensors(path: Path, limits: Limits = LIMITS) -> tuple[Tensors, Metadata]:
    """Every tensor, floats as float64, and the metadata of the header."""
    with open_safetensors(path, limits) as opened:
        stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        found = {n: v.astype(np.float64) if v.dtype.kind in "fV" else v for n, v in stored.items()}
        return found, opened.metadata() or {}


def write_safetensors(tensors: Tensors, metadata: Metadata) -> bytes:
    """A safetensors file."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(v) for name, v in tensors.items()}, metadata)


# npz --------------------------------------------------------------------------------------------


def check_archive(path: Path, limits: Limits) -> list[zipfile.ZipInfo]:
    """The members of a zip archive; no member gives more bytes than the directory says."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    limits.check_count(len(members), "members of the archive")
    limits.check_inflated(sum(member.file_size for member in members), path.stat().st_size)
    return members


def read_npz(path: Path, limits: Limits = LIMITS) -> tuple[Tensors, Metadata]:
    """Every plain array of an npz file, and the record in the member ``metadata``."""
    with reading("an npz file of plain arrays"):
        check_archive(path, limits)
        with np.load(path, allow_pickle=False) as file:
            found = unique((name, np.asarray(file[name])) for name in file.files)
        record = found.pop("metadata", np.array("{}"))
        metadata = parse_json(str(record.reshape(-1)[0]), "member 'metadata'", limits)
    return found, {str(key): str(value) for key, value in metadata.items()}


def write_npz(tensors: Tensors, metadata: Metadata) -> bytes:
    """An npz file."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {**tensors, "metadata": np.array(json.dumps(metadata))}
    np.savez(buffer, **members)
    return buffer.getvalue()


# torch ------------------------------------------------------------------------------------------


def read_torch(path: Path, limits: Limits = LIMITS) -> tuple[Tensors, Metadata]:
    """Every dense tensor of real numbers in a state dict; those of dicts inside have dotted names.

    Whatever else the file holds, such as numbers, the state of an optimizer, complex or sparse
    tensors, is left out. The file is mapped, so that no more is read than there is.
    """
    if os.environ.get(_OVERRIDE, "").lower() in ("1", "y", "yes", "true"):
        raise FormatError(f"{_OVERRIDE} is set, with which torch runs code in files; unset it")
    with extra("torch", "torch"):
        import torch
    with reading("a file of torch.save in its present form; read its weights with torch"):
        members = check_archive(path, limits)
        if any(member.filename.endswith("/constants.pkl") for member in members):
            raise FormatError(
                "a TorchScript file, which holds code; if you trust it, pass "
                "torch.jit.load(path) to preimage.from_torch"
            )
        for member in members:
            if member.filename.endswith("data.pkl"):
                limits.check("entries", member.file_size, "bytes of the pickle")
            if member.compress_type != zipfile.ZIP_STORED:
                raise FormatError(
                    "not a file of torch.save: its members are compressed; save it anew"
                )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what torch raises on a foreign file is open-ended
        reason = str(error).partition("\n")[0][:200]
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors, which could run code"
        raise FormatError(
            f"torch.load(weights_only=True) refuses it: {reason}; if it holds a whole module and "
            "you trust it, pass torch.load(path, weights_only=False) to preimage.from_torch"
        ) from error
    arrays: Tensors = {}
    total = 0
    for name, tensor in _named_tensors(content, limits):
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
        limits.check_inflated(total, path.stat().st_size)
        wide = tensor.double() if tensor.is_floating_point() else tensor.clone()
        arrays[name] = np.asarray(wide.numpy())
    return arrays, {}


def _named_tensors(content: Any, limits: Limits) -> Iterator[tuple[str, Any]]:
    """Every tensor with its name, in the order of the file."""
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    seen = 0
    while waiting:
        name, value, depth = waiting.pop()
        # A dict that stands in many places is counted in each, or it could double at every level.
        seen += 1
        limits.check_count(seen, "entries of dicts")
        if isinstance(value, torch.Tensor):
            yield name.removesuffix(".") or "tensor", value.detach()
        elif isinstance(value, dict) and depth <= _DEEPEST:
            pairs = [(k, v) for k, v in value.items() if isinstance(k, str)]
            waiting.extend((f"{name}{k}.", v, depth + 1) for k, v in reversed(pairs))
