"""From a graph to a generator: every run of affine operators becomes one weight and bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from preimage.activation import Activation, Identity, LeakyReLU, PReLU, ReLU, Sigmoid, Tanh
from preimage.errors import FormatError, InputError
from preimage.generator import Array, Generator, Layer
from preimage.io.affine import Affine
from preimage.io.arithmetic import ARITHMETIC
from preimage.io.call import Call, Value
from preimage.io.graph import Graph, Node
from preimage.io.guard import check_entries, check_total
from preimage.io.segment import MAX_MATRIX_BYTES, as_segment
from preimage.io.shapes import SHAPES
from preimage.io.spatial import SPATIAL

OPERATORS = {**ARITHMETIC, **SHAPES, **SPATIAL}
ACTIVATIONS = ("LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh")
SUPPORTED = tuple(sorted((*OPERATORS, *ACTIVATIONS)))


def lower(graph: Graph, max_matrix_bytes: int = MAX_MATRIX_BYTES) -> Generator:
    """Turn a graph into a generator.

    Args:
        graph: A chain of affine segments and activations between them.
        max_matrix_bytes: A segment whose matrix would take more stays an operator.

    Raises:
        FormatError: What is not such a chain, naming the node.
    """
    check_budget(max_matrix_bytes)
    shape = check_entries((1, *graph.input_shape))
    values: dict[str, Value] = dict(graph.constants)
    values[graph.input] = Affine(shape, "the latent")
    layers: list[Layer] = []
    source, asked = "the latent", 0
    for node in graph.needed():
        call = _call(node, values, graph)
        try:
            check_total(asked)
            if node.operator in ACTIVATIONS:
                value = call.affine()
                activation = _activation(call, value)
                layers.append(_close(value, source, activation, node.kind, max_matrix_bytes))
                source = f"{node.kind} at {node.name}"
                values[node.output] = Affine(value.shape, source)
            elif node.operator in OPERATORS:
                values[node.output] = OPERATORS[node.operator](call)
            else:
                raise InputError(f"not supported; supported are {', '.join(SUPPORTED)}")
            asked += values[node.output].size
        except InputError as error:
            raise FormatError(f"{node.name}: {_with_kind(node, error)}") from error
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            # A node whose attributes or sizes do not fit fails wherever NumPy finds out.
            raise FormatError(f"{node.name}: {node.kind}: it does not fit: {error}") from error
    last = values.get(graph.output)
    if not isinstance(last, Affine):
        raise FormatError(f"output {graph.output!r}: it does not depend on the latent")
    if last.parts or last.bias is not None or not layers:
        layers.append(_last(last, source, graph.output, max_matrix_bytes))
    return Generator(tuple(layers))


def check_budget(max_matrix_bytes: int) -> None:
    """Refuse a budget that is no whole number.

    Raises:
        InputError: As said.
    """
    if not isinstance(max_matrix_bytes, int) or isinstance(max_matrix_bytes, bool):
        raise InputError(f"max_matrix_bytes: expected an integer, got {max_matrix_bytes!r}")
    if max_matrix_bytes < 0:
        raise InputError(f"max_matrix_bytes: expected 0 or more, got {max_matrix_bytes}")


def _call(node: Node, values: Mapping[str, Value], graph: Graph) -> Call:
    missing = [name for name in node.inputs if name and name not in values]
    if missing:
        raise FormatError(f"{node.name}: {node.kind}: nothing gives its input {missing[0]!r}")
    given = tuple(values[name] if name else None for name in node.inputs)
    return Call(node, given, graph.opset, graph.batch)


def _with_kind(node: Node, error: InputError) -> str:
    message = str(error)
    return message if message.startswith(node.kind) else f"{node.kind}: {message}"


def _close(
    value: Affine, source: str, activation: Activation, kind: str, max_matrix_bytes: int
) -> Layer:
    if value.source != source:
        raise InputError(
            f"it acts on what comes from {value.source}, but {source} has come since; a network "
            "that branches around an activation is not supported"
        )
    if not value.parts and value.bias is None:
        raise InputError(
            f"{kind} is not preceded by a Linear of its own, nor by another affine operator; a "
            "layer is affine operators, then at most one activation"
        )
    parts = value.parts or (sparse.eye_array(value.size, format="csr"),)
    return Layer(as_segment(parts, max_matrix_bytes), value.bias, activation)  # type: ignore[arg-type]


def _last(value: Affine, source: str, output: str, max_matrix_bytes: int) -> Layer:
    try:
        return _close(value, source, Identity(), "the output", max_matrix_bytes)
    except InputError as error:
        raise FormatError(f"output {output!r}: expected at least one Linear, Conv or other affine "
                          f"operator: {error}") from error  # fmt: skip


# Activations ------------------------------------------------------------------------------------


def _activation(call: Call, value: Affine) -> Activation:
    operator = call.node.operator
    if operator == "LeakyRelu":
        return LeakyReLU(float(call.attributes.get("alpha", 0.01)))
    if operator == "PRelu":
        return _prelu(call, value)
    known: dict[str, Activation] = {"Relu": ReLU(), "Tanh": Tanh(), "Sigmoid": Sigmoid()}
    return known[operator]


def _prelu(call: Call, value: Affine) -> Activation:
    """The simplest activation with these slopes; one a channel if it can be."""
    slopes = call.weight(1)
    axis: Any = call.attributes.get("axis")
    if axis is not None and slopes.size > 1:
        slopes = slopes.reshape(-1, *(1,) * (len(value.shape) - 1 - axis))
    each = np.broadcast_to(slopes, value.shape).reshape(-1)
    if (each == each[0]).all():
        if each[0] == 0:
            return ReLU()
        if 0 < each[0] < 1:
            return LeakyReLU(float(each[0]))
    if not (each > 0).all():
        raise InputError(
            f"expected slopes that are all positive or all zero, got {each.min()} to {each.max()}; "
            "a function that is not increasing has no inverse"
        )
    channels: Array = each.reshape(value.shape[1], -1)
    if (channels == channels[:, :1]).all():
        return PReLU(tuple(channels[:, 0].tolist()), repeat=channels.shape[1])
    return PReLU(tuple(each.tolist()))
