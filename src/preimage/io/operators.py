"""What the linear operators of ONNX do, to constants and to affine tensors.

An operator takes its node's attributes and its inputs. Whatever only moves entries is written once,
for arrays, and applied to an affine tensor by applying it to the indices of its entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preimage.errors import InputError
from preimage.generator import Array, as_float64
from preimage.io import affine
from preimage.io.affine import Affine
from preimage.io.graph import Node, as_constant
from preimage.io.guard import check_entries

Constant = NDArray[Any]
Value = Affine | Constant


@dataclass(frozen=True)
class Call:
    """A node with the values of its inputs; None is an input that is left out."""

    node: Node
    values: tuple[Value | None, ...]
    opset: int
    batch: int = 1

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the node."""
        return self.node.attributes

    def value(self, position: int = 0) -> Value:
        """An input that must be there."""
        value = self.optional(position)
        if value is None:
            raise InputError(f"expected an input {position}")
        return value

    def optional(self, position: int) -> Value | None:
        """An input that may be left out."""
        return self.values[position] if position < len(self.values) else None

    def affine(self, position: int = 0) -> Affine:
        """An input that depends on the latent."""
        value = self.value(position)
        if not isinstance(value, Affine):
            raise InputError(f"input {self.node.inputs[position]!r} is a constant")
        return value

    def constant(self, position: int) -> Constant:
        """An input that does not depend on the latent."""
        value = self.value(position)
        if isinstance(value, Affine):
            raise InputError(
                f"input {self.node.inputs[position]!r} depends on the latent, where only a "
                "constant is supported"
            )
        return value

    def weight(self, position: int) -> Array:
        """A constant of finite floats."""
        return as_float64(self.constant(position), self.node.inputs[position])

    def whole(self, position: int, attribute: str) -> tuple[int, ...] | None:
        """Whole numbers in an input, or in the attribute that older operators have instead."""
        values: Any = self.attributes.get(attribute)
        if values is None and self.optional(position) is not None:
            values = self.constant(position)
        return None if values is None else tuple(int(n) for n in np.asarray(values).reshape(-1))


def move(value: Value, how: Callable[[Any], Any], fill: float = 0.0) -> Value:
    """Move entries of a constant, or of an affine tensor (where index -1 is a new entry)."""
    return value.moved(how, fill) if isinstance(value, Affine) else np.asarray(how(value))


# Shapes -----------------------------------------------------------------------------------------


def shape(call: Call) -> Value:  # noqa: D103
    sizes = np.array(call.value().shape, dtype=np.int64)
    return sizes[call.attributes.get("start", 0) : call.attributes.get("end")]


def reshape(call: Call) -> Value:  # noqa: D103
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


