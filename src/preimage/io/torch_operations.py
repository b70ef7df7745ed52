"""What is known of ATen operations: which are affine, and which are made of activations."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from preimage.activation import ELU, Activation, ReLU, Sigmoid, Softplus, Tanh
from preimage.io.chain import slope_activation
from preimage.torch_modules import import_torch

Node = Any
Tensor = Any


def name_of(node: Node) -> str:
    """The name of an operation without namespace, overload or trailing underscore."""
    packet = getattr(node.target, "overloadpacket", None)
    return packet.__name__ if packet is not None else str(getattr(node.target, "__name__", ""))


def as_double(value: Any) -> Any:
    """Tensors of floating point numbers in float64, others as they are."""
    is_float = getattr(value, "is_floating_point", None)
    return value.double() if is_float is not None and is_float() else value


# Affine operations ------------------------------------------------------------------------------

# Affine in all tensors that they take.
_AFFINE_NAMES = """
    add sub rsub neg negative positive sum mean cumsum trace view _unsafe_view reshape
    _reshape_alias view_as permute transpose t numpy_T mT swapaxes expand expand_as repeat
    repeat_interleave tile cat stack hstack vstack slice select narrow squeeze unsqueeze flatten
    unflatten clone contiguous alias detach lift_fresh lift_fresh_copy _to_copy to movedim flip
    roll rot90 split split_with_sizes chunk unbind unsafe_split unsafe_chunk getitem diagonal
    diag_embed diag tril triu as_strided unfold im2col col2im constant_pad_nd pad reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
    upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa pixel_shuffle
    pixel_unshuffle channel_shuffle native_channel_shuffle slice_scatter select_scatter
    diagonal_scatter as_strided_scatter fill zero
"""
_AFFINE = frozenset(_AFFINE_NAMES.split())
# What they give is constant: only the shape of the tensor that they take counts.
CREATIONS = frozenset(
    (
        *[f"{kind}_like" for kind in ("zeros", "ones", "full", "empty")],
        *[f"new_{kind}" for kind in ("zeros", "ones", "full", "empty")],
    )
)
# Affine if the arguments at these places are constant.
_CONSTANT: dict[str, tuple[int, ...]] = {
    "div": (1,), "true_divide": (1,), "where": (0,), "masked_fill": (1,), "index": (1,),
    "_unsafe_index": (1,), "index_select": (2,), "gather": (2,), "take": (1,), "embedding": (1,),
    "scatter": (2,), "scatter_add": (2,), "index_put": (1,), "_unsafe_index_put": (1,),
    "index_add": (2,), "index_copy": (2,), "masked_scatter": (1,), "grid_sampler_2d": (1,),
    "grid_sampler_3d": (1,), "lerp": (2,), "max_unpool2d": (1,), "max_unpool3d": (1,),
    "native_batch_norm": (1, 2, 3, 4), "_native_batch_norm_legit_no_training": (1, 2, 3, 4),
    "batch_norm": (1, 2, 3, 4), "cudnn_batch_norm": (1, 2, 3, 4),
}  # fmt: skip
# Affine if at most one of the arguments at these places depends on the latent.
_PRODUCTS: dict[str, tuple[int, ...]] = {
    "mul": (0, 1), "multiply": (0, 1), "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "dot": (0, 1),
    "vdot": (0, 1), "matmul": (0, 1), "linear": (0, 1), "outer": (0, 1), "addmm": (1, 2),
    "addbmm": (1, 2), "baddbmm": (1, 2), "addmv": (1, 2), "addr": (1, 2), "addcmul": (1, 2),
    "kron": (0, 1), "convolution": (0, 1), "_convolution": (0, 1),
    **{f"conv{n}d": (0, 1) for n in (1, 2, 3)}, "mkldnn_convolution": (0, 1),
    "_trilinear": (0, 1, 2),
}  # fmt: skip
_TRAINING_AT = {"native_batch_norm": 5, "batch_norm": 5, "cudnn_batch_norm": 5}


def affine_problem(node: Node, dependent: set[str], value: Any) -> str | None:
    """Why a node is not known to be affine in the values that depend on the latent; else None."""
    name = name_of(node)

    def depends(place: int) -> bool:
        found: list[Node] = []
        import_torch().fx.node.map_arg(
            node.args[place] if place < len(node.args) else None, found.append
        )
        return any(other.name in dependent for other in found)

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


def _leaky(value: Tensor, slope: float = 0.01) -> Activation | None:
    return slope_activation(np.array([float(slope)])) if 0 <= slope <= 1 else _slopes(value, slope)


def _slopes(value: Tensor, slope: Any) -> Activation | None:
    torch = import_torch()
    slope = torch.as_tensor(slope, dtype=torch.float64, device=value.device)
    below = slope.expand(value.shape).reshape(-1).cpu().numpy()
    return slope_activation(below) if (below >= 0).all() and np.isfinite(below).all() else None


def _elu(value: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
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
    "_prelu_kernel": _slopes,
    "elu": _elu,
    "softplus": _softplus,
}

# Operations made of activations -----------------------------------------------------------------

Values = Mapping[str, Any]
Compose = Callable[[Any, Node, Values, set[str]], Node | None]
_MOST_POOLED = 9  # entries of a window


class _Builder:
    """Adds nodes to an fx graph."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.aten = graph, import_torch().ops.aten

    def call(self, name: str, *args: Any) -> Node:
        overloads = {"sub": "Tensor", "add": "Tensor", "mul": "Tensor", "rsub": "Scalar"}
        packet = getattr(self.aten, name)
        target = getattr(packet, overloads.get(name, "default"))
        return self.graph.call_function(target, args)

    def relu(self, x: Node) -> Node:
        return self.call("relu", x)

    def clip(self, x: Node, low: Any, high: Any) -> Node:
        """``min(max(x, low), high)``; None is no bound."""
        if low is None:
            return self.below(x, high)
        raised = self.relu(x if _is_zero(low) else self.call("sub", x, low))
        if high is None:
            return raised if _is_zero(low) else self.call("add", raised, low)
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            rest = self.relu(self.call("rsub", raised, high - low))
            return self.call("rsub", rest, high)
        return self.below(self.call("add", raised, low), high)

    def below(self, x: Node, high: Any) -> Node:
        """``min(x, high)``."""
        over = self.relu(self.call("sub", x, high))
        if isinstance(high, (int, float)):  # min(x, h) = h - max(h - x, 0): nothing is carried
            return self.call("rsub", self.relu(self.call("rsub", x, high)), high)
        return self.call("sub", x, over)

    def largest(self, a: Node, b: Node) -> Node:
        """``max(a, b)``, carrying b."""
        return self.call("add", b, self.relu(self.call("sub", a, b)))


