"""Tensors in the files that ``torch.save`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.io.torch_tensor import as_array, import_torch


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Every tensor of a state dict; those of dicts inside it have dotted names."""
    torch = import_torch()
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # what a foreign parser raises on a foreign file is open-ended
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FormatError(
            f"torch cannot read it as plain tensors ({reason}); if it holds a whole module that "
            "you trust, load it with torch and pass it to preimage.from_torch"
        ) from error
    return {name: as_array(value, f"tensor {name!r}") for name, value in _tensors(content)}, {}


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    torch = import_torch()
    if isinstance(content, torch.Tensor):
        yield prefix.removesuffix(".") or "tensor", content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _tensors(value, f"{prefix}{name}.")
