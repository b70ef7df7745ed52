"""The results of one run of samples, as the arrays that a shard's file holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.inversion import Inversion, Status
from preimage.io.safetensors_file import to_bytes

Arrays = dict[str, NDArray[Any]]

# The place of a status in a file is its place here: new ones go to the end.
STATUSES = tuple(Status)


def pack(inversion: Inversion) -> Arrays:
    """The arrays of an inversion."""
    return {
        "latent": inversion.latent,
        "residual": inversion.residual,
        "residual_max": inversion.residual_max,
        "status": np.array([STATUSES.index(status) for status in inversion.status], np.uint8),
        "rank": np.asarray(inversion.rank, np.int64),
    }


def blank(count: int, latent_size: int) -> Arrays:
    """The arrays of samples that have no answer."""
    unknown = np.full(count, np.nan)
    return {
        "latent": np.full((count, latent_size), np.nan),
        "residual": unknown,
        "residual_max": unknown.copy(),
        "status": np.full(count, STATUSES.index(Status.FAILED), np.uint8),
        "rank": np.full(count, -1, np.int64),
    }


def join(parts: Sequence[Arrays]) -> Arrays:
    """Parts of one shard, in order."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def encode(arrays: Arrays) -> bytes:
    """A safetensors file; the same arrays give the same bytes."""
    return to_bytes(arrays)


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, samples: int, latent_size: int) -> Arrays:
    """The arrays of a shard's file, whose digest was compared before.

    Raises:
        FormatError: Not the arrays of so many samples.
    """
    from safetensors.numpy import load

    arrays: Arrays = load(data)
    for name, like in blank(samples, latent_size).items():
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (like.shape, like.dtype):
            raise FormatError(f"{name}: expected {like.dtype} of shape {like.shape}")
    return arrays
