"""Pose, start and solve the samples of a block, one after another, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, entry
from preimage.lp.interior import (
    Point,
    Scratch,
    Sides,
    allocate,
    minimise,
    new_point,
)
from preimage.lp.normal import (
    Rows,
    cholesky,
    fill,
    largest,
    multiply,
    normal_matrix,
    solve_factored,
    times,
    transposed_times,
)

Array = NDArray[np.float64]

SHARED, OWN, NONE = 0, 1, 2

_ROUNDS = 4
# A row with one side says little of where z is, but must not leave the start undetermined.
_ONE_SIDED = 1e-3


class Bounds(NamedTuple):
    """The bounds of one sample, in its own units; as in ``LayerProgram``."""

    lower: Array
    lower_rate: Array
    upper: Array
    upper_rate: Array
    low: Array
    high: Array
    objective: Array


class Units(NamedTuple):
    """Powers of two: ``z = columns * bound * v``, ``dual = rows * price * y``."""

    rows: Array
    columns: Array


@compiled
def _power(value: float) -> float:
    """The power of two nearest to ``value`` in the logarithm; 1 for 0."""
    return float(2.0 ** np.round(np.log2(value))) if value > 0.0 else 1.0


@compiled
def equilibrate(weight: Array, columns: Array, units: Units) -> None:
    """Scale ``weight`` (n, k) so that rows and columns have their largest entry near 1.

    Args:
        weight: (n, k).
        columns: (k padded, n padded), written: the scaled transpose.
        units: Written.
    """
    n, k = weight.shape
    row, column = units.rows, units.columns
    fill(row, 1.0)
    fill(column, 1.0)
    for _ in range(_ROUNDS):
        peak = np.zeros(k)
        for j in range(n):
            largest = 0.0
            for a in range(k):
                largest = max(largest, abs(weight[j, a]) * column[a])
            row[j] = 1.0 / largest if largest > 0.0 else 1.0
            for a in range(k):
                peak[a] = max(peak[a], abs(weight[j, a]) * row[j])
        for a in range(k):
            column[a] = 1.0 / np.sqrt(peak[a] / column[a]) if peak[a] > 0.0 else 1.0
    for a in range(k):
        column[a] = _power(column[a])
    for j in range(n):
        largest = 0.0
        for a in range(k):
            largest = max(largest, abs(weight[j, a]) * column[a])
        row[j] = 1.0 / _power(largest)
    for j in range(n):
        for a in range(k):
            columns[a, j] = weight[j, a] * column[a] * row[j]


@compiled
def pose(
    columns: Array, units: Units, bounds: Bounds, slack: int, sides: Sides, rows: Rows
) -> tuple[float, float, float]:
    """Write one sample as ``interior`` wants it, scaled.

    Under l1 a row costs ``max(0, (lower - a) / lower_rate, (a - upper) / upper_rate)``. Where the
    two lines meet at or above 0, at the kink a*, that is one soft side and a linear term,

        a / upper_rate + b / lower_rate ... = (cap_u + cap_l) (a - a*)+  -  cap_l (a - a*),

    so that a row with an equation has one dual variable in [-cap_l, cap_u] instead of two.

    Returns:
        Units of the bounds, of the costs and of the slack.
    """
    n, k, m = len(bounds.lower), rows.k, columns.shape[1]
    h, on, soft, cap, cost = sides.bound, sides.on, sides.soft, sides.cap, sides.cost
    for array in (h, on, soft, cap, cost, rows.upper_rate, rows.lower_rate):
        fill(array, 0.0)
    largest_rate = 0.0
    for a in range(k):
        cost[a] = bounds.objective[a] * units.columns[a]
    for j in range(n):
        scale = units.rows[j]
        upper, lower = bounds.upper[j], bounds.lower[j]
        up, low = bounds.upper_rate[j], bounds.lower_rate[j]
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
    unit = _power(largest(h))
    delta_unit = 1.0 / _power(largest_rate)
    if slack == SHARED:
        multiply(rows.upper_rate, delta_unit)
        multiply(rows.lower_rate, delta_unit)
        cost[k] = delta_unit
        on[2 * m + 2 * k] = 1.0
    price = _power(max(largest(cost), largest(cap)))
    multiply(h, 1.0 / unit)
    multiply(cost, 1.0 / price)
    multiply(cap, 1.0 / price)
    for a in range(k):
        if bounds.high[a] < np.inf:
            on[2 * m + a], h[2 * m + a] = 1.0, bounds.high[a] / units.columns[a] / unit
        if bounds.low[a] > -np.inf:
            on[2 * m + k + a], h[2 * m + k + a] = 1.0, -bounds.low[a] / units.columns[a] / unit
    return unit, price, delta_unit


@compiled
def least_squares(rows: Rows, sides: Sides, slack: int, work: Scratch, v: Array) -> None:
    """``v = argmin sum_j q_j (w_j z - target_j)^2`` with ``d = 0``; equations weigh 1."""
    k, m = rows.k, rows.columns.shape[1]
    plain = Rows(rows.columns, rows.upper_rate, rows.lower_rate, k, 0)
    on, h, x = sides.on, sides.bound, work.x
    fill(work.weight, 0.0)
    fill(x, 0.0)
    for j in range(m):
        both = on[j] * on[m + j] > 0.0 or (sides.cap[j] > 0.0 and slack == OWN)
        target = (
            0.5 * (h[j] - h[m + j])
            if on[j] * on[m + j] > 0.0
            else on[j] * h[j] - on[m + j] * h[m + j]
        )
        weight = 1.0 if both else _ONE_SIDED * (on[j] + on[m + j])
        work.weight[j] = weight
        x[j] = weight * target
    for a in range(2 * k):
        work.weight[2 * m + a] = 1e-10
    normal_matrix(plain, work.weight, work.image, work.root, work.matrix)
    cholesky(work.matrix, work.diagonal, work.pivots)
    transposed_times(plain, x, work.image, v)
    solve_factored(work.matrix, work.pivots, k, v)


@compiled
def start(rows: Rows, sides: Sides, slack: int, work: Scratch, at: Point) -> None:
    """A point near the least-squares one, on or near the central path.

    Inside the box by about the least-squares residual, under a slack that suffices; each side's
    product ``s y`` is then the same mu, and only ``G' y + c = 0`` is missed.
    """
    k, m = rows.k, rows.columns.shape[1]
    on, h, soft, cap = sides.on, sides.bound, sides.soft, sides.cap
    v = at.v
    fill(v, 0.0)
    least_squares(rows, sides, slack, work, v)
    times(rows, v, work.image, work.product)
    residual, worst, rows_on = 0.0, 0.0, 0.0
    for i in range(2 * m):
        over = work.product[i] - h[i]
        if soft[i] > 0.0:
            residual += abs(over)
            rows_on += 1.0
        elif on[i] > 0.0 and over > 0.0:
            residual += over
            rows_on += 1.0
            worst = max(worst, over)
    mean = residual / max(rows_on, 1.0)
    margin = max(mean, 1e-8)
    for a in range(k):
        low, high = -h[2 * m + k + a], h[2 * m + a]
        if on[2 * m + a] * on[2 * m + k + a] > 0.0:
            inside = min(margin, 0.25 * (high - low))
            v[a] = min(max(v[a], low + inside), high - inside)
        elif on[2 * m + a] > 0.0:
            v[a] = min(v[a], high - margin)
        elif on[2 * m + k + a] > 0.0:
            v[a] = max(v[a], low + margin)
    times(rows, v, work.image, work.product)
    floor = margin
    if rows.shared:
        need = margin
        for j in range(m):
            over, under = work.product[j] - h[j], work.product[m + j] - h[m + j]
            if on[j] > 0.0 and rows.upper_rate[j] > 0.0:
                need = max(need, over / rows.upper_rate[j])
            if on[m + j] > 0.0 and rows.lower_rate[j] > 0.0:
                need = max(need, under / rows.lower_rate[j])
        v[k] = 1.2 * need
        times(rows, v, work.image, work.product)
        floor = 0.1 * need
    # The multiplier scale: sum of rate / s = cost (shared), cap tau / 2 (own), |c| (none).
    total, softest, count = 0.0, 0.0, 0.0
    for i in range(len(on)):
        at.y[i], at.p[i], at.t[i], at.s[i] = 0.0, 0.0, 1.0, 1.0
        if on[i] == 0.0:
            continue
        over = work.product[i] - h[i]
        if soft[i] > 0.0:
            at.s[i], at.p[i] = max(-over, 0.0) + margin, max(over, 0.0) + margin
            at.y[i] = cap[i] * at.p[i] / (at.s[i] + at.p[i])
            at.t[i] = cap[i] - at.y[i]
            softest += at.y[i] * at.s[i]
            count += 1.0
        else:
            at.s[i] = max(-over, floor)
            rate = 1.0
            if rows.shared:
                rate = 0.0
                if i < m:
                    rate = rows.upper_rate[i]
                elif i < 2 * m:
                    rate = rows.lower_rate[i - m]
                elif i == 2 * m + 2 * k:
                    rate = 1.0
            total += rate / at.s[i]
    if count > 0.0:
        mu = softest / count
    elif rows.shared:
        mu = sides.cost[k] / total
    else:
        mu = largest(sides.cost) * floor
    mu = max(mu, 1e-12)
    for i in range(len(on)):
        if on[i] > 0.0 and soft[i] == 0.0:
            at.y[i] = mu / at.s[i]


class Batch(NamedTuple):
    """The data of a batch, in its own units; as in ``LayerProgram``.

    Attributes:
        weight: (1 or batch, n, k).
        lower: (batch, n), as the next three.
        lower_rate: Rates of ``lower``.
        upper: Upper bounds.
        upper_rate: Rates of ``upper``.
        low: (batch, k), the domain.
        high: (batch, k).
        objective: (batch, k).
    """

    weight: Array
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


@entry
def solve_block(batch: Batch, slack: int, answers: Answers) -> None:
    """Solve every sample of a batch whose slack is SHARED, OWN or NONE."""
    weight, z = batch.weight, answers.z
    n, k = weight.shape[1], weight.shape[2]
    m = (n + 7) // 8 * 8
    columns = np.zeros(((k + 2) // 3 * 3, m))
    units = Units(np.ones(n), np.ones(k))
    work = allocate(m, k)
    at, affine, step = new_point(m, k), new_point(m, k), new_point(m, k)
    count = 2 * m + 2 * k + 1
    sides = Sides(
        np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(k + 1)
    )
    rows = Rows(columns, np.zeros(m), np.zeros(m), k, 1 if slack == SHARED else 0)
    for b in range(len(z)):
        if b == 0 or len(weight) > 1:
            equilibrate(weight[b], columns, units)
        bounds = Bounds(
            batch.lower[b],
            batch.lower_rate[b],
            batch.upper[b],
            batch.upper_rate[b],
            batch.low[b],
            batch.high[b],
            batch.objective[b],
        )
        unit, price, _ = pose(columns, units, bounds, slack, sides, rows)
        start(rows, sides, slack, work, at)
        answers.verdict[b], answers.steps[b] = minimise(rows, sides, at, affine, step, work)
        for a in range(k):
            z[b, a] = at.v[a] * units.columns[a] * unit
        for j in range(n):
            up, down = at.y[j], at.y[m + j]
            if sides.soft[j] > 0.0 and bounds.lower[j] > -np.inf and sides.on[m + j] == 0.0:
                net = up - 1.0 / (bounds.lower_rate[j] * units.rows[j] * price)
                up, down = max(net, 0.0), max(-net, 0.0)
            answers.dual_upper[b, j] = up * units.rows[j] * price
            answers.dual_lower[b, j] = down * units.rows[j] * price
