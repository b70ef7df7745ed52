"""The slab of pre-activations that an observed value allows.

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

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

    def spread(self, size: Array | float) -> Slab:
        """The slab in which ``delta`` counts ``size`` times in each entry."""
        return Slab(self.lower, self.lower_rate * size, self.upper, self.upper_rate * size)

    def where(self, observed: NDArray[np.bool_]) -> Slab:
        """The slab that constrains nothing but the ``observed`` entries."""
        free = (-np.inf, 0.0, np.inf, 0.0)
        return Slab(
            *(np.where(observed, part, none) for part, none in zip(self, free, strict=True))
        )


def kinked_slab(slope: Any, x: Array, tolerance: Array | float) -> Slab:
    """Slab of ``a`` where ``a >= 0``, else ``slope * a``; paper, Algorithm 1 and Remark 1.

    Three cases, split at ``-tolerance`` and ``tolerance``. Where the slope is 0 and
    ``x <= tolerance``, only ``a <= x + delta`` is left.
    """
    flat = np.equal(slope, 0)
    rate = 1.0 / np.where(flat, 1.0, slope)
    active = x > tolerance
    lower_rate = np.where(active, 1.0, rate)
    upper_rate = np.where(x < -np.asarray(tolerance), rate, 1.0)
    free = flat & ~active
    return Slab(
        np.where(free, -np.inf, x * lower_rate),
        np.where(free, 0.0, lower_rate),
        x * upper_rate,
        upper_rate,
    )


def relaxed_kinked_slab(slope: Any, x: Array, tolerance: Array | float) -> Slab:
    """Paper, equation 8: ``min(0, x - tolerance) / slope <= a <= x + tolerance``.

    A slope above 1 weakens the upper bound below zero; at a slope of 1 no sign is open.
    """
    flat, zero = np.equal(slope, 0), np.zeros_like(x)
    rate = 1.0 / np.where(flat, 1.0, slope)
    low, high = x - tolerance, x + tolerance
    lower = np.where(np.equal(slope, 1), low, np.minimum(low, 0.0) * rate)
    upper = np.maximum(high, np.minimum(high, 0.0) * rate)
    return Slab(np.where(flat, -np.inf, lower), zero, np.where(flat, high, upper), zero)


def smooth_slab(
    inverse: Callable[[Array], Array],
    derivative: Callable[[Array], Array],
    unsaturated: tuple[float, float],
    x: Array,
    tolerance: Array | float,
) -> Slab:
    """Slab of a strictly increasing smooth function: tangents at the ends of the interval.

    An end outside the ``unsaturated`` values constrains nothing. A value that lies outside the
    range by more than the tolerance is treated as the nearest saturated one.

    Args:
        inverse: Of the function, on the unsaturated values.
        derivative: Of the function.
        unsaturated: The values that determine their pre-activation: an open interval.
        x: Observed values.
        tolerance: Broadcasts to x.
    """
    low, high = unsaturated
    tolerance = np.broadcast_to(np.asarray(tolerance, dtype=np.float64), x.shape)

    def end(value: Array) -> tuple[Array, Array]:
        a = inverse(np.clip(value, low, high))
        return a, 1.0 / derivative(a)

    lower, lower_rate = end(x - tolerance)
    upper, upper_rate = end(x + tolerance)
    below, above = x - tolerance <= low, x + tolerance >= high
    return Slab(
        np.where(below, -np.inf, lower + lower_rate * tolerance),
        np.where(below, 0.0, lower_rate),
        np.where(above, np.inf, upper - upper_rate * tolerance),
        np.where(above, 0.0, upper_rate),
    )
