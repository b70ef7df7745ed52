"""Activations: value, derivative, inverse, slopes of the pieces, slab and name of each.

All that the package knows of an activation stands in its class. To add one, write its class here
and add it to ``BY_NAME`` and to ``io.torch_operations.ACTIVATIONS``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from preimage.errors import InputError
from preimage.matrix import Array, Flags
from preimage.slab import Slab


@runtime_checkable
class Activation(Protocol):
    """A nondecreasing scalar function, applied entry by entry."""

    @property
    def range(self) -> tuple[float, float]:
        """Infimum and supremum of the values."""

    @property
    def name(self) -> str:
        """What ``as_activation`` reads back, parameters written exactly."""

    def slopes(self, size: int) -> tuple[Array, Array] | None:
        """Slopes of ``size`` units below and above 0, (size,) each; None if it is smooth.

        Only a function that is linear on either side of 0, and 0 there, has them.
        """

    def __call__(self, a: Array) -> Array:
        """Values at the pre-activations ``a``."""

    def derivative(self, a: Array) -> Array:
        """Derivative at ``a``; at a kink the one-sided derivative from below."""

    def inverse(self, x: Array) -> Array:
        """A pre-activation of each ``x``; where ``x`` pins none down (saturated), NaN."""

    def slab(self, x: Array, tolerance: Array | float) -> Slab:
        """The pre-activations within ``tolerance`` of ``x``; see ``slab``."""

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:
        """What holds at ``delta = tolerance`` whatever sign the pre-activation has (eq. 8)."""


class _Kinked:
    """``a`` where ``a >= 0``, else ``slope * a``: a number, or one for each entry of the last axis.

    A slope is at least 0. Where it is 0, values up to 0 do not determine their pre-activation.
    """

    slope: Any = 0.0

    @property
    def range(self) -> tuple[float, float]:
        return (-math.inf if np.any(np.greater(self.slope, 0)) else 0.0), math.inf

    def slopes(self, size: int) -> tuple[Array, Array]:
        return np.broadcast_to(np.asarray(self.slope, dtype=np.float64), size), np.ones(size)

    def __call__(self, a: Array) -> Array:
        return np.maximum(a, 0.0) + self.slope * np.minimum(a, 0.0)

    def derivative(self, a: Array) -> Array:
        return np.where(a > 0, 1.0, self.slope)

    def inverse(self, x: Array) -> Array:
        """Paper, equation 5; NaN where the slope is 0 and ``x <= 0``."""
        return np.where(x > 0, x, x / np.where(np.equal(self.slope, 0), np.nan, self.slope))

    def slab(self, x: Array, tolerance: Array | float) -> Slab:
        """Paper, Algorithm 1 and Remark 1: three cases, split at ``-tolerance`` and ``tolerance``.

        Where the slope is 0 and ``x <= tolerance``, only ``a <= x + delta`` is left.
        """
        flat = np.equal(self.slope, 0)
        rate = 1.0 / np.where(flat, 1.0, self.slope)
        active = x > tolerance
        lower_rate = np.where(active, 1.0, rate)
        upper_rate = np.where(x < -np.asarray(tolerance), rate, 1.0)
        free = flat & ~active
        lower = np.where(free, -np.inf, x * lower_rate)
        return Slab(lower, np.where(free, 0.0, lower_rate), x * upper_rate, upper_rate)

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:
        """Paper, equation 8: ``min(0, x - tolerance) / slope <= a <= x + tolerance``.

        A slope above 1 weakens the upper bound below zero; at a slope of 1 no sign is open.
        """
        flat, zero = np.equal(self.slope, 0), np.zeros_like(x)
        rate = 1.0 / np.where(flat, 1.0, self.slope)
        low, high = x - tolerance, x + tolerance
        lower = np.where(np.equal(self.slope, 1), low, np.minimum(low, 0.0) * rate)
        upper = np.maximum(high, np.minimum(high, 0.0) * rate)
        return Slab(np.where(flat, -np.inf, lower), zero, np.where(flat, high, upper), zero)


@dataclass(frozen=True)
class ReLU(_Kinked):
    """``max(a, 0)``."""

    name: ClassVar[str] = "relu"

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return np.maximum(a, 0.0)

    def slab(self, x: Array, tolerance: Array | float) -> Slab:
        """Paper, Algorithm 1; the same as that of a slope of 0, in a third of the time."""
        active = x > tolerance
        return Slab(np.where(active, x, -np.inf), active.astype(float), x, np.ones_like(x))


@dataclass(frozen=True)
class LeakyReLU(_Kinked):
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
    def name(self) -> str:  # noqa: D102
        return f"leaky_relu({self.slope!r})"


@dataclass(frozen=True)
class PReLU(_Kinked):
    """``a`` where ``a >= 0``, else ``slope_j * a``: a LeakyReLU with a slope for each channel.

    Acts on arrays whose last axis has ``len(slopes) * repeat`` entries, channel by channel. A
    channel of slope 0 is a ReLU, one of slope 1 is passed on unchanged.

    Args:
        negative_slopes: Of the negative part, at least 0; one a channel.
        repeat: Entries of each channel.
    """

    negative_slopes: tuple[float, ...]
    repeat: int = 1

    def __post_init__(self) -> None:
        slopes = tuple(float(slope) for slope in self.negative_slopes)
        if not slopes or not all(0.0 <= slope < math.inf for slope in slopes):
            found = f"{self.negative_slopes!s:.200}"
            raise InputError(f"PReLU: slopes must not be negative, one a channel, got {found}")
        if not isinstance(self.repeat, int) or self.repeat < 1:
            raise InputError(f"PReLU: repeat must be a positive integer, got {self.repeat!r}")
        object.__setattr__(self, "negative_slopes", slopes)

    @property
    def name(self) -> str:  # noqa: D102
        return f"prelu({','.join(map(repr, self.negative_slopes))};{self.repeat})"

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        # Not from the slope of each entry: a file may claim more entries than there is memory for.
        return (-math.inf if any(self.negative_slopes) else 0.0), math.inf

    def slopes(self, size: int) -> tuple[Array, Array]:
        """Slopes of the units below and above 0; ``InputError`` for another number of units."""
        found = len(self.negative_slopes) * self.repeat
        if found != size:
            raise InputError(f"expected PReLU slopes for {size} outputs, got {found}")
        return super().slopes(size)

    @cached_property
    def slope(self) -> Array:
        """Of each entry."""
        return np.repeat(np.array(self.negative_slopes), self.repeat)


@dataclass(frozen=True)
class Identity(_Kinked):
    """``a`` itself: an affine layer."""

    slope: ClassVar[float] = 1.0  # type: ignore[misc]
    name: ClassVar[str] = "identity"


# Past 1 - 2**-40 a tanh or sigmoid value says only that its pre-activation is large: one unit of
# rounding in x already moves the analytic inverse by 1e-4.
_SATURATION = 2.0**-40


class _Smooth(Activation, Protocol):
    """A strictly increasing function with at least one horizontal asymptote."""

    _scale: ClassVar[float] = 1.0  # the unit of distances from an asymptote

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (isinstance(value, (int, float, np.floating)) and 0.0 < value < math.inf):
                kind = type(self).__name__
                raise InputError(f"{kind}: {name}: expected a positive number, got {value!r}")
            object.__setattr__(self, name, float(value))

    @property
    def name(self) -> str:
        numbers = ",".join(map(repr, vars(self).values()))
        return type(self).__name__.lower() + (f"({numbers})" if numbers else "")

    def _analytic_inverse(self, x: Array) -> Array:
        """A pre-activation of values inside the range."""

    def slopes(self, size: int) -> None:
        """None: there are no pieces."""
        return None

    def _unsaturated(self) -> tuple[float, float]:
        """The interval of values that determine their pre-activation."""
        (low, high), margin = self.range, _SATURATION * self._scale
        return low + margin, high - margin

    def inverse(self, x: Array) -> Array:
        """A pre-activation of each ``x``; NaN where ``x`` is saturated or outside the range."""
        low, high = self._unsaturated()
        inside = (x > low) & (x < high)
        middle = self(np.zeros(1))[0]
        return np.where(inside, self._analytic_inverse(np.where(inside, x, middle)), np.nan)

    def slab(self, x: Array, tolerance: Array | float) -> Slab:
        """Tangents at the ends of the interval; an end outside constrains nothing.

        A value that lies outside the range by more than the tolerance is treated as the nearest
        saturated one.
        """
        low, high = self._unsaturated()

        def end(value: Array, saturated: Flags, side: float) -> tuple[Array, Array]:
            a = self._analytic_inverse(np.clip(value, low, high))
            rate = 1.0 / self.derivative(a)
            tangent = a - side * rate * tolerance
            return np.where(saturated, side * np.inf, tangent), np.where(saturated, 0.0, rate)

        below, above = x - tolerance, x + tolerance
        return Slab(*end(below, below <= low, -1.0), *end(above, above >= high, 1.0))

    def relaxed_slab(self, x: Array, tolerance: Array | float) -> Slab:
        """The slab at ``delta = tolerance``: no sign is open."""
        return self.slab(x, tolerance).at(tolerance)


@dataclass(frozen=True)
class Tanh(_Smooth):
    """``tanh(a)``."""

    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    _scale: ClassVar[float] = 2.0

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return np.tanh(a)

    def derivative(self, a: Array) -> Array:
        """``1 / cosh(a)^2``, written so that large ``|a|`` keep their relative accuracy."""
        t = np.exp(-2.0 * np.abs(a))
        return 4.0 * t / (1.0 + t) ** 2

    def _analytic_inverse(self, x: Array) -> Array:
        return np.arctanh(x)


@dataclass(frozen=True)
class Sigmoid(_Smooth):
    """``1 / (1 + exp(-a))``."""

    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, a: Array) -> Array:  # noqa: D102
        t = np.exp(-np.abs(a))
        return np.where(a >= 0, 1.0, t) / (1.0 + t)

    def derivative(self, a: Array) -> Array:
        """``s (1 - s)``, written so that large ``|a|`` keep their relative accuracy."""
        t = np.exp(-np.abs(a))
        return t / (1.0 + t) ** 2

    def _analytic_inverse(self, x: Array) -> Array:
        """``log(x / (1 - x))``."""
        return np.log(x) - np.log1p(-x)


@dataclass(frozen=True)
class ELU(_Smooth):
    """``a`` where ``a > 0``, else ``alpha (exp(a) - 1)``.

    Args:
        alpha: Positive; the values stay above ``-alpha``.
    """

    alpha: float = 1.0

    @property
    def _scale(self) -> float:  # type: ignore[override]
        return self.alpha

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        return -self.alpha, math.inf

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return np.where(a > 0, a, self.alpha * np.expm1(np.minimum(a, 0.0)))

    def derivative(self, a: Array) -> Array:
        """Derivative at ``a``; at 0 that from below."""
        return np.where(a > 0, 1.0, self.alpha * np.exp(np.minimum(a, 0.0)))

    def _analytic_inverse(self, x: Array) -> Array:
        return np.where(x > 0, x, np.log1p(np.minimum(x, 0.0) / self.alpha))


@dataclass(frozen=True)
class Softplus(_Smooth):
    """``log(1 + exp(beta a)) / beta``.

    Args:
        beta: Positive.
    """

    beta: float = 1.0

    @property
    def _scale(self) -> float:  # type: ignore[override]
        return 1.0 / self.beta

    @property
    def range(self) -> tuple[float, float]:  # noqa: D102
        return 0.0, math.inf

    def __call__(self, a: Array) -> Array:  # noqa: D102
        return np.maximum(a, 0.0) + np.log1p(np.exp(-self.beta * np.abs(a))) / self.beta

    def derivative(self, a: Array) -> Array:  # noqa: D102
        return Sigmoid()(self.beta * a)

    def _analytic_inverse(self, x: Array) -> Array:
        """``log(exp(beta x) - 1) / beta``."""
        return x + np.log(-np.expm1(-self.beta * x)) / self.beta


BY_NAME: dict[str, type[Activation]] = {
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "identity": Identity,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "elu": ELU,
    "softplus": Softplus,
}
_WITH_NUMBER = re.compile(r"(leaky_relu|elu|softplus)\(([-+.\deE]+)\)")
_PRELU = re.compile(r"prelu\(([-+.\deE,]+);(\d{1,12})\)")


def as_activation(activation: Activation | str, argument: str = "activation") -> Activation:
    """Return the activation for a name or for an object that already is one.

    Args:
        activation: One of the names in ``BY_NAME`` (``"leaky_relu"`` has slope 0.01; write
            ``"leaky_relu(0.2)"`` for another), or an object such as ``LeakyReLU(0.2)``.
        argument: Name of the argument, for the error.

    Raises:
        InputError: Neither.

    >>> as_activation("leaky_relu(0.2)").name
    'leaky_relu(0.2)'
    """
    if isinstance(activation, str):
        if found := _WITH_NUMBER.fullmatch(activation):
            return BY_NAME[found[1]](float(found[2]))  # type: ignore[call-arg]
        if found := _PRELU.fullmatch(activation):
            return PReLU(tuple(map(float, found[1].split(","))), int(found[2]))
        if activation in BY_NAME:
            return BY_NAME[activation]()
    elif not isinstance(activation, type) and isinstance(activation, Activation):
        return activation
    raise InputError(
        f"{argument}: expected one of {', '.join(BY_NAME)}, or an object such as LeakyReLU(0.2), "
        f"got {activation!r}"
    )
