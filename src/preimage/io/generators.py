"""Generators in files: the package's own form, and the layers of a bare state dict."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from preimage.activation import Activation
from preimage.errors import FormatError, InputError
from preimage.generator import Generator, from_arrays
from preimage.io.chain import MAX_MATRIX_BYTES
from preimage.io.limits import LIMITS, Limits, check_file, check_whole, write_bytes
from preimage.io.onnx_network import load_onnx
from preimage.io.own_form import decode, encode
from preimage.io.tensors import (
    Tensors,
    read_npz,
    read_safetensors,
    read_torch,
    tensor,
    write_npz,
    write_safetensors,
)
from preimage.network import Network

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
            return load_onnx(path, output, allow_external, limits, max_matrix_bytes)
        if reader is None:
            raise FormatError(f"expected a file ending in {', '.join((*_READERS, '.onnx'))}")
        if output is not None:
            raise InputError("output: expected it with ONNX files only; leave it out for others")
        tensors, metadata = reader(path, limits)
        if metadata.get("format") == "preimage":
            _check_absent(bare, "the file says itself what its layers are")
            return decode(tensors, metadata, limits)
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
    write_bytes(path, writer(*encode(generator)))


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
