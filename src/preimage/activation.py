"""Activations: value, derivative, inverse, range, and the slab of pre-activations they allow.

What a layer program needs from an activation is one thing, its *slab*. Given an observed value
``x`` and a tolerance ``eps``, the pre-activations ``a`` with ``|act(a) - x| <= eps`` form an
interval ``[L, U]``, because every activation here is nondecreasing. Let the error bound ``delta``
vary, and replace the end points by their tangents at ``delta = eps``:

    L + rate_L (eps - delta)  <=  a  <=  U - rate_U (eps - delta).

The ends are now affine in ``delta``, so they can stand in a linear program, and at
``delta = eps`` they are exact. For ReLU and LeakyReLU this *is* the case distinction of the paper
(Algorithm 1 and Remark 1); for tanh and sigmoid heads it is its natural extension. One builder
thus serves every activation and both norms.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError

Array = NDArray[np.float64]


class Slab(NamedTuple):
    """``lower - lower_rate * delta <= a <= upper + upper_rate * delta``, all of x's shape.

    A side that constrains nothing is infinite, with rate 0.
    """

    lower: Array
    lower_rate: Array
    upper: Array
    upper_rate: Array

    def at(self, delta: Array | float) -> Slab:
        """The slab at a fixed ``delta``: no rates are left."""
        zero = np.zeros_like(self.lower)
        lower, upper = self.lower - self.lower_rate * delta, self.upper + self.upper_rate * delta
        return Slab(lower, zero, upper, zero)

    def where(self, observed: NDArray[np.bool_]) -> Slab:
        """The slab that constrains nothing but the ``observed`` entries."""
        free = (-np.inf, 0.0, np.inf, 0.0)
        return Slab(
            *(np.where(observed, part, none) for part, none in zip(self, free, strict=True))
        )


@runtime_checkable
class Activation(Protocol):
    """A nondecreasing scalar function, applied entry by entry."""

    @property
    def range(self) -> tuple[float, float]:
        """Infimum and supremum of the values."""

    def __call__(self, a: Array) -> Array:
        """Values at the pre-activations ``a``."""

    def derivative(self, a: Array) -> Array:
        """Derivative at ``a``; at a kink the one-sided derivative from below."""

    def inverse(self, x: Array) -> Array:
        """A pre-activation of each ``x``; where ``x`` pins none down (saturated), NaN."""

    def slab(self, x: Array, tolerance: Array | float) -> Slab:
        """The pre-activations within ``tolerance`` of ``x``; see the module's text."""

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:
        """What holds at ``delta = tolerance`` whatever sign the pre-activation has (eq. 8)."""


@dataclass(frozen=True)
class ReLU:
    """``max(a, 0)``."""

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        return 0.0, math.inf

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return np.maximum(a, 0.0)

    def derivative(self, a: Array) -> Array:  # noqa: D102
        return (a > 0).astype(np.float64)

    def inverse(self, x: Array) -> Array:  # noqa: D102
        return np.where(x > 0, x, np.nan)

    def slab(self, x: Array, tolerance: Array | float) -> Slab:
        """Paper, Algorithm 1: two-sided where ``x > tolerance``, else only ``a <= x + delta``."""
        active = x > tolerance
        return Slab(
            np.where(active, x, -np.inf), active.astype(np.float64), x.copy(), np.ones_like(x)
        )

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:
        """Paper, equation 8: ``a <= x + tolerance``, active or not."""
        return self.slab(x, np.inf)._replace(upper=x + tolerance, upper_rate=np.zeros_like(x))


@dataclass(frozen=True)
class LeakyReLU:
    """``a`` where ``a >= 0``, else ``slope * a``.

    Args:
        slope: Slope of the negative part, in the open interval (0, 1).
    """

    slope: float = 0.01

    def __post_init__(self) -> None:
        if not (isinstance(self.slope, (int, float, np.floating)) and 0.0 < self.slope < 1.0):
            raise InputError(
                f"LeakyReLU: slope must lie in the open interval (0, 1), got {self.slope!r}; "
                "use ReLU() for slope 0 and Identity() for slope 1"
            )
        object.__setattr__(self, "slope", float(self.slope))

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        return -math.inf, math.inf

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return np.where(a >= 0, a, self.slope * a)

    def derivative(self, a: Array) -> Array:  # noqa: D102
        return np.where(a > 0, 1.0, self.slope)

    def inverse(self, x: Array) -> Array:
        """Paper, equation 5."""
        return np.where(x >= 0, x, x / self.slope)

    def slab(self, x: Array, tolerance: Array | float) -> Slab:
        """Paper, Remark 1: three cases, split at ``-tolerance`` and ``tolerance``."""
        lower_rate = np.where(x > tolerance, 1.0, 1.0 / self.slope)
        upper_rate = np.where(x < -np.asarray(tolerance), 1.0 / self.slope, 1.0)
        return Slab(x * lower_rate, lower_rate, x * upper_rate, upper_rate)

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:
        """``min(0, x - tolerance) / slope <= a <= x + tolerance``."""
        lower, zero = np.minimum(x - tolerance, 0.0) / self.slope, np.zeros_like(x)
        return Slab(lower, zero, x + tolerance, zero)


