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
from numpy.typing import NDArray

from preimage import lp
from preimage.activation import Slab
from preimage.enclosure.network import Array, Bounds, Network
from preimage.layer_program import LayerProgram
from preimage.lp import duality

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """``lower <= weight v <= upper``, ``low <= v <= high``.

    Attributes:
        weight: (rows, variables).
        lower: (rows,).
        upper: (rows,).
        domain: Both ends of v.
        layer: (rows,) the layer whose unit the row is about.
        unit: (rows,) that unit.
        share: (rows,) the coefficient of that unit's pre-activation in the row.
        start: The layer whose outputs are the first variables.
        slopes: For each hidden layer above `start`, the slope of its units, NaN where undecided.
        image: ``a_i = image[i] v + offset[i]`` for layers above `start`, as (units, variables).
        offset: See ``image``.
        column: For each layer from `start` on, the column of each unit, -1 if it has none.
    """

    weight: Array
    lower: Array
    upper: Array
    domain: tuple[Array, Array]
    layer: Index
    unit: Index
    share: Array
    start: int
    slopes: dict[int, Array]
    image: dict[int, Array]
    offset: dict[int, Array]
    column: dict[int, Index]

    def program(self, objective: Array) -> LayerProgram:
        """``minimise objective @ v`` for each row of ``objective`` (targets, variables)."""
        shape = (len(objective), len(self.lower))
        zero = np.broadcast_to(0.0, shape)
        slab = Slab(
            np.broadcast_to(self.lower, shape), zero, np.broadcast_to(self.upper, shape), zero
        )
        return LayerProgram(self.weight, slab, "none", objective, self.domain)

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

    def undecided_units(self) -> tuple[Index, Index, Array, Array]:
        """Layer and number of the undecided units; rows of their a and z, (units, variables)."""
        places = [
            (layer, unit)
            for layer, slopes in self.slopes.items()
            for unit in np.flatnonzero(np.isnan(slopes)).tolist()
        ]
        size = self.weight.shape[1]
        image = np.array([self.image[i][j] for i, j in places]).reshape(len(places), size)
        output = np.zeros_like(image)
        output[np.arange(len(places)), [self.column[i][j] for i, j in places]] = 1.0
        layer, unit = np.array(places, dtype=np.intp).reshape(len(places), 2).T
        return layer, unit, image, output

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
    network: Network,
    bounds: Bounds,
    start: int = 0,
    outputs: NDArray[np.bool_] | None = None,
) -> Relaxation:
    """Build the relaxation over the given bounds.

    Args:
        network: The network.
        bounds: What is known.
        start: See the module's text.
        outputs: (n,) the rows of the last layer to take; None for all.
    """
    low, high = bounds.outputs(network, start)
    hidden = range(start + 1, network.depth)
    slopes = {i: bounds.decided(network, i) for i in hidden}
    open_ = {i: np.flatnonzero(np.isnan(slopes[i])) for i in hidden}
    lows, highs = [low], [high]
    column = {start: np.arange(len(low))}
    count = len(low)
    for i in hidden:
        column[i] = np.full(network.sizes[i], -1)
        column[i][open_[i]] = count + np.arange(len(open_[i]))
        count += len(open_[i])
        below, above = bounds.outputs(network, i)
        lows.append(below[open_[i]])
        highs.append(above[open_[i]])
    inner, constant = np.eye(len(low), count), np.zeros(len(low))
    rows = _Rows()
    image, offset = {}, {}
    for i in range(start + 1, network.depth + 1):
        image[i] = network.weights[i] @ inner
        offset[i] = network.weights[i] @ constant + network.biases[i]
        a_low, a_high = bounds.lower[i], bounds.upper[i]
        some = np.arange(network.sizes[i])
        if outputs is not None and i == network.depth:
            some = np.flatnonzero(outputs)
        lower, upper = a_low - offset[i], a_high - offset[i]
        rows.add(i, some, image[i][some], lower[some], upper[some], np.ones(len(some)))
        if i == network.depth:
            break
        slope = np.nan_to_num(slopes[i])
        inner, constant = slope[:, None] * image[i], slope * offset[i]
        chosen, columns = open_[i], column[i][open_[i]]
        inner[chosen], constant[chosen] = 0.0, 0.0
        inner[chosen, columns] = 1.0
        _hull_rows(rows, i, chosen, columns, image[i][chosen], offset[i][chosen],
                   a_low[chosen], a_high[chosen], network.slopes[i][chosen])  # fmt: skip
    domain = np.concatenate(lows), np.concatenate(highs)
    return rows.relaxation(domain, start, slopes, image, offset, column)


class _Rows:
    """Rows as they come; those that can never bind are left out at the end."""

    def __init__(self) -> None:
        self.parts: list[tuple[Index, Index, Array, Array, Array, Array]] = []

    def add(
        self, layer: int, unit: Index, weight: Array, lower: Array, upper: Array, share: Array
    ) -> None:
        self.parts.append((np.full(len(unit), layer), unit, weight, lower, upper, share))

    def relaxation(
        self,
        domain: tuple[Array, Array],
        start: int,
        slopes: dict[int, Array],
        image: dict[int, Array],
        offset: dict[int, Array],
        column: dict[int, Index],
    ) -> Relaxation:
        layer, unit, weight, lower, upper, share = map(
            np.concatenate, zip(*self.parts, strict=True)
        )
        low, high = domain
        with np.errstate(invalid="ignore"):
            positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
            most = np.nan_to_num(positive @ high + negative @ low, nan=np.inf)
            least = np.nan_to_num(positive @ low + negative @ high, nan=-np.inf)
        lower, upper = (
            np.where(lower <= least, -np.inf, lower), np.where(upper >= most, np.inf, upper)
        )  # fmt: skip
        kept = (lower > -np.inf) | (upper < np.inf)
        return Relaxation(
            np.ascontiguousarray(weight[kept]), lower[kept], upper[kept], domain, layer[kept],
            unit[kept], share[kept], start, slopes, image, offset, column,
        )  # fmt: skip


def _hull_rows(
    rows: _Rows,
    layer: int,
    unit: Index,
    columns: Index,
    image: Array,
    offset: Array,
    low: Array,
    high: Array,
    c: Array,
) -> None:
    """The rows of the undecided units of one layer."""
    own = np.zeros_like(image)
    own[np.arange(len(unit)), columns] = 1.0

    def add(pick: NDArray[np.bool_], slope: Array, one: Array, other: Array) -> None:
        """``z - slope a`` between two values."""
        least, most = np.minimum(one, other), np.maximum(one, other)
        shift = slope * offset
        rows.add(layer, unit[pick], (own - slope[:, None] * image)[pick], (least + shift)[pick],
                 (most + shift)[pick], -slope[pick])  # fmt: skip

    everywhere = np.ones(len(unit), dtype=bool)
    with np.errstate(invalid="ignore"):
        add(everywhere, np.ones_like(c), np.zeros_like(c), (c - 1) * low)
        add(c > 0, c, np.zeros_like(c), (1 - c) * high)
        chord = (high - c * low) / (high - low)
        end = high - chord * high
        open_end = np.where(c < 1, -np.inf, np.inf)
        add(np.isfinite(low) & np.isfinite(high), chord, end, open_end)
