"""What is known of ATen operations: which are affine, and which are made of activations."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Container
from typing import Any

import numpy as np
import torch

from preimage.activation import (
    ELU,
    Activation,
    Identity,
    LeakyReLU,
    PReLU,
    ReLU,
    Sigmoid,
    Softplus,
    Tanh,
)
from preimage.matrix import Array

Node = Any
Tensor = Any


def name_of(node: Node) -> str:
    """The name of an operation without namespace, overload or trailing underscore."""
    packet = getattr(node.target, "overloadpacket", None)
    return packet.__name__ if packet is not None else str(getattr(node.target, "__name__", ""))


# Affine operations ------------------------------------------------------------------------------

# Affine in all tensors that they take. Those that torch itself takes apart are never seen.
_AFFINE_NAMES = """
    add sub rsub neg sum mean cumsum trace view _unsafe_view _reshape_alias permute transpose t
    expand repeat repeat_interleave cat stack slice select squeeze unsqueeze clone alias detach
    lift_fresh lift_fresh_copy _to_copy flip roll rot90 split split_with_sizes unbind
    unsafe_split getitem diagonal diag_embed tril triu as_strided unfold im2col col2im
    constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d avg_pool2d avg_pool3d _adaptive_avg_pool2d
    _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa pixel_shuffle pixel_unshuffle channel_shuffle
    slice_scatter select_scatter diagonal_scatter as_strided_scatter fill zero