def _is_zero(bound: Any) -> bool:
    return isinstance(bound, (int, float)) and bound == 0


def _depends(value: Any, dependent: set[str]) -> bool:
    return getattr(value, "name", None) in dependent


def _argument(node: Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _clamp(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node | None:
    low, high = _argument(node, 1, "min"), _argument(node, 2, "max")
    if _depends(low, dependent) or _depends(high, dependent):
        return None
    return _Builder(graph).clip(node.args[0], low, high)


def _clamp_min(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node | None:
    bound = node.args[1]
    return None if _depends(bound, dependent) else _Builder(graph).clip(node.args[0], bound, None)


def _clamp_max(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node | None:
    bound = node.args[1]
    return None if _depends(bound, dependent) else _Builder(graph).clip(node.args[0], None, bound)


def _hardtanh(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node:
    low, high = _argument(node, 1, "min_val", -1.0), _argument(node, 2, "max_val", 1.0)
    return _Builder(graph).clip(node.args[0], low, high)


def _hardsigmoid(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node:
    build = _Builder(graph)
    shifted = build.call("add", build.call("mul", node.args[0], 1 / 6), 0.5)
    return build.clip(shifted, 0.0, 1.0)


def _threshold(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node | None:
    bound, value = node.args[1:3]
    return _Builder(graph).clip(node.args[0], bound, None) if bound == value else None


def _abs(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node:
    build, x = _Builder(graph), node.args[0]
    return build.call("add", build.relu(x), build.relu(build.call("neg", x)))


def _maximum(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node:
    build, (a, b) = _Builder(graph), node.args
    return build.largest(a, b) if _depends(a, dependent) else build.largest(b, a)


def _minimum(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node:
    build, (a, b) = _Builder(graph), node.args
    x, y = (a, b) if _depends(a, dependent) else (b, a)
    return build.call("sub", x, build.relu(build.call("sub", x, y)))


def _log_sigmoid(graph: Any, node: Node, values: Values, dependent: set[str]) -> None:
    build = _Builder(graph)
    made = build.call("neg", build.call("softplus", build.call("neg", node.args[0])))
    _first_of(node, made)


def _rrelu(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node | None:
    """In eval mode, the mean of the slopes."""
    lower, upper = _argument(node, 2, "lower", 1 / 8), _argument(node, 3, "upper", 1 / 3)
    if _argument(node, 4, "training", False):
        return None
    made = _Builder(graph).call("leaky_relu", node.args[0], (lower + upper) / 2)
    if not name_of(node).endswith("functional"):
        return made
    _first_of(node, made)
    return None


def _first_of(node: Node, made: Node) -> None:
    """Put a node in the place of the first of the values that another gives."""
    for user in list(node.users):
        if user.target is operator.getitem and user.args[1] == 0:
            user.replace_all_uses_with(made)


def _scaled_elu(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node | None:
    """``scale / input_scale`` times the ELU of ``alpha input_scale`` at ``input_scale x``."""
    alpha = float(_argument(node, 1, "alpha", 1.0))
    scale = float(_argument(node, 2, "scale", 1.0))
    input_scale = float(_argument(node, 3, "input_scale", 1.0))
    if scale == input_scale == 1 or min(alpha, input_scale) <= 0:
        return None
    build = _Builder(graph)
    inner = build.call("elu", build.call("mul", node.args[0], input_scale), alpha * input_scale)
    return build.call("mul", inner, scale / input_scale)


def _copy(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node:
    """The second argument in the shape of the first, whose values do not count."""
    shape = list(values[node.args[0].name].shape)
    target = import_torch().ops.aten.expand.default
    return graph.call_function(target, (node.args[1], shape))


def _celu(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node | None:
    alpha = float(_argument(node, 1, "alpha", 1.0))
    if alpha <= 0:
        return None
    build = _Builder(graph)
    inner = build.call("elu", build.call("mul", node.args[0], 1 / alpha), 1.0)
    return build.call("mul", inner, alpha)


def _max_pool(graph: Any, node: Node, values: Values, dependent: set[str]) -> Node | None:
    """A tournament of the entries of each window."""
    torch, build = import_torch(), _Builder(graph)
    x = values[node.args[0].name]
    kernel = node.args[1]
    if np.prod(kernel) > _MOST_POOLED:
        return None
    # The window of each output, as indices into x: those that shifted picks of x would give.
    dims = len(kernel)
    stride = _argument(node, 2, "stride", []) or kernel
    padding = _argument(node, 3, "padding", [0] * dims)
    dilation = _argument(node, 4, "dilation", [1] * dims)
    shape = node.target(*_called(node, values))[0].shape
    spread = lambda v: list(v) * dims if len(v) == 1 else list(v)  # noqa: E731
    kernel, stride, padding, dilation = map(spread, (kernel, stride, padding, dilation))
    index = torch.arange(x.numel()).reshape(x.shape)
    axes = []
    for axis in range(dims):
        starts = torch.arange(shape[axis - dims]) * stride[axis] - padding[axis]
        taps = starts[:, None] + torch.arange(kernel[axis]) * dilation[axis]
        inside = (taps >= 0) & (taps < x.shape[axis - dims])
        first = torch.where(inside, taps, x.shape[axis - dims]).min(dim=1, keepdim=True)[0]
        axes.append(torch.where(inside, taps, first))  # an entry twice changes no maximum
    grids = torch.meshgrid(*[a.reshape(-1) for a in axes], indexing="ij")
    picked = index[(..., *grids)]
    lead = picked.shape[: picked.ndim - dims]
    split = [n for size, taps in zip(shape[-dims:], kernel, strict=True) for n in (size, taps)]
    picked = picked.reshape(*lead, *split)
    order = [*range(len(lead)), *(len(lead) + 2 * i for i in range(dims))]
    order += [len(lead) + 2 * i + 1 for i in range(dims)]
    windows = picked.permute(order).reshape(int(np.prod(shape)), -1).T.contiguous()
    flat = build.call("reshape", node.args[0], [x.numel()])
    rows = [_picked(build, flat, window, x.device) for window in windows]
    while len(rows) > 1:
        pairs = [build.largest(a, b) for a, b in zip(rows[::2], rows[1::2], strict=False)]
        rows = pairs + ([rows[-1]] if len(rows) % 2 else [])
    pooled = build.call("reshape", rows[0], list(shape))
    _first_of(node, pooled)
    return None


def _called(node: Node, values: Values) -> Any:
    return import_torch().fx.node.map_arg(node.args, lambda other: values[other.name])


def _picked(build: _Builder, flat: Node, index: Tensor, device: Any) -> Node:
    target = import_torch().ops.aten.index_select.default
    return build.graph.call_function(target, (flat, 0, index.to(device)))


COMPOSITES: dict[str, Compose] = {
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "hardtanh": _hardtanh,
    "hardsigmoid": _hardsigmoid,
    "threshold": _threshold,
    "abs": _abs,
    "maximum": _maximum,
    "minimum": _minimum,
    "log_sigmoid_forward": _log_sigmoid,
    "rrelu_with_noise": _rrelu,
    "rrelu_with_noise_functional": _rrelu,
    "elu": _scaled_elu,
    "celu": _celu,
    "copy": _copy,
    "max_pool2d_with_indices": _max_pool,
    "max_pool3d_with_indices": _max_pool,
}