def flatten(call: Call) -> Value:  # noqa: D103
    value = call.value()
    axis = call.attributes.get("axis", 1) % max(len(value.shape), 1)
    first = int(np.prod(value.shape[:axis], dtype=np.int64))
    if isinstance(value, Affine):
        return value.reshaped((first, value.size // first) if axis else (value.size,))
    return value.reshape(first, -1)


def squeeze(call: Call) -> Value:  # noqa: D103
    value, axes = call.value(), call.whole(1, "axes")
    return move(value, lambda x: np.squeeze(x, axes))


def unsqueeze(call: Call) -> Value:  # noqa: D103
    value, axes = call.value(), call.whole(1, "axes") or ()
    return move(value, lambda x: np.expand_dims(x, axes))


def transpose(call: Call) -> Value:  # noqa: D103
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


def expand(call: Call) -> Value:  # noqa: D103
    value, wanted = call.value(), call.whole(1, "shape") or ()
    shape = check_entries(np.broadcast_shapes(value.shape, wanted))
    return move(value, lambda x: np.broadcast_to(x, shape))


def take_slice(call: Call) -> Value:  # noqa: D103
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


def gather(call: Call) -> Value:  # noqa: D103
    value, index = call.value(), call.constant(1)
    axis = call.attributes.get("axis", 0) % len(value.shape)
    check_entries((*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]))
    return move(value, lambda x: np.take(x, index.astype(np.int64), axis))


def concat(call: Call) -> Value:  # noqa: D103
    values: list[Any] = [call.value(i) for i in range(len(call.values))]
    axis = call.attributes["axis"]
    if any(isinstance(value, Affine) for value in values):
        return affine.concatenate(values, axis)
    check_entries((sum(value.size for value in values),))
    return np.concatenate(values, axis)


def pad(call: Call) -> Value:  # noqa: D103
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


def depth_to_space(call: Call) -> Value:  # noqa: D103
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


def identity(call: Call) -> Value:  # noqa: D103
    return call.value()


def dropout(call: Call) -> Value:  # noqa: D103
    ratio = call.attributes.get("ratio", 0.5)
    if call.optional(1) is not None:
        ratio = float(call.weight(1).reshape(-1)[0])
    training = call.optional(2) is not None and bool(np.all(call.constant(2)))
    if training and ratio:
        raise InputError("in training mode it is random; export the network in eval mode")
    return call.value()


def cast(call: Call) -> Value:  # noqa: D103
    value, target = call.value(), call.attributes["to"]
    kind = {1: "f", 10: "f", 11: "f", 16: "f", 6: "i", 7: "i", 9: "b"}.get(target)
    if kind is None or (isinstance(value, Affine) and kind != "f"):
        raise InputError(f"to type {target}; expected floats, or int32, int64, bool of a constant")
    if isinstance(value, Affine):
        return value
    return value.astype({"f": np.float64, "i": np.int64, "b": np.bool_}[kind])


def constant(call: Call) -> Value:  # noqa: D103
    known = ("value", "value_float", "value_floats", "value_int", "value_ints")
    for name, value in call.attributes.items():
        if name in known:
            return as_constant(value)
    raise InputError(f"expected one of {', '.join(known)}")


def folded(function: Callable[..., Any]) -> Callable[[Call], Value]:
    """An operator that is supported for constants only."""

    def of_constants(call: Call) -> Value:
        values = [call.constant(i) for i in range(len(call.values))]
        check_entries(np.broadcast_shapes(*(value.shape for value in values)))
        return np.asarray(function(*values))

    return of_constants


def constant_of_shape(call: Call) -> Value:  # noqa: D103
    sizes = check_entries(call.whole(0, "") or ())
    value = call.attributes.get("value", np.zeros(1))
    return np.full(sizes, np.asarray(value).reshape(-1)[0])


# Arithmetic -------------------------------------------------------------------------------------


def _both(call: Call) -> tuple[Constant, Constant]:
    first, second = call.constant(0), call.constant(1)
    check_entries(np.broadcast_shapes(first.shape, second.shape))
    return first, second


def _constants(call: Call) -> bool:
    return not any(isinstance(value, Affine) for value in call.values)


def plus(call: Call) -> Value:  # noqa: D103
    if _constants(call):
        first, second = _both(call)
        return np.asarray(first + second)
    if isinstance(call.value(0), Affine) and isinstance(call.value(1), Affine):
        return affine.add(call.affine(0), call.affine(1))
    which = 0 if isinstance(call.value(0), Affine) else 1
    return call.affine(which).plus(call.weight(1 - which))


def minus(call: Call) -> Value:  # noqa: D103
    if _constants(call):
        first, second = _both(call)
        return np.asarray(first - second)
    if not isinstance(call.value(1), Affine):
        return call.affine(0).plus(-call.weight(1))
    subtracted = call.affine(1).times(np.array(-1.0))
    if isinstance(call.value(0), Affine):
        return affine.add(call.affine(0), subtracted)
    return subtracted.plus(call.weight(0))


def times(call: Call) -> Value:  # noqa: D103
    if _constants(call):
        first, second = _both(call)
        return np.asarray(first * second)
    which = 0 if isinstance(call.value(0), Affine) else 1
    return call.affine(which).times(call.weight(1 - which))


def divided(call: Call) -> Value:  # noqa: D103
    if not _constants(call):
        divisor = call.weight(1)
        if not divisor.all():
            raise InputError(f"{call.node.inputs[1]!r} has a zero")
        return call.affine(0).times(1.0 / divisor)
    first, second = _both(call)
    if not np.all(second):
        raise InputError(f"{call.node.inputs[1]!r} has a zero")
    if first.dtype.kind == second.dtype.kind == "i":
        return np.asarray(np.abs(first) // np.abs(second) * np.sign(first) * np.sign(second))
    return np.asarray(first / second)


def negative(call: Call) -> Value:  # noqa: D103
    value = call.value()
    return value.times(np.array(-1.0)) if isinstance(value, Affine) else -value


def gemm(call: Call) -> Value:  # noqa: D103
    if call.attributes.get("transA"):
        raise InputError("transA is not supported: it would move the batch")
    weight = call.weight(1)
    weight = weight if call.attributes.get("transB") else weight.T
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    product = call.affine(0).on_axis(weight if alpha == 1 else alpha * weight, -1)
    if call.optional(2) is None:
        return product
    added = call.value(2)
    if isinstance(added, Affine):
        return affine.add(product, added.times(np.array(float(beta))))
    return product.plus(beta * call.weight(2))


def matmul(call: Call) -> Value:  # noqa: D103
    if isinstance(call.value(0), Affine):
        return call.affine(0).on_axis(call.weight(1).T, -1)
    value = call.affine(1)
    if len(value.shape) < 3:
        raise InputError("a constant from the left would mix the batch")
    return value.on_axis(call.weight(0), -2)


def mean(call: Call) -> Value:  # noqa: D103
    value = call.affine()
    axes = call.whole(1, "axes")
    if call.node.operator == "GlobalAveragePool":
        axes = tuple(range(2, len(value.shape)))
    rank = len(value.shape)
    over = {axis % rank for axis in axes} if axes else set(range(rank))
    kept = tuple(1 if axis in over else n for axis, n in enumerate(value.shape))
    outputs = int(np.prod(kept))
    rows = np.broadcast_to(np.arange(outputs).reshape(kept), value.shape).reshape(-1)
    entries = np.full(value.size, outputs / value.size)
    part = sparse.csr_array((entries, (rows, np.arange(value.size))), shape=(outputs, value.size))
    if not call.attributes.get("keepdims", 1):
        kept = tuple(n for axis, n in enumerate(kept) if axis not in over)
    return value.then(part, kept)


def batch_normalization(call: Call) -> Value:  # noqa: D103
    if call.attributes.get("training_mode"):
        raise InputError("in training mode it uses the batch; export the network in eval mode")
    value = call.affine()
    scale, bias, average, variance = (call.weight(i).reshape(-1) for i in range(1, 5))
    spread = variance + call.attributes.get("epsilon", 1e-5)
    channels = value.shape[1:2]
    if any(part.shape != channels for part in (scale, bias, average, variance)):
        raise InputError(f"expected {channels} parameters each, got {scale.shape}")
    if not (spread > 0).all():
        raise InputError(f"{call.node.inputs[4]!r} has a variance that is not positive")
    factor = scale / np.sqrt(spread)
    aligned = (-1, *(1,) * (len(value.shape) - 2))
    return value.times(factor.reshape(aligned)).plus((bias - average * factor).reshape(aligned))


def as_text(value: Any) -> str:
    """Text of an attribute, which ONNX keeps as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


LINEAR: dict[str, Callable[[Call], Value]] = {
    "Add": plus,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Div": divided,
    "Dropout": dropout,
    "Equal": folded(np.equal),
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Gemm": gemm,
    "GlobalAveragePool": mean,
    "Identity": identity,
    "MatMul": matmul,
    "Mod": folded(np.mod),
    "Mul": times,
    "Neg": negative,
    "Pad": pad,
    "ReduceMean": mean,
    "Reshape": reshape,
    "Shape": shape,
    "Slice": take_slice,
    "Squeeze": squeeze,
    "Sub": minus,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Where": folded(np.where),
}
