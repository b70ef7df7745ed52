"""What the operators of ONNX on images do to affine tensors: convolutions, pooling, resizing."""
# ruff: noqa: D103

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError
from preimage.generator import Array
from preimage.io.affine import Affine
from preimage.io.call import Call, Value, as_text
from preimage.io.convolution import Convolution
from preimage.io.graph import Sizes
from preimage.io.guard import check_entries

Pads = tuple[tuple[int, int], ...]


def _sizes(call: Call, attribute: str, rank: int, default: int = 1) -> Sizes:
    """An attribute with one whole number a dimension of space."""
    sizes = tuple(int(n) for n in call.attributes.get(attribute) or (default,) * rank)
    if len(sizes) != rank:
        raise InputError(f"{attribute}: expected {rank} numbers, got {sizes}")
    return sizes


def _pads(call: Call, rank: int) -> Pads:
    pads = tuple(int(n) for n in call.attributes.get("pads") or (0,) * (2 * rank))
    if len(pads) != 2 * rank or min(pads) < 0:
        raise InputError(f"pads: expected {2 * rank} numbers that are not negative, got {pads}")
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def _split(total: int, more_at_end: bool) -> tuple[int, int]:
    less, more = total // 2, total - total // 2
    return (less, more) if more_at_end else (more, less)


