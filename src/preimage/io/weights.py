"""Weights as named tensors and a record: dense, CSR, or an operator as a list of its parts.

A record says ``storage`` (``dense``, ``csr`` or ``operator``) and ``shape``. A dense weight is one
tensor; a csr weight the three ``.data``, ``.indices`` and ``.indptr``. An operator has ``parts``,
first applied first, each a record again, with tensors ``.0``, ``.1`` and so on; beside the above a
part may be

    {"storage": "convolution", size, stride, padding, dilation, groups, transposed}   tensor .kernel
    {"storage": "sum", "terms": lists of parts}                                       .0.0, .0.1 ...

with the fields of ``Convolution``. Whatever a file says is checked before anything of its size is
made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preimage.errors import FormatError, InputError
from preimage.generator import Weight, as_float64
from preimage.io.convolution import Convolution
from preimage.io.guard import check_entries
from preimage.io.segment import Chain, Part, Sum

Tensors = dict[str, NDArray[Any]]
Record = dict[str, Any]

_DEEPEST = 4  # sums within sums
_CONVOLUTION = ("size", "stride", "padding", "dilation", "groups", "transposed")


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
    """Add the tensors of a weight or part, and return its record.

    Raises:
        InputError: An operator that is no chain of known parts.
    """
    record: Record = {"shape": list(map(int, weight.shape))}
    if isinstance(weight, np.ndarray):
        tensors[name] = narrowed(weight)
        return {"storage": "dense", **record}
    if sparse.issparse(weight):
        tensors[f"{name}.data"] = narrowed(weight.data)
        for part in ("indices", "indptr"):
            values = getattr(weight, part)
            small = values.max(initial=0) < 2**31
            tensors[f"{name}.{part}"] = values.astype(np.int32 if small else np.int64)
        return {"storage": "csr", **record}
    if isinstance(weight, Chain):
        parts = _write_parts(weight, name, tensors)
        return {"storage": "operator", **record, "parts": parts}
    if isinstance(weight, Convolution):
        tensors[f"{name}.kernel"] = narrowed(weight.kernel)
        fields = {field: getattr(weight, field) for field in _CONVOLUTION}
        return {"storage": "convolution", **record, **fields}
    if isinstance(weight, Sum):
        terms = [_write_parts(t, f"{name}.{i}", tensors) for i, t in enumerate(weight.terms)]
        return {"storage": "sum", **record, "terms": terms}
    raise InputError(
        f"{name}: a {type(weight).__name__} cannot be written; only matrices and the operators "
        "that preimage.load and preimage.from_torch make can"
    )


def _write_parts(chain: Chain, name: str, tensors: Tensors) -> list[Record]:
    return [write_weight(p, f"{name}.{i}", tensors) for i, p in enumerate(chain.parts)]


def read_weight(tensors: Tensors, name: str, record: Mapping[str, Any], depth: int = 0) -> Part:
    """The weight or part of a record.

    Raises:
        FormatError: The record and its tensors do not fit together.
    """
    storage, shape = record["storage"], _whole(record["shape"])
    for size in shape:
        check_entries((size,))
    if storage == "dense":
        weight: Part = tensor(tensors, name)
    elif storage == "csr":
        weight = _read_csr(tensors, name, shape)
    elif storage == "operator" and depth == 0:
        weight = _read_parts(tensors, name, record["parts"], depth)
    elif storage == "convolution" and depth > 0:
        weight = _read_convolution(tensors, name, record)
    elif storage == "sum" and 0 < depth < _DEEPEST:
        terms = record["terms"]
        weight = Sum(
            tuple(_read_parts(tensors, f"{name}.{i}", t, depth) for i, t in enumerate(terms))
        )
    else:
        known = "dense, csr or operator" if depth == 0 else "dense, csr, convolution or sum"
        raise FormatError(f"tensor {name!r}: expected storage {known}, got {storage!r}")
    if weight.shape != shape:
        raise FormatError(f"tensor {name!r}: expected shape {shape}, got shape {weight.shape}")
    return weight


def _read_parts(tensors: Tensors, name: str, records: Sequence[Any], depth: int) -> Chain:
    parts = (read_weight(tensors, f"{name}.{i}", r, depth + 1) for i, r in enumerate(records))
    return Chain(tuple(parts))


def _read_csr(tensors: Tensors, name: str, shape: tuple[int, ...]) -> sparse.csr_array:
    data = tensor(tensors, f"{name}.data")
    # Indices are whole numbers below 2^53, so that float64 holds them.
    indices, indptr = (
        tensor(tensors, f"{name}.{part}").astype(np.int64) for part in ("indices", "indptr")
    )
    try:
        matrix = sparse.csr_array((data, indices, indptr), shape=shape)
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise FormatError(f"tensor {name!r}: not a csr matrix, {error}") from error
    return matrix


def _read_convolution(tensors: Tensors, name: str, record: Mapping[str, Any]) -> Convolution:
    fields = {field: _whole(record[field]) for field in ("size", "stride", "dilation")}
    padding = tuple(_whole(pair) for pair in record["padding"])
    transposed = record["transposed"]
    if not isinstance(transposed, bool):
        raise TypeError(f"transposed: expected true or false, got {transposed!r}")
    (groups,) = _whole([record["groups"]])
    kernel = tensor(tensors, f"{name}.kernel")
    try:
        return Convolution(
            kernel, padding=padding, groups=groups, transposed=transposed,  # type: ignore[arg-type]
            **fields,
        )  # fmt: skip
    except InputError as error:
        raise FormatError(f"tensor {name!r}: {error}") from error


def _whole(values: Any) -> tuple[int, ...]:
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in values):
        raise TypeError(f"expected whole numbers, got {values!r}")
    return tuple(values)
