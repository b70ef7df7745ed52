"""From an interior point to the optimum itself, exact to rounding.

Near the optimum it shows which sides bind. If A are these, and C the soft ones at their cap, then
the optimal face is

    G_A v = h_A,        G_A' y_A = -(c + G_C' cap_C),

usually a vertex. Projecting onto it needs nothing new: with the factor of ``M = G' D G`` that the
interior-point step has anyway,

    v += M^-1 G_A' D_A (h_A - G_A v),      y_A -= D_A G_A M^-1 (c + G_C' cap_C + G_A' y_A)

shrink both residuals by about the ratio of the weights outside A to those inside, and only the
rows in A are touched. What comes out is then checked: all sides and all signs (Ye, 1992; Mehrotra
and Ye, 1993).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, compiled_finite
from preimage.lp.normal import Rows, solve_factored, times, transposed_times
from preimage.lp.room import Point, Scratch, Sides

Array = NDArray[np.float64]

_ROUNDING = 1e-12
_MOST_REFINEMENTS = 20
# Tapia's indicators go to 0 or -1; nearer to the middle than this they have not decided.
_DOUBT = 0.4

SLACK, BINDS, CAPPED = 0.0, 1.0, 2.0


@compiled
def _classify(rows: Rows, sides: Sides, work: Scratch) -> int:
    """Set ``work.kind`` by Tapia's indicators of the affine direction; the number in doubt.

    Along it, y/y -> 1 and s/s -> 0 where a side binds, the reverse where it is slack, whatever
    the scale; the middle, ``dy/y = -1/2``, separates them. So does ``dt/t`` where it is soft.
    """
    kind, ratio_y, ratio_t, on = work.kind, work.ratio_y, work.ratio_t, sides.on
    doubts = 0
    for i in range(rows.sides):
        kind[i] = BINDS if on[i] * (ratio_y[i] + 0.5) > 0.0 else SLACK
    for i in range(rows.soft):
        kind[i] = CAPPED if ratio_t[i] <= -0.5 else kind[i]
    for i in range(rows.sides):
        doubts += abs(ratio_y[i] + 0.5) < _DOUBT
    for i in range(rows.soft):
        doubts += abs(ratio_t[i] + 0.5) < _DOUBT
    return doubts


@compiled
def _pick(rows: Rows, work: Scratch) -> tuple[int, int]:
    """List the rows' sides that bind in ``work.picked``; their number, and that of all that do."""
    picked, binding = 0, 0
    for i in range(2 * rows.m):
        if work.kind[i] == BINDS:
            if picked < rows.m:
                work.picked[picked] = i
            picked += 1
    for i in range(2 * rows.m, rows.sides):
        binding += work.kind[i] == BINDS
    return picked, binding + picked


@compiled
def _gather(rows: Rows, work: Scratch, picked: int) -> Rows:
    """The rows' sides in ``work.picked`` as upper sides of a program of their own."""
    m, padded = rows.m, (picked + 3) // 4 * 4
    columns, few, index = rows.columns, work.face, work.picked
    for i in range(picked, padded):
        index[i] = 0
    for a in range(rows.k):
        for i in range(padded):
            j = index[i]
            few[a, i] = columns[a, j] if j < m else -columns[a, j - m]
        for i in range(picked, padded):
            few[a, i] = 0.0
    for i in range(padded):
        j = index[i]
        work.rate[i] = rows.upper_rate[j] if j < m else rows.lower_rate[j - m]
    for i in range(picked, padded):
        work.rate[i] = 0.0
    sides = 2 * padded + 2 * rows.k + 1
    return Rows(
        few,
        rows.table,
        rows.origin,
        rows.first[:0],
        rows.place,
        work.rate,
        work.no_rate,
        padded,
        rows.k,
        rows.shared,
        sides,
        0,
    )


@compiled
def _start(
    rows: Rows, sides: Sides, face: Rows, picked: int, at: Point, work: Scratch, spare: Point
) -> None:
    """The full affine step on the face: y, D and h of its sides into ``spare`` y, s and p."""
    y, weight, bound, index = spare.y, spare.s, spare.p, work.picked
    for i in range(face.sides):
        y[i], weight[i], bound[i] = 0.0, 0.0, 0.0
    for i in range(picked):
        j = index[i]
        y[i] = at.y[j] * (1.0 + work.ratio_y[j])
        weight[i], bound[i] = work.weight[j], sides.bound[j]
    for i in range(2 * face.m, face.sides):
        j = i + 2 * rows.m - 2 * face.m
        if work.kind[j] == BINDS:
            y[i] = at.y[j] * (1.0 + work.ratio_y[j])
            weight[i], bound[i] = work.weight[j], sides.bound[j]
    size = rows.k + rows.shared
    for a in range(len(spare.v)):
        spare.v[a] = at.v[a] + work.affine[a]
        work.constant[a] = sides.cost[a] if a < size else 0.0
    if rows.soft:
        for i in range(rows.sides):
            work.x[i] = sides.cap[i] if work.kind[i] == CAPPED else 0.0
        transposed_times(rows, work.x, work.image, work.pull)
        for a in range(size):
            work.constant[a] += work.pull[a]