@dataclass(frozen=True)
class PReLU:
    """``a`` where ``a >= 0``, else ``slope_j * a``: a LeakyReLU with a slope for each channel.

    Acts on arrays whose last axis has ``len(slopes) * repeat`` entries, channel by channel.

    Args:
        slopes: Of the negative part, positive; one a channel.
        repeat: Entries of each channel.
    """

    slopes: tuple[float, ...]
    repeat: int = 1

    def __post_init__(self) -> None:
        slopes = tuple(float(slope) for slope in self.slopes)
        if not slopes or not all(0.0 < slope < math.inf for slope in slopes):
            raise InputError(f"PReLU: slopes must be positive, one a channel, got {self.slopes!r}")
        if not isinstance(self.repeat, int) or self.repeat < 1:
            raise InputError(f"PReLU: repeat must be a positive integer, got {self.repeat!r}")
        object.__setattr__(self, "slopes", slopes)

    @cached_property
    def _slope(self) -> Array:
        return np.repeat(np.array(self.slopes), self.repeat)

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        return -math.inf, math.inf

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return np.where(a >= 0, a, self._slope * a)

    def derivative(self, a: Array) -> Array:  # noqa: D102
        return np.where(a > 0, 1.0, self._slope)

    def inverse(self, x: Array) -> Array:  # noqa: D102
        return np.where(x >= 0, x, x / self._slope)

    def slab(self, x: Array, tolerance: Array | float) -> Slab:
        """As that of LeakyReLU."""
        lower_rate = np.where(x > tolerance, 1.0, 1.0 / self._slope)
        upper_rate = np.where(x < -np.asarray(tolerance), 1.0 / self._slope, 1.0)
        return Slab(x * lower_rate, lower_rate, x * upper_rate, upper_rate)

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:
        """As that of LeakyReLU; below zero, a slope above 1 weakens ``a <= x + tolerance``."""
        zero, upper = np.zeros_like(x), x + tolerance
        lower = np.minimum(x - tolerance, 0.0) / self._slope
        return Slab(lower, zero, np.maximum(upper, np.minimum(upper, 0.0) / self._slope), zero)


@dataclass(frozen=True)
class Identity:
    """``a`` itself: an affine layer."""

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        return -math.inf, math.inf

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return a.copy()

    def derivative(self, a: Array) -> Array:  # noqa: D102
        return np.ones_like(a)

    def inverse(self, x: Array) -> Array:  # noqa: D102
        return x.copy()

    def slab(self, x: Array, tolerance: Array | float) -> Slab:  # noqa: D102
        return Slab(x.copy(), np.ones_like(x), x.copy(), np.ones_like(x))

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:  # noqa: D102
        return self.slab(x, tolerance).at(tolerance)


# Past 1 - 2**-40 a tanh or sigmoid value says only that its pre-activation is large: one unit of
# rounding in x already moves the analytic inverse by 1e-4.
_SATURATION = 2.0**-40


def _smooth_slab(activation: Tanh | Sigmoid, x: Array, tolerance: Array | float) -> Slab:
    """Slab of a strictly increasing activation with a bounded range: tangents at the ends.

    An end at or past saturation constrains nothing. A value that lies outside the range by more
    than the tolerance is treated as the nearest saturated one.
    """
    low, high = activation.range
    margin = _SATURATION * (high - low)
    tolerance = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), x.shape)

    def end(value: Array) -> tuple[Array, Array]:
        a = activation.inverse(np.clip(value, low + 2 * margin, high - 2 * margin))
        return a, 1.0 / activation.derivative(a)

    lower, lower_rate = end(x - tolerance)
    upper, upper_rate = end(x + tolerance)
    below, above = x - tolerance <= low + margin, x + tolerance >= high - margin
    return Slab(
        np.where(below, -np.inf, lower + lower_rate * tolerance),
        np.where(below, 0.0, lower_rate),
        np.where(above, np.inf, upper - upper_rate * tolerance),
        np.where(above, 0.0, upper_rate),
    )


