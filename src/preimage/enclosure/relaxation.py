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

import numpy as np

from preimage import lp
from preimage.activation import Slab
from preimage.enclosure.network import Bounds, Network
from preimage.layer_program import LayerProgram
from preimage.lp import duality
from preimage.matrix import Array, Flags, Indices

# Entries of a matrix up to which HiGHS is asked where the kernel has no answer.
_SMALL = 5000


@dataclass(frozen=True, eq=False)
class Relaxation:
    """``lower <= weight v <= upper``, ``low <= v <= high``.

    Attributes:
        layer: (rows,) the layer whose unit the row is about.
        unit: (rows,) that unit.
        share: (rows,) the coefficient of that unit's pre-activation in the row.
        weight: (rows, variables).
        lower: (rows,).
        upper: (rows,).
        domain: Both ends of v.
        start: The layer whose outputs are the first variables.
        undecided: Layer and number of the undecided units above, which are the last variables.
        image: ``a_i = image[i] v + offset[i]`` for layers above `start`, as (units, variables).
        offset: See ``image``.
    """

    layer: Indices
    unit: Indices
    share: Array
    weight: Array
    lower: Array
    upper: Array
    domain: tuple[Array, Array]
    start: int
    undecided: list[tuple[int, int]]
    image: dict[int, Array]
    offset: dict[int, Array]

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
        slack = self.elastic().slack[0]
        rate = np.abs(self.weight).max(axis=1, initial=0.0)
        more = 2 * slack * np.where(rate > 0, rate, 1.0)
        return (
            replace(self, lower=self.lower - more, upper=self.upper + more) if slack > 0 else self
        )

    def undecided_units(self) -> tuple[Indices, Indices, Array, Array]:
        """Layer and number of the undecided units; rows of their a and z, (units, variables)."""
        size, count = self.weight.shape[1], len(self.undecided)
        image = np.array([self.image[i][j] for i, j in self.undecided]).reshape(count, size)
        layer, unit = np.array(self.undecided, dtype=np.intp).reshape(count, 2).T
        return layer, unit, image, np.eye(count, size, size - count)

    def multipliers(self, network: Network, dual: Array) -> dict[int, Array]:
        """What signed row multipliers (targets, rows) mean for each ``a_i``, (targets, n_i).

        A program's dual writes its objective as ``sum_r dual_r row_r + reduced v``; see
        ``bound_proofs``.
        """
        weighted = -dual * self.share
        found = {}
        for i in range(self.start + 1, network.depth + 1):
            rows = np.flatnonzero(self.layer == i)
            total = np.zeros((network.sizes[i], len(dual)))
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
    undecided, inputs = bounds.undecided(network, start), network.sizes[start]
    layers, units = np.array(undecided, dtype=np.intp).reshape(len(undecided), 2).T
    inner, constant = np.eye(inputs, inputs + len(undecided)), np.zeros(inputs)
    ends, parts, image, offset = [bounds.outputs(network, start)], [], {}, {}
    for i in range(start + 1, network.depth + 1):
        image[i] = network.weights[i] @ inner
        offset[i] = network.weights[i] @ constant + network.biases[i]
        low, high = bounds.lower[i], bounds.upper[i]
        every = np.arange(network.sizes[i])
        some = every if outputs is None or i < network.depth else np.flatnonzero(outputs)
        parts.append((np.full(len(some), i), some, np.ones(len(some)), image[i][some],
                      (low - offset[i])[some], (high - offset[i])[some]))  # fmt: skip
        if i == network.depth:
            break
        columns = np.flatnonzero(layers == i)
        chosen = units[columns]
        slope = np.nan_to_num(bounds.decided(network, i))
        inner, constant = slope[:, None] * image[i], slope * offset[i]
        inner[chosen, inputs + columns] = 1.0
        below, above = bounds.outputs(network, i)
        ends.append((below[chosen], above[chosen]))
        parts += _hull_rows(i, chosen, inner[chosen], image[i][chosen], offset[i][chosen],
                            low[chosen], high[chosen], network.slopes[i][chosen])  # fmt: skip
    low, high = map(np.concatenate, zip(*ends, strict=True))
    layer, unit, share, weight, lower, upper = map(np.concatenate, zip(*parts, strict=True))
    # Rows that can never bind are left out.
    with np.errstate(invalid="ignore"):
        positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
        most = np.nan_to_num(positive @ high + negative @ low, nan=np.inf)
        least = np.nan_to_num(positive @ low + negative @ high, nan=-np.inf)
    lower, upper = np.where(lower <= least, -np.inf, lower), np.where(upper >= most, np.inf, upper)
    kept = (lower > -np.inf) | (upper < np.inf)
    return Relaxation(layer[kept], unit[kept], share[kept], weight[kept], lower[kept], upper[kept],
                      (low, high), start, undecided, image, offset)  # fmt: skip


def _hull_rows(
    layer: int, unit: Indices, own: Array, image: Array, offset: Array, low: Array, high: Array,
    c: Array,
) -> list[tuple[Indices, Indices, Array, Array, Array, Array]]:  # fmt: skip
    """The rows of the undecided units of one layer, whose z is ``own v``, as in ``Relaxation``."""
    zero = np.zeros_like(c)
    with np.errstate(invalid="ignore"):
        chord = (high - c * low) / (high - low)
        # ``z - slope a`` lies between two values.
        lines = (
            (np.ones(len(unit), dtype=bool), zero + 1.0, zero, (c - 1) * low),
            (c > 0, c, zero, (1 - c) * high),
            (np.isfinite(low) & np.isfinite(high), chord, (1 - chord) * high,
             np.where(c < 1, -np.inf, np.inf)),
        )  # fmt: skip
    found = []
    for pick, *line in lines:
        slope, one, other = (part[pick] for part in line)
        shift = slope * offset[pick]
        found.append((np.full(len(slope), layer), unit[pick], -slope,
                      own[pick] - slope[:, None] * image[pick],
                      np.minimum(one, other) + shift, np.maximum(one, other) + shift))  # fmt: skip
    return found
