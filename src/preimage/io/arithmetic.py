"""What the operators of ONNX that compute do, to constants and to affine tensors."""
# ruff: noqa: D103

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from preimage.errors import InputError
from preimage.io import affine
from preimage.io.affine import Affine
from preimage.io.call import Call, Constant, Value
from preimage.io.guard import check_entries


def folded(function: Callable[..., Any]) -> Callable[[Call], Value]:
    """An operator that is supported for constants only."""

    def of_constants(call: Call) -> Value:
        values = [call.constant(i) for i in range(len(call.values))]
        check_entries(np.broadcast_shapes(*(value.shape for value in values)))
        return np.asarray(function(*values))

    return of_constants


def _both(call: Call) -> tuple[Constant, Constant]:
    first, second = call.constant(0), call.constant(1)
    check_entries(np.broadcast_shapes(first.shape, second.shape))
    return first, second


def _constants(call: Call) -> bool:
    return not any(isinstance(value, Affine) for value in call.values)


def plus(call: Call) -> Value:
    if _constants(call):
        first, second = _both(call)
        return np.asarray(first + second)
    if isinstance(call.value(0), Affine) and isinstance(call.value(1), Affine):
        return affine.add(call.affine(0), call.affine(1))
    which = 0 if isinstance(call.value(0), Affine) else 1
    return call.affine(which).plus(call.weight(1 - which))


def minus(call: Call) -> Value:
    if _constants(call):
        first, second = _both(call)
        return np.asarray(first - second)
    if not isinstance(call.value(1), Affine):
        return call.affine(0).plus(-call.weight(1))
    subtracted = call.affine(1).times(np.array(-1.0))
    if isinstance(call.value(0), Affine):
        return affine.add(call.affine(0), subtracted)
    return subtracted.plus(call.weight(0))


def times(call: Call) -> Value:
    if _constants(call):
        first, second = _both(call)
        return np.asarray(first * second)
    which = 0 if isinstance(call.value(0), Affine) else 1
    return call.affine(which).times(call.weight(1 - which))


def divided(call: Call) -> Value:
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


def negative(call: Call) -> Value:
    value = call.value()
    return value.times(np.array(-1.0)) if isinstance(value, Affine) else -value


def gemm(call: Call) -> Value:
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


def matmul(call: Call) -> Value:
    if isinstance(call.value(0), Affine):
        return call.affine(0).on_axis(call.weight(1).T, -1)
    value = call.affine(1)
    if len(value.shape) < 3:
        raise InputError("a constant from the left would mix the batch")
    return value.on_axis(call.weight(0), -2)


def mean(call: Call) -> Value:
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


def batch_normalization(call: Call) -> Value:
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


ARITHMETIC: dict[str, Callable[[Call], Value]] = {
    "Add": plus,
    "BatchNormalization": batch_normalization,
    "Div": divided,
    "Equal": folded(np.equal),
    "Gemm": gemm,
    "GlobalAveragePool": mean,
    "MatMul": matmul,
    "Mod": folded(np.mod),
    "Mul": times,
    "Neg": negative,
    "ReduceMean": mean,
    "Sub": minus,
    "Where": folded(np.where),
}
