"""A network as a graph of named nodes, whatever file or module it came from.

The operators and their attributes are those of ONNX; a front end translates to them, the lowering
reads them. Constants are NumPy arrays: floats as float64, all else as int64 or bool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: Its place in the file or module, for errors.
        kind: What its front end calls it, for errors.
        operator: Its ONNX operator.
        inputs: Names of tensors; "" for an optional one that is left out.
        output: Name of its first output, the only one that may be used.
        attributes: As in ONNX.
    """

    name: str
    kind: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be run.

    Attributes:
        nodes: Each uses the input, constants and outputs of nodes before it.
        constants: By name.
        input: Name of the latent.
        input_shape: Of one latent, without the batch.
        output: Name of the observation.
        opset: Version of the ONNX operators.
        batch: The fixed batch size that the file was written for, else 1.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, NDArray[Any]]
    input: str
    input_shape: Sizes
    output: str
    opset: int = 21
    batch: int = 1

    def needed(self) -> tuple[Node, ...]:
        """The nodes on which the output depends."""
        wanted, found = {self.output}, []
        for node in reversed(self.nodes):
            if node.output in wanted:
                found.append(node)
                wanted.update(node.inputs)
        return tuple(reversed(found))


def as_constant(values: NDArray[Any]) -> NDArray[Any]:
    """Floats as float64, exactly; whole numbers as int64; booleans as they are.

    Raises:
        TypeError: Other values, such as complex numbers and text.
    """
    values = np.asarray(values)
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    # The types of ml_dtypes, which onnx uses for bfloat16, have kind "V" and convert themselves.
    if values.dtype.kind == "f" or values.dtype.name in ("bfloat16",):
        return values.astype(np.float64)
    raise TypeError(f"expected real numbers, got {values.dtype}")
