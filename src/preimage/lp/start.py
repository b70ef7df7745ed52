"""Where the interior-point method starts: near the least-squares point, near the central path."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled
from preimage.lp.normal import (
    Rows,
    cholesky,
    fill,
    largest,
    normal_matrix,
    solve_factored,
    times,
    transposed_times,
)
from preimage.lp.room import Point, Scratch, Sides

Array = NDArray[np.float64]

# A row with one side says little of where z is, but must not leave the start undetermined.
_ONE_SIDED = 1e-9
# Weight that holds an entry of the least-squares point at its bound.
_HEAVY = 1e6
# The start lies inside the box by this fraction of the least-squares error.
_INSIDE = 0.3
_LEAST_MARGIN = 1e-7
_AWAY = 0.25
_LEAST_MU = 1e-12


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
        rows.first,
        rows.place,
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
