"""Models in ONNX files. onnx is imported by the functions, never by this module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preimage.errors import FormatError, MissingExtraError
from preimage.io.limits import Limits, check_file
from preimage.io.onnx_budget import check_fields, check_functions
from preimage.io.tensors import reading

_LOWEST_OPSET = 7


def read(path: Path, allow_external: bool, limits: Limits) -> tuple[Any, int]:
    """The model in an ONNX file that ``check_file`` has passed, and its opset.

    Functions of the file are inlined, and weights in other files taken in.

    Args:
        path: The file.
        allow_external: Whether weights may stand in other files of the same folder.
        limits: ``file_bytes`` is also the most that these may hold together.

    Raises:
        FormatError: Not a valid ONNX file, or one beyond the limits.
        MissingExtraError: onnx is not installed.
    """
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    model = onnx.ModelProto()
    with reading("a valid ONNX file"):
        data = path.read_bytes()
        check_fields(data, onnx.ModelProto.DESCRIPTOR, limits)
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
            check_functions(model, limits)
            model = onnx.inliner.inline_local_functions(model)
    return model, opset


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
                f"tensor {tensor.name!r}: its values are in another file, {location!r}, which "
                "allow_external=False does not allow"
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
