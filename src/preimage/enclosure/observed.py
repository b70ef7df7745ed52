"""What an observation says of the last layer, and how exact a forward pass is."""

from __future__ import annotations

import numpy as np

from preimage.activation import Activation
from preimage.enclosure.network import UNIT, Bounds, Network, rounding
from preimage.matrix import Array


def starting_bounds(network: Network, x: Array, noise: float, low: Array, high: Array) -> Bounds:
    """The box for the code, ``|G(z) - x| <= noise`` for the last layer, nothing in between.

    Args:
        network: The network.
        x: (n,) the observation; NaN where nothing was seen.
        noise: Its bound.
        low: (k,) the box, maybe infinite.
        high: (k,).
    """
    hidden = network.sizes[1:-1]
    unseen = np.isnan(x)
    least, most = observed_interval(network.head, np.where(unseen, 0.0, x), noise)
    least[unseen], most[unseen] = -np.inf, np.inf
    return Bounds(
        [low.copy(), *(np.full(n, -np.inf) for n in hidden), least],
        [high.copy(), *(np.full(n, np.inf) for n in hidden), most],
    )


def observed_interval(activation: Activation, x: Array, noise: float) -> tuple[Array, Array]:
    """Pre-activations whose outputs are within noise of x, rounded outward, (n,) each."""
    low, high = _outward_sum(x, -noise), _outward_sum(x, noise)
    bottom, top = activation.range
    if np.isfinite(top):
        least, most = _smooth_ends(activation, low, -1.0), _smooth_ends(activation, high, 1.0)
        # The ends of the range are never reached.
        return np.where(low >= top, np.inf, least), np.where(high <= bottom, -np.inf, most)
    if bottom == 0.0:
        return np.where(low > 0, low, -np.inf), np.where(high >= 0, high, -np.inf)
    least, most = activation.inverse(low), activation.inverse(high)
    # Where the slope is 1, nothing was rounded.
    return (
        np.where(least == low, low, np.nextafter(least, -np.inf)),
        np.where(most == high, high, np.nextafter(most, np.inf)),
    )


def _outward_sum(x: Array, shift: float) -> Array:
    """``x + shift``, rounded in the direction of the shift if it is not exact (Knuth's TwoSum)."""
    total = x + shift
    part = total - x
    lost = (x - (total - part)) + (shift - part)
    return np.where(lost == 0, total, np.nextafter(total, np.copysign(np.inf, shift)))


def _smooth_ends(activation: Activation, value: Array, sign: float) -> Array:
    """An a with ``sign * (activation(a) - value) >= 0`` for certain; infinite if none is found."""
    a = activation.inverse(value)
    pad = 2.0**-40 * (1.0 + np.abs(a))
    for _ in range(12):
        margin = sign * (activation(a + sign * pad) - value)
        pad = np.where(margin > 16 * UNIT, pad, 4 * pad)
    proven = sign * (activation(a + sign * pad) - value) > 16 * UNIT
    return np.where(proven, a + sign * pad, sign * np.inf)


def rounding_error(network: Network, x: Array, z: Array) -> float:
    """A bound on the error of a forward pass in floats at z, and of adding noise to it."""
    if not np.isfinite(z).all():
        return 0.0
    error = np.zeros_like(z)
    for i, a in enumerate(network.preactivations(z)[1:], 1):
        magnitude = network.weights[i].magnitude
        size = magnitude @ np.abs(z) + np.abs(network.biases[i])
        error = rounding(len(z) + 3) * size + magnitude @ error
        error = error * np.maximum(1.0, network.slopes[i])
        z = np.where(a >= 0, a, network.slopes[i] * a)
    return float(2 * error.max(initial=0.0) + 8 * UNIT * np.abs(x[~np.isnan(x)]).max(initial=0.0))
