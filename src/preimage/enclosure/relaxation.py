"""All layers at once as one linear program, each undecided unit by the hull of its graph.

With ``a = W z + b`` written out for every layer, units whose sign is known are affine, so the
variables are ``v = (z_start, z_ij of the undecided units above)``. The rows are

    low_ij <= a_ij <= high_ij                                    every layer above `start`
    z - a between 0 and (c - 1) low,  z - c a between 0 and (1 - c) high    undecided units
    z <= s a + t, the chord of the graph over [low, high]  (>= if c > 1)    undecided units

``start = 0`` holds the whole network; ``start = i`` takes z_i as free within its bounds, and is the
backward pass of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from preimage import lp
from preimage.enclosure.network import Bounds, Network
from preimage.layer_program import LayerProgram
from preimage.lp import duality
from preimage.matrix import Array, Flags, Indices
from preimage.slab import Slab

# Entries of a matrix up to which HiGHS is asked where the kernel has no answer.
_SMALL = 5000


class Units(NamedTuple):
    """Some units; their pre-activations are ``a = image v + offset``.

    Attributes:
        layer: (units,) the layer of each.
        unit: (units,) its number there.
        slope: (units,) its slope below 0.
        image: (units, variables).
        offset: (units,).
    """

    layer: Indices
    unit: Indices
    slope: Array
    image: Array
    offset: Array

    def take(self, some: Flags | Indices) -> Units:
        """Some of them."""
        return Units(self.layer[some], self.unit[some], self.slope[some], self.image[some],
                     self.offset[some])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Relaxation:
    """``lower <= weight v <= upper``, ``low <= v <= high``.

    Attributes:
        network: That it is about.
        start: The layer whose outputs are the first variables.
        inputs: The outputs of that layer, as if they were pre-activations.
        undecided: The undecided units above; their outputs are the last variables.
        last: The units of the last layer.
        domain: Both ends of v.
        layer: (rows,) the layer whose unit the row is about.
        unit: (rows,) that unit.
        share: (rows,) the coefficient of that unit's pre-activation in the row.
        weight: (rows, variables).
        lower: (rows,).
        upper: (rows,).
    """

    network: Network
    start: int
    inputs: Units
    undecided: Units
    last: Units
    domain: tuple[Array, Array]
    layer: Indices
    unit: Indices
    share: Array
    weight: Array
    lower: Array
    upper: Array

    def program(self, objective: Array) -> LayerProgram:
        """``minimise objective @ v`` for each row of ``objective`` (targets, variables)."""
        shape = (len(objective), len(self.lower))
        zero = np.broadcast_to(0.0, shape)
        slab = Slab(
            np.broadcast_to(self.lower, shape), zero, np.broadcast_to(self.upper, shape), zero
        )
        return LayerProgram(self.weight, slab, "none", objective, self.domain)

    def solve(self, objective: Array) -> lp.Solution:
        """These programs solved, by HiGHS too where the kernel has no answer and they are small."""
        program = self.program(objective)
        return lp.solve(program) if self.weight.size <= _SMALL else lp.kernel.minimise(program)

    def elastic(self) -> lp.Solution:
        """The least d by which every row, in units of its largest entry, must be widened.

        minimise d  subject to  lower - rate d <= weight v <= upper + rate d,  low <= v <= high
        """
        return lp.solve(duality.elastic(self.program(np.zeros((1, self.weight.shape[1])))))

    def loosened(self) -> Relaxation:
        """With rows widened by that, and a little more, so that there is a point."""
        slack = np.fmax(self.elastic().slack[0], 0.0)  # NaN where none was found
        rate = np.abs(self.weight).max(axis=1, initial=0.0)
        more = 2 * slack * np.where(rate > 0, rate, 1.0)
        return replace(self, lower=self.lower - more, upper=self.upper + more)

    @property
    def values(self) -> Array:
        """The outputs of the undecided units, (units, variables)."""
        count, size = self.undecided.image.shape
        return np.eye(count, size, size - count)

    def multipliers(self, dual: Array) -> dict[int, Array]:
        """What signed row multipliers (targets, rows) mean for each ``a_i``, (targets, n_i).

        A program's dual writes its objective as ``sum_r dual_r row_r + reduced v``; see
        ``bound_proofs``.
        """
        weighted = -dual * self.share
        found = {}
        for i in range(self.start + 1, self.network.depth + 1):
            rows = np.flatnonzero(self.layer == i)
            total = np.zeros((self.network.sizes[i], len(dual)))
            np.add.at(total, self.unit[rows], weighted[:, rows].T)
            found[i] = np.ascontiguousarray(total.T)
        return found


def relax(
    network: Network, bounds: Bounds, start: int = 0, outputs: Flags | None = None
) -> Relaxation:
    """Build the relaxation over the given bounds.

    Args:
        network: The network.
        bounds: What is known.
        start: See the module's text.
        outputs: (n,) the rows of the last layer to take; None for all.
    """
    inputs, open_ = network.sizes[start], bounds.undecided(network, start)
    layers, numbers = np.array(open_, dtype=np.intp).reshape(len(open_), 2).T
    value, constant = np.eye(inputs, inputs + len(open_)), np.zeros(inputs)
    first = Units(np.full(inputs, start), np.arange(inputs), np.ones(inputs), value, constant)
    ends, rows, hidden = [bounds.outputs(network, start)], [], []
    for i in range(start + 1, network.depth + 1):
        every, columns = np.arange(network.sizes[i]), np.flatnonzero(layers == i)
        image = network.weights[i] @ value
        offset = network.weights[i] @ constant + network.biases[i]
        units = Units(np.full_like(every, i), every, network.slopes[i], image, offset)
        chosen = numbers[columns]
        hidden.append(units.take(chosen))
        some = every if outputs is None or i < network.depth else np.flatnonzero(outputs)
        low, high = bounds.lower[i][some], bounds.upper[i][some]
        rows.append(_rows(units.take(some), np.ones(len(some)), 0.0, low, high))
        if i < network.depth:
            slope = np.nan_to_num(bounds.decided(network, i))
            value, constant = slope[:, None] * image, slope * offset
            value[chosen, inputs + columns] = 1.0
            below, above = bounds.outputs(network, i)
            ends.append((below[chosen], above[chosen]))
    undecided = Units(*map(np.concatenate, zip(*hidden, strict=True)))
    rows += _hull_rows(undecided, *bounds.of(undecided.layer, undecided.unit))
    low, high = map(np.concatenate, zip(*ends, strict=True))
    layer, unit, share, weight, lower, upper = map(np.concatenate, zip(*rows, strict=True))
    # Rows that can never bind are left out.
    with np.errstate(invalid="ignore"):
        positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
        most = np.nan_to_num(positive @ high + negative @ low, nan=np.inf)
        least = np.nan_to_num(positive @ low + negative @ high, nan=-np.inf)
    lower, upper = np.where(lower <= least, -np.inf, lower), np.where(upper >= most, np.inf, upper)
    kept = (lower > -np.inf) | (upper < np.inf)
    return Relaxation(network, start, first, undecided, units, (low, high), layer[kept],
                      unit[kept], share[kept], weight[kept], lower[kept], upper[kept])  # fmt: skip


# Layer, unit, share, weight, lower and upper end of some rows, as in ``Relaxation``.
_Rows = tuple[Indices, Indices, Array, Array, Array, Array]


def _rows(units: Units, share: Array, value: Array | float, low: Array, high: Array) -> _Rows:
    """``low <= value v + share a <= high``."""
    shift = share * units.offset
    weight = value + share[:, None] * units.image
    return units.layer, units.unit, share, weight, low - shift, high - shift


def _hull_rows(units: Units, low: Array, high: Array) -> list[_Rows]:
    """The rows of undecided units, whose outputs are the last variables."""
    c, (count, size) = units.slope, units.image.shape
    value, zero = np.eye(count, size, size - count), np.zeros(count)
    with np.errstate(invalid="ignore"):
        chord = (high - c * low) / (high - low)
        # ``z - slope a`` lies between two values.
        lines = (
            (np.full(count, True), np.ones(count), zero, (c - 1) * low),
            (c > 0, c, zero, (1 - c) * high),
            (np.isfinite(low) & np.isfinite(high), chord, (1 - chord) * high,
             np.where(c < 1, -np.inf, np.inf)),
        )  # fmt: skip
    return [
        _rows(units.take(some), -slope[some], value[some], np.minimum(one, other)[some],
              np.maximum(one, other)[some])
        for some, slope, one, other in lines
    ]  # fmt: skip
