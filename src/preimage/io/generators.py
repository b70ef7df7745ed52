"""Generators in files: the package's own form, and the layers of a bare state dict.

The own form is named tensors and a record of strings. The tensors are ``layers.0.weight``,
``layers.0.bias`` and so on; a CSR weight is three tensors, ``layers.0.weight.data``, ``.indices``
and ``.indptr``. The record (the header of a safetensors file, the member ``metadata`` of an npz
file) holds

    format   "preimage"
    version  "1"
    layers   JSON, an object a layer: activation (a name), storage ("dense" or "csr"), shape

A bias that is missing is zero. Numbers have the smallest type that holds them exactly. Whatever a
file says is checked before anything of its size is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from preimage.activation import Activation, as_activation
from preimage.errors import FormatError, InputError
from preimage.generator import Generator, Layer, from_arrays
from preimage.io.comparison import MAX_MATRIX_BYTES
from preimage.io.limits import LIMITS, Limits, check_file, check_whole, parse_json, write_bytes
from preimage.io.onnx_network import load_onnx
from preimage.io.tensors import (
    Metadata,
    Tensors,
    read_npz,
    read_safetensors,
    read_torch,
    tensor,
    write_npz,
    write_safetensors,
)
from preimage.io.torch_module import with_layers
from preimage.matrix import Weight
from preimage.network import Network

_READERS = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".pth": read_torch,
    ".pt": read_torch,
    ".ckpt": read_torch,
}
_CSR = ("data", "indices", "indptr")
_WRITERS = {".safetensors": write_safetensors, ".npz": write_npz}


def load(
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    activation: Activation | str | None = None,
    head: Activation | str | None = None,
    output: str | None = None,
    allow_external: bool = True,
    limits: Limits = LIMITS,
    max_matrix_bytes: int = MAX_MATRIX_BYTES,
) -> Network:
    """Read a network from a ``.safetensors``, ``.npz``, ``.onnx`` file, or one of ``torch.save``.

    A file that ``save`` wrote needs no more than its path. An ONNX file holds a network, which
    becomes a torch module, and then what ``from_torch`` makes of one: a ``Generator`` where its
    layers can be known, else a ``TorchNetwork``. It is compared with what the file computes. Any
    other file holds tensors only: say which of them are layers, in forward order, and what stands
    between them. Weights of 16 and 32 bits are promoted exactly to float64. No code in a file is
    ever executed.

    Args:
        path: The file; its suffix tells the format (``.pth``, ``.pt`` or ``.ckpt`` for torch's).
        layers: For a bare file: the prefix of each layer in forward order, so that ``"fc3"`` stands
            for the tensors ``fc3.weight`` and, if there is one, ``fc3.bias``.
        activation: For a bare file: of every layer, but for the last if ``head`` is given.
        head: For a bare file: activation of the last layer.
        output: For an ONNX file: the tensor that is the observation, if not the file's output.
        allow_external: For an ONNX file: whether its weights may stand in other files of the same
            folder, as torch writes them. A path that leaves the folder is refused.
        limits: What the file may ask for; an error says which one it goes beyond.
        max_matrix_bytes: For an ONNX file: one with a layer whose matrix, dense or CSR, would take
            more is run.

    Raises:
        FormatError: The file is missing, too large, of another format, or does not hold what was
            asked for; a tensor has NaN or infinity.
        MissingExtraError: ``.onnx`` needs onnx and torch, and a file of torch needs torch.
    """
    check_whole("max_matrix_bytes", max_matrix_bytes, 0)
    path = check_file(path, limits)
    bare = {"layers": layers, "activation": activation, "head": head}
    reader = _READERS.get(path.suffix.lower())
    try:
        if path.suffix.lower() == ".onnx":
            _check_absent(bare, "an ONNX file says itself what its layers are")
            network = load_onnx(path, output, allow_external, limits)
            return with_layers(network, max_matrix_bytes)
        if reader is None:
            raise FormatError(f"expected a file ending in {', '.join((*_READERS, '.onnx'))}")
        if output is not None:
            raise InputError("output: expected it with ONNX files only; leave it out for others")
        tensors, metadata = reader(path, limits)
        if metadata.get("format") == "preimage":
            _check_absent(bare, "the file says itself what its layers are")
            return _decoded(tensors, metadata, limits)
        return _from_state_dict(tensors, layers, activation, head)
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    except MemoryError as error:
        raise FormatError(f"{path}: it needs more memory than there is") from error


def _check_absent(arguments: Mapping[str, object], reason: str) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise InputError(f"{reason}; do not pass {', '.join(given)}")


def save(generator: Generator, path: str | os.PathLike[str]) -> None:
    """Write a generator to a ``.safetensors`` or ``.npz`` file; ``load`` gives back an equal one.

    The file appears whole or not at all.

    Args:
        generator: Any.
        path: The file; its suffix tells the format. Overwritten if it exists.

    Raises:
        InputError: Another suffix, or no generator.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(
            f"path: expected a name ending in {', '.join(_WRITERS)}, got {path.name!r}"
        )
    if not isinstance(generator, Generator):
        raise InputError(f"generator: expected a Generator, got {type(generator).__name__}")
    write_bytes(path, writer(*_encoded(generator)))


def _from_state_dict(
    tensors: Tensors,
    layers: Sequence[str] | None,
    activation: Activation | str | None,
    head: Activation | str | None,
) -> Generator:
    available = [
        name.removesuffix(".weight")
        for name, values in sorted(tensors.items())
        if name.endswith(".weight") and values.ndim == 2
    ]
    listed = f"the file has matrices for {', '.join(available)[:500] or 'no layer at all'}"
    if layers is None or activation is None:
        raise FormatError(
            "the file does not say which tensors are layers and what stands between them; pass "
            f"for example layers=['fc3', 'fc4'], activation='relu' ({listed})"
        )
    if isinstance(layers, str) or not all(isinstance(prefix, str) for prefix in layers):
        raise InputError(f"layers: expected a list of prefixes such as ['fc3'], got {layers!r}")
    for prefix in layers:
        if f"{prefix}.weight" not in tensors:
            raise FormatError(f"layers: expected a tensor '{prefix}.weight'; {listed}")
    _check_norms(tensors, layers)
    weights = [tensor(tensors, f"{prefix}.weight") for prefix in layers]
    names = [f"{prefix}.bias" for prefix in layers]
    biases = [tensor(tensors, name) if name in tensors else None for name in names]
    return from_arrays(weights, biases, activation, head)


def _check_norms(tensors: Tensors, layers: Sequence[str]) -> None:
    """Refuse layers that a batch norm may follow, whose effect would be left out.

    It stands beside the layer and has as many channels as that has outputs. One after the last
    layer may belong to another part of the network.
    """
    norms = [name.removesuffix(".running_mean") for name in tensors if ".running_mean" in name]
    for before, after in pairwise(layers):
        for norm in norms:
            beside = norm.rpartition(".")[0] == before.rpartition(".")[0]
            channels = tensors[f"{norm}.running_mean"].shape
            if beside and channels == tensors[f"{before}.weight"].shape[:1]:
                raise FormatError(
                    f"layers: the batch norm {norm!r} may stand between {before!r} and {after!r}, "
                    "and would be left out; pass the torch module to preimage.from_torch instead"
                )


# The own form -------------------------------------------------------------------------------------


def _encoded(generator: Generator) -> tuple[Tensors, Metadata]:
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


def _decoded(tensors: Tensors, metadata: Metadata, limits: Limits) -> Generator:
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
    if storage not in ("dense", "csr"):
        raise FormatError(f"{name}: expected storage dense or csr, got {storage!r:.200}")
    if storage == "dense":
        weight: Weight = tensor(tensors, f"{name}.weight")
    else:
        data, *places = (tensor(tensors, f"{name}.weight.{part}") for part in _CSR)
        try:  # places are whole numbers below 2^53, so that float64 holds them
            weight = scipy.sparse.csr_array((data, *map(np.int64, places)), shape=shape)
            weight.check_format(full_check=True)
        except ValueError as error:
            raise FormatError(f"{name}.weight: not a csr matrix, {error}") from error
    if weight.shape != shape:
        raise FormatError(f"{name}.weight: expected shape {shape}, got shape {weight.shape}")
    bias = tensor(tensors, f"{name}.bias") if f"{name}.bias" in tensors else None
    try:
        return Layer(weight, bias, as_activation(activation))  # type: ignore[arg-type]
    except ValueError as error:
        raise FormatError(f"{name}: {error}") from error