@dataclass(frozen=True)
class Tanh:
    """``tanh(a)``."""

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        return -1.0, 1.0

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return np.tanh(a)

    def derivative(self, a: Array) -> Array:
        """``1 / cosh(a)^2``, written so that large ``|a|`` keep their relative accuracy."""
        t = np.exp(-2.0 * np.abs(a))
        return 4.0 * t / (1.0 + t) ** 2

    def inverse(self, x: Array) -> Array:  # noqa: D102
        inside = np.abs(x) < 1.0 - 2 * _SATURATION
        return np.where(inside, np.arctanh(np.where(inside, x, 0.0)), np.nan)

    def slab(self, x: Array, tolerance: Array | float) -> Slab:  # noqa: D102
        return _smooth_slab(self, x, tolerance)

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:  # noqa: D102
        return self.slab(x, tolerance).at(tolerance)


@dataclass(frozen=True)
class Sigmoid:
    """``1 / (1 + exp(-a))``."""

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        return 0.0, 1.0

    def __call__(self, a: Array) -> Array:  # noqa: D102
        t = np.exp(-np.abs(a))
        return np.where(a >= 0, 1.0, t) / (1.0 + t)

    def derivative(self, a: Array) -> Array:
        """``s (1 - s)``, written so that large ``|a|`` keep their relative accuracy."""
        t = np.exp(-np.abs(a))
        return t / (1.0 + t) ** 2

    def inverse(self, x: Array) -> Array:
        """``log(x / (1 - x))``."""
        inside = (x > _SATURATION) & (x < 1.0 - _SATURATION)
        y = np.where(inside, x, 0.5)
        return np.where(inside, np.log(y) - np.log1p(-y), np.nan)

    def slab(self, x: Array, tolerance: Array | float) -> Slab:  # noqa: D102
        return _smooth_slab(self, x, tolerance)

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:  # noqa: D102
        return self.slab(x, tolerance).at(tolerance)


# The one table of names; files and the command speak these.
BY_NAME: dict[str, type] = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "identity": Identity,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
}


def as_activation(activation: Activation | str, argument: str = "activation") -> Activation:
    """Return the activation for a name or for an object that already is one.

    Args:
        activation: One of the names in ``BY_NAME`` (``"leaky_relu"`` has slope 0.01; write
            ``"leaky_relu(0.2)"`` or ``LeakyReLU(0.2)`` for another; ``"prelu(0.1,0.2;16)"`` has two
            channels of 16 entries), or an activation.
        argument: Name of the argument, for the error.

    Raises:
        InputError: The name is unknown, or the object is no activation.

    >>> as_activation("leaky_relu(0.2)")
    LeakyReLU(slope=0.2)
    """
    if isinstance(activation, str):
        slope = re.fullmatch(r"leaky_relu\(([-+.\deE]+)\)", activation)
        if slope:
            return LeakyReLU(float(slope[1]))
        slopes = re.fullmatch(r"prelu\(([-+.\deE,]+);(\d{1,12})\)", activation)
        if slopes:
            return PReLU(tuple(map(float, slopes[1].split(","))), int(slopes[2]))
        if activation in BY_NAME:
            return BY_NAME[activation]()
    elif not isinstance(activation, type) and isinstance(activation, Activation):
        return activation
    raise InputError(
        f"{argument}: expected one of {', '.join(BY_NAME)}, or an object such as LeakyReLU(0.2), "
        f"got {activation!r}"
    )


def activation_name(activation: Activation) -> str:
    """The name that ``as_activation`` reads back; slopes are written exactly.

    >>> activation_name(LeakyReLU(0.2)), activation_name(ReLU())
    ('leaky_relu(0.2)', 'relu')
    """
    if type(activation) is PReLU:
        return f"prelu({','.join(map(repr, activation.slopes))};{activation.repeat})"
    for name, kind in BY_NAME.items():
        if type(activation) is kind:
            return f"{name}({activation.slope!r})" if isinstance(activation, LeakyReLU) else name
    raise InputError(f"activation: {activation!r} has no name that a file can hold")