def _automatic_pads(call: Call, size: Sizes, reach: Sizes, stride: Sizes) -> Pads:
    """Pads as ``auto_pad`` says: SAME keeps ``ceil(size / stride)`` positions.

    Args:
        call: The node.
        size: Space of the input.
        reach: Extent of the window, with dilation.
        stride: Step of the window.
    """
    mode = as_text(call.attributes.get("auto_pad", "NOTSET"))
    if mode == "NOTSET":
        return _pads(call, len(size))
    if mode == "VALID":
        return ((0, 0),) * len(size)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise InputError(f"auto_pad: expected NOTSET, VALID, SAME_UPPER or SAME_LOWER, got {mode}")
    totals = (
        max((-(-n // s) - 1) * s + r - n, 0) for n, r, s in zip(size, reach, stride, strict=True)
    )
    return tuple(_split(total, mode == "SAME_UPPER") for total in totals)


def _image(call: Call) -> tuple[Affine, int]:
    value = call.affine()
    rank = len(value.shape) - 2
    if rank < 1:
        raise InputError(
            f"expected a tensor of shape (batch, channels, ...), got shape {value.shape}"
        )
    return value, rank


def _with_bias(call: Call, value: Affine) -> Affine:
    if call.optional(2) is None:
        return value
    bias = call.weight(2)
    if bias.shape != value.shape[1:2]:
        raise InputError(f"expected a bias of {value.shape[1]} entries, got shape {bias.shape}")
    return value.plus(bias.reshape(-1, *(1,) * (len(value.shape) - 2)))


def _reach(window: Sizes, dilation: Sizes) -> Sizes:
    return tuple((w - 1) * d + 1 for w, d in zip(window, dilation, strict=True))


def _kernel(call: Call, rank: int, channels: int, transposed: bool) -> tuple[Array, int]:
    """The kernel, and the number of groups."""
    kernel, groups = call.weight(1), int(call.attributes.get("group", 1))
    if kernel.ndim != rank + 2 or groups < 1:
        raise InputError(
            f"expected a weight of {rank + 2} dimensions and groups, got shape {kernel.shape}, "
            f"groups {groups}"
        )
    takes = kernel.shape[0] if transposed else kernel.shape[1] * groups
    if takes != channels:
        raise InputError(
            f"expected {channels} channels, those of the input, got a weight of shape "
            f"{kernel.shape} with groups {groups}"
        )
    return kernel, groups


def convolution(call: Call) -> Value:
    value, rank = _image(call)
    kernel, groups = _kernel(call, rank, value.shape[1], transposed=False)
    stride, dilation = _sizes(call, "strides", rank), _sizes(call, "dilations", rank)
    size = value.shape[2:]
    pads = _automatic_pads(call, size, _reach(kernel.shape[2:], dilation), stride)
    part = Convolution(kernel, size, stride, pads, dilation, groups)
    return _with_bias(call, value.then(part, (1, *part.output_space)))


def transposed_convolution(call: Call) -> Value:
    value, rank = _image(call)
    kernel, groups = _kernel(call, rank, value.shape[1], transposed=True)
    stride, dilation = _sizes(call, "strides", rank), _sizes(call, "dilations", rank)
    extra = _sizes(call, "output_padding", rank, 0)
    size, reach = value.shape[2:], _reach(kernel.shape[2:], dilation)
    # What the output would be without padding.
    full = tuple(s * (n - 1) + r + e for n, r, s, e in zip(size, reach, stride, extra, strict=True))
    mode = as_text(call.attributes.get("auto_pad", "NOTSET"))
    wanted = call.attributes.get("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(size, stride, strict=True)]
    if wanted is None:
        pads = _automatic_pads(call, size, reach, stride)
    else:
        cut = [f - int(w) for f, w in zip(full, wanted[-rank:], strict=True)]
        if min(cut) < 0:
            raise InputError(f"an output of {list(wanted)} is larger than {list(full)}")
        pads = tuple(_split(total, mode == "SAME_UPPER") for total in cut)
    output = tuple(f - sum(p) for f, p in zip(full, pads, strict=True))
    # What is added to the end and cut again was not there.
    pads = tuple(
        (before, after - e if after >= e else after)
        for (before, after), e in zip(pads, extra, strict=True)
    )
    part = Convolution(kernel, output, stride, pads, dilation, groups, transposed=True)
    if part.input_space != value.shape[1:]:
        raise InputError(
            f"output padding {extra} has to be smaller than the stride {stride}; got an input of "
            f"shape {value.shape}"
        )
    return _with_bias(call, value.then(part, (1, *part.output_space)))


def average_pool(call: Call) -> Value:
    value, rank = _image(call)
    window = _sizes(call, "kernel_shape", rank)
    stride, dilation = _sizes(call, "strides", rank), _sizes(call, "dilations", rank)
    size, reach = value.shape[2:], _reach(window, dilation)
    pads = _automatic_pads(call, size, reach, stride)
    counted, grown = [], []
    padded = bool(call.attributes.get("count_include_pad"))
    for n, w, s, d, r, (before, after) in zip(
        size, window, stride, dilation, reach, pads, strict=True
    ):
        room = n + before + after - r
        positions = room // s + 1
        if call.attributes.get("ceil_mode") and room % s and positions * s < n + before:
            positions += 1
        at = np.arange(positions)[:, None] * s - before + np.arange(w) * d
        low, high = (-before, n + after) if padded else (0, n)
        counted.append(((at >= low) & (at < high)).sum(axis=1))
        grown.append((before, max((positions - 1) * s + r - n - before, after)))
    kernel = np.ones((value.shape[1], 1, *window))
    part = Convolution(kernel, size, stride, tuple(grown), dilation, groups=value.shape[1])
    counts: NDArray[Any] = np.ones(1)
    for along in counted:
        counts = np.multiply.outer(counts, along)
    if not counts.all():
        raise InputError("a window sees nothing but padding")
    return value.then(part, (1, *part.output_space)).times(1.0 / counts)


# Resizing ---------------------------------------------------------------------------------------


def resize(call: Call) -> Value:
    """Nearest neighbours; each output position takes the entry that the node's attributes say."""
    value = call.affine()
    mode = as_text(call.attributes.get("mode", "nearest"))
    if mode != "nearest":
        raise InputError(f"mode {mode!r} is not supported, only 'nearest'")
    scales, sizes, axes = _scales(call, value.shape)
    new = dict(zip(axes, sizes, strict=True))
    check_entries(tuple(new.get(axis, n) for axis, n in enumerate(value.shape)))
    index = value.index
    for axis, scale, size in zip(axes, scales, sizes, strict=True):
        if size != value.shape[axis] or scale != 1:
            index = np.take(index, _nearest(call, value.shape[axis], size, scale), axis)
    return value.picked(index)


def _scales(call: Call, shape: Sizes) -> tuple[list[float], list[int], list[int]]:
    """Scale, new size and axis of each dimension that is resized."""
    rank = len(shape)
    axes = [int(a) % rank for a in call.attributes.get("axes") or range(rank)]
    policy = as_text(call.attributes.get("keep_aspect_ratio_policy", "stretch"))
    if policy != "stretch":
        raise InputError(f"keep_aspect_ratio_policy {policy!r} is not supported")
    if call.attributes.get("spatial"):  # as torch has it: all but batch and channels
        axes = list(range(2, rank))
    where = 1 if call.node.operator == "Upsample" or call.opset < 11 else 2
    given = call.optional(where)
    if given is not None and call.constant(where).size:
        scales = [float(s) for s in call.weight(where).reshape(-1)]
        scales = scales * len(axes) if call.constant(where).ndim == 0 else scales
        if len(scales) != len(axes) or not all(0 < s < 2**31 for s in scales):
            raise InputError(f"scales: expected {len(axes)} positive numbers, got {scales}")
        # A scale is a float32 in the file; the margin keeps what was meant to be whole.
        sizes = [math.floor(shape[a] * s * (1 + 1e-7)) for a, s in zip(axes, scales, strict=True)]
        return scales, sizes, axes
    sizes = list(call.whole(3, "sizes") or ())
    sizes = sizes * len(axes) if call.constant(3).ndim == 0 else sizes
    if len(sizes) != len(axes) or min(sizes) < 1:
        raise InputError(f"sizes: expected {len(axes)} positive numbers, got {sizes}")
    if 0 in axes and sizes[axes.index(0)] == call.batch:
        sizes[axes.index(0)] = 1
    return [n / shape[a] for a, n in zip(axes, sizes, strict=True)], sizes, axes


def _nearest(call: Call, size: int, target: int, scale: float) -> NDArray[np.int64]:
    """Which of ``size`` entries stands at each of ``target`` positions."""
    # In float32, since positions that are meant to be whole may fall short of it by a rounding, and
    # a network is what runs it: onnxruntime and torch both work so.
    one = np.float32
    x, half, ratio = np.arange(target, dtype=one), one(0.5), one(scale)
    old = call.node.operator == "Upsample" or call.opset < 11
    default = "asymmetric" if old else "half_pixel"
    transform = as_text(call.attributes.get("coordinate_transformation_mode", default))
    # Half of what the rounding of the size has cut off.
    offset = one(size) / one(2) * (one(1) - one(target) / (ratio * one(size)))
    formulas: dict[str, Callable[[], NDArray[Any]]] = {
        "asymmetric": lambda: x / ratio,
        "half_pixel": lambda: (x + half) / ratio - half,
        "pytorch_half_pixel": lambda: (x + half) / ratio - half if target > 1 else 0 * x,
        "half_pixel_symmetric": lambda: offset + (x + half) / ratio - half,
        "align_corners": lambda: x * one(size - 1) / one(max(target - 1, 1)),
        "tf_half_pixel_for_nn": lambda: (x + half) / ratio,
    }
    if call.attributes.get("spatial") and transform == "asymmetric" and target in (size, 2 * size):
        return np.arange(target) * size // target  # torch does so, whatever the scale
    if transform not in formulas:
        raise InputError(f"coordinate_transformation_mode {transform!r} is not supported")
    at = formulas[transform]()
    default = "floor" if old else "round_prefer_floor"
    if old and scale < 1:
        default = "ceil"  # as onnxruntime reads the old operators
    rounding = as_text(call.attributes.get("nearest_mode", default))
    rules: dict[str, Callable[[], NDArray[Any]]] = {
        "floor": lambda: np.floor(at),
        "ceil": lambda: np.ceil(at),
        "round_prefer_floor": lambda: np.ceil(at - half),
        "round_prefer_ceil": lambda: np.floor(at + half),
    }
    if rounding not in rules:
        raise InputError(f"nearest_mode {rounding!r} is not supported")
    return np.clip(rules[rounding](), 0, size - 1).astype(np.int64)


SPATIAL: dict[str, Callable[[Call], Value]] = {
    "AveragePool": average_pool,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Resize": resize,
    "Upsample": resize,
}
