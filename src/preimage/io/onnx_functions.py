"""What ONNX operators are in torch.

Each function takes the attributes of a node by name, with their defaults, and its inputs as
tensors; an input that is left out is None. ``a["opset"]`` is the version of the operators,
``a["shape"]`` the shape of the output. Nothing is changed in place, so that torch can trace the
functions and evaluate them for a batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from preimage.io.limits import Limits

Given = Mapping[str, Any]
Function = Callable[..., Any]

_NO_BOUND = 1e38  # older files write the largest float for no bound


# Activations ------------------------------------------------------------------------------------


def _clip(a: Given, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    low = a.get("min") if low is None else low
    high = a.get("max") if high is None else high
    bounds = [b if isinstance(b, Tensor) or b is None or abs(b) < _NO_BOUND else None
              for b in (low, high)]  # fmt: skip
    return x if bounds == [None, None] else torch.clamp(x, *bounds)


def _shrink(a: Given, x: Tensor) -> Tensor:
    bound, bias = a["lambd"], a["bias"]
    return torch.where(x < -bound, x + bias, torch.where(x > bound, x - bias, 0.0 * x))


def _softmax(function: Function) -> Function:
    def run(a: Given, x: Tensor) -> Tensor:
        if a["opset"] >= 13:
            return function(x, a["axis"])
        rows = math.prod(x.shape[: a["axis"] % x.ndim])  # before, all behind is one axis
        return function(x.reshape(rows, -1), 1).reshape(x.shape)

    return run


# Arithmetic -------------------------------------------------------------------------------------


def _fold(function: Function) -> Function:
    return lambda a, *values: functools.reduce(function, values)


def _gemm(a: Given, x: Tensor, y: Tensor, c: Any = None) -> Tensor:
    x, y = (v.T if a[name] else v for v, name in ((x, "transA"), (y, "transB")))
    product = a["alpha"] * (x @ y)
    return product if c is None else product + a["beta"] * c


def _cumulative(a: Given, x: Tensor) -> Tensor:
    (axis,) = a["axes"]
    x = x.flip(axis) if a["reverse"] else x
    total = x.cumsum(axis) - x if a["exclusive"] else x.cumsum(axis)
    return total.flip(axis) if a["reverse"] else total


def _cast(a: Given, x: Tensor, like: Any = None) -> Tensor:
    """Floats keep the precision of the module."""
    kind = a["to"] if like is None else like.dtype
    if kind.is_floating_point:
        return x if x.is_floating_point() else x.double()
    return x.to(kind)


def _reduced(function: Function) -> Function:
    """A reduction over ``a["axes"]``: none of them is all, or with the attribute, none."""

    def run(a: Given, x: Tensor) -> Tensor:
        axes = tuple(a.get("axes") or ())
        if not axes and a.get("noop_with_empty_axes", 0):
            return function(x[..., None], (-1,), False)
        return function(x, axes or tuple(range(x.ndim)), bool(a["keepdims"]))

    return run


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keep)
    return x


def _norm(order: int) -> Function:
    return lambda x, axes, keep: torch.linalg.vector_norm(x, order, axes, keep)


# Normalisation ----------------------------------------------------------------------------------


def _batch_norm(a: Given, x: Tensor, scale: Any, bias: Any, mean: Any, variance: Any) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, bias, eps=a["epsilon"])


def _layer_norm(a: Given, x: Tensor, scale: Any = None, bias: Any = None) -> Tensor:
    shape = x.shape[a["axis"] % x.ndim :]
    x = functional.layer_norm(x, shape, eps=a["epsilon"])
    x = x if scale is None else x * scale
    return x if bias is None else x + bias


def _instance_norm(a: Given, x: Tensor, scale: Any, bias: Any) -> Tensor:
    return functional.group_norm(x, x.shape[1], scale, bias, a["epsilon"])


def _group_norm(a: Given, x: Tensor, scale: Any, bias: Any) -> Tensor:
    return functional.group_norm(x, a["num_groups"], scale, bias, a["epsilon"])


# Windows ----------------------------------------------------------------------------------------


def set_windows(
    a: dict[str, Any], transposed: bool, kernel: tuple[int, ...], x: tuple[int, ...], limits: Limits
) -> None:
    """Put the sizes of windows among the attributes of a convolution or pooling of shape ``x``.

    They are ``kernel``, ``strides``, ``dilations``, ``group``, and the padding of each axis,
    ``begin`` and ``end``. Windows, and what they take in, are held to the limits.
    """
    dims = len(kernel)
    ones, auto = (1,) * dims, a["auto_pad"]
    strides, dilations = (tuple(a.get(n) or ones) for n in ("strides", "dilations"))
    pads = list(a.get("pads") or (0,) * 2 * dims)
    begin, end = pads[:dims], pads[dims:]
    for axis, (size, found) in enumerate(zip(x[2:], a["shape"][2:], strict=True)):
        reach, step = dilations[axis] * (kernel[axis] - 1) + 1, strides[axis]
        inner, outer = (size, found) if transposed else (found, size)
        total = (inner - 1) * step + reach - outer  # what is cut off, or lacking
        if auto == "VALID":
            begin[axis] = 0
        elif auto != "NOTSET" or (transposed and a.get("output_shape")):
            more = (a.get("output_padding") or (0,) * dims)[axis] if transposed else 0
            odd = max(total + more, 0)
            begin[axis] = odd // 2 if auto == "SAME_UPPER" else odd - odd // 2
        rest = total - begin[axis]
        end[axis] = rest if transposed else max(rest, end[axis])
    a.update(kernel=kernel, strides=strides, dilations=dilations, group=a.get("group", 1),
             begin=tuple(begin), end=tuple(end))  # fmt: skip
    # What a transposed convolution makes before its edges are cut off, or others take in.
    whole = a["shape"] if transposed else x
    padded = (n + max(b, 0) + max(e, 0) for n, b, e in zip(whole[2:], begin, end, strict=True))
    limits.check_shape((*whole[:2], *padded))
    limits.check_shape(kernel)


def _pad(a: Given, x: Tensor, **how: Any) -> Tensor:
    pairs = list(zip(a["begin"], a["end"], strict=True))
    return functional.pad(x, [n for pair in pairs[::-1] for n in pair], **how)


def _convolution(a: Given, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[weight.ndim - 3]
    x, padding = (x, a["begin"]) if a["begin"] == a["end"] else (_pad(a, x), 0)
    return run(x, weight, bias, a["strides"], padding, a["dilations"], a["group"])


def _transposed_convolution(a: Given, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    kinds = functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d
    run, same = kinds[weight.ndim - 3], a["begin"] == a["end"]
    padding = a["begin"] if same else 0
    found = run(x, weight, None, a["strides"], padding, 0, a["group"], a["dilations"])
    if not same:
        found = _pad({name: [-n for n in a[name]] for name in ("begin", "end")}, found)
    return found if bias is None else found + bias.reshape(-1, *(1,) * (weight.ndim - 2))


def window_sums(a: Given, x: Tensor) -> Tensor:
    """The sum of the entries of each window."""
    flat = x.reshape(-1, 1, *x.shape[2:])
    ones = x.new_ones((1, 1, *a["kernel"]))
    return _convolution({**a, "group": 1}, flat, ones).reshape(a["shape"])


def _lp_pool(a: Given, x: Tensor) -> Tensor:
    order = a["p"]
    return window_sums(a, x.abs() ** order) ** (1 / order)


def _max_pool(a: Given, x: Tensor) -> Tensor:
    kinds = functional.max_pool1d, functional.max_pool2d, functional.max_pool3d
    run, padding = kinds[len(a["kernel"]) - 1], a["begin"]
    if padding != a["end"] or any(2 * p > k for p, k in zip(padding, a["kernel"], strict=True)):
        # A window without gaps that reaches beyond an edge holds the entry at the edge.
        how = {"mode": "replicate"} if set(a["dilations"]) == {1} else {"value": -math.inf}
        x, padding = _pad(a, x, **how), 0
    return run(x, a["kernel"], a["strides"], padding, a["dilations"])


# Moves and resizing -----------------------------------------------------------------------------


def _move(a: Given, places: Tensor, constant: Any, *values: Tensor) -> Tensor:
    """Entries of the values at ``places``, counted from 1; 0 is an entry of ``constant``."""
    flat = torch.cat([v.reshape(-1) for v in (values[0].new_zeros(1), *values)])
    found = flat.index_select(0, places).reshape(a["shape"])
    return found if constant is None else found + constant


def _resize(a: Given, x: Tensor, *maps: Tensor) -> Tensor:
    """Along each axis, a choice of entries or a matrix."""
    for axis, each in zip(a["axes"], maps, strict=True):
        if each.is_floating_point():
            x = (x.movedim(axis, -1) @ each).movedim(-1, axis)
        else:
            x = x.index_select(axis, each)
    return x


# Functions of torch of the same name, in small letters.
_PLAIN = """
    Relu Sigmoid Tanh Exp Log Sqrt Reciprocal Abs Neg Sign Floor Ceil Round Sin Cos Tan Asin Acos
    Atan Sinh Cosh Asinh Acosh Atanh Erf IsNaN IsInf Add Sub Mul Div MatMul Greater Less Where
