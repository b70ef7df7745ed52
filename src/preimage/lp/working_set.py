"""Solving on the rows that may bind, and checking the others afterwards.

At an l-infinity optimum k + 1 of up to 2 n sides bind, and the start knows which are far from it.
The method then runs on the rows that are left, a half to a fifth; the point it finds is an optimum
of the whole program if no other row is violated there, and else the whole program is solved.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled
from preimage.lp.interior import set_weights
from preimage.lp.normal import NEGLIGIBLE, Rows, cutoff, times
from preimage.lp.room import Point, Scratch, Sides, new_point, new_sides

Array = NDArray[np.float64]

# Rows whose weight at the start is below this fraction of the (k + 1)-th largest are left out.
_FAR = 2.0**-4
# Fewer rows than this share must be left, or picking them does not pay.
_WORTH = 0.8
# The tolerance of landing, with some room.
_ROUNDING = 1e-11


class Part(NamedTuple):
    """Room for the rows that are kept: a program of its own.

    Attributes:
        columns: (k, m), as ``Rows.columns``; the next two likewise.
        upper_rate: (m,).
        lower_rate: (m,).
        picked: (m,), which rows these are.
        sides: Its sides.
        at: Its point.
    """

    columns: Array
    upper_rate: Array
    lower_rate: Array
    picked: NDArray[np.int64]
    sides: Sides
    at: Point


@compiled
def new_part(m: int, k: int) -> Part:
    """Room for up to ``m`` rows."""
    return Part(
        np.zeros((k, m)),
        np.zeros(m),
        np.zeros(m),
        np.zeros(m, dtype=np.int64),
        new_sides(m, k),
        new_point(m, k),
    )


@compiled
def _pick(rows: Rows, sides: Sides, at: Point, work: Scratch, index: NDArray[np.int64]) -> int:
    """List the rows that may bind; their number."""
    m, size = rows.m, rows.k + rows.shared
    set_weights(rows, sides, at, work)
    # The cutoff is a fraction of the weight of that rank; here the weight itself is meant.
    least = cutoff(work.weight, rows.sides, size, work.histogram) / NEGLIGIBLE * _FAR
    kept = 0
    for j in range(m):
        index[kept] = j
        kept += max(work.weight[j], work.weight[m + j]) >= least and kept < m - 1
    return kept


@compiled
def _gather(rows: Rows, sides: Sides, at: Point, part: Part, kept: int) -> Rows:
    """Copy the listed rows into ``part``."""
    m, k, padded, index = rows.m, rows.k, (kept + 3) // 4 * 4, part.picked
    few, small = part.sides, part.at
    for a in range(k):
        for i in range(kept):
            part.columns[a, i] = rows.columns[a, index[i]]
        for i in range(kept, padded):
            part.columns[a, i] = 0.0
    for i in range(kept, padded):
        index[i] = 0
    for i in range(padded):
        j = index[i]
        part.upper_rate[i] = rows.upper_rate[j] if i < kept else 0.0
        part.lower_rate[i] = rows.lower_rate[j] if i < kept else 0.0
        few.on[i], few.on[padded + i] = 0.0, 0.0
        if i < kept:
            few.on[i], few.on[padded + i] = sides.on[j], sides.on[m + j]
        few.bound[i], few.bound[padded + i] = sides.bound[j], sides.bound[m + j]
        on, other = few.on[i], few.on[padded + i]
        small.s[i], small.s[padded + i] = at.s[j], at.s[m + j]
        small.y[i], small.y[padded + i] = on * at.y[j], other * at.y[m + j]
    for i in range(2 * k + 1):
        few.on[2 * padded + i] = sides.on[2 * m + i]
        few.bound[2 * padded + i] = sides.bound[2 * m + i]
        small.s[2 * padded + i] = at.s[2 * m + i]
        small.y[2 * padded + i] = at.y[2 * m + i]
    for a in range(k + 1):
        few.cost[a] = sides.cost[a]
    for a in range(len(at.v)):
        small.v[a] = at.v[a]
    count = 2 * padded + 2 * k + 1
    return Rows(
        part.columns,
        rows.table,
        index,
        rows.first,
        rows.place,
        part.upper_rate,
        part.lower_rate,
        padded,
        k,
        rows.shared,
        count,
        0,
    )


@compiled
def _holds(rows: Rows, sides: Sides, work: Scratch, v: Array) -> bool:
    """Whether no side at all is violated at ``v``."""
    times(rows, v, work.image, work.product)
    scale, worst = 1.0, 0.0
    for a in range(rows.k + rows.shared):
        scale = max(scale, abs(v[a]))
    for i in range(rows.sides):
        worst = max(worst, sides.on[i] * (work.product[i] - sides.bound[i]))
    return worst <= _ROUNDING * scale


@compiled
def _scatter(rows: Rows, small: Rows, at: Point, part: Part) -> None:
    """Copy the answer back; rows that were left out do not bind."""
    m, index = rows.m, part.picked
    for i in range(2 * m):
        at.y[i] = 0.0
    for i in range(small.m):
        # Padding has no multiplier, and stands for row 0.
        at.y[index[i]] += part.at.y[i]
        at.y[m + index[i]] += part.at.y[small.m + i]
    for i in range(2 * rows.k + 1):
        at.y[2 * m + i] = part.at.y[2 * small.m + i]
    for a in range(rows.k + rows.shared):
        at.v[a] = part.at.v[a]


@compiled
def restrict(rows: Rows, sides: Sides, at: Point, part: Part, work: Scratch) -> Rows:
    """Copy the rows that may bind at ``at`` into ``part``; no rows if that does not pay."""
    kept = 0
    if rows.shared and not rows.soft:
        kept = _pick(rows, sides, at, work, part.picked)
        kept = kept if kept < _WORTH * rows.m else 0
    return _gather(rows, sides, at, part, kept)


@compiled
def extend(rows: Rows, sides: Sides, at: Point, few: Rows, part: Part, work: Scratch) -> bool:
    """If the part's answer violates no row at all, copy it to ``at`` and return True."""
    if not _holds(rows, sides, work, part.at.v):
        return False
    _scatter(rows, few, at, part)
    return True
