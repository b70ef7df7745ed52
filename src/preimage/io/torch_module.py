"""Generators from torch modules. torch is imported by the functions, never by this module."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from preimage.activation import Activation, Identity, LeakyReLU, ReLU, Sigmoid, Tanh
from preimage.errors import FormatError, InputError, MissingExtraError
from preimage.generator import Generator, Layer, as_float64

_SUPPORTED = (
    "Sequential, Linear, ReLU, LeakyReLU, Tanh, Sigmoid, Identity, Flatten, Unflatten, Dropout"
)


def import_torch() -> Any:
    """Return torch.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "torch") from error
    return torch


def as_array(tensor: Any, name: str) -> NDArray[Any]:
    """The values of a real torch tensor on any device; floats are promoted exactly to float64.

    Raises:
        FormatError: The tensor is sparse, quantized, complex or boolean.
    """
    torch = import_torch()
    whole = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    plain = tensor.layout is torch.strided and not tensor.is_quantized
    if not plain or not (tensor.is_floating_point() or tensor.dtype in whole):
        raise FormatError(
            f"{name}: expected a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout}"
        )
    values = tensor.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy().copy()


def from_torch(module: Any) -> Generator:
    """Turn a torch module into a generator.

    Understands ``nn.Sequential``, nested as you like, of Linear, ReLU, LeakyReLU, Tanh, Sigmoid,
    Identity, Flatten, Unflatten, and Dropout in eval mode. A Linear that no activation follows
    becomes a layer with ``Identity``. Outputs with more than one dimension are observed as
    vectors, last dimension fastest. Weights of any float type are promoted exactly to float64;
    the module is not changed, nor shared with.

    Args:
        module: An ``nn.Module``.

    Raises:
        InputError: Not an ``nn.Module``.
        FormatError: A layer that is not understood, with its place in the module.
        MissingExtraError: torch is not installed.
    """
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    layers: list[Layer] = []
    linear: Any = None  # the latest Linear, while it waits for its activation
    flat = True  # whether the values have one dimension beside the batch

    def close(activation: Activation) -> None:
        path, part = linear
        weight = as_float64(as_array(part.weight, f"{path}.weight"), f"{path}.weight")
        bias = None
        if part.bias is not None:
            bias = as_float64(as_array(part.bias, f"{path}.bias"), f"{path}.bias")
        if layers and layers[-1].output_size != weight.shape[1]:
            raise FormatError(
                f"{path}: expected {layers[-1].output_size} inputs, the outputs of the layer "
                f"before, got a weight of shape {weight.shape}"
            )
        layers.append(Layer(weight, bias, activation))  # type: ignore[arg-type]

    for path, part in _parts(module, "model"):
        kind = _kind(path, part)
        if kind == "Linear":
            if not flat:
                raise FormatError(
                    f"{path}: a Linear after an Unflatten acts on the last dimension only; put a "
                    "Flatten before it"
                )
            if linear:
                close(Identity())
            linear = path, part
        elif kind in ("Flatten", "Unflatten"):
            size = linear[1].out_features if linear else layers[-1].output_size if layers else None
            _check_reshape(path, part, kind, size)
            flat = kind == "Flatten"
        elif kind == "Dropout":
            if part.training and part.p > 0:
                raise FormatError(
                    f"{path}: Dropout in training mode is random; call .eval() on the module first"
                )
        elif kind != "Identity":
            if not linear:
                raise FormatError(
                    f"{path}: {kind} is not preceded by a Linear of its own; a layer is a Linear, "
                    "then at most one activation"
                )
            close(_activation(path, part, kind))
            linear = None
    if linear:
        close(Identity())
    if not layers:
        raise FormatError("model: expected at least one Linear, got none")
    return Generator(tuple(layers))


def _parts(module: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The modules that compute something, in order, each with its place."""
    nn = import_torch().nn
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        _check_hooks(path, module)
        for name, child in module.named_children():
            yield from _parts(child, f"{path}.{name}")
    else:
        yield path, module


def _kind(path: str, part: Any) -> str:
    """Which of the supported modules this is: an heir counts if it computes the same."""
    nn = import_torch().nn
    for name in _SUPPORTED.split(", ")[1:]:
        known = getattr(nn, name)
        if isinstance(part, known) and type(part).forward is known.forward:
            if any(nn.parameter.is_lazy(p) for p in part.parameters()):
                raise FormatError(f"{path}: {type(part).__name__} has no weights yet; run it once")
            _check_hooks(path, part)
            return name
    raise FormatError(f"{path}: {type(part).__name__} is not supported; supported are {_SUPPORTED}")


def _check_hooks(path: str, part: Any) -> None:
    if part._forward_hooks or part._forward_pre_hooks:
        raise FormatError(
            f"{path}: {type(part).__name__} has forward hooks, which may change what it computes; "
            "remove them first"
        )


def _activation(path: str, part: Any, kind: str) -> Activation:
    if kind == "LeakyReLU":
        try:
            return LeakyReLU(part.negative_slope)
        except InputError as error:
            raise FormatError(f"{path}: {error}") from error
    known: dict[str, Activation] = {"ReLU": ReLU(), "Tanh": Tanh(), "Sigmoid": Sigmoid()}
    return known[kind]


def _check_reshape(path: str, part: Any, kind: str, size: int | None) -> None:
    """A reshape may touch every dimension but the batch, so that it moves no entry."""
    if kind == "Flatten":
        if (part.start_dim, part.end_dim) != (1, -1):
            raise FormatError(
                f"{path}: expected Flatten(1, -1), got Flatten({part.start_dim}, {part.end_dim})"
            )
        return
    shape = tuple(part.unflattened_size)
    if part.dim not in (1, -1):
        raise FormatError(f"{path}: expected an Unflatten of dimension 1, got dimension {part.dim}")
    if size is not None and -1 not in shape and math.prod(shape) != size:
        raise FormatError(f"{path}: Unflatten to {shape} does not fit {size} values")
