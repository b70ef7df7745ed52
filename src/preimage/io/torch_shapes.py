"""What torch's reshapes, slices and copies mean in the operators of a graph.

Each function here takes the arguments of the torch function of its name, and stands for the method
and the module that compute the same.
"""
# ruff: noqa: D103

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from preimage.io.sketch import Ref, Sketch
from preimage.io.torch_tensor import import_torch


def _shape_of(sketch: Sketch, entries: Sequence[Any]) -> Ref:
    """A shape of numbers and of computed sizes."""
    if all(isinstance(entry, int) for entry in entries):
        return sketch.constant(np.array(entries, dtype=np.int64))
    pieces = (
        sketch.emit("Reshape", entry, [-1]) if isinstance(entry, Ref) else sketch.constant([entry])
        for entry in entries
    )
    return sketch.emit("Concat", *pieces, axis=0)


def reshape(sketch: Sketch, x: Ref, *shape: Any) -> Ref:
    entries = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if isinstance(entries, Ref):
        return sketch.emit("Reshape", x, entries)
    if not all(isinstance(entry, (int, Ref)) for entry in entries):
        raise sketch.error(f"to {shape} is not supported")
    return sketch.emit("Reshape", x, _shape_of(sketch, entries), target=tuple(entries[1:]))


def _part_of_shape(sketch: Sketch, x: Ref, start: int, end: int | None) -> Ref:
    return sketch.emit("Shape", x, **{"start": start} | ({} if end is None else {"end": end}))


def flatten(sketch: Sketch, x: Ref, start_dim: int = 0, end_dim: int = -1) -> Ref:
    pieces = [_part_of_shape(sketch, x, 0, start_dim), sketch.constant([-1])]
    if end_dim != -1:
        pieces.append(_part_of_shape(sketch, x, end_dim + 1, None))
    return sketch.emit("Reshape", x, sketch.emit("Concat", *pieces, axis=0))


def unflatten(sketch: Sketch, x: Ref, dim: int, sizes: Sequence[int]) -> Ref:
    if dim == 0:
        raise sketch.error("of dimension 0 would split the batch; expected one of dimension 1")
    pieces = [_part_of_shape(sketch, x, 0, dim), sketch.constant(list(sizes))]
    if dim != -1:
        pieces.append(_part_of_shape(sketch, x, dim + 1, None))
    shape = sketch.emit("Concat", *pieces, axis=0)
    return sketch.emit("Reshape", x, shape, target=tuple(sizes) if dim in (1, -1) else ())


def size(sketch: Sketch, x: Ref, dim: int | None = None) -> Ref:
    shape = sketch.emit("Shape", x)
    return shape if dim is None else sketch.emit("Gather", shape, dim)


def attribute(sketch: Sketch, x: Ref, name: str) -> Ref:
    if name != "shape":
        raise sketch.error(f"of the attribute {name!r} of a tensor is not supported")
    return sketch.emit("Shape", x)


def permute(sketch: Sketch, x: Ref, *dims: Any) -> Ref:
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return sketch.emit("Transpose", x, perm=tuple(order))


def transpose(sketch: Sketch, x: Ref, dim0: int, dim1: int) -> Ref:
    return sketch.emit("Transpose", x, swap=(dim0, dim1))


def squeeze(sketch: Sketch, x: Ref, dim: Any = None) -> Ref:
    return sketch.emit("Squeeze", x, None if dim is None else np.atleast_1d(dim))


def unsqueeze(sketch: Sketch, x: Ref, dim: int) -> Ref:
    return sketch.emit("Unsqueeze", x, [dim])


def concatenate(sketch: Sketch, tensors: Sequence[Ref], dim: int = 0) -> Ref:
    return sketch.emit("Concat", *tensors, axis=dim)


def item(sketch: Sketch, x: Ref, index: Any) -> Ref:
    """Numbers, slices, new axes; after an ellipsis, dimensions count from the end."""
    entries = list(index) if isinstance(index, tuple) else [index]
    at = entries.index(Ellipsis) if Ellipsis in entries else len(entries)
    cuts: dict[int, slice] = {}
    dropped, added = [], []
    for part, step in ((entries[:at], 1), (entries[:at:-1], -1)):
        axis = place = 0 if step > 0 else -1
        for entry in part:
            if entry is None:
                added.append(place)
                place += step
                continue
            if isinstance(entry, slice):
                cuts[axis] = entry
                place += step
            else:
                if not isinstance(entry, int):
                    raise sketch.error(f"with index {index!r} is not supported")
                cuts[axis] = slice(entry, entry + 1 or None)
                dropped.append(axis)
            axis += step
    numbers = [n for cut in cuts.values() for n in (cut.start, cut.stop, cut.step)]
    if any(isinstance(n, Ref) for n in numbers):
        raise sketch.error("with an index that is computed is not supported")
    if any(cut != slice(None) for cut in cuts.values()):
        starts = [cut.start or 0 for cut in cuts.values()]
        ends = [2**31 - 1 if cut.stop is None else cut.stop for cut in cuts.values()]
        steps = [cut.step or 1 for cut in cuts.values()]
        x = sketch.emit("Slice", x, starts, ends, list(cuts), steps)
    if dropped:
        x = sketch.emit("Squeeze", x, dropped)
    return sketch.emit("Unsqueeze", x, added) if added else x


def same(sketch: Sketch, x: Ref, *arguments: Any, **named: Any) -> Ref:
    """A copy, or a change of device or of float type."""
    torch = import_torch()
    for argument in (*arguments, *named.values()):
        if isinstance(argument, torch.dtype) and not argument.is_floating_point:
            raise sketch.error(f"to {argument} is not supported")
    return sketch.emit("Identity", x)


def pixel_shuffle(sketch: Sketch, x: Ref, upscale_factor: int) -> Ref:
    return sketch.emit("DepthToSpace", x, blocksize=upscale_factor, mode="CRD")
