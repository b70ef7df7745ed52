"""A primal-dual interior-point method for one layer program (Mehrotra 1992).

Every program is brought into one form, whose inequalities are the sides of ``normal.Rows``:

    minimise    c v + sum_i cap_i p_i         v = (z, d)
    subject to  G v + s - p  =  h             s, p >= 0,   p_i = 0 where the side is hard

    maximise    -h y
    subject to  G' y + c  =  0                0 <= y <= cap   (cap is infinite where hard)

A soft side may be violated by p at the price cap: that is the own slack of a row under l1, which
thus needs no variable. With ``t = cap - y``, the central path is ``s y = mu`` and, where soft,
``p t = mu``. Linearised, with the right-hand sides e and f of these two,

    G' dy = -(c + G' y)
    G dv + ds - dp = -(G v + s - p - h)
    s dy + y ds = e,      t dp - p dy = f

and s, p, y eliminated in this order, a step is

    D = 1 / (s/y + p/t),            rho = G v - h + s + e/y - p - f/t,
    G' D G dv = -(c + G' (y + D rho)),        dy = D (G dv + rho),
    ds = e/y - (s/y) dy,                      dp = f/t + (p/t) dy.

Loops below write one array each: with more, the compiler would have to check at run time which of
them overlap, gives up, and leaves the loop scalar.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, compiled_finite
from preimage.lp.landing import land
from preimage.lp.normal import (
    Rows,
    cholesky,
    cutoff,
    normal_matrix,
    solve_factored,
    times,
    transposed_times,
)
from preimage.lp.room import Point, Scratch, Sides

Array = NDArray[np.float64]

VERTEX, CENTRAL, STUCK = 0, 1, 2

_MOST_STEPS = 60
# Where landing on a face fails, an interior point this good is taken.
_GAP = 1e-10
_INFEASIBILITY = 1e-10
# While the relative gap is above this, the Gram matrix is computed in float32.
_ROUGH = 1e-3
# Programs of fewer variables than this do without centrality correctors.
_FEW = 150
# Steps longer than this need no corrector; the others aim this much further, and must gain this
# much in both lengths together.
_LONG = 0.95
_FURTHER = 0.3
_GAIN = 0.03
# How much of the way to the boundary a step goes.
_FRACTION = 0.995


@compiled
def set_weights(rows: Rows, sides: Sides, at: Point, work: Scratch) -> None:
    """``D = 1 / (s/y + p/t)``, the Newton weight of each side, and the inverses in it."""
    n, soft_n, on, soft = rows.sides, rows.soft, sides.on, sides.soft
    inverse_y, inverse_t, weight = work.inverse_y, work.inverse_t, work.weight
    for i in range(n):
        inverse_y[i] = on[i] / (at.y[i] + (1.0 - on[i]))
    for i in range(n):
        work.inverse_s[i] = 1.0 / at.s[i]
    for i in range(n):
        weight[i] = at.y[i] * work.inverse_s[i]
    for i in range(soft_n):
        inverse_t[i] = soft[i] / at.t[i]
    for i in range(soft_n):
        weight[i] = on[i] / (at.s[i] * inverse_y[i] + at.p[i] * inverse_t[i] + (1.0 - on[i]))


@compiled
def newton(rows: Rows, sides: Sides, work: Scratch, dv: Array, dy: Array) -> None:
    """Solve for dv and dy; ``work`` holds the factor, D, rho and ``gradient = c + G' y``."""
    n, size = rows.sides, rows.k + rows.shared
    x, rho, weight = work.x, work.rho, work.weight
    for i in range(n):
        x[i] = weight[i] * rho[i]
    transposed_times(rows, x, work.image, dv)
    for a in range(size):
        dv[a] = -(work.gradient[a] + dv[a])
    solve_factored(work.matrix, work.pivots, dv, work.sums)
    times(rows, dv, work.image, work.step_product)
    for i in range(n):
        dy[i] = weight[i] * (work.step_product[i] + rho[i])


@compiled
def predict(rows: Rows, sides: Sides, at: Point, work: Scratch) -> None:
    """The affine direction, towards ``mu = 0``: there ``rho = G v - h``.

    Only its ratios are kept, ``dy/y`` and ``dt/t``; the others follow from them,

        ds/s = -(1 + dy/y),     dp/p = -(1 + dt/t).
    """
    n, soft_n = rows.sides, rows.soft
    rho, ratio_y, ratio_t = work.rho, work.ratio_y, work.ratio_t
    for i in range(n):
        rho[i] = sides.on[i] * (work.product[i] - sides.bound[i])
    newton(rows, sides, work, work.affine, work.x)
    for i in range(n):
        ratio_y[i] = work.x[i] * work.inverse_y[i]
    for i in range(soft_n):
        ratio_t[i] = -work.x[i] * work.inverse_t[i]


