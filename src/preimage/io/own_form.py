"""The package's own form of a generator: named tensors and a record of strings.

The tensors are ``layers.0.weight``, ``layers.0.bias`` and so on; a CSR weight is three tensors,
``layers.0.weight.data``, ``.indices`` and ``.indptr``. The record (the header of a safetensors
file, the member ``metadata`` of an npz file) holds

    format   "preimage"
    version  "1"
    layers   JSON, an object a layer: activation (a name), storage ("dense" or "csr"), shape

A bias that is missing is zero. Numbers have the smallest type that holds them exactly. Whatever a
file says is checked before anything of its size is made.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from preimage.activation import as_activation
from preimage.errors import FormatError, InputError
from preimage.generator import Generator, Layer
from preimage.io.limits import Limits, parse_json
from preimage.io.tensors import Metadata, Tensors, tensor
from preimage.matrix import Weight

_CSR = ("data", "indices", "indptr")


def encode(generator: Generator) -> tuple[Tensors, Metadata]:
    """The tensors and the record of a generator."""
    tensors: Tensors = {}
    records = []
    for index, layer in enumerate(generator.layers):
        name, weight = f"layers.{index}.weight", layer.weight
        if layer.storage == "dense":
            tensors[name] = _narrowed(weight)
        else:
            tensors |= {f"{name}.{part}": _narrowed(getattr(weight, part)) for part in _CSR}
        if layer.bias.any():
            tensors[f"layers.{index}.bias"] = _narrowed(layer.bias)
        shape = list(map(int, weight.shape))
        records.append(
            {"activation": layer.activation.name, "storage": layer.storage, "shape": shape}
        )
    return tensors, {"format": "preimage", "version": "1", "layers": json.dumps(records)}


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers, as float32, int16 or int32 if that loses nothing."""
    for dtype in (np.float32,) if values.dtype.kind == "f" else (np.int16, np.int32):
        with np.errstate(over="ignore", under="ignore"):
            narrow = values.astype(dtype)
        if np.array_equal(narrow, values):
            return narrow
    return values


def decode(tensors: Tensors, metadata: Metadata, limits: Limits) -> Generator:
    """The generator of a record and its tensors.

    Raises:
        FormatError: They are damaged, or beyond the limits.
    """
    if metadata.get("version") != "1":
        raise FormatError(
            f"expected version 1 of the preimage form, got {metadata.get('version')!r}; "
            "a newer preimage may read it"
        )
    try:
        records = parse_json(metadata["layers"], "layers", limits, list)
        limits.check_count(len(records), "layers")
        return Generator(
            tuple(_layer(tensors, f"layers.{i}", r, limits) for i, r in enumerate(records))
        )
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the metadata of the layers is malformed: {error!r}") from error


def _layer(tensors: Tensors, name: str, record: Any, limits: Limits) -> Layer:
    activation, storage = str(record["activation"]), record["storage"]
    shape = tuple(record["shape"])
    if not all(type(size) is int for size in shape):
        raise TypeError(f"expected whole numbers, got {shape!r:.200}")
    for size in shape:
        limits.check_shape((size,))
    weight = _weight(tensors, f"{name}.weight", storage, shape)
    bias = tensor(tensors, f"{name}.bias") if f"{name}.bias" in tensors else None
    try:
        return Layer(weight, bias, as_activation(activation))  # type: ignore[arg-type]
    except ValueError as error:
        raise FormatError(f"{name}: {error}") from error


def _weight(tensors: Tensors, name: str, storage: Any, shape: tuple[int, ...]) -> Weight:
    if storage not in ("dense", "csr"):
        raise FormatError(f"tensor {name!r}: expected storage dense or csr, got {storage!r:.200}")
    if storage == "dense":
        weight: Weight = tensor(tensors, name)
    else:
        data, *places = (tensor(tensors, f"{name}.{part}") for part in _CSR)
        try:  # places are whole numbers below 2^53, so that float64 holds them
            weight = scipy.sparse.csr_array((data, *map(np.int64, places)), shape=shape)
            weight.check_format(full_check=True)
        except ValueError as error:
            raise FormatError(f"tensor {name!r}: not a csr matrix, {error}") from error
    if weight.shape != shape:
        raise FormatError(f"tensor {name!r}: expected shape {shape}, got shape {weight.shape}")
    return weight
