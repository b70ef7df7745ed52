"""Models in ONNX files. onnx is imported by the functions, never by this module."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preimage.errors import FormatError, extra
from preimage.io.limits import Limits
from preimage.io.onnx_evaluation import Operators
from preimage.io.tensors import reading

_LOWEST_OPSET = 7
_FIELD = 16  # numbers that take as much memory as a field
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how protobuf writes a field
# protobuf's numbers for int32, int64, uint32, uint64, bool and enum: packed, each takes a byte or
# more in the file, and eight in memory.
_PACKED = {1, 2, 3, 4, 7, 8}
# Operators that ONNX defines by others, which are taken instead.
_COMPOSED = frozenset(
    {
        "Attention", "RotaryEmbedding", "SwiGLU", "MeanVarianceNormalization", "RMSNormalization",
        "CenterCropPad",
    }
)  # fmt: skip


def read(path: Path, allow_external: bool, limits: Limits) -> tuple[Any, int]:
    """The model in an ONNX file that ``check_file`` has passed, and its opset.

    Weights in other files are taken in, together at most ``limits.file_bytes``. Functions of the
    file are inlined; so are operators that ONNX defines by others.

    Raises:
        FormatError: Not a valid ONNX file, or one beyond the limits.
        MissingExtraError: onnx is not installed.
    """
    with extra("onnx", "onnx"):
        import onnx
        import onnx.inliner
    model = onnx.ModelProto()
    with reading("a valid ONNX file"):
        data = path.read_bytes()
        _check_fields(data, onnx.ModelProto.DESCRIPTOR, limits)
        model.ParseFromString(data)
        del data
        opset = _opset(model)
        _take_in(model, path.parent, allow_external, limits)
        for value in model.graph.output:  # whose shapes are not needed
            value.type.tensor_type.shape.SetInParent()
        onnx.checker.check_model(model)
        limits.check_count(len(model.graph.initializer), "tensors of the graph")
        limits.check_count(len(model.graph.node), "nodes of the graph")
        if model.functions:
            _check_functions(model, limits)
            model = onnx.inliner.inline_local_functions(model)
    if any(node.op_type in _COMPOSED for node in model.graph.node):
        model = _written_out(model, opset, limits)
    return model, opset


def _written_out(model: Any, opset: int, limits: Limits) -> Any:
    """A model whose composed operators are the nodes that ONNX defines them by."""
    import onnx.inliner
    from onnx import defs, helper

    operators = Operators(opset, limits)
    for node in model.graph.node:
        if node.op_type in _COMPOSED and defs.has(node.op_type, node.domain):
            node.attribute.extend(operators.defaults(node))  # which the inliner leaves out
    model.graph.value_info.extend(  # the inliner asks for their types
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    names = [("", name) for name in _COMPOSED]
    with reading("made of operators with a known type"):
        model = onnx.inliner.inline_selected_functions(model, names, inline_schema_functions=True)
    limits.check_count(len(model.graph.node), "nodes of the graph")
    return model


def _opset(model: Any) -> int:
    import onnx

    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    low, high = _LOWEST_OPSET, onnx.defs.onnx_opset_version()
    if not versions or not low <= versions[0] <= high:
        found = versions[0] if versions else "none"
        raise FormatError(
            f"expected an ONNX file of opset {low} to {high}, got {found}; export it with "
            f"opset_version=18, or install a newer onnx"
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
    """Put weights that stand in other files where others stand; onnx checks their places."""
    from onnx import external_data_helper

    total = 0
    for tensor in filter(external_data_helper.uses_external_data, _tensors(model)):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if not allow_external:
            raise FormatError(
                f"tensor {tensor.name!r}: its values are in another file, {location!r}, which "
                "allow_external=False does not allow"
            )
        with reading(f"the values of tensor {tensor.name!r}, {location!r} in the model's folder"):
            # Links are followed before the comparison, so that none leads out of it either.
            place = (folder / location).resolve(strict=True)
            length = int(entries.get("length") or place.stat().st_size)
            if length < 0 or not place.is_relative_to(folder.resolve()):
                raise ValueError(f"{length} bytes of {place}")
            total += length
            limits.check("file_bytes", total, "bytes of external data")
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))


# What a file becomes in memory ------------------------------------------------------------------


def _check_fields(data: bytes, descriptor: Any, limits: Limits) -> None:
    """Count the fields and packed numbers of a protobuf message before it is parsed.

    Two bytes of a file may become an object of a hundred. ``entries`` bounds the numbers; a field,
    which may be a message, counts as 16.
    """
    waiting, numbers = [(0, len(data), descriptor)], 0
    while waiting:
        at, stop, kind = waiting.pop()
        while at < stop:
            key, at = _varint(data, at)
            wire, size = key & 7, 0
            if wire in (_VARINT, _BYTES):
                size, at = _varint(data, at)
            length = {_VARINT: 0, _FIXED64: 8, _BYTES: size, _FIXED32: 4}.get(wire, stop)
            if at + length > stop:
                raise FormatError("not a valid ONNX file: a field is longer than the file")
            field = kind.fields_by_number.get(key >> 3)
            numbers += _FIELD
            if field is not None and wire == _BYTES:
                if field.message_type is not None:
                    waiting.append((at, at + length, field.message_type))
                elif field.cpp_type in _PACKED:
                    numbers += length
            if numbers > limits.entries:
                limits.check("entries", numbers, "numbers and fields of the file, 16 entries each")
            at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends: seven bits a byte, lowest first; the high bit says go on."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise FormatError("not a valid ONNX file: a number is cut off")


def _check_functions(model: Any, limits: Limits) -> None:
    """Count the nodes that inlining would make: functions may call others twice, and so on."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}

    @functools.cache
    def size(name: tuple[str, str]) -> int:
        return 1 + sum(size((node.domain, node.op_type)) for node in bodies.get(name, ()))

    total = sum(size((node.domain, node.op_type)) for node in model.graph.node)
    limits.check_count(total, "nodes with the functions inlined")
