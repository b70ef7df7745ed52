"""A generator as a chain of piecewise-linear layers, and bounds on everything inside it.

Layer i of d computes ``a_i = W_i z_{i-1} + b_i`` and ``z_i = s_i(a_i)`` with ``z_0 = z``; each unit
is the identity above 0 and has a slope ``c >= 0`` below: 0 for ReLU, 1 for the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.activation import Activation
from preimage.enclosure.grouped import Floats, GroupedMatrix
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.matrix import Array, Flags, Indices

# Half the distance from 1 to the next float: the largest relative error of one operation.
UNIT = 2.0**-53


def rounding(terms: int) -> float:
    """Relative error bound of a sum of ``terms`` products in any order (Higham, section 3.1)."""
    return terms * UNIT / (1 - terms * UNIT)


@dataclass(frozen=True, eq=False)
class Network:
    """The numbers of a generator that bounds need; index 0 is the latent code, i is layer i.

    Attributes:
        generator: The generator, which evaluates forward passes.
        weights: ``weights[i]`` (n_i, n_{i-1}); ``weights[0]`` is empty.
        biases: ``biases[i]`` (n_i,).
        slopes: ``slopes[i]`` (n_i,), ones for the latent code; the last layer's are 0 under a
            bounded head, where nothing uses them.
    """

    generator: Generator
    weights: tuple[GroupedMatrix, ...]
    biases: tuple[Floats, ...]
    slopes: tuple[Floats, ...]

    def cast(self, dtype: Any) -> Network:
        """The same in another precision."""
        with np.errstate(over="ignore"):
            weights = tuple(GroupedMatrix.of(weight.dense.astype(dtype)) for weight in self.weights)
            biases, slopes = (
                tuple(array.astype(dtype) for array in part) for part in (self.biases, self.slopes)
            )
        return Network(self.generator, weights, biases, slopes)

    @property
    def head(self) -> Activation:
        """Activation of the last layer."""
        return self.generator.layers[-1].activation

    @property
    def depth(self) -> int:
        """d, the number of layers."""
        return len(self.weights) - 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latent size, then the units of each layer."""
        return tuple(len(bias) for bias in self.biases)

    def preactivations(self, z: Array) -> list[Array]:
        """The code z, (k,), and the pre-activations of every layer at z, in floats."""
        return [z, *(a[0] for a in self.generator.preactivations(z[None]))]


def as_network(generator: Generator) -> Network:
    """Take a generator apart.

    Raises:
        InputError: A hidden activation is not piecewise linear, or the last one neither that nor
            bounded.
    """
    k = generator.latent_size
    weights = (np.zeros((k, 0)), *(layer.dense_weight for layer in generator.layers))
    grouped = tuple(map(GroupedMatrix.of, weights))
    biases = (np.zeros(k), *(layer.bias for layer in generator.layers))
    below = [np.ones(k)]
    for index, layer in enumerate(generator.layers, 1):
        if layer.slopes_below is not None:
            below.append(layer.slopes_below)
        elif index == len(generator.layers) and np.isfinite(layer.activation.range).all():
            below.append(np.zeros(layer.output_size))
        else:
            raise InputError(
                f"layer {index} with {layer.activation!r}: only ReLU, LeakyReLU, PReLU and "
                "identity can be enclosed as hidden layers, and tanh and sigmoid as the last one"
            )
    return Network(generator, grouped, biases, tuple(below))


class Targets(NamedTuple):
    """Ends of intervals, one each; all arrays (targets,).

    Attributes:
        layer: 0 for the code itself.
        unit: Its number.
        upper: Whether it is the upper end.
    """

    layer: Indices
    unit: Indices
    upper: Flags

    @staticmethod
    def both(layer: Indices, unit: Indices) -> Targets:
        """The lower ends of these units, then their upper ends."""
        return Targets(np.tile(layer, 2), np.tile(unit, 2), np.repeat([False, True], len(unit)))

    def take(self, rows: NDArray[Any]) -> Targets:
        """Some of them."""
        return Targets(self.layer[rows], self.unit[rows], self.upper[rows])


class Bounds:
    """What is known of one sample: ``lower[0] <= z <= upper[0]``, ``lower[i] <= a_i <= upper[i]``.

    The arrays are changed in place, and only ever tightened; ``copy`` before a branch. They are
    parts of one array of all lower ends, and one of all upper ends.
    """

    def __init__(self, lower: Sequence[Array], upper: Sequence[Array]) -> None:
        self._low, self._high = np.concatenate(lower), np.concatenate(upper)
        self._first = np.cumsum([0, *map(len, lower)])
        cuts = self._first[1:-1]
        self.lower, self.upper = np.split(self._low, cuts), np.split(self._high, cuts)

    def copy(self) -> Bounds:
        """Bounds of their own."""
        return Bounds(self.lower, self.upper)

    @property
    def empty(self) -> bool:
        """Whether some interval is empty."""
        low, high = self._low, self._high
        return bool(((low > high) | (low == np.inf) | (high == -np.inf)).any())

    def of(self, layer: Indices, unit: Indices) -> tuple[Array, Array]:
        """The intervals of some units, (units,) each."""
        place = self._first[layer] + unit
        return self._low[place], self._high[place]

    def tighten(self, targets: Targets, ends: Array) -> None:
        """Move the targets to these ends, (targets,), where that is tighter."""
        place, upper = self._first[targets.layer] + targets.unit, targets.upper
        np.maximum.at(self._low, place[~upper], ends[~upper])
        np.minimum.at(self._high, place[upper], ends[upper])

    def decided(self, network: Network, layer: int) -> Array:
        """The slope of each unit of a hidden layer if it is known, else NaN."""
        c = network.slopes[layer]
        sign = np.where(self.lower[layer] >= 0, 1.0, np.where(self.upper[layer] <= 0, c, np.nan))
        return np.where(c == 1.0, 1.0, sign)

    def undecided(self, network: Network, start: int = 0) -> list[tuple[int, int]]:
        """Layer and number of the hidden units above `start` whose slope is not known."""
        return [
            (layer, unit)
            for layer in range(start + 1, network.depth)
            for unit in np.flatnonzero(np.isnan(self.decided(network, layer))).tolist()
        ]

    def outputs(self, network: Network, layer: int) -> tuple[Array, Array]:
        """The interval of every entry of ``z_layer``."""
        c = network.slopes[layer]
        inexact = (c != 0) & (c != 1)  # ReLU and the identity round nothing
        found = []
        for end, outward in ((self.lower[layer], -np.inf), (self.upper[layer], np.inf)):
            with np.errstate(invalid="ignore"):
                value = np.where(end >= 0, end, np.where(c == 0, 0.0, c * end))
            found.append(np.where(inexact, np.nextafter(value, outward), value))
        return found[0], found[1]


def starting_bounds(network: Network, x: Array, noise: float, low: Array, high: Array) -> Bounds:
    """The box for the code, ``|G(z) - x| <= noise`` for the last layer, nothing in between.

    ``x``, (n,), is NaN where nothing was seen; the ends of the box, (k,) each, may be infinite.
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