"""
_AFFINE = frozenset(_AFFINE_NAMES.split())
# What they give is constant: only the shape of the tensor that they take counts.
CREATIONS = frozenset(
    name for kind in ("zeros", "ones", "full", "empty") for name in (f"{kind}_like", f"new_{kind}")
)
# Affine if the arguments at these places are constant.
_CONSTANT: dict[str, tuple[int, ...]] = {
    "div": (1,), "where": (0,), "masked_fill": (1,), "index": (1,), "_unsafe_index": (1,),
    "index_select": (2,), "gather": (2,), "take": (1,), "embedding": (1,), "scatter": (2,),
    "scatter_add": (2,), "index_put": (1,), "_unsafe_index_put": (1,), "index_add": (2,),
    "index_copy": (2,), "masked_scatter": (1,), "grid_sampler_2d": (1,), "grid_sampler_3d": (1,),
    "lerp": (2,), "max_unpool2d": (1,), "max_unpool3d": (1,), "native_batch_norm": (1, 2, 3, 4),
    "_native_batch_norm_legit_no_training": (1, 2, 3, 4), "cudnn_batch_norm": (1, 2, 3, 4),
}  # fmt: skip
# Affine if at most one of the arguments at these places depends on the latent.
_PRODUCTS: dict[str, tuple[int, ...]] = {
    "mul": (0, 1), "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1), "vdot": (0, 1),
    "addmm": (1, 2), "addbmm": (1, 2), "baddbmm": (1, 2), "addmv": (1, 2), "addr": (1, 2),
    "addcmul": (1, 2), "convolution": (0, 1), "_convolution": (0, 1),
    "mkldnn_convolution": (0, 1), "_trilinear": (0, 1, 2),
}  # fmt: skip
_TRAINING_AT = {"native_batch_norm": 5, "cudnn_batch_norm": 5}


def affine_problem(node: Node, dependent: Container[Node], value: Any) -> str | None:
    """Why a node is not known to be affine in the values that depend on the latent; else None."""
    name = name_of(node)

    def depends(place: int) -> bool:
        found: list[Node] = []
        torch.fx.node.map_arg(node.args[place] if place < len(node.args) else None, found.append)
        return any(other in dependent for other in found)

    if hasattr(value, "is_floating_point") and not value.is_floating_point():
        return f"gives {str(value.dtype).removeprefix('torch.')} numbers"
    if name in _AFFINE or node.target is operator.getitem:
        return None
    if name in _CONSTANT and not any(map(depends, _CONSTANT[name])):
        training = _TRAINING_AT.get(name)
        return "takes statistics of its input" if training and node.args[training] else None
    if name in _CONSTANT:
        return "takes an index, a mask, a divisor or a scale that depends on the latent"
    if name in _PRODUCTS:
        count = sum(map(depends, _PRODUCTS[name]))
        return "multiplies two values that depend on the latent" if count > 1 else None
    return "is not piecewise affine, or not known to be"


# Activations ------------------------------------------------------------------------------------

Make = Callable[..., Activation | None]


def slope_activation(below: Array) -> Activation:
    """The simplest activation with these slopes of the negative part, one a unit, none below 0."""
    if (below == below[0]).all():
        slope = float(below[0])
        if slope == 0:
            return ReLU()
        if slope < 1:
            return LeakyReLU(slope)
        return Identity() if slope == 1 else PReLU((slope,), len(below))
    repeat = int(np.gcd.reduce([len(below), *np.flatnonzero(np.diff(below)) + 1]))
    return PReLU(tuple(below[::repeat].tolist()), repeat)


def _leaky(value: Tensor, slope: Any = 0.01) -> Activation | None:
    slope = torch.as_tensor(slope, dtype=torch.float64, device=value.device)
    below = slope.expand(value.shape).reshape(-1).cpu().numpy()
    return slope_activation(below) if (below >= 0).all() and np.isfinite(below).all() else None


def _plain_elu(
    value: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> Activation | None:
    return ELU(float(alpha)) if alpha > 0 and scale == input_scale == 1 else None


def _softplus(value: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Activation | None:
    # torch is linear beyond the threshold; there the difference is exp(-threshold) / beta.
    return Softplus(float(beta)) if beta > 0 and threshold >= 20 else None


# By the value that they give and their arguments after the first; None if it is not increasing.
ACTIVATIONS: dict[str, Make] = {
    "relu": lambda value: ReLU(),
    "tanh": lambda value: Tanh(),
    "sigmoid": lambda value: Sigmoid(),
    "leaky_relu": _leaky,
    "_prelu_kernel": _leaky,
    "elu": _plain_elu,
    "softplus": _softplus,
}

# Operations made of activations -----------------------------------------------------------------

_MOST_POOLED = 9  # entries of a window


@functools.cache
def decompositions() -> dict[Any, Callable[..., Any]]:
    """What tracing puts in the place of an operation; see ``make_fx``."""
    aten, table = torch.ops.aten, {}
    for name, made in _MADE.items():
        packet = getattr(aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            if "out" not in overload:
                table[getattr(packet, overload)] = _of_floats(made)
    return table


def _of_floats(made: Callable[..., Any]) -> Callable[..., Any]:
    def decomposed(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return made(x, *args, **kwargs) if x.is_floating_point() else NotImplemented

    return decomposed


def _clamp(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    x = x if min is None else _largest(x, min)
    return x if max is None else _smallest(x, max)


def _largest(a: Tensor, b: Any) -> Tensor:
    """``max(a, b)``; b is carried past the ReLU, which costs nothing if it is constant."""
    return torch.relu(a - b) + b


def _smallest(a: Tensor, b: Any) -> Tensor:
    """``min(a, b)``, likewise."""
    return -torch.relu(-a + b) + b


def _rrelu(x: Tensor, noise: Tensor, lower: float, upper: float, *rest: Any) -> Tensor:
    """In eval mode, the mean of the slopes; a network that draws them has been refused."""
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def _scaled_elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    """``scale x`` where ``x > 0``, else ``scale alpha (exp(input_scale x) - 1)``."""
    if scale == input_scale == 1 or min(alpha, input_scale) <= 0:
        return NotImplemented
    return torch.nn.functional.elu(x * input_scale, alpha * input_scale) * (scale / input_scale)


def _max_pool(
    x: Tensor, kernel: list[int], stride: list[int] | None = None, padding: Any = (0, 0, 0),
    dilation: Any = (1, 1, 1), ceil_mode: bool = False,
) -> Any:  # fmt: skip
    """The largest along each axis in turn, by a tournament of the entries of a window."""
    if math.prod(kernel) > _MOST_POOLED:
        return NotImplemented
    for axis, k in enumerate(kernel):
        at, pad, gap = axis - len(kernel), padding[axis], dilation[axis]
        size, step = x.shape[at], (stride or kernel)[axis]
        outputs = (size + 2 * pad - gap * (k - 1) - 1 + ceil_mode * (step - 1)) // step + 1
        outputs -= bool(ceil_mode and (outputs - 1) * step >= size + pad)
        taps = (np.arange(outputs) * step - pad)[:, None] + np.arange(k) * gap
        # Outside of the picture, an entry of the window twice changes no maximum.
        inside = (taps >= 0) & (taps < size)
        taps = np.where(inside, taps, np.where(inside, taps, size).min(axis=1, keepdims=True))
        rows = [x.index_select(at, torch.as_tensor(t, device=x.device)) for t in taps.T]
        while len(rows) > 1:
            pairs = zip(rows[::2], rows[1::2], strict=False)
            rows = [*(_largest(a, b) for a, b in pairs), *rows[len(rows) // 2 * 2 :]]
        x = rows[0]
    return x, x.long()  # the places of the largest, should they be used, are no affine function


_MADE: dict[str, Callable[..., Any]] = {
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda x, bound: _clamp(x, None, bound),
    "hardtanh": lambda x, low=-1.0, high=1.0: _clamp(x, low, high),
    "hardsigmoid": lambda x: _clamp(x / 6 + 0.5, 0.0, 1.0),
    "threshold": lambda x, low, value: _clamp(x, low) if low == value else NotImplemented,
    "abs": lambda x: torch.relu(x) + torch.relu(-x),
    "maximum": _largest,
    "minimum": _smallest,
    "log_sigmoid_forward": lambda x: (-torch.nn.functional.softplus(-x), x.new_zeros(0)),
    "rrelu_with_noise": _rrelu,
    "rrelu_with_noise_functional": lambda x, noise, *how: (_rrelu(x, noise, *how), noise),
    "elu": _scaled_elu,
    "celu": lambda x, alpha=1.0: _scaled_elu(x, alpha, 1.0, 1 / alpha),
    "copy": lambda x, source, non_blocking=False: source.expand(x.shape).clone(),
    "max_pool2d_with_indices": _max_pool,
    "max_pool3d_with_indices": _max_pool,
}