"""
_PLAIN_OF_NETWORKS = "HardSwish Mish Softplus Softsign"
FUNCTIONS: dict[str, Function] = {
    **{
        name: functools.partial(lambda run, a, *values: run(*values), getattr(place, name.lower()))
        for place, names in ((torch, _PLAIN), (functional, _PLAIN_OF_NETWORKS))
        for name in names.split()
    },
    # Activations
    "LeakyRelu": lambda a, x: functional.leaky_relu(x, a["alpha"]),
    "PRelu": lambda a, x, slope: torch._prelu_kernel(x, slope),
    "ThresholdedRelu": lambda a, x: torch.where(x > a["alpha"], x, 0.0 * x),
    "Elu": lambda a, x: functional.elu(x, a["alpha"]),
    "Selu": lambda a, x: a["gamma"] * functional.elu(x, a["alpha"]),
    "Celu": lambda a, x: functional.celu(x, a["alpha"]),
    "Gelu": lambda a, x: functional.gelu(x, approximate=a["approximate"]),
    "Swish": lambda a, x: x * torch.sigmoid(a["alpha"] * x),
    "HardSigmoid": lambda a, x: torch.clamp(a["alpha"] * x + a["beta"], 0.0, 1.0),
    "Shrink": _shrink,
    "Clip": _clip,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    # Arithmetic
    "Pow": lambda a, x, y: torch.pow(x, y.to(x.dtype)),
    "Mod": lambda a, x, y: torch.fmod(x, y) if a["fmod"] else torch.remainder(x, y),
    "Sum": _fold(torch.add),
    "Mean": lambda a, *values: functools.reduce(torch.add, values) / len(values),
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Gemm": _gemm,
    "Einsum": lambda a, *values: torch.einsum(a["equation"], *values),
    "CumSum": _cumulative,
    "GreaterOrEqual": lambda a, x, y: x >= y,
    "LessOrEqual": lambda a, x, y: x <= y,
    "Equal": lambda a, x, y: x == y,
    "And": lambda a, x, y: x & y,
    "Or": lambda a, x, y: x | y,
    "Xor": lambda a, x, y: x ^ y,
    "Not": lambda a, x: ~x,
    "Cast": _cast,
    "CastLike": _cast,
    # Reductions
    "ReduceSum": _reduced(torch.sum),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMin": _reduced(torch.amin),
    "ReduceProd": _reduced(_product),
    "ReduceL1": _reduced(_norm(1)),
    "ReduceL2": _reduced(_norm(2)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: (x * x).sum(axes, keep)),
    "ReduceLogSum": _reduced(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reduced(torch.logsumexp),
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.ndim)), True),
    "GlobalMaxPool": lambda a, x: x.amax(tuple(range(2, x.ndim)), True),
    # Normalisation
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": lambda a, x: functional.normalize(
        x, a["p"], a["axis"], torch.finfo(x.dtype).tiny
    ),
    "LRN": lambda a, x: functional.local_response_norm(
        x, a["size"], a["alpha"], a["beta"], a["bias"]
    ),
    # Windows
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "AveragePool": lambda a, x, share: window_sums(a, x) * share,
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
    # Moves; Reshape stands for all that keep the order of the entries, Move for all others
    "Identity": lambda a, x: x,
    "Dropout": lambda a, x: x,
    "Reshape": lambda a, x: x.reshape(a["shape"]),
    "Expand": lambda a, x: x.expand(a["shape"]),
    "Transpose": lambda a, x: x.permute(tuple(a.get("perm") or range(x.ndim)[::-1])),
    "Concat": lambda a, *values: torch.cat(values, a["axis"]),
    "Move": _move,
    "Resize": _resize,
}  # fmt: skip
