"""What the operators of ONNX that only move entries do, to constants and to affine tensors.

Each is written once, for arrays, and applied to an affine tensor by applying it to the places of
its entries.
"""
# ruff: noqa: D103

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError
from preimage.io import affine
from preimage.io.affine import Affine
from preimage.io.call import Call, Value, as_text, move
from preimage.io.graph import as_constant
from preimage.io.guard import check_entries


def shape(call: Call) -> Value:
    sizes = np.array(call.value().shape, dtype=np.int64)
    return sizes[call.attributes.get("start", 0) : call.attributes.get("end")]


def reshape(call: Call) -> Value:
    value = call.value()
    target = list(call.whole(1, "shape") or ())
    if isinstance(value, Affine) and call.batch > 1 and target[:1] == [call.batch]:
        target[0] = 1
    if not call.attributes.get("allowzero"):
        target = [value.shape[i] if n == 0 else n for i, n in enumerate(target)]
    size = int(np.prod(value.shape))
    known = int(np.prod([n for n in target if n != -1], dtype=object))
    if target.count(-1) == 1 and known > 0 and size % known == 0:
        target[target.index(-1)] = size // known
    elif -1 in target or known != size:
        wanted = tuple(target[1:] if isinstance(value, Affine) else target)
        raise InputError(f"shape {wanted} does not fit {size} values")
    return value.reshaped(target) if isinstance(value, Affine) else value.reshape(target)


def flatten(call: Call) -> Value:
    value = call.value()
    axis = call.attributes.get("axis", 1) % max(len(value.shape), 1)
    first = int(np.prod(value.shape[:axis], dtype=np.int64))
    if isinstance(value, Affine):
        return value.reshaped((first, value.size // first) if axis else (value.size,))
    return value.reshape(first, -1)


def squeeze(call: Call) -> Value:
    value, axes = call.value(), call.whole(1, "axes")
    return move(value, lambda x: np.squeeze(x, axes))


def unsqueeze(call: Call) -> Value:
    value, axes = call.value(), call.whole(1, "axes") or ()
    return move(value, lambda x: np.expand_dims(x, axes))


def transpose(call: Call) -> Value:
    value, order = call.value(), call.attributes.get("perm")
    swapped = call.attributes.get("swap")  # what torch calls a transpose
    if swapped is not None:
        axes = list(range(len(value.shape)))
        first, second = swapped
        axes[first], axes[second] = axes[second], axes[first]
        order = axes
    if isinstance(value, Affine) and (order is None or order[0] % len(value.shape) != 0):
        raise InputError(f"the first dimension is the batch and has to stay, got perm {order}")
    return move(value, lambda x: np.transpose(x, order))


def expand(call: Call) -> Value:
    value, wanted = call.value(), call.whole(1, "shape") or ()
    shape = check_entries(np.broadcast_shapes(value.shape, wanted))
    return move(value, lambda x: np.broadcast_to(x, shape))


def take_slice(call: Call) -> Value:
    value = call.value()
    starts, ends = call.whole(1, "starts") or (), call.whole(2, "ends") or ()
    axes = call.whole(3, "axes") or tuple(range(len(starts)))
    steps = call.whole(4, "steps") or (1,) * len(starts)
    rank = len(value.shape)
    cut = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Past the first entry when it counts down, ONNX writes a number far below zero.
        stop = None if step < 0 and end < -value.shape[axis] else end
        cut[axis % rank] = slice(start, stop, step)
    return move(value, lambda x: x[tuple(cut)])


def gather(call: Call) -> Value:
    value, index = call.value(), call.constant(1)
    axis = call.attributes.get("axis", 0) % len(value.shape)
    check_entries((*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]))
    return move(value, lambda x: np.take(x, index.astype(np.int64), axis))


def concat(call: Call) -> Value:
    values: list[Any] = [call.value(i) for i in range(len(call.values))]
    axis = call.attributes["axis"]
    if any(isinstance(value, Affine) for value in values):
        return affine.concatenate(values, axis)
    check_entries((sum(value.size for value in values),))
    return np.concatenate(values, axis)


def pad(call: Call) -> Value:
    value = call.affine()
    rank = len(value.shape)
    widths = call.whole(1, "pads") or ()
    given = call.optional(2)
    fill = call.attributes.get("value", 0.0) if given is None else call.weight(2).reshape(-1)[0]
    axes = call.whole(3, "axes") or tuple(range(rank))
    pairs = [(0, 0)] * rank
    for axis, before, after in zip(axes, widths[: len(axes)], widths[len(axes) :], strict=True):
        pairs[axis % rank] = before, after
    check_entries(
        tuple(n + max(b, 0) + max(a, 0) for n, (b, a) in zip(value.shape, pairs, strict=True))
    )
    mode = as_text(call.attributes.get("mode", "constant"))

    def padded(x: NDArray[Any]) -> NDArray[Any]:
        ends = zip(x.shape, pairs, strict=True)
        x = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in ends)]
        widths = [(max(b, 0), max(a, 0)) for b, a in pairs]
        if mode == "constant":
            return np.pad(x, widths, constant_values=-1)
        if mode in ("reflect", "edge", "wrap"):
            return np.pad(x, widths, mode=mode)  # type: ignore[call-overload]
        raise InputError(f"mode {mode!r} is not supported")

    return value.moved(padded, float(fill))


def depth_to_space(call: Call) -> Value:
    value, block = call.affine(), call.attributes["blocksize"]
    mode = as_text(call.attributes.get("mode", "DCR"))

    def spread(x: NDArray[Any]) -> NDArray[Any]:
        batch, channels, height, width = x.shape
        less = channels // block**2
        if mode == "DCR":
            x = x.reshape(batch, block, block, less, height, width).transpose(0, 3, 4, 1, 5, 2)
        else:
            x = x.reshape(batch, less, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
        return x.reshape(batch, less, height * block, width * block)

    return value.moved(spread)


def identity(call: Call) -> Value:
    return call.value()


def dropout(call: Call) -> Value:
    ratio = call.attributes.get("ratio", 0.5)
    if call.optional(1) is not None:
        ratio = float(call.weight(1).reshape(-1)[0])
    training = call.optional(2) is not None and bool(np.all(call.constant(2)))
    if training and ratio:
        raise InputError("in training mode it is random; export the network in eval mode")
    return call.value()


def cast(call: Call) -> Value:
    value, target = call.value(), call.attributes["to"]
    kind = {1: "f", 10: "f", 11: "f", 16: "f", 6: "i", 7: "i", 9: "b"}.get(target)
    if kind is None or (isinstance(value, Affine) and kind != "f"):
        raise InputError(f"to type {target}; expected floats, or int32, int64, bool of a constant")
    if isinstance(value, Affine):
        return value
    return value.astype({"f": np.float64, "i": np.int64, "b": np.bool_}[kind])


def constant(call: Call) -> Value:
    known = ("value", "value_float", "value_floats", "value_int", "value_ints")
    for name, value in call.attributes.items():
        if name in known:
            return as_constant(value)
    raise InputError(f"expected one of {', '.join(known)}")


def constant_of_shape(call: Call) -> Value:
    sizes = check_entries(call.whole(0, "") or ())
    value = call.attributes.get("value", np.zeros(1))
    return np.full(sizes, np.asarray(value).reshape(-1)[0])


SHAPES: dict[str, Callable[[Call], Value]] = {
    "Cast": cast,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Dropout": dropout,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Identity": identity,
    "Pad": pad,
    "Reshape": reshape,
    "Shape": shape,
    "Slice": take_slice,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
