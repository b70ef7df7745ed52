"""A primal-dual interior-point method for one layer program (Mehrotra 1992).

Every program is brought into one form, whose inequalities are the sides of ``normal.Rows``:

    minimise    c v + sum_i cap_i p_i         v = (z, d)
    subject to  G v + s - p  =  h             s, p >= 0,   p_i = 0 where the side is hard

    maximise    -h y
    subject to  G' y + c  =  0                0 <= y <= cap   (cap is infinite where hard)

A soft side may be violated by p at the price cap: that is the own slack of a row under l1, which
thus needs no variable. The central path is ``s y = mu`` and, where soft, ``p (cap - y) = mu``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, compiled_finite
from preimage.lp.normal import (
    Rows,
    cholesky,
    copy,
    largest,
    normal_matrix,
    solve_factored,
    times,
    total,
    transposed_times,
)

Array = NDArray[np.float64]


VERTEX, CENTRAL, STUCK = 0, 1, 2

_MOST_STEPS = 60
_GAP = 1e-10
_INFEASIBILITY = 1e-10
_ROUNDING = 1e-12
# Tapia's indicators go to 0 or -1; nearer to the middle than this they have not decided.
_DOUBT = 0.4


class Sides(NamedTuple):
    """The N inequalities of one program, beside their matrix.

    Attributes:
        bound: h; 0 where the side is absent.
        on: 1 where the side exists, else 0.
        soft: 1 where it may be violated, else 0.
        cap: Price of a violation where soft, else 0.
        cost: (k + 1,), c.
    """

    bound: Array
    on: Array
    soft: Array
    cap: Array
    cost: Array


class Point(NamedTuple):
    """A point or a direction: v, and s, y, p, t = cap - y of each side.

    Absent sides hold s = 1, y = 0; sides that are not soft hold p = 0, t = 1.
    """

    v: Array
    s: Array
    y: Array
    p: Array
    t: Array


class Scratch(NamedTuple):
    """Room for one solve, reused by the next."""

    product: Array
    step_product: Array
    weight: Array
    inverse_y: Array
    inverse_t: Array
    rho: Array
    x: Array
    kind: Array
    image: Array
    root: Array
    matrix: Array
    diagonal: Array
    pivots: Array
    gradient: Array
    landed_v: Array
    landed_y: Array


@compiled
def allocate(m: int, k: int) -> Scratch:
    """Room for programs of ``m`` (padded) rows and ``k`` variables."""
    n = 2 * m + 2 * k + 1
    padded = (k + 2) // 3 * 3
    size = (max(padded, k + 1) + 3) // 4 * 4
    return Scratch(
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
        np.zeros(m),
        np.zeros((padded, m)),
        np.zeros((size, size)),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(n),
    )


@compiled
def new_point(m: int, k: int) -> Point:
    """An unset point."""
    n = 2 * m + 2 * k + 1
    size = (max((k + 2) // 3 * 3, k + 1) + 3) // 4 * 4
    return Point(np.zeros(size), np.ones(n), np.zeros(n), np.zeros(n), np.ones(n))


@compiled
def complementarity(sides: Sides, at: Point) -> float:
    """``s y + p t``, the duality gap of a feasible point."""
    gap = 0.0
    for i in range(len(at.s)):
        gap += at.s[i] * at.y[i] + at.p[i] * at.t[i] * sides.soft[i]
    return gap


@compiled
def set_weights(sides: Sides, at: Point, work: Scratch) -> None:
    """``D = 1 / (s/y + p/t)``: the Newton weight of each side, 0 where it is absent."""
    on, soft = sides.on, sides.soft
    for i in range(len(on)):
        inverse_y = on[i] / (at.y[i] + (1.0 - on[i]))
        inverse_t = soft[i] / at.t[i]
        work.inverse_y[i], work.inverse_t[i] = inverse_y, inverse_t
        work.weight[i] = on[i] / (at.s[i] * inverse_y + at.p[i] * inverse_t + (1.0 - on[i]))


@compiled
def newton(rows: Rows, sides: Sides, at: Point, work: Scratch, step: Point) -> None:
    """Solve ``G' D G dv = -(c + G' (y + D rho))`` and set ``dy = D (G dv + rho)``."""
    size = rows.k + rows.shared
    for i in range(len(at.y)):
        work.x[i] = at.y[i] + work.weight[i] * work.rho[i]
    transposed_times(rows, work.x, work.image, step.v)
    for a in range(size):
        step.v[a] = -(sides.cost[a] + step.v[a])
    solve_factored(work.matrix, work.pivots, size, step.v)
    times(rows, step.v, work.image, work.step_product)
    for i in range(len(at.y)):
        step.y[i] = work.weight[i] * (work.step_product[i] + work.rho[i])


@compiled
def predict(rows: Rows, sides: Sides, at: Point, work: Scratch, step: Point) -> None:
    """The affine direction, towards ``mu = 0``: there ``rho = G v - h``."""
    for i in range(len(at.y)):
        work.rho[i] = sides.on[i] * (work.product[i] - sides.bound[i])
    newton(rows, sides, at, work, step)
    for i in range(len(at.y)):
        step.s[i] = -at.s[i] * (sides.on[i] + work.inverse_y[i] * step.y[i])
        step.p[i] = -at.p[i] * (sides.soft[i] - work.inverse_t[i] * step.y[i])
        step.t[i] = -sides.soft[i] * step.y[i]


@compiled
def correct(
    rows: Rows, sides: Sides, at: Point, work: Scratch, affine: Point, target: float, step: Point
) -> None:
    """The direction towards ``mu = target`` with Mehrotra's second-order term.

    s dy + y ds = target - s y - ds' dy'      =: e      (' is the affine direction)
    p dt + t dp = target - p t - dp' dt'      =: f
    rho = G v + s - p - h + e / y - f / t
    """
    on, soft = sides.on, sides.soft
    # e / y and f / t are kept in s and p of the step until dy is known.
    for i in range(len(at.y)):
        e = target - at.s[i] * at.y[i] - affine.s[i] * affine.y[i]
        f = target - at.p[i] * at.t[i] - affine.p[i] * affine.t[i]
        step.s[i], step.p[i] = e * work.inverse_y[i], f * work.inverse_t[i]
        infeasible = work.product[i] + at.s[i] - at.p[i] - sides.bound[i]
        work.rho[i] = on[i] * (infeasible + step.s[i] - step.p[i])
    newton(rows, sides, at, work, step)
    for i in range(len(at.y)):
        step.s[i] -= at.s[i] * work.inverse_y[i] * step.y[i]
        step.p[i] += at.p[i] * work.inverse_t[i] * step.y[i]
        step.t[i] = -soft[i] * step.y[i]


@compiled_finite
def longest_steps(sides: Sides, at: Point, step: Point) -> tuple[float, float]:
    """How far s and p, and how far y and t, can go before one is 0; at most about 1e300."""
    primal, dual = 1e-300, 1e-300
    for i in range(len(at.y)):
        primal = max(primal, -step.s[i] / at.s[i])
        dual = max(dual, -step.y[i] / (at.y[i] + (1.0 - sides.on[i])))
    for i in range(len(at.y)):
        primal = max(primal, -step.p[i] / (at.p[i] + (1.0 - sides.soft[i])))
        dual = max(dual, -step.t[i] / at.t[i])
    return 1.0 / primal, 1.0 / dual


@compiled
def gap_after(sides: Sides, at: Point, step: Point, primal: float, dual: float) -> float:
    """``s y + p t`` after steps of the given lengths."""
    total = 0.0
    for i in range(len(at.y)):
        y, t = at.y[i] + dual * step.y[i], at.t[i] + dual * step.t[i]
        total += (at.s[i] + primal * step.s[i]) * y
        total += (at.p[i] + primal * step.p[i]) * t * sides.soft[i]
    return total


@compiled
def advance(rows: Rows, at: Point, step: Point, primal: float, dual: float, work: Scratch) -> None:
    """Take the step; ``work.product`` follows by the product that is known already."""
    for i in range(len(at.y)):
        at.s[i] += primal * step.s[i]
        at.p[i] += primal * step.p[i]
        at.y[i] += dual * step.y[i]
        at.t[i] += dual * step.t[i]
        work.product[i] += primal * work.step_product[i]
    for a in range(rows.k + rows.shared):
        at.v[a] += primal * step.v[a]


@compiled
def objective(rows: Rows, sides: Sides, at: Point) -> float:
    """``c v + cap p``."""
    total = 0.0
    for a in range(rows.k + rows.shared):
        total += sides.cost[a] * at.v[a]
    for i in range(len(at.p)):
        total += sides.cap[i] * at.p[i]
    return total


@compiled_finite
def infeasibility(rows: Rows, sides: Sides, at: Point, work: Scratch) -> tuple[float, float]:
    """Largest primal and dual residual, ``|G v + s - p - h|`` and ``|c + G' y|``."""
    primal, dual = 0.0, 0.0
    for i in range(len(at.s)):
        residual = work.product[i] + at.s[i] - at.p[i] - sides.bound[i]
        primal = max(primal, sides.on[i] * abs(residual))
    transposed_times(rows, at.y, work.image, work.gradient)
    for a in range(rows.k + rows.shared):
        dual = max(dual, abs(work.gradient[a] + sides.cost[a]))
    return primal, dual


@compiled
def classify(sides: Sides, affine: Point, at: Point, work: Scratch) -> tuple[int, int]:
    """Which sides bind, by Tapia's indicators of the affine direction.

    Along it, y/y -> 1 and s/s -> 0 where a side binds, the reverse where it is slack, whatever
    the scale; the middle, ``dy / y = -1/2``, separates them. ``kind`` is set to 1 where a side
    binds, 2 where a soft side is at its cap, else 0.

    Returns:
        How many sides bind, and how many are in doubt.
    """
    count, doubts = 0, 0
    for i in range(len(at.y)):
        y_change, t_change = affine.y[i] * work.inverse_y[i], -affine.y[i] * work.inverse_t[i]
        binds = sides.on[i] > 0.0 and y_change > -0.5 and t_change > -0.5
        work.kind[i] = 1.0 if binds else (2.0 if t_change <= -0.5 else 0.0)
        count += binds
        doubts += abs(y_change + 0.5) < _DOUBT or abs(t_change + 0.5) < _DOUBT
    return count, doubts


@compiled
def land(rows: Rows, sides: Sides, at: Point, work: Scratch, affine: Point, spare: Point) -> bool:
    """Project onto the face of the sides that seem to bind; True if that is the optimum.

    With A the sides that bind and C those at their cap, the optimal face is

        G_A v = h_A,    G_A' y_A = -c - G_C' cap_C,

    and each refinement, with the factor of ``M = G' D G`` that this step has anyway,

        v += M^-1 G_A' D_A (h_A - G_A v),    y_A -= D_A G_A M^-1 (c + G' y)

    shrinks both residuals by about the ratio of the weights outside A to those inside. The claim
    is then checked: all sides, all signs (Mehrotra and Ye, 1993).
    """
    size, n = rows.k + rows.shared, len(at.y)
    v, y, kind = work.landed_v, work.landed_y, work.kind
    for a in range(size):
        v[a] = at.v[a] + affine.v[a]
    for i in range(n):
        y[i] = at.y[i] + affine.y[i] if kind[i] == 1.0 else 0.0
        if kind[i] == 2.0:
            y[i] = sides.cap[i]
    scale = 1.0
    for a in range(size):
        scale = max(scale, abs(v[a]))
    before = np.inf
    for _ in range(20):
        times(rows, v, work.image, work.step_product)
        primal = 0.0
        for i in range(n):
            residual = sides.bound[i] - work.step_product[i] if kind[i] == 1.0 else 0.0
            primal = max(primal, abs(residual))
            work.x[i] = work.weight[i] * residual
        transposed_times(rows, work.x, work.image, spare.v)
        transposed_times(rows, y, work.image, work.gradient)
        dual = 0.0
        for a in range(size):
            work.gradient[a] += sides.cost[a]
            dual = max(dual, abs(work.gradient[a]))
        miss = primal / scale + dual
        if miss <= 1e-15 or not miss < 0.5 * before:
            break
        before = miss
        solve_factored(work.matrix, work.pivots, size, spare.v)
        for a in range(size):
            v[a] += spare.v[a]
        solve_factored(work.matrix, work.pivots, size, work.gradient)
        times(rows, work.gradient, work.image, work.x)
        for i in range(n):
            if kind[i] == 1.0:
                y[i] -= work.weight[i] * work.x[i]
    return _is_optimal(rows, sides, work, primal, dual, scale)


@compiled
def _is_optimal(
    rows: Rows, sides: Sides, work: Scratch, primal: float, dual: float, scale: float
) -> bool:
    """Check signs and sides of a landed point whose equations hold; clip rounding from y."""
    y, kind = work.landed_y, work.kind
    largest = 0.0
    for i in range(len(y)):
        largest = max(largest, abs(y[i]))
    ok = primal <= _ROUNDING * scale and dual <= _ROUNDING * max(largest, 1.0)
    for i in range(len(y)):
        over = work.step_product[i] - sides.bound[i]
        if sides.on[i] > 0.0:
            ok &= over <= _ROUNDING * scale or kind[i] == 2.0
            ok &= over >= -_ROUNDING * scale or kind[i] != 2.0
            ok &= y[i] >= -_ROUNDING * largest
            ok &= y[i] <= sides.cap[i] + _ROUNDING * largest or sides.soft[i] == 0.0
            y[i] = max(y[i], 0.0)
            if sides.soft[i] > 0.0:
                y[i] = min(y[i], sides.cap[i])
    return ok


@compiled
def minimise(
    rows: Rows, sides: Sides, at: Point, affine: Point, step: Point, work: Scratch
) -> tuple[int, int]:
    """Follow the central path from ``at``; the answer is left in ``at.v`` and ``at.y``.

    Returns:
        VERTEX (an optimum exact to rounding), CENTRAL (optimal within tolerance) or STUCK; and
        the number of steps.
    """
    pairs = total(sides.on) + total(sides.soft)
    bound, cost = 1.0 + largest(sides.bound), 1.0 + largest(sides.cost)
    size = rows.k + rows.shared
    times(rows, at.v, work.image, work.product)
    shortest = 0
    for count in range(_MOST_STEPS):
        gap = complementarity(sides, at)
        value = objective(rows, sides, at)
        primal, dual = infeasibility(rows, sides, at, work)
        if not np.isfinite(gap + primal + dual):
            return STUCK, count
        small = gap <= _GAP * abs(value) + 1e-14
        feasible = primal <= _INFEASIBILITY * bound and dual <= _INFEASIBILITY * cost
        if small and feasible:
            return CENTRAL, count
        set_weights(sides, at, work)
        normal_matrix(rows, work.weight, work.image, work.root, work.matrix)
        cholesky(work.matrix, work.diagonal, work.pivots)
        predict(rows, sides, at, work, affine)
        binding, doubts = classify(sides, affine, at, work)
        if (binding == size or doubts == 0) and land(rows, sides, at, work, affine, step):
            copy(work.landed_v, at.v)
            copy(work.landed_y, at.y)
            return VERTEX, count
        longest = longest_steps(sides, at, affine)
        ahead = gap_after(sides, at, affine, min(1.0, longest[0]), min(1.0, longest[1]))
        target = gap / pairs * min(1.0, (ahead / gap) ** 3)
        correct(rows, sides, at, work, affine, target, step)
        longest = longest_steps(sides, at, step)
        alpha = min(1.0, 0.995 * longest[0])
        beta = min(1.0, 0.995 * longest[1])
        advance(rows, at, step, alpha, beta, work)
        shortest = shortest + 1 if max(alpha, beta) < 1e-3 else 0
        if shortest == 3:
            break
        if count % 8 == 7:
            times(rows, at.v, work.image, work.product)
    return STUCK, count
