"""Networks in ONNX files. onnx is imported by the functions, never by this module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from preimage.errors import FormatError, MissingExtraError
from preimage.io.graph import Graph, Node, as_constant
from preimage.io.guard import Limits, check_file, unique
from preimage.io.onnx_budget import check_fields, check_functions

_OPSETS = (9, 21)
_MOST_NAMES = 20  # of tensors that an error lists


def read(path: Path, output: str | None, allow_external: bool, limits: Limits) -> Graph:
    """The graph of an ONNX file that ``check_file`` has passed.

    Args:
        path: The file.
        output: Name of the tensor that is the observation; None is the graph's only output.
        allow_external: Whether weights may stand in other files of the same folder.
        limits: ``file_bytes`` is also the most that these may hold together.

    Raises:
        FormatError: Not a valid ONNX file, or not of one input and output.
        MissingExtraError: onnx is not installed.
    """
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    model = onnx.ModelProto()
    try:
        data = path.read_bytes()
        check_fields(data, onnx.ModelProto.DESCRIPTOR, limits)
        model.ParseFromString(data)
        del data
        opset = _opset(model)
        _take_in(model, path.parent, allow_external, limits)
        onnx.checker.check_model(model)
        limits.check("tensors", len(model.graph.initializer), "tensors of the graph")
        if model.functions:
            check_functions(model, limits)
            model = onnx.inliner.inline_local_functions(model)
    except FormatError:
        raise
    except Exception as error:  # what a foreign parser raises on a foreign file is open-ended
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"not a valid ONNX file: {reason}") from error
    return _graph(model.graph, opset, output)


def _opset(model: Any) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    low, high = _OPSETS
    if not versions or not low <= versions[0] <= high:
        found = versions[0] if versions else "none"
        raise FormatError(
            f"expected an ONNX file of opset {low} to {high}, got {found}; export it with "
            f"opset_version={high - 3}"
        )
    return int(versions[0])


# Weights in other files -------------------------------------------------------------------------


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of the main graph, and of its nodes' attributes."""
    yield from model.graph.initializer
    functions = (node for function in model.functions for node in function.node)
    for node in (*model.graph.node, *functions):
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


def _take_in(model: Any, folder: Path, allow_external: bool, limits: Limits) -> None:
    """Put weights that stand in other files where others stand."""
    import onnx

    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not allow_external:
            raise FormatError(
                f"tensor {tensor.name!r}: its values are in another file, {location!r}; if you "
                "trust the file to name it, pass allow_external=True"
            )
        place, offset, length = _external(folder, tensor.name, entries)
        total += length
        limits.check("file_bytes", total, "bytes of external data")
        with place.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.raw_data = data


def _external(folder: Path, name: str, entries: dict[str, str]) -> tuple[Path, int, int]:
    """The file, first byte and length of a tensor's values."""
    location = entries.get("location", "")
    # Links are followed before the comparison, so that none leads out of the folder either.
    inside = folder.resolve()
    target = (inside / location.replace("\0", "")).resolve()
    if not location or "\0" in location or not target.is_relative_to(inside):
        raise FormatError(
            f"tensor {name!r}: its values are in {location!r}, which is not in the model's folder"
        )
    path = check_file(target, Limits(file_bytes=2**63))
    size = path.stat().st_size
    offset = int(entries.get("offset") or 0)
    length = int(entries.get("length") or size - offset)
    if min(offset, length) < 0 or offset + length > size:
        raise FormatError(
            f"tensor {name!r}: expected {length} bytes from byte {offset} of {location!r}, which "
            f"has {size}"
        )
    return path, offset, length


# The graph --------------------------------------------------------------------------------------


def _graph(graph: Any, opset: int, output: str | None) -> Graph:
    initializers = unique((tensor.name, tensor) for tensor in graph.initializer)
    inputs = [value for value in graph.input if value.name not in initializers]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise FormatError(f"expected a network of one input, got {names or 'none'}")
    shape, batch = _input_shape(inputs[0])
    nodes = tuple(_node(node, opset) for node in graph.node)
    drawn = Graph(nodes, {}, inputs[0].name, shape, _output(graph, nodes, output), opset, batch)
    used = {name for node in drawn.needed() for name in node.inputs}
    constants = {n: _constant(tensor) for n, tensor in initializers.items() if n in used}
    return replace(drawn, constants=constants)


def _input_shape(value: Any) -> tuple[tuple[int, ...], int]:
    """The shape of one latent, and the batch if that is fixed."""
    if not value.type.HasField("tensor_type"):
        raise FormatError(f"input {value.name!r}: expected a tensor")
    dimensions = list(value.type.tensor_type.shape.dim)
    sizes = [int(d.dim_value) if d.HasField("dim_value") else 0 for d in dimensions]
    if len(sizes) < 2 or min(sizes[1:]) < 1:
        shown = [size or d.dim_param or "?" for size, d in zip(sizes, dimensions, strict=True)]
        raise FormatError(
            f"input {value.name!r}: expected a shape (batch, ...) with only the batch open, got "
            f"({', '.join(map(str, shown))}); export the network with fixed sizes"
        )
    return tuple(sizes[1:]), max(sizes[0], 1)


def _output(graph: Any, nodes: tuple[Node, ...], output: str | None) -> str:
    known = [name for node in nodes if (name := node.output)]
    if output is not None:
        if output not in known:
            shown = ", ".join(known[-_MOST_NAMES:])
            raise FormatError(f"output: no tensor is called {output!r}; the last ones are {shown}")
        return output
    names = [value.name for value in graph.output]
    if len(names) != 1:
        raise FormatError(f"expected a network of one output, got {', '.join(names)}; pass output=")
    return str(names[0])


def _node(proto: Any, opset: int) -> Node:
    from onnx import AttributeProto, helper

    first = proto.output[0] if proto.output else ""
    name = proto.name or f"the node of {first!r}"
    kinds = (
        AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.TENSOR,
        AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS,
    )  # fmt: skip
    attributes = {
        a.name: _constant(a.t) if a.type == AttributeProto.TENSOR else helper.get_attribute_value(a)
        for a in proto.attribute
        if a.type in kinds
    }
    own = proto.domain in ("", "ai.onnx")
    operator = proto.op_type if own else f"{proto.domain}.{proto.op_type}"
    if (
        operator == "BatchNormalization"
        and opset < 14
        and len(list(filter(None, proto.output))) > 1
    ):
        attributes["training_mode"] = 1  # as it was said then
    return Node(name, operator, operator, tuple(proto.input), first, attributes)


def _constant(tensor: Any) -> Any:
    from onnx import numpy_helper

    try:
        return as_constant(numpy_helper.to_array(tensor))
    except Exception as error:  # as when it is parsed
        raise FormatError(f"tensor {tensor.name!r}: {error}") from error
