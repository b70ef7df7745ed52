"""How much an ONNX file would become: counted in its bytes, before anything is made of them.

A message of two bytes becomes an object of a hundred, and a function that calls another twice, and
so on, becomes more nodes than there is memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from preimage.errors import FormatError
from preimage.io.guard import Limits, check_total

# Fields that a node with its attributes takes, with a margin.
_FIELDS_A_NODE = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how protobuf writes a field


def check_fields(data: bytes, descriptor: Any, limits: Limits) -> None:
    """Count the fields and packed numbers of a protobuf message, those within it as well.

    Args:
        data: The message.
        descriptor: Of its type.
        limits: ``tensors`` bounds the fields, ``entries`` the numbers.

    Raises:
        FormatError: Too many, or no such message.
    """
    waiting: list[tuple[int, int, Any]] = [(0, len(data), descriptor)]
    fields = numbers = 0
    while waiting:
        start, stop, kind = waiting.pop()
        known = kind.fields_by_number
        for number, first, last in _fields(data, start, stop):
            fields += 1
            if fields > _FIELDS_A_NODE * limits.tensors:
                limits.check("tensors", limits.tensors + 1, "nodes and tensors, to judge by fields")
            field = known.get(number)
            if field is None or first < 0:
                continue
            if field.message_type is not None:
                waiting.append((first, last, field.message_type))
            elif field.cpp_type in _PACKED:
                numbers += last - first
                check_total(numbers)


# protobuf's numbers for int32, int64, uint32, uint64, bool and enum: each takes a byte or more.
_PACKED = {1, 2, 3, 4, 7, 8}


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number of each field and, if it has a length, where its bytes begin and end; else -1."""
    while at < stop:
        key, at = _varint(data, at, stop)
        number, kind = key >> 3, key & 7
        if kind == _BYTES:
            length, at = _varint(data, at, stop)
            yield number, at, at + length
            at += length
        else:
            if kind == _VARINT:
                _, at = _varint(data, at, stop)
            elif kind in (_FIXED32, _FIXED64):
                at += 4 if kind == _FIXED32 else 8
            else:
                raise FormatError("not a valid ONNX file: a field of unknown form")
            yield number, -1, -1
        if at > stop:
            raise FormatError("not a valid ONNX file: a field is longer than the file")


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """Seven bits a byte, lowest first; the high bit says that more follow."""
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise FormatError("not a valid ONNX file: a number is cut off")


def check_functions(model: Any, limits: Limits) -> None:
    """Count the nodes that inlining the functions of a file would make.

    Raises:
        FormatError: Too many, or functions that call themselves.
    """
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    for name in bodies:
        _size(name, bodies, sizes, ())
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in model.graph.node)
    limits.check("tensors", total, "nodes with the functions inlined")


def _size(
    name: tuple[str, str],
    bodies: Mapping[tuple[str, str], Any],
    sizes: dict[tuple[str, str], int],
    path: tuple[tuple[str, str], ...],
) -> int:
    if name in path or len(path) > 100:
        raise FormatError(f"the function {name[1]!r:.200} calls itself, or calls go too deep")
    if name not in sizes:
        called = ((node.domain, node.op_type) for node in bodies[name])
        sizes[name] = 1 + sum(
            _size(other, bodies, sizes, (*path, name)) if other in bodies else 1 for other in called
        )
    return sizes[name]
