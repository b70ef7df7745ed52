"""What torch's layers mean in the operators of a graph.

Each function here takes the arguments of the torch function of its name, and stands for the method
and the module that compute the same.
"""
# ruff: noqa: D103

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from preimage.io.sketch import Ref, Sketch

Handler = Callable[..., Ref]


def _spread(value: Any, rank: int) -> tuple[int, ...]:
    """One number for every dimension, or the numbers as they are."""
    return (int(value),) * rank if isinstance(value, int) else tuple(map(int, value))


def linear(sketch: Sketch, x: Ref, weight: Ref, bias: Ref | None = None) -> Ref:
    return sketch.emit("Gemm", x, weight, bias, transB=1)


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def convolution(
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


def transposed_convolution(
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


def batch_norm(
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


def dropout(
    sketch: Sketch, x: Ref, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Ref:
    if training and p > 0:
        raise sketch.error("in training mode is random; call .eval() on the module first")
    return sketch.emit("Identity", x)


def average_pool(rank: int) -> Handler:
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


def adaptive_average_pool(sketch: Sketch, x: Ref, output_size: Any) -> Ref:
    if set(_spread(output_size, 1)) != {1}:
        raise sketch.error(f"to {output_size} is not supported, only to 1")
    return sketch.emit("GlobalAveragePool", x)


def interpolate(
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


def pad(
    sketch: Sketch, x: Ref, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Ref:
    return _padded(sketch, x, pad, mode, value)


def _padded(sketch: Sketch, x: Ref, pad: Sequence[int], mode: str, value: float | None) -> Ref:
    before, after = list(pad[::2]), list(pad[1::2])
    axes = [-1 - i for i in range(len(before))]
    return sketch.emit(
        "Pad", x, before + after, float(value or 0), axes, mode=_PAD_MODES.get(mode, mode)
    )


def padding(mode: str) -> Handler:
    def pad_so(sketch: Sketch, x: Ref, pad: Sequence[int], value: float | None = None) -> Ref:
        return _padded(sketch, x, pad, mode, value)

    return pad_so


def prelu(sketch: Sketch, x: Ref, weight: Ref) -> Ref:
    return sketch.emit("PRelu", x, weight, axis=1)


def leaky_relu(sketch: Sketch, x: Ref, negative_slope: float = 0.01, inplace: bool = False) -> Ref:
    return sketch.emit("LeakyRelu", x, alpha=negative_slope)


def plain(name: str) -> Handler:
    def plain(sketch: Sketch, x: Ref, inplace: bool = False) -> Ref:
        return sketch.emit(name, x)

    return plain


def mean(sketch: Sketch, x: Ref, dim: Any = None, keepdim: bool = False) -> Ref:
    axes = None if dim is None else np.atleast_1d(dim)
    return sketch.emit("ReduceMean", x, axes, keepdims=int(keepdim))
