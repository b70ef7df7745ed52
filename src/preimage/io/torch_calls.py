"""Which torch modules, functions and methods are understood, and by what."""

from __future__ import annotations

import operator
from typing import Any

from preimage.io import torch_layers as layers
from preimage.io import torch_shapes as shapes
from preimage.io.sketch import Ref, Sketch
from preimage.io.torch_layers import Handler
from preimage.io.torch_tensor import import_torch


def _binary(name: str) -> Handler:
    def binary(sketch: Sketch, x: Any, y: Any, alpha: float = 1) -> Ref:
        return sketch.emit(name, x, y if alpha == 1 else sketch.emit("Mul", y, alpha))

    return binary


def _negative(sketch: Sketch, x: Ref) -> Ref:
    return sketch.emit("Neg", x)


_DIMENSIONS = (1, 2, 3)

# By the names that they have as functions of torch, of torch.nn.functional or of operator.
_FUNCTIONS: dict[str, Handler] = {
    **{f"conv{n}d": layers.convolution for n in _DIMENSIONS},
    **{f"conv_transpose{n}d": layers.transposed_convolution for n in _DIMENSIONS},
    **{f"avg_pool{n}d": layers.average_pool(n) for n in _DIMENSIONS},
    **{f"adaptive_avg_pool{n}d": layers.adaptive_average_pool for n in _DIMENSIONS},
    **{f"dropout{n}": layers.dropout for n in ("", "1d", "2d", "3d")},
    **dict.fromkeys(("relu", "relu_"), layers.plain("Relu")),
    **dict.fromkeys(("tanh", "tanh_"), layers.plain("Tanh")),
    **dict.fromkeys(("sigmoid", "sigmoid_"), layers.plain("Sigmoid")),
    **dict.fromkeys(("leaky_relu", "leaky_relu_"), layers.leaky_relu),
    **dict.fromkeys(("add", "iadd", "add_"), _binary("Add")),
    **dict.fromkeys(("sub", "isub", "sub_"), _binary("Sub")),
    **dict.fromkeys(("mul", "imul", "mul_", "multiply"), _binary("Mul")),
    **dict.fromkeys(("truediv", "div", "itruediv"), _binary("Div")),
    **dict.fromkeys(("neg", "negative"), _negative),
    **dict.fromkeys(("cat", "concat", "concatenate"), shapes.concatenate),
    **dict.fromkeys(("reshape", "view"), shapes.reshape),
    **dict.fromkeys(("contiguous", "clone", "detach", "float", "double", "to"), shapes.same),
    "batch_norm": layers.batch_norm,
    "flatten": shapes.flatten,
    "getitem": shapes.item,
    "interpolate": layers.interpolate,
    "linear": layers.linear,
    "mean": layers.mean,
    "pad": layers.pad,
    "permute": shapes.permute,
    "pixel_shuffle": shapes.pixel_shuffle,
    "prelu": layers.prelu,
    "size": shapes.size,
    "squeeze": shapes.squeeze,
    "transpose": shapes.transpose,
    "unflatten": shapes.unflatten,
    "unsqueeze": shapes.unsqueeze,
}


def functions() -> dict[Any, Handler]:
    """By torch function; methods go by their name alone."""
    torch = import_torch()
    found: dict[Any, Handler] = {getattr: shapes.attribute}
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
    "Linear": (layers.linear, ("weight", "bias")),
    "ReLU": (layers.plain("Relu"), ()),
    "LeakyReLU": (layers.leaky_relu, ("negative_slope",)),
    "PReLU": (layers.prelu, ("weight",)),
    "Tanh": (layers.plain("Tanh"), ()),
    "Sigmoid": (layers.plain("Sigmoid"), ()),
    "Identity": (layers.plain("Identity"), ()),
    "Flatten": (shapes.flatten, ("start_dim", "end_dim")),
    "Unflatten": (shapes.unflatten, ("dim", ("unflattened_size", "sizes"))),
    **{f"Conv{n}d": (layers.convolution, (*_CONVOLUTION, "padding_mode")) for n in _DIMENSIONS},
    **{
        f"ConvTranspose{n}d": (layers.transposed_convolution, (*_CONVOLUTION, "output_padding"))
        for n in _DIMENSIONS
    },
    **{f"BatchNorm{n}d": (layers.batch_norm, _NORM) for n in _DIMENSIONS},
    "Upsample": (layers.interpolate, ("size", "scale_factor", "mode", "recompute_scale_factor")),
    "UpsamplingNearest2d": (layers.interpolate, ("size", "scale_factor")),
    **{f"AvgPool{n}d": (layers.average_pool(n), _POOL) for n in _DIMENSIONS},
    **{
        f"AdaptiveAvgPool{n}d": (layers.adaptive_average_pool, ("output_size",))
        for n in _DIMENSIONS
    },
    **{
        f"{kind}Pad{n}d": (layers.padding(mode), (("padding", "pad"), *extra))
        for kind, mode, extra in (
            ("Zero", "constant", ()),
            ("Constant", "constant", ("value",)),
            ("Reflection", "reflect", ()),
            ("Replication", "replicate", ()),
        )
        for n in _DIMENSIONS
    },
    "PixelShuffle": (shapes.pixel_shuffle, ("upscale_factor",)),
    **{f"Dropout{n}": (layers.dropout, ("p", "training")) for n in ("", "1d", "2d", "3d")},
}
