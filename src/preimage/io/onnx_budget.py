"""How much an ONNX file would become: counted in its bytes, before anything is made of them.

A message of two bytes becomes an object of a hundred, and a function that calls another twice, and
so on, becomes more nodes than there is memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from preimage.errors import FormatError
from preimage.io.limits import Limits

_FIELD = 16  # numbers that take as much memory as a field, which may be a message
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how protobuf writes a field
# protobuf's numbers for int32, int64, uint32, uint64, bool and enum: packed, each takes a byte or
# more in the file, and eight in memory.
_PACKED = {1, 2, 3, 4, 7, 8}


def check_fields(data: bytes, descriptor: Any, limits: Limits) -> None:
    """Count the fields and packed numbers of a protobuf message, those within it as well.

    Args:
        data: The message.
        descriptor: Of its type.
        limits: ``entries`` bounds the numbers; a field counts as 16.

    Raises:
        FormatError: Too many, or no such message.
    """
    waiting: list[tuple[int, int, Any]] = [(0, len(data), descriptor)]
    numbers = 0
    while waiting:
        start, stop, kind = waiting.pop()
        for number, first, last in _fields(data, start, stop):
            numbers += _FIELD
            field = kind.fields_by_number.get(number)
            if field is not None and first >= 0:
                if field.message_type is not None:
                    waiting.append((first, last, field.message_type))
                elif field.cpp_type in _PACKED:
                    numbers += last - first
            if numbers > limits.entries:
                limits.check("entries", numbers, "numbers and fields of the file, 16 entries each")


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number of each field and, if it has a length, where its bytes begin and end; else -1."""
    while at < stop:
        key, at = _varint(data, at, stop)
        first, kind = -1, key & 7
        if kind == _BYTES:
            length, first = _varint(data, at, stop)
            at = first + length
        elif kind == _VARINT:
            _, at = _varint(data, at, stop)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise FormatError("not a valid ONNX file: a field of unknown form")
        if at > stop:
            raise FormatError("not a valid ONNX file: a field is longer than the file")
        yield key >> 3, first, at


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """Seven bits a byte, lowest first; the high bit says that more follow."""
    value = 0
    for place, byte in enumerate(data[at : min(at + 10, stop)]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise FormatError("not a valid ONNX file: a number is cut off")


def check_functions(model: Any, limits: Limits) -> None:
    """Count the nodes that inlining the functions of a file would make.

    Raises:
        FormatError: Too many.
        RecursionError: Functions that call themselves.
    """
    bodies = {(f.domain, f.name): f.node for f in model.functions}

    @functools.cache
    def size(name: tuple[str, str]) -> int:
        return 1 + sum(size((node.domain, node.op_type)) for node in bodies.get(name, ()))

    total = sum(size((node.domain, node.op_type)) for node in model.graph.node)
    limits.check_count(total, "nodes with the functions inlined")