@compiled_finite
def affine_lengths(rows: Rows, sides: Sides, work: Scratch) -> tuple[float, float]:
    """How far s and p, and how far y and t, can go along the affine direction; at most 1."""
    primal, dual = 1.0, 1.0
    for i in range(rows.sides):
        primal = max(primal, sides.on[i] + work.ratio_y[i])
        dual = max(dual, -work.ratio_y[i])
    for i in range(rows.soft):
        primal = max(primal, sides.soft[i] + work.ratio_t[i])
        dual = max(dual, -work.ratio_t[i])
    return 1.0 / primal, 1.0 / dual


@compiled
def affine_gap(
    rows: Rows, sides: Sides, at: Point, work: Scratch, primal: float, dual: float
) -> float:
    """``s y + p t`` after affine steps of these lengths."""
    gap = 0.0
    for i in range(rows.sides):
        ratio = work.ratio_y[i]
        gap += at.s[i] * at.y[i] * (1.0 - primal * (1.0 + ratio)) * (1.0 + dual * ratio)
    for i in range(rows.soft):
        ratio = work.ratio_t[i]
        left = at.p[i] * at.t[i] * sides.soft[i]
        gap += left * (1.0 - primal * (1.0 + ratio)) * (1.0 + dual * ratio)
    return gap


@compiled
def correct(rows: Rows, sides: Sides, at: Point, work: Scratch, target: float, step: Point) -> None:
    """The direction towards ``mu = target`` with Mehrotra's second-order term.

    With the affine direction ds', dy', dp', dt' and its ratios,

        e/y = (target - s y - ds' dy') / y  =  target/y - s + s (1 + dy'/y) dy'/y
        f/t = (target - p t - dp' dt') / t  =  target/t - p + p (1 + dt'/t) dt'/t
        rho = (G v - h)  +  e/y + s  -  f/t - p
    """
    n, soft_n, on, soft = rows.sides, rows.soft, sides.on, sides.soft
    rho, ratio_y, ratio_t, s, p = work.rho, work.ratio_y, work.ratio_t, at.s, at.p
    for i in range(n):
        work.push_s[i] = target * work.inverse_y[i] + s[i] * (on[i] + ratio_y[i]) * ratio_y[i]
    for i in range(soft_n):
        work.push_p[i] = target * work.inverse_t[i] + p[i] * (soft[i] + ratio_t[i]) * ratio_t[i]
    for i in range(n):
        rho[i] += work.push_s[i]
    for i in range(soft_n):
        rho[i] -= work.push_p[i]
    direction(rows, sides, at, work, step)


@compiled
def direction(rows: Rows, sides: Sides, at: Point, work: Scratch, step: Point) -> None:
    """The step for ``rho``, where ``e/y + s`` and ``f/t + p`` are in ``push_s`` and ``push_p``."""
    n, soft_n, on, soft = rows.sides, rows.soft, sides.on, sides.soft
    inverse_y, inverse_t, dy = work.inverse_y, work.inverse_t, step.y
    newton(rows, sides, work, step.v, dy)
    for i in range(n):
        step.s[i] = work.push_s[i] - at.s[i] * (on[i] + dy[i] * inverse_y[i])
    for i in range(soft_n):
        step.p[i] = work.push_p[i] - at.p[i] * (soft[i] - dy[i] * inverse_t[i])


@compiled
def recentre(
    rows: Rows,
    sides: Sides,
    at: Point,
    work: Scratch,
    target: float,
    primal: float,
    dual: float,
    step: Point,
) -> None:
    """One of Gondzio's (1996) centrality correctors.

    The products ``s y`` and ``p t`` at the end of a step of lengths ``primal`` and ``dual`` are
    asked to come back into ``[0.1, 10] target``; those far above are asked for no more than
    ``10 target`` less.
    """
    n, soft_n = rows.sides, rows.soft
    low, high = 0.1 * target, 10.0 * target
    for i in range(n):
        end = (at.s[i] + primal * step.s[i]) * (at.y[i] + dual * step.y[i])
        work.x[i] = max(min(max(end, low), high) - end, -high) * work.inverse_y[i]
    for i in range(n):
        work.push_s[i] += work.x[i]
    for i in range(n):
        work.rho[i] += work.x[i]
    for i in range(soft_n):
        end = (at.p[i] + primal * step.p[i]) * (at.t[i] - dual * step.y[i])
        work.x[i] = max(min(max(end, low), high) - end, -high) * work.inverse_t[i]
    for i in range(soft_n):
        work.push_p[i] += work.x[i]
    for i in range(soft_n):
        work.rho[i] -= work.x[i]


@compiled_finite
def longest_steps(
    rows: Rows, sides: Sides, at: Point, work: Scratch, step: Point
) -> tuple[float, float]:
    """How far s and p, and how far y and t, can go before one of them is 0."""
    primal, dual = 1e-300, 1e-300
    for i in range(rows.sides):
        primal = max(primal, -step.s[i] * work.inverse_s[i])
        dual = max(dual, -step.y[i] * work.inverse_y[i])
    for i in range(rows.soft):
        primal = max(primal, -step.p[i] / (at.p[i] + (1.0 - sides.soft[i])))
        dual = max(dual, step.y[i] * work.inverse_t[i])
    return 1.0 / primal, 1.0 / dual


