"""From the bounds of a sample to the sides that ``interior`` takes, and back to its multipliers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled
from preimage.lp.matrix import Matrix, power
from preimage.lp.normal import Rows, fill, largest, multiply
from preimage.lp.room import Point, Sides

Array = NDArray[np.float64]

SHARED, OWN, NONE = 0, 1, 2


class Bounds(NamedTuple):
    """The bounds of one sample, in its own units; as in ``LayerProgram``. Or those of a batch."""

    lower: Array
    lower_rate: Array
    upper: Array
    upper_rate: Array
    low: Array
    high: Array
    objective: Array


class Answers(NamedTuple):
    """Room for what is found.

    Attributes:
        z: (batch, k).
        dual_lower: (batch, n).
        dual_upper: (batch, n).
        verdict: (batch,) VERTEX, CENTRAL or STUCK.
        steps: (batch,).
    """

    z: Array
    dual_lower: Array
    dual_upper: Array
    verdict: NDArray[np.int64]
    steps: NDArray[np.int64]


@compiled
def pose(
    matrix: Matrix, bounds: Bounds, slack: int, sides: Sides, rows: Rows
) -> tuple[float, float]:
    """Write one sample as ``interior`` wants it, scaled.

    Under l1 a row costs ``max(0, (lower - a) / lower_rate, (a - upper) / upper_rate)``. Where the
    two lines meet at or above 0, at the kink a*, that is one soft side and a linear term,

        a / upper_rate + b / lower_rate ... = (cap_u + cap_l) (a - a*)+  -  cap_l (a - a*),

    so that a row with an equation has one dual variable in [-cap_l, cap_u] instead of two.

    Returns:
        Units of the bounds and of the costs.
    """
    n, k, m, columns = len(bounds.lower), rows.k, rows.m, matrix.columns
    h, on, soft, cap, cost = sides.bound, sides.on, sides.soft, sides.cap, sides.cost
    for array in (h, on, soft, cap, cost, sides.equation, rows.upper_rate, rows.lower_rate):
        fill(array, 0.0)
    largest_rate = 0.0
    for a in range(k):
        cost[a] = bounds.objective[a] * matrix.column[a]
    for j in range(n):
        scale = matrix.row[j]
        upper, lower = bounds.upper[j], bounds.lower[j]
        up, low = bounds.upper_rate[j], bounds.lower_rate[j]
        if matrix.filled[j] == 0.0 and lower <= 0.0 <= upper and up + low == 0.0:
            # True whatever z is; between equal bounds it would have no interior.
            continue
        sides.equation[j] = 1.0 if -np.inf < lower and upper < np.inf else 0.0
        if slack == OWN and lower >= upper and up + low > 0.0:
            kink = (lower * up + upper * low) / (up + low) if lower > upper else upper
            lower = upper = kink
            if up > 0.0 and low > 0.0:
                # One side; the linear term goes to the costs.
                on[j], soft[j], h[j] = 1.0, 1.0, kink * scale
                cap[j] = (1.0 / up + 1.0 / low) / scale
                on[m + j] = 0.0
                for a in range(k):
                    cost[a] -= columns[a, j] / (low * scale)
                continue
        if upper < np.inf:
            on[j], h[j] = 1.0, upper * scale
            if slack == OWN and up > 0.0:
                soft[j], cap[j] = 1.0, 1.0 / (up * scale)
        if lower > -np.inf:
            on[m + j], h[m + j] = 1.0, -lower * scale
            if slack == OWN and low > 0.0:
                soft[m + j], cap[m + j] = 1.0, 1.0 / (low * scale)
        if slack == SHARED:
            rows.upper_rate[j] = up * scale if upper < np.inf else 0.0
            rows.lower_rate[j] = low * scale if lower > -np.inf else 0.0
            largest_rate = max(largest_rate, rows.upper_rate[j], rows.lower_rate[j])
    unit = power(largest(h))
    delta_unit = 1.0 / power(largest_rate)
    if slack == SHARED:
        multiply(rows.upper_rate, delta_unit)
        multiply(rows.lower_rate, delta_unit)
        cost[k] = delta_unit
        on[2 * m + 2 * k] = 1.0
    price = power(max(largest(cost), largest(cap)))
    multiply(h, 1.0 / unit)
    multiply(cost, 1.0 / price)
    multiply(cap, 1.0 / price)
    for a in range(k):
        if bounds.high[a] < np.inf:
            on[2 * m + a], h[2 * m + a] = 1.0, bounds.high[a] / matrix.column[a] / unit
        if bounds.low[a] > -np.inf:
            on[2 * m + k + a], h[2 * m + k + a] = 1.0, -bounds.low[a] / matrix.column[a] / unit
    return unit, price


@compiled
def restore(
    matrix: Matrix,
    bounds: Bounds,
    rows: Rows,
    sides: Sides,
    at: Point,
    unit: float,
    price: float,
    b: int,
    answers: Answers,
) -> None:
    """Write z and the multipliers of sample ``b`` in the units of its data."""
    n, m = len(bounds.lower), len(matrix.row)
    for a in range(len(matrix.column)):
        answers.z[b, a] = at.v[a] * matrix.column[a] * unit
    for j in range(n):
        scale = matrix.row[j] * price
        up, down = at.y[j] * scale, at.y[m + j] * scale
        if rows.soft and sides.equation[j] > 0.0:
            up_rate, low_rate = bounds.upper_rate[j], bounds.lower_rate[j]
            crossed = bounds.lower[j] > bounds.upper[j]
            if sides.on[m + j] == 0.0:
                # Both sides in one, whose multiplier counts from that of the lower side's cap:
                # up - down = net, up * up_rate + down * low_rate <= 1, = 1 where they cross.
                net = up - 1.0 / low_rate
                both = (1.0 - net * up_rate) / (up_rate + low_rate)
                down = both if crossed else max(-net, 0.0)
                up = max(net + down, 0.0)
            elif crossed and up_rate > 0.0:
                up, down = 1.0 / up_rate, down + 1.0 / up_rate - up
            elif crossed and low_rate > 0.0:
                up, down = up + 1.0 / low_rate - down, 1.0 / low_rate
        answers.dual_upper[b, j], answers.dual_lower[b, j] = up, down
