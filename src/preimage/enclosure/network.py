"""A generator as a chain of piecewise-linear layers, and bounds on everything inside it.

Layer i of d computes ``a_i = W_i z_{i-1} + b_i`` and ``z_i = s_i(a_i)`` with ``z_0 = z``; each unit
is the identity above 0 and has a slope ``c >= 0`` below: 0 for ReLU, 1 for the identity.
"""

from __future__ import annotations

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
        if layer.slopes is not None and (layer.slopes[1] == 1).all():
            below.append(layer.slopes[0])
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

    def of(self, layer: Indices, unit: Indices) -> tuple[Array, Array]:
        """The intervals of some units, (units,) each."""
        low, high = np.empty((2, len(layer)))
        for i in np.unique(layer):
            here = layer == i
            low[here], high[here] = (end[i][unit[here]] for end in (self.lower, self.upper))
        return low, high

    def tighten(self, targets: Targets, ends: Array) -> None:
        """Move the targets to these ends, (targets,), where that is tighter."""
        for upper, side, pick in ((False, self.lower, np.maximum), (True, self.upper, np.minimum)):
            for i in np.unique(targets.layer[targets.upper == upper]):
                rows = (targets.layer == i) & (targets.upper == upper)
                pick.at(side[i], targets.unit[rows], ends[rows])

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