@compiled
def _refine(face: Rows, work: Scratch, spare: Point) -> tuple[float, float]:
    """Project v and y onto the face; the residuals that remain."""
    v, y, weight, bound, image = spare.v, spare.y, spare.s, spare.p, spare.t
    size = face.k + face.shared
    primal, dual, before = 0.0, 0.0, np.inf
    for _ in range(_MOST_REFINEMENTS):
        times(face, v, work.image, image)
        primal, dual = 0.0, 0.0
        for i in range(face.sides):
            residual = bound[i] - image[i] if weight[i] > 0.0 else 0.0
            primal = max(primal, abs(residual))
            work.x[i] = weight[i] * residual
        transposed_times(face, work.x, work.image, work.affine)
        transposed_times(face, y, work.image, work.pull)
        for a in range(size):
            work.pull[a] += work.constant[a]
            dual = max(dual, abs(work.pull[a]))
        if primal + dual <= 1e-15 or not primal + dual < 0.5 * before:
            break
        before = primal + dual
        solve_factored(work.matrix, work.pivots, work.affine, work.sums)
        for a in range(size):
            v[a] += work.affine[a]
        solve_factored(work.matrix, work.pivots, work.pull, work.sums)
        times(face, work.pull, work.image, image)
        for i in range(face.sides):
            y[i] -= weight[i] * image[i]
    return primal, dual


@compiled_finite
def _worst(rows: Rows, sides: Sides, work: Scratch, v: Array) -> float:
    """Largest violation: of sides at ``v``, and of being beyond the bound where at the cap."""
    times(rows, v, work.image, work.step_product)
    worst = 0.0
    for i in range(rows.sides):
        over = sides.on[i] * (work.step_product[i] - sides.bound[i])
        worst = max(worst, -over if work.kind[i] == CAPPED else over)
    return worst


@compiled
def land(rows: Rows, sides: Sides, at: Point, work: Scratch, spare: Point) -> bool:
    """Try to land; True if ``at`` now holds an optimum, False if nothing has changed.

    Uses ``work.affine``, ``work.x`` and ``work.step_product`` up.
    """
    doubts = _classify(rows, sides, work)
    picked, binding = _pick(rows, work)
    vertex = binding == rows.k + rows.shared
    if picked > rows.m or (doubts > 0 and not vertex):
        return False
    face = _gather(rows, work, picked)
    _start(rows, sides, face, picked, at, work, spare)
    primal, dual = _refine(face, work, spare)
    scale, largest = 1.0, 0.0
    for a in range(rows.k + rows.shared):
        scale = max(scale, abs(spare.v[a]))
    lowest = 0.0
    for i in range(face.sides):
        largest, lowest = max(largest, spare.y[i]), min(lowest, spare.y[i])
    for i in range(picked if rows.soft else 0):
        j = work.picked[i]
        if sides.soft[j] > 0.0:
            lowest = min(lowest, sides.cap[j] - spare.y[i])
    ok = primal <= _ROUNDING * scale and dual <= _ROUNDING * max(largest, 1.0)
    ok = ok and lowest >= -_ROUNDING * max(largest, 1.0)
    if not ok or not _worst(rows, sides, work, spare.v) <= _ROUNDING * scale:
        return False
    _accept(rows, sides, face, picked, at, work, spare)
    return True


@compiled
def _accept(
    rows: Rows, sides: Sides, face: Rows, picked: int, at: Point, work: Scratch, spare: Point
) -> None:
    """Write the landed point; y is clipped to its interval, from which rounding may have led."""
    for i in range(rows.sides):
        at.y[i] = sides.cap[i] if work.kind[i] == CAPPED else 0.0
    for i in range(picked):
        j = work.picked[i]
        top = sides.cap[j] if sides.soft[j] > 0.0 else np.inf
        at.y[j] = min(max(spare.y[i], 0.0), top)
    for i in range(2 * face.m, face.sides):
        at.y[i + 2 * rows.m - 2 * face.m] = max(spare.y[i], 0.0)
    for a in range(rows.k + rows.shared):
        at.v[a] = spare.v[a]
