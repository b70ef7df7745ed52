"""Pose, start and solve the samples of a block, one after another, in compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, compiled_finite, entry
from preimage.lp.interior import STUCK, minimise
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
from preimage.lp.room import Point, Scratch, Sides, new_point, new_scratch, new_sides, row_stride
from preimage.lp.working_set import extend, new_part, restrict

Array = NDArray[np.float64]

SHARED, OWN, NONE = 0, 1, 2

_ROUNDS = 2
# A row with one side says little of where z is, but must not leave the start undetermined.
_ONE_SIDED = 1e-9
# Weight that holds an entry of the least-squares point at its bound.
_HEAVY = 1e6
# The start lies inside the box by this fraction of the least-squares error.
_INSIDE = 0.3
_LEAST_MARGIN = 1e-7
_AWAY = 0.25
_LEAST_MU = 1e-12


class Bounds(NamedTuple):
    """The bounds of one sample, in its own units; as in ``LayerProgram``."""

    lower: Array
    lower_rate: Array
    upper: Array
    upper_rate: Array
    low: Array
    high: Array
    objective: Array


class Matrix(NamedTuple):
    """A weight matrix scaled by powers of two: ``columns[a, j] = w_ja * row_j * column_a``.

    Attributes:
        columns: (k, n padded to 8), the scaled transpose; padding is 0.
        table: (n padded to 8, stride), the scaled matrix itself; padding is 0.
        row: (n padded to 8,).
        column: (k,).
        filled: (n padded to 8,), 1 where a row has an entry, else 0.
    """

    columns: Array
    table: Array
    row: Array
    column: Array
    filled: Array


@register_jitable
def room_for_matrix(n: int, k: int) -> Matrix:
    """An unset scaled matrix."""
    m = (n + 7) // 8 * 8
    # Columns that are a power of two apart would share few places in the first-level cache.
    m += 8 if m % 128 == 0 and m > 0 else 0
    return Matrix(
        np.zeros((k, m)), np.zeros((m, row_stride(k))), np.ones(m), np.ones(k), np.zeros(m)
    )


@compiled
def _power(value: float) -> float:
    """The power of two nearest to ``value`` in the logarithm; 1 for 0."""
    return float(2.0 ** np.round(np.log2(value))) if value > 0.0 else 1.0


@compiled_finite
def _equilibrate(weight: Array, matrix: Matrix) -> None:
    """Scale ``weight`` (n, k) so that rows and columns have their largest entry near 1."""
    n, k = weight.shape
    columns, row, column = matrix.columns, matrix.row, matrix.column
    for j in range(n):
        for a in range(k):
            columns[a, j] = weight[j, a]
    fill(column, 1.0)
    for _ in range(_ROUNDS):
        fill(row, 0.0)
        for a in range(k):
            for j in range(n):
                row[j] = max(row[j], abs(columns[a, j]) * column[a])
        for j in range(len(row)):
            row[j] = 1.0 / row[j] if row[j] > 0.0 else 1.0
        for a in range(k):
            peak = 0.0
            for j in range(n):
                peak = max(peak, abs(columns[a, j]) * row[j])
            column[a] = 1.0 / peak if peak > 0.0 else 1.0
    for j in range(len(row)):
        row[j] = _power(row[j])
    for j in range(n):
        matrix.filled[j] = 0.0
        for a in range(k):
            matrix.filled[j] = 1.0 if weight[j, a] != 0.0 else matrix.filled[j]
    for a in range(k):
        column[a] = _power(column[a])
        for j in range(n):
            columns[a, j] *= row[j] * column[a]
    for j in range(n):
        for a in range(k):
            matrix.table[j, a] = weight[j, a] * row[j] * column[a]


@entry
def equilibrate(weight: Array, matrix: Matrix) -> None:
    """Scale ``weight`` (n, k) so that rows and columns have their largest entry near 1."""
    _equilibrate(weight, matrix)


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
            on[2 * m + a], h[2 * m + a] = 1.0, bounds.high[a] / matrix.column[a] / unit
        if bounds.low[a] > -np.inf:
            on[2 * m + k + a], h[2 * m + k + a] = 1.0, -bounds.low[a] / matrix.column[a] / unit
    return unit, price


@compiled
def least_squares(rows: Rows, sides: Sides, work: Scratch, z: Array) -> None:
    """``z = argmin sum_j (w_j z - target_j)^2`` over the rows with two sides, about in the box.

    Entries that fall outside are pulled to their bound by a heavy weight, twice if need be: the
    Gram matrix stays, and the point is much nearer to the optimum than one that is merely clipped.
    """
    k, m = rows.k, rows.m
    plain = Rows(
        rows.columns,
        rows.table,
        rows.origin,
        rows.upper_rate,
        rows.lower_rate,
        m,
        k,
        0,
        rows.sides,
        0,
    )
    on, h, x, matrix, pull = sides.on, sides.bound, work.x, work.matrix, work.pull
    fill(work.weight, 0.0)
    fill(x, 0.0)
    equations = 0.0
    for j in range(m):
        equations += sides.equation[j]
        upper, lower = on[j] * h[j], -on[m + j] * h[m + j]
        target = 0.5 * (upper + lower) if on[j] * on[m + j] > 0.0 else upper + lower
        work.weight[j] = max(sides.equation[j], _ONE_SIDED * max(on[j], on[m + j]))
        x[j] = work.weight[j] * target
    for a in range(2 * k):
        work.weight[2 * m + a] = _ONE_SIDED
    least = 2.0 * _ONE_SIDED if equations >= k else 0.0
    normal_matrix(
        plain,
        work.weight,
        least,
        work.picked,
        work.image,
        work.root,
        work.gram,
    )
    transposed_times(plain, x, work.image, pull)
    for attempt in range(3):
        for a in range(len(matrix)):
            for b in range(a, len(matrix)):
                matrix[a, b] = work.gram[a, b]
        cholesky(matrix, work.diagonal, work.pivots)
        for a in range(k):
            z[a] = pull[a]
        solve_factored(matrix, work.pivots, z, work.sums)
        outside = 0
        for a in range(k):
            high, low = h[2 * m + a], -h[2 * m + k + a]
            over = on[2 * m + a] > 0.0 and z[a] > high
            under = on[2 * m + k + a] > 0.0 and z[a] < low
            if (over or under) and work.gram[a, a] < _HEAVY:
                work.gram[a, a] += 2.0 * _HEAVY
                pull[a] += 2.0 * _HEAVY * (high if over else low)
                outside += 1
        if outside == 0 or attempt == 2:
            break


@compiled
def _into_box(rows: Rows, sides: Sides, margin: float, z: Array) -> None:
    """Move z inside its bounds by ``margin`` (or by a quarter of the interval)."""
    k, m, on, h = rows.k, rows.m, sides.on, sides.bound
    for a in range(k):
        low, high = -h[2 * m + k + a], h[2 * m + a]
        inside = margin
        if on[2 * m + a] * on[2 * m + k + a] > 0.0:
            inside = min(margin, 0.25 * (high - low))
        if on[2 * m + a] > 0.0:
            z[a] = min(z[a], high - inside)
        if on[2 * m + k + a] > 0.0:
            z[a] = max(z[a], low + inside)


@compiled
def _misfit(rows: Rows, sides: Sides, work: Scratch) -> float:
    """Mean error of the rows with two sides and of those that are violated; ``work.product``."""
    total, count, m = 0.0, 0.0, rows.m
    for j in range(m):
        upper = work.product[j] - sides.bound[j]
        lower = work.product[m + j] - sides.bound[m + j]
        over = max(sides.on[j] * upper, sides.on[m + j] * lower)
        if sides.equation[j] > 0.0 or over > 0.0:
            total += abs(over)
            count += 1.0
    return total / max(count, 1.0)


@compiled
def _slack_needed(rows: Rows, sides: Sides, work: Scratch) -> float:
    """The smallest d that satisfies all rows that have a rate."""
    need, m = 0.0, rows.m
    for j in range(m):
        up, low = rows.upper_rate[j], rows.lower_rate[j]
        if sides.on[j] * up > 0.0:
            need = max(need, (work.product[j] - sides.bound[j]) / up)
        if sides.on[m + j] * low > 0.0:
            need = max(need, (work.product[m + j] - sides.bound[m + j]) / low)
    return need


@compiled
def start(rows: Rows, sides: Sides, linear: bool, work: Scratch, at: Point) -> None:
    """A point near the least-squares one, on or near the central path.

    It lies inside the box by about the least-squares error, under a slack that suffices. Soft
    sides get ``y = cap p / (s + p)``, so that ``s y = p t``; hard ones ``y = mu / s`` with the mu
    of the soft ones, or that which pays for d, or one that fits the costs.
    """
    k, m, n = rows.k, rows.m, rows.sides
    on, soft, cap, v = sides.on, sides.soft, sides.cap, at.v
    fill(v, 0.0)
    least_squares(rows, sides, work, v)
    times(rows, v, work.image, work.product)
    margin = max(_misfit(rows, sides, work), _LEAST_MARGIN)
    if linear:
        # The objective leads away from the least-squares point, as far as the bounds reach.
        margin = max(margin, _AWAY)
    _into_box(rows, sides, _INSIDE * margin, v)
    times(rows, v, work.image, work.product)
    floor = margin
    if rows.shared:
        v[k] = 1.2 * max(_slack_needed(rows, sides, work), margin)
        floor = 0.1 * v[k]
        times(rows, v, work.image, work.product)
    bent, bends, paid = 0.0, 0.0, 0.0
    for i in range(n):
        at.y[i], at.p[i], at.t[i], at.s[i] = 0.0, 0.0, 1.0, 1.0
        over = work.product[i] - sides.bound[i]
        if soft[i] > 0.0:
            at.s[i], at.p[i] = max(-over, 0.0) + margin, max(over, 0.0) + margin
            at.y[i] = cap[i] * at.p[i] / (at.s[i] + at.p[i])
            at.t[i] = cap[i] - at.y[i]
            bent += at.y[i] * at.s[i]
            bends += 1.0
        elif on[i] > 0.0:
            at.s[i] = max(-over, floor)
    if rows.shared:
        for j in range(m):
            paid += rows.upper_rate[j] / at.s[j] + rows.lower_rate[j] / at.s[m + j]
        mu = sides.cost[k] / (paid + 1.0 / at.s[n - 1])
    else:
        mu = bent / bends if bends > 0.0 else largest(sides.cost) * floor
    mu = max(mu, _LEAST_MU)
    for i in range(n):
        if on[i] > soft[i]:
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


@entry
def solve_block(batch: Batch, shared_matrix: Matrix, slack: int, answers: Answers) -> None:
    """Solve every sample of a batch.

    Args:
        batch: The data.
        shared_matrix: The scaled weight if the batch shares it; of no rows if it has one a sample.
        slack: SHARED, OWN or NONE.
        answers: Written.
    """
    n, k = batch.weight.shape[1:]
    many = len(shared_matrix.row) == 0
    matrix = room_for_matrix(n, k) if many else shared_matrix
    m = len(matrix.row)
    work, sides = new_scratch(m, k), new_sides(m, k)
    at, step, other = new_point(m, k), new_point(m, k), new_point(m, k)
    part = new_part(m, k)
    shared = 1 if slack == SHARED else 0
    soft = 2 * m if slack == OWN else 0
    count = 2 * m + 2 * k + 1
    rows = Rows(
        matrix.columns,
        matrix.table,
        np.arange(m),
        np.zeros(m),
        np.zeros(m),
        m,
        k,
        shared,
        count,
        soft,
    )
    for b in range(len(answers.z)):
        if many:
            _equilibrate(batch.weight[b], matrix)
        bounds = Bounds(
            batch.lower[b],
            batch.lower_rate[b],
            batch.upper[b],
            batch.upper_rate[b],
            batch.low[b],
            batch.high[b],
            batch.objective[b],
        )
        unit, price = pose(matrix, bounds, slack, sides, rows)
        linear = largest(bounds.objective) > 0.0
        start(rows, sides, linear, work, at)
        few = restrict(rows, sides, at, part, work)
        answers.steps[b] = 0
        for attempt in range(2):
            whole = attempt == 1 or few.m == 0
            verdict, steps = minimise(
                rows if whole else few,
                sides if whole else part.sides,
                at if whole else part.at,
                step,
                other,
                work,
            )
            answers.verdict[b] = verdict
            answers.steps[b] += steps
            if whole or (verdict != STUCK and extend(rows, sides, at, few, part, work)):
                break
        restore(matrix, bounds, rows, sides, at, unit, price, b, answers)
