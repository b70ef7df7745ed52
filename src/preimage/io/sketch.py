"""A graph while it is being drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.io.graph import Graph, Node, Sizes, as_constant


class Ref(NamedTuple):
    """A tensor of the graph."""

    name: str


class Sketch:
    """Collects the nodes of a graph; ``place`` and ``kind`` name those that come next in errors."""

    def __init__(self, latent: str) -> None:
        self.latent = Ref(latent)
        self.place = self.kind = latent
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def at(self, place: str, kind: str) -> None:
        """Say where the nodes that come next are."""
        self.place, self.kind = place, kind

    def error(self, message: str) -> FormatError:
        """An error about the present place."""
        return FormatError(f"{self.place}: {self.kind} {message}")

    def constant(self, values: Any, name: str | None = None) -> Ref:
        """A constant tensor."""
        ref = Ref(name or f"{self.place}, constant {len(self.constants)}")
        try:
            self.constants[ref.name] = as_constant(np.asarray(values))
        except TypeError as error:
            raise FormatError(f"{ref.name}: {error}") from error
        return ref

    def emit(self, operator: str, *inputs: Any, **attributes: Any) -> Ref:
        """Add a node; inputs that are no tensors become constants, None is one left out."""
        refs = [i if isinstance(i, Ref) or i is None else self.constant(i) for i in inputs]
        while refs and refs[-1] is None:
            refs.pop()
        output = Ref(f"{self.place}, output {len(self.nodes)}")
        names = tuple("" if ref is None else ref.name for ref in refs)
        node = Node(self.place, self.kind, operator, names, output.name, attributes)
        self.nodes.append(node)
        return output

    def shape(self, constant: Ref) -> Sizes:
        """The shape of a constant, such as a weight."""
        if constant.name not in self.constants:
            raise self.error("has a weight that is computed, where only a constant is supported")
        return self.constants[constant.name].shape

    def graph(self, input_shape: Sizes, output: Ref) -> Graph:
        """What was drawn."""
        return Graph(tuple(self.nodes), self.constants, self.latent.name, input_shape, output.name)
