"""Weights as named tensors and a record: dense or CSR.

A record says ``storage`` (``dense`` or ``csr``) and ``shape``. A dense weight is one tensor; a CSR
weight the three ``.data``, ``.indices`` and ``.indptr``. Whatever a file says is checked before
anything of its size is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.io.limits import Limits
from preimage.io.tensors import Tensors
from preimage.matrix import Weight, as_float64

Record = dict[str, Any]


def tensor(tensors: Tensors, name: str) -> NDArray[Any]:
    """A tensor of finite numbers, as float64."""
    if name not in tensors:
        found = ", ".join(sorted(tensors))[:500] or "none at all"
        raise FormatError(f"expected a tensor {name!r}, the file has {found}")
    return as_float64(tensors[name], f"tensor {name!r}")


def narrowed(values: NDArray[np.float64]) -> NDArray[Any]:
    """As float32 if that loses nothing."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values) else values


def write_weight(weight: Weight, name: str, tensors: Tensors) -> Record:
    """Add the tensors of a weight, and return its record."""
    record: Record = {"shape": list(map(int, weight.shape))}
    if isinstance(weight, np.ndarray):
        tensors[name] = narrowed(weight)
        return {"storage": "dense", **record}
    tensors[f"{name}.data"] = narrowed(weight.data)
    for part in ("indices", "indptr"):
        values = getattr(weight, part)
        tensors[f"{name}.{part}"] = values.astype(_narrowest(int(values.max(initial=0))))
    return {"storage": "csr", **record}


def _narrowest(largest: int) -> type[np.signedinteger[Any]]:
    """The smallest type that holds whole numbers from 0 to ``largest``."""
    return np.int16 if largest < 2**15 else np.int32 if largest < 2**31 else np.int64


def read_weight(tensors: Tensors, name: str, record: Mapping[str, Any], limits: Limits) -> Weight:
    """The weight of a record.

    Raises:
        FormatError: The record and its tensors do not fit together.
    """
    storage, shape = record["storage"], _whole(record["shape"])
    for size in shape:
        limits.check_shape((size,))
    if storage == "dense":
        weight: Weight = tensor(tensors, name)
    elif storage == "csr":
        weight = _read_csr(tensors, name, shape)
    else:
        raise FormatError(f"tensor {name!r}: expected storage dense or csr, got {storage!r:.200}")
    if weight.shape != shape:
        raise FormatError(f"tensor {name!r}: expected shape {shape}, got shape {weight.shape}")
    return weight


def _read_csr(tensors: Tensors, name: str, shape: tuple[int, ...]) -> scipy.sparse.csr_array:
    data = tensor(tensors, f"{name}.data")
    # Indices are whole numbers below 2^53, so that float64 holds them.
    indices, indptr = (
        tensor(tensors, f"{name}.{part}").astype(np.int64) for part in ("indices", "indptr")
    )
    try:
        matrix = scipy.sparse.csr_array((data, indices, indptr), shape=shape)
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise FormatError(f"tensor {name!r}: not a csr matrix, {error}") from error
    return matrix


def _whole(values: Any) -> tuple[int, ...]:
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in values):
        raise TypeError(f"expected whole numbers, got {values!r}")
    return tuple(values)
