"""A generator as a chain of piecewise-linear layers, and bounds on everything inside it.

Layer i of d computes ``a_i = W_i z_{i-1} + b_i`` and ``z_i = s_i(a_i)`` with ``z_0 = z``; each unit
is the identity above 0 and has a slope ``c >= 0`` below: 0 for ReLU, 1 for the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preimage.activation import Activation
from preimage.errors import InputError
from preimage.generator import Generator

Array = NDArray[np.float64]

# Half the distance from 1 to the next float: the largest relative error of one operation.
UNIT = 2.0**-53


def rounding(terms: int) -> float:
    """Relative error bound of a sum of ``terms`` products in any order (Higham, section 3.1)."""
    return terms * UNIT / (1 - terms * UNIT)


def slopes(activation: Activation, size: int) -> Array:
    """The slope below 0 of each of ``size`` units.

    Raises:
        InputError: The activation is not piecewise linear.
    """
    pieces = activation.slopes(size)
    if pieces is not None and (pieces[1] == 1).all():
        return pieces[0]
    raise InputError(
        f"a hidden layer with {activation!r}: only ReLU, LeakyReLU, PReLU and identity can be "
        "enclosed; a tanh or sigmoid may stand at the end only"
    )


@dataclass(frozen=True, eq=False)
class Network:
    """The numbers of a generator that bounds need; index 0 is the latent code, i is layer i.

    Attributes:
        weights: ``weights[i]`` (n_i, n_{i-1}), dense; ``weights[0]`` is empty.
        magnitudes: Their absolute values.
        biases: ``biases[i]`` (n_i,).
        slopes: ``slopes[i]`` (n_i,), ones for the latent code; the last layer's are 0 under a
            bounded head, where nothing uses them.
    """

    weights: tuple[Array, ...]
    magnitudes: tuple[Array, ...]
    biases: tuple[Array, ...]
    slopes: tuple[Array, ...]

    @property
    def depth(self) -> int:
        """d, the number of layers."""
        return len(self.weights) - 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latent size, then the units of each layer."""
        return tuple(len(bias) for bias in self.biases)


def as_network(generator: Generator) -> Network:
    """Take a generator apart.

    Raises:
        InputError: A layer is an operator, or a hidden activation is not piecewise linear.
    """
    k = generator.latent_size
    weights: list[Array] = [np.zeros((k, 0))]
    biases, below = [np.zeros(k)], [np.ones(k)]
    for index, layer in enumerate(generator.layers):
        weights.append(layer.dense_weight)
        biases.append(layer.bias)
        bounded = bool(np.isfinite(layer.activation.range).all())
        last = index == len(generator.layers) - 1
        below.append(
            np.zeros(layer.output_size)
            if bounded and last
            else slopes(layer.activation, layer.output_size)
        )
    return Network(tuple(weights), tuple(map(np.abs, weights)), tuple(biases), tuple(below))


@dataclass(frozen=True, eq=False)
class Bounds:
    """What is known of one sample: ``lower[0] <= z <= upper[0]``, ``lower[i] <= a_i <= upper[i]``.

    The arrays are changed in place, and only ever tightened; ``copy`` before a branch.
    """

    lower: list[Array]
    upper: list[Array]

    def copy(self) -> Bounds:
        """Bounds of their own."""
        return Bounds([a.copy() for a in self.lower], [a.copy() for a in self.upper])

    @property
    def empty(self) -> bool:
        """Whether some interval is empty."""
        pairs = zip(self.lower, self.upper, strict=True)
        return any(
            bool(((low > high) | (low == np.inf) | (high == -np.inf)).any()) for low, high in pairs
        )

    def decided(self, network: Network, layer: int) -> Array:
        """The slope of each unit of a hidden layer if it is known, else NaN."""
        c = network.slopes[layer]
        sign = np.where(self.lower[layer] >= 0, 1.0, np.where(self.upper[layer] <= 0, c, np.nan))
        return np.where(c == 1.0, 1.0, sign)

    def outputs(self, network: Network, layer: int) -> tuple[Array, Array]:
        """The interval of every entry of ``z_layer``."""
        c = network.slopes[layer]
        low, high = (_activate(end[layer], c) for end in (self.lower, self.upper))
        inexact = (c > 0) & (c < 1)  # ReLU and the identity round nothing
        return _down(low, inexact), _up(high, inexact)


def _activate(a: Array, slope: Array) -> Array:
    with np.errstate(invalid="ignore"):
        below = np.where(slope == 0, 0.0, slope * a)
    return np.where(a >= 0, a, below)


def _down(values: Array, where: NDArray[np.bool_]) -> Array:
    return np.where(where, np.nextafter(values, -np.inf), values)


def _up(values: Array, where: NDArray[np.bool_]) -> Array:
    return np.where(where, np.nextafter(values, np.inf), values)
