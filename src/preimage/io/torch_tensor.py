"""torch and its tensors. torch is imported by the functions, never by this module."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from preimage.errors import FormatError, MissingExtraError


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
