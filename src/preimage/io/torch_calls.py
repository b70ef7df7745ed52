"""What torch's modules and functions mean in the operators of a graph.

Each function here takes the arguments of the torch function of its name, and stands for the method
and the module that compute the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from preimage.io.sketch import Ref, Sketch
from preimage.io.torch_tensor import import_torch

Handler = Callable[..., Ref]


def _spread(value: Any, rank: int) -> tuple[int, ...]:
    """One number for every dimension, or the numbers as they are."""
    return (int(value),) * rank if isinstance(value, int) else tuple(map(int, value))


# Layers -----------------------------------------------------------------------------------------


def _linear(sketch: Sketch, x: Ref, weight: Ref, bias: Ref | None = None) -> Ref:
    return sketch.emit("Gemm", x, weight, bias, transB=1)


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _convolution(
    sketch: Sketch,
    x: Ref,
    weight: Ref,
    bias: Ref | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Ref:
    window = sketch.shape(weight)[2:]
    rank = len(window)
    steps = _spread(dilation, rank)
    if padding == "same":
        total = [d * (w - 1) for d, w in zip(steps, window, strict=True)]
        pads = [t // 2 for t in total] + [t - t // 2 for t in total]
    else:
        pads = list(_spread(0 if padding == "valid" else padding, rank)) * 2
    if padding_mode != "zeros":
        mode = _PAD_MODES.get(padding_mode, padding_mode)
        x = sketch.emit("Pad", x, pads, None, list(range(2, 2 + rank)), mode=mode)
        pads = [0] * len(pads)
    return sketch.emit(
        "Conv", x, weight, bias,
        strides=_spread(stride, rank), pads=pads, dilations=steps, group=groups,
    )  # fmt: skip


def _transposed_convolution(
    sketch: Sketch,
    x: Ref,
    weight: Ref,
    bias: Ref | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Ref:
    rank = len(sketch.shape(weight)) - 2
    return sketch.emit(
        "ConvTranspose", x, weight, bias,
        strides=_spread(stride, rank), pads=_spread(padding, rank) * 2, group=groups,
        dilations=_spread(dilation, rank), output_padding=_spread(output_padding, rank),
    )  # fmt: skip


def _batch_norm(
    sketch: Sketch,
    x: Ref,
    running_mean: Ref | None,
    running_var: Ref | None,
    weight: Ref | None = None,
    bias: Ref | None = None,
    training: bool = False,
    momentum: Any = None,
    eps: float = 1e-5,
) -> Ref:
    if training or running_mean is None or running_var is None:
        raise sketch.error(
            "in training mode uses the statistics of the batch; call .eval() on the module first "
            "(without running statistics it cannot be read)"
        )
    channels = sketch.shape(running_mean)[0]
    scale, shift = weight or np.ones(channels), bias or np.zeros(channels)
    return sketch.emit(
        "BatchNormalization", x, scale, shift, running_mean, running_var, epsilon=eps
    )


def _dropout(
    sketch: Sketch, x: Ref, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Ref:
    if training and p > 0:
        raise sketch.error("in training mode is random; call .eval() on the module first")
    return sketch.emit("Identity", x)


def _average_pool(rank: int) -> Handler:
    def average_pool(
        sketch: Sketch,
        x: Ref,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Ref:
        if divisor_override is not None:
            raise sketch.error("with divisor_override is not supported")
        window = _spread(kernel_size, rank)
        return sketch.emit(
            "AveragePool", x, kernel_shape=window, pads=_spread(padding, rank) * 2,
            strides=_spread(stride, rank) if stride else window,
            ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad),
        )  # fmt: skip

    return average_pool


def _adaptive_average_pool(sketch: Sketch, x: Ref, output_size: Any) -> Ref:
    if set(_spread(output_size, 1)) != {1}:
        raise sketch.error(f"to {output_size} is not supported, only to 1")
    return sketch.emit("GlobalAveragePool", x)


def _interpolate(
    sketch: Sketch,
    x: Ref,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Ref:
    known = {"nearest": "asymmetric", "nearest-exact": "tf_half_pixel_for_nn"}
    if mode not in known or recompute_scale_factor:
        raise sketch.error(f"with mode {mode!r} is not supported, only {', '.join(known)}")
    scales = None if scale_factor is None else np.asarray(scale_factor, dtype=np.float64)
    sizes = None if size is None else np.asarray(size)
    return sketch.emit(
        "Resize", x, None, scales, sizes, mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode=known[mode], spatial=1,
    )  # fmt: skip


def _pad(
    sketch: Sketch, x: Ref, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Ref:
    before, after = list(pad[::2]), list(pad[1::2])
    axes = [-1 - i for i in range(len(before))]
    return sketch.emit(
        "Pad", x, before + after, float(value or 0), axes, mode=_PAD_MODES.get(mode, mode)
    )


def _padding(mode: str) -> Handler:
    def padding(sketch: Sketch, x: Ref, pad: Sequence[int], value: float | None = None) -> Ref:
        return _pad(sketch, x, pad, mode, value)

    return padding


def _prelu(sketch: Sketch, x: Ref, weight: Ref) -> Ref:
    return sketch.emit("PRelu", x, weight, axis=1)


def _leaky_relu(sketch: Sketch, x: Ref, negative_slope: float = 0.01, inplace: bool = False) -> Ref:
    return sketch.emit("LeakyRelu", x, alpha=negative_slope)


def _plain(name: str) -> Handler:
    def plain(sketch: Sketch, x: Ref, inplace: bool = False) -> Ref:
        return sketch.emit(name, x)

    return plain


# Shapes -----------------------------------------------------------------------------------------


def _shape_of(sketch: Sketch, entries: Sequence[Any]) -> Ref:
    """A shape of numbers and of computed sizes."""
    if all(isinstance(entry, int) for entry in entries):
        return sketch.constant(np.array(entries, dtype=np.int64))
    pieces = (
        sketch.emit("Reshape", entry, [-1]) if isinstance(entry, Ref) else sketch.constant([entry])
        for entry in entries
    )
    return sketch.emit("Concat", *pieces, axis=0)


def _reshape(sketch: Sketch, x: Ref, *shape: Any) -> Ref:
    entries = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if isinstance(entries, Ref):
        return sketch.emit("Reshape", x, entries)
    if not all(isinstance(entry, (int, Ref)) for entry in entries):
        raise sketch.error(f"to {shape} is not supported")
    return sketch.emit("Reshape", x, _shape_of(sketch, entries), target=tuple(entries[1:]))


def _part_of_shape(sketch: Sketch, x: Ref, start: int, end: int | None) -> Ref:
    return sketch.emit("Shape", x, **{"start": start} | ({} if end is None else {"end": end}))


def _flatten(sketch: Sketch, x: Ref, start_dim: int = 0, end_dim: int = -1) -> Ref:
    pieces = [_part_of_shape(sketch, x, 0, start_dim), sketch.constant([-1])]
    if end_dim != -1:
        pieces.append(_part_of_shape(sketch, x, end_dim + 1, None))
    return sketch.emit("Reshape", x, sketch.emit("Concat", *pieces, axis=0))


def _unflatten(sketch: Sketch, x: Ref, dim: int, sizes: Sequence[int]) -> Ref:
    if dim == 0:
        raise sketch.error("of dimension 0 would split the batch; expected one of dimension 1")
    pieces = [_part_of_shape(sketch, x, 0, dim), sketch.constant(list(sizes))]
    if dim != -1:
        pieces.append(_part_of_shape(sketch, x, dim + 1, None))
    shape = sketch.emit("Concat", *pieces, axis=0)
    return sketch.emit("Reshape", x, shape, target=tuple(sizes) if dim in (1, -1) else ())


def _size(sketch: Sketch, x: Ref, dim: int | None = None) -> Ref:
    shape = sketch.emit("Shape", x)
    return shape if dim is None else sketch.emit("Gather", shape, dim)


def _attribute(sketch: Sketch, x: Ref, name: str) -> Ref:
    if name != "shape":
        raise sketch.error(f"of the attribute {name!r} of a tensor is not supported")
    return sketch.emit("Shape", x)


def _permute(sketch: Sketch, x: Ref, *dims: Any) -> Ref:
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return sketch.emit("Transpose", x, perm=tuple(order))


def _transpose(sketch: Sketch, x: Ref, dim0: int, dim1: int) -> Ref:
    return sketch.emit("Transpose", x, swap=(dim0, dim1))


def _squeeze(sketch: Sketch, x: Ref, dim: Any = None) -> Ref:
    return sketch.emit("Squeeze", x, None if dim is None else np.atleast_1d(dim))


def _unsqueeze(sketch: Sketch, x: Ref, dim: int) -> Ref:
    return sketch.emit("Unsqueeze", x, [dim])


def _concatenate(sketch: Sketch, tensors: Sequence[Ref], dim: int = 0) -> Ref:
    return sketch.emit("Concat", *tensors, axis=dim)


def _item(sketch: Sketch, x: Ref, index: Any) -> Ref:
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


def _same(sketch: Sketch, x: Ref, *arguments: Any, **named: Any) -> Ref:
    """A copy, or a change of device or of float type."""
    torch = import_torch()
    for argument in (*arguments, *named.values()):
        if isinstance(argument, torch.dtype) and not argument.is_floating_point:
            raise sketch.error(f"to {argument} is not supported")
    return sketch.emit("Identity", x)


# Arithmetic -------------------------------------------------------------------------------------


def _binary(name: str) -> Handler:
    def binary(sketch: Sketch, x: Any, y: Any, alpha: float = 1) -> Ref:
        return sketch.emit(name, x, y if alpha == 1 else sketch.emit("Mul", y, alpha))

    return binary


def _negative(sketch: Sketch, x: Ref) -> Ref:
    return sketch.emit("Neg", x)


def _mean(sketch: Sketch, x: Ref, dim: Any = None, keepdim: bool = False) -> Ref:
    axes = None if dim is None else np.atleast_1d(dim)
    return sketch.emit("ReduceMean", x, axes, keepdims=int(keepdim))


def _pixel_shuffle(sketch: Sketch, x: Ref, upscale_factor: int) -> Ref:
    return sketch.emit("DepthToSpace", x, blocksize=upscale_factor, mode="CRD")


# Tables -----------------------------------------------------------------------------------------

_DIMENSIONS = (1, 2, 3)

# By the names that they have as functions of torch, of torch.nn.functional or of operator.
_FUNCTIONS: dict[str, Handler] = {
    **{f"conv{n}d": _convolution for n in _DIMENSIONS},
    **{f"conv_transpose{n}d": _transposed_convolution for n in _DIMENSIONS},
    **{f"avg_pool{n}d": _average_pool(n) for n in _DIMENSIONS},
    **{f"adaptive_avg_pool{n}d": _adaptive_average_pool for n in _DIMENSIONS},
    **{f"dropout{n}": _dropout for n in ("", "1d", "2d", "3d")},
    **dict.fromkeys(("relu", "relu_"), _plain("Relu")),
    **dict.fromkeys(("tanh", "tanh_"), _plain("Tanh")),
    **dict.fromkeys(("sigmoid", "sigmoid_"), _plain("Sigmoid")),
    **dict.fromkeys(("leaky_relu", "leaky_relu_"), _leaky_relu),
    **dict.fromkeys(("add", "iadd", "add_"), _binary("Add")),
    **dict.fromkeys(("sub", "isub", "sub_"), _binary("Sub")),
    **dict.fromkeys(("mul", "imul", "mul_", "multiply"), _binary("Mul")),
    **dict.fromkeys(("truediv", "div", "itruediv"), _binary("Div")),
    **dict.fromkeys(("neg", "negative"), _negative),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenate),
    **dict.fromkeys(("reshape", "view"), _reshape),
    **dict.fromkeys(("contiguous", "clone", "detach", "float", "double", "to"), _same),
    "batch_norm": _batch_norm,
    "flatten": _flatten,
    "getitem": _item,
    "interpolate": _interpolate,
    "linear": _linear,
    "mean": _mean,
    "pad": _pad,
    "permute": _permute,
    "pixel_shuffle": _pixel_shuffle,
    "prelu": _prelu,
    "size": _size,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "unflatten": _unflatten,
    "unsqueeze": _unsqueeze,
}


def functions() -> dict[Any, Handler]:
    """By torch function; methods go by their name alone."""
    torch = import_torch()
    found: dict[Any, Handler] = {getattr: _attribute}
    for name, handler in _FUNCTIONS.items():
        found[name] = handler
        for room in (torch, torch.nn.functional, operator):
            if hasattr(room, name):
                found[getattr(room, name)] = handler
    return found


# The function that a module computes, and those of the module's attributes that it takes; a pair is
# an attribute and what the function calls it.
Module = tuple[Handler, tuple[str | tuple[str, str], ...]]

_CONVOLUTION = ("weight", "bias", "stride", "padding", "dilation", "groups")
_NORM = ("running_mean", "running_var", "weight", "bias", "training", "eps")
_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")

MODULES: dict[str, Module] = {
    "Linear": (_linear, ("weight", "bias")),
    "ReLU": (_plain("Relu"), ()),
    "LeakyReLU": (_leaky_relu, ("negative_slope",)),
    "PReLU": (_prelu, ("weight",)),
    "Tanh": (_plain("Tanh"), ()),
    "Sigmoid": (_plain("Sigmoid"), ()),
    "Identity": (_plain("Identity"), ()),
    "Flatten": (_flatten, ("start_dim", "end_dim")),
    "Unflatten": (_unflatten, ("dim", ("unflattened_size", "sizes"))),
    **{f"Conv{n}d": (_convolution, (*_CONVOLUTION, "padding_mode")) for n in _DIMENSIONS},
    **{
        f"ConvTranspose{n}d": (_transposed_convolution, (*_CONVOLUTION, "output_padding"))
        for n in _DIMENSIONS
    },
    **{f"BatchNorm{n}d": (_batch_norm, _NORM) for n in _DIMENSIONS},
    "Upsample": (_interpolate, ("size", "scale_factor", "mode", "recompute_scale_factor")),
    "UpsamplingNearest2d": (_interpolate, ("size", "scale_factor")),
    **{f"AvgPool{n}d": (_average_pool(n), _POOL) for n in _DIMENSIONS},
    **{f"AdaptiveAvgPool{n}d": (_adaptive_average_pool, ("output_size",)) for n in _DIMENSIONS},
    **{
        f"{kind}Pad{n}d": (_padding(mode), (("padding", "pad"), *extra))
        for kind, mode, extra in (
            ("Zero", "constant", ()),
            ("Constant", "constant", ("value",)),
            ("Reflection", "reflect", ()),
            ("Replication", "replicate", ()),
        )
        for n in _DIMENSIONS
    },
    "PixelShuffle": (_pixel_shuffle, ("upscale_factor",)),
    **{f"Dropout{n}": (_dropout, ("p", "training")) for n in ("", "1d", "2d", "3d")},
}
