"""A node of a graph with the values of its inputs, as the lowering of each operator takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError
from preimage.generator import Array, as_float64
from preimage.io.affine import Affine
from preimage.io.graph import Node

Constant = NDArray[Any]
Value = Affine | Constant


@dataclass(frozen=True)
class Call:
    """A node with the values of its inputs; None is an input that is left out."""

    node: Node
    values: tuple[Value | None, ...]
    opset: int
    batch: int = 1

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the node."""
        return self.node.attributes

    def value(self, position: int = 0) -> Value:
        """An input that must be there."""
        value = self.optional(position)
        if value is None:
            raise InputError(f"expected an input {position}")
        return value

    def optional(self, position: int) -> Value | None:
        """An input that may be left out."""
        return self.values[position] if position < len(self.values) else None

    def affine(self, position: int = 0) -> Affine:
        """An input that depends on the latent."""
        value = self.value(position)
        if not isinstance(value, Affine):
            raise InputError(f"input {self.node.inputs[position]!r} is a constant")
        return value

    def constant(self, position: int) -> Constant:
        """An input that does not depend on the latent."""
        value = self.value(position)
        if isinstance(value, Affine):
            raise InputError(
                f"input {self.node.inputs[position]!r} depends on the latent, where only a "
                "constant is supported"
            )
        return value

    def weight(self, position: int) -> Array:
        """A constant of finite floats."""
        return as_float64(self.constant(position), self.node.inputs[position])

    def whole(self, position: int, attribute: str) -> tuple[int, ...] | None:
        """Whole numbers in an input, or in the attribute that older operators have instead."""
        values: Any = self.attributes.get(attribute)
        if values is None and self.optional(position) is not None:
            values = self.constant(position)
        return None if values is None else tuple(int(n) for n in np.asarray(values).reshape(-1))


def move(value: Value, how: Callable[[Any], Any], fill: float = 0.0) -> Value:
    """Move entries of a constant, or of an affine tensor (where index -1 is a new entry)."""
    return value.moved(how, fill) if isinstance(value, Affine) else np.asarray(how(value))


def as_text(value: Any) -> str:
    """Text of an attribute, which ONNX keeps as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