@compiled
def advance(
    rows: Rows, sides: Sides, at: Point, step: Point, primal: float, dual: float, work: Scratch
) -> None:
    """Take the step; ``work.product = G v`` follows by the product that is known already."""
    for i in range(rows.sides):
        at.s[i] += primal * step.s[i]
    for i in range(rows.sides):
        at.y[i] += dual * step.y[i]
    for i in range(rows.sides):
        work.product[i] += primal * work.step_product[i]
    for i in range(rows.soft):
        at.p[i] += primal * step.p[i]
    for i in range(rows.soft):
        at.t[i] -= dual * step.y[i] * sides.soft[i]
    for a in range(rows.k + rows.shared):
        at.v[a] += primal * step.v[a]


@compiled
def gap_and_value(rows: Rows, sides: Sides, at: Point) -> tuple[float, float]:
    """``s y + p t`` and ``c v + cap p``."""
    gap, value = 0.0, 0.0
    for i in range(rows.sides):
        gap += at.s[i] * at.y[i]
    for i in range(rows.soft):
        gap += at.p[i] * at.t[i] * sides.soft[i]
        value += sides.cap[i] * at.p[i]
    for a in range(rows.k + rows.shared):
        value += sides.cost[a] * at.v[a]
    return gap, value


@compiled_finite
def residuals(rows: Rows, sides: Sides, at: Point, work: Scratch) -> tuple[float, float]:
    """Largest entries of ``G v + s - p - h`` and of ``c + G' y``, relative to those of h and c."""
    primal, dual, bound, cost = 0.0, 0.0, 1.0, 1.0
    for i in range(rows.sides):
        miss = work.product[i] + at.s[i] - at.p[i] - sides.bound[i]
        primal = max(primal, sides.on[i] * abs(miss))
        bound = max(bound, abs(sides.bound[i]))
    for a in range(rows.k + rows.shared):
        dual = max(dual, abs(work.gradient[a]))
        cost = max(cost, abs(sides.cost[a]))
    return primal / bound, dual / cost


@compiled
def _correctors(size: int) -> int:
    """Centrality correctors a step: as many as pay, since a factor costs ever more than a solve."""
    return 0 if size < _FEW else 2


@compiled
def minimise(
    rows: Rows, sides: Sides, at: Point, step: Point, other: Point, work: Scratch
) -> tuple[int, int]:
    """Follow the central path from ``at``; the answer is left in ``at.v`` and ``at.y``.

    Returns:
        VERTEX (an optimum exact to rounding), CENTRAL (optimal within tolerance) or STUCK; and
        the number of steps.
    """
    size, pairs = rows.k + rows.shared, 0.0
    for i in range(rows.sides):
        pairs += sides.on[i] + sides.soft[i]
    times(rows, at.v, work.image, work.product)
    correctors = _correctors(size)
    idle, count = 0, 0
    while count < _MOST_STEPS and idle < 3:
        gap, value = gap_and_value(rows, sides, at)
        if not np.isfinite(gap + value):
            break
        transposed_times(rows, at.y, work.image, work.gradient)
        for a in range(size):
            work.gradient[a] += sides.cost[a]
        if gap <= _GAP * abs(value) + 1e-14:
            primal, dual = residuals(rows, sides, at, work)
            if primal <= _INFEASIBILITY and dual <= _INFEASIBILITY:
                return CENTRAL, count
        set_weights(rows, sides, at, work)
        least = cutoff(work.weight, rows.sides, size, work.histogram)
        known = (rows, work.weight, least, work.picked, work.image)
        if gap > _ROUGH * abs(value):
            normal_matrix(*known, work.rough_root, work.matrix)
        else:
            normal_matrix(*known, work.root, work.matrix)
        cholesky(work.matrix, work.diagonal, work.pivots)
        predict(rows, sides, at, work)
        if land(rows, sides, at, work, step):
            return VERTEX, count
        primal, dual = affine_lengths(rows, sides, work)
        ahead = affine_gap(rows, sides, at, work, primal, dual)
        target = gap / pairs * min(1.0, (ahead / gap) ** 3)
        correct(rows, sides, at, work, target, step)
        primal, dual = longest_steps(rows, sides, at, work, step)
        for _ in range(correctors):
            if min(primal, dual) > _LONG:
                break
            ends = min(1.0, primal + _FURTHER), min(1.0, dual + _FURTHER)
            recentre(rows, sides, at, work, target, ends[0], ends[1], step)
            direction(rows, sides, at, work, other)
            longer = longest_steps(rows, sides, at, work, other)
            if (
                min(longer[0], 1.0) + min(longer[1], 1.0)
                < min(primal, 1.0) + min(dual, 1.0) + _GAIN
            ):
                times(rows, step.v, work.image, work.step_product)
                break
            step, other = other, step
            primal, dual = longer
        primal, dual = min(1.0, _FRACTION * primal), min(1.0, _FRACTION * dual)
        advance(rows, sides, at, step, primal, dual, work)
        idle = idle + 1 if max(primal, dual) < 1e-3 else 0
        count += 1
    return STUCK, count
