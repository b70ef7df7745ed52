"""Generators in files: the package's own form, and the layers of a bare state dict.

The own form is a set of named tensors, ``layers.0.weight``, ``layers.0.bias``, and a record of
strings (the header of a safetensors file, the member ``metadata`` of an npz file):

    format   "preimage"
    version  "1"
    layers   JSON, an object a layer: activation (a name) and the weight's record (``io.weights``)

A bias that is missing is zero. Tensors are float32 where that is exact, else float64.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from preimage.activation import Activation, as_activation
from preimage.errors import FormatError, InputError
from preimage.generator import Generator, Layer, from_arrays
from preimage.io.chain import MAX_MATRIX_BYTES, check_budget
from preimage.io.limits import LIMITS, Limits, check_file, parse_json, write_bytes
from preimage.io.onnx_network import load_onnx
from preimage.io.tensors import (
    Metadata,
    Tensors,
    read_npz,
    read_safetensors,
    read_torch,
    write_npz,
    write_safetensors,
)
from preimage.io.weights import narrowed, read_weight, tensor, write_weight

_READERS = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".pth": read_torch,
    ".pt": read_torch,
    ".ckpt": read_torch,
}
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
    max_matrix_bytes: int | None = None,
) -> Generator:
    """Read a generator from a ``.safetensors``, ``.npz``, ``.onnx`` file, or one of ``torch.save``.

    A file that ``save`` wrote needs no more than its path. An ONNX file holds a network: all that
    is affine between two activations becomes one layer, as with ``from_torch``, and the result is
    compared with what the file computes. Any other file holds tensors only: say which of them are
    layers, in forward order, and what stands between them. Weights of 16 and 32 bits are promoted
    exactly to float64. No code in a file is ever executed.

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
        max_matrix_bytes: For an ONNX file: the largest matrix of a layer, dense or CSR. None is
            32 MB.

    Raises:
        FormatError: The file is missing, too large, of another format, or does not hold what was
            asked for; a tensor has NaN or infinity.
        MissingExtraError: ``.onnx`` needs onnx, and a file of torch needs torch.
    """
    if max_matrix_bytes is not None:
        check_budget(max_matrix_bytes)
    path = check_file(path, limits)
    try:
        return _load(
            path, layers, activation, head, output, allow_external, limits, max_matrix_bytes
        )
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    except MemoryError as error:
        raise FormatError(f"{path}: it needs more memory than there is") from error


def _load(
    path: Path,
    layers: Sequence[str] | None,
    activation: Activation | str | None,
    head: Activation | str | None,
    output: str | None,
    allow_external: bool,
    limits: Limits,
    max_matrix_bytes: int | None,
) -> Generator:
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None and suffix != ".onnx":
        raise FormatError(f"expected a file ending in {', '.join((*_READERS, '.onnx'))}")
    if reader is None:
        _refuse("an ONNX file says", layers=layers, activation=activation, head=head)
        budget = MAX_MATRIX_BYTES if max_matrix_bytes is None else max_matrix_bytes
        return load_onnx(path, output, allow_external, limits, budget)
    if output is not None:
        raise InputError("output: for ONNX files only")
    tensors, metadata = reader(path, limits)
    if metadata.get("format") == "preimage":
        _refuse("the file says", layers=layers, activation=activation, head=head)
        return _from_own_form(tensors, metadata, limits)
    return _from_state_dict(tensors, layers, activation, head)


def _refuse(reason: str, **arguments: object) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise InputError(f"{reason} itself what its layers are; do not pass {', '.join(given)}")


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
    tensors: Tensors = {}
    records = []
    for index, layer in enumerate(generator.layers):
        record = write_weight(layer.weight, f"layers.{index}.weight", tensors)
        if layer.bias.any():
            tensors[f"layers.{index}.bias"] = narrowed(layer.bias)
        records.append({"activation": layer.activation.name, **record})
    metadata = {"format": "preimage", "version": "1", "layers": json.dumps(records)}
    write_bytes(path, writer(tensors, metadata))


def _from_own_form(tensors: Tensors, metadata: Metadata, limits: Limits) -> Generator:
    if metadata.get("version") != "1":
        raise FormatError(
            f"expected version 1 of the preimage form, got {metadata.get('version')!r}; "
            "a newer preimage may read it"
        )
    try:
        records = parse_json(metadata["layers"], "layers", limits, list)
        limits.check_count(len(records), "layers")
        names = [str(record["activation"]) for record in records]
        weights = [
            read_weight(tensors, f"layers.{index}.weight", record, limits)
            for index, record in enumerate(records)
        ]
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the metadata of the layers is malformed: {error!r}") from error
    layers = []
    for index, (name, weight) in enumerate(zip(names, weights, strict=True)):
        prefix = f"layers.{index}"
        bias = tensor(tensors, f"{prefix}.bias") if f"{prefix}.bias" in tensors else None
        try:
            layers.append(Layer(weight, bias, as_activation(name)))  # type: ignore[arg-type]
        except ValueError as error:
            raise FormatError(f"{prefix}: {error}") from error
    return Generator(tuple(layers))


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
    """Refuse layers between which a batch norm stands, whose effect would be left out.

    It is one that comes after a named layer, in the order of names, before the next named one, and
    has as many channels as that layer has outputs.
    """
    norms = [name.removesuffix(".running_mean") for name in tensors if ".running_mean" in name]
    for before, after in pairwise(layers):
        for norm in norms:
            same = norm.rpartition(".")[0] == before.rpartition(".")[0]
            fits = len(tensors[f"{norm}.running_mean"]) == len(tensors[f"{before}.weight"])
            if same and fits and _stands_between(tensors, before, norm, after):
                raise FormatError(
                    f"layers: the batch norm {norm!r} stands between {before!r} and {after!r}, and "
                    "would be left out; pass the torch module to preimage.from_torch instead"
                )


def _stands_between(tensors: Tensors, before: str, norm: str, after: str) -> bool:
    """By the order of the file, or by the numbers at the end of names."""
    order = [name.rpartition(".")[0] for name in tensors]
    in_file = order.index(before) < order.index(norm) < order.index(after)
    return in_file or -1 < _number(before) <= _number(norm) < _number(after)


def _number(name: str) -> int:
    """The number in the last part of a name, such as 10 of ``net.10``; -1 if there is none."""
    digits = "".join(c for c in name.rpartition(".")[2] if c.isdecimal())
    return int(digits[:9]) if digits else -1
