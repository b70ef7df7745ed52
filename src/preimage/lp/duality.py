"""What multipliers and directions prove about a layer program, recomputed from its own data.

For any multipliers ``lam, ups >= 0`` of the lower and upper sides that the slack can pay for,

    sum (ups * upper_rate + lam * lower_rate) <= 1   (shared),    each term <= 1   (own),

and ``r = c + W' (ups - lam)``, weak duality says of every feasible point

    c z + slack  >=  lam . lower - ups . upper + sum_a min { r_a z_a : low_a <= z_a <= high_a }.

With ``c = 0`` and no weight on rows that have a rate, a positive right-hand side proves that the
program has no point at all (Farkas).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from preimage.layer_program import LayerProgram
from preimage.matrix import Array, Flags
from preimage.slab import Slab

# What counts as rounding in an equation, relative to the largest bound or cost of the program.
_ROUNDING = 1e-9

# How far a sum must be from 0, relative to its terms' magnitudes, to have a sign.
_SIGN = 1e-7

# Relative gap between value and bound up to which a point is optimal.
_GAP = 1e-8


def dual_bound(program: LayerProgram, dual_lower: Array, dual_upper: Array) -> Array:
    """The lower bound on the optimal value that multipliers prove.

    Args:
        program: The batch.
        dual_lower: (batch, n) multipliers of the lower sides; negative ones count as 0.
        dual_upper: (batch, n), of the upper sides.

    Returns:
        (batch,); minus infinity where they prove nothing, NaN where they are NaN; but at least 0
        where slack alone costs anything. Equations are held to 1e-9 of the largest cost.
    """
    lam, ups = _present(program, dual_lower, dual_upper)
    size = program.scaled.column_size * _price(program)[:, None]  # 0 where nothing is rounded
    bound = _bound(program, program.objective, lam, ups, size)
    if program.slack != "none":
        paid = ups * program.slab.upper_rate + lam * program.slab.lower_rate
        cost = paid.sum(axis=1) if program.slack == "shared" else paid.max(axis=1, initial=0.0)
        bound[cost > 1 + _ROUNDING] = -np.inf
        free = ~program.objective.any(axis=1)
        bound[free] = np.maximum(bound[free], 0.0)
    return bound


def is_feasible(program: LayerProgram, z: Array) -> Flags:
    """Whether ``z`` (batch, k) keeps the rows that no slack can bend, (batch,)."""
    low, high = program.box()
    inside = np.asarray(((low <= z) & (z <= high)).all(axis=1))
    hard_lower, hard_upper = _hard(program)
    if not (hard_lower.any() or hard_upper.any()):
        return inside
    slab, a = program.slab, program.image(z)
    miss = np.maximum(
        np.where(hard_lower, slab.lower - a, -np.inf), np.where(hard_upper, a - slab.upper, -np.inf)
    )
    row, column = program.sizes
    unit = _unit(program)
    # Bounds that are all 0 make a cone, which has no size but that of the point.
    unit = np.where(unit > 0, unit, (column * np.abs(z)).max(axis=1, initial=0.0))
    allowed = _ROUNDING * row * unit[:, None]
    if (miss > allowed).any():
        allowed = allowed + 1e-13 * program.magnitude.image(np.abs(z))
    return np.asarray((miss <= allowed).all(axis=1) & inside)


def is_optimal(
    program: LayerProgram, z: Array, dual_lower: Array, dual_upper: Array, allowed: float = _GAP
) -> Flags:
    """Whether ``z`` is feasible and the multipliers prove that nothing is better, (batch,).

    ``allowed`` is the largest relative gap between value and bound.
    """
    value = (program.objective * z).sum(axis=1)
    size = np.abs(program.objective * z).sum(axis=1)
    if program.slack != "none":
        slack = program.slack_at(z)
        value, size = value + slack, size + slack
    gap = value - dual_bound(program, dual_lower, dual_upper)
    close = np.abs(gap) <= allowed * np.abs(value)
    if not close.all():
        terms = size + _terms(program, dual_lower, dual_upper) + _slack_terms(program, z)
        close |= _is_rounding(program, gap, value, terms)
    return close & is_feasible(program, z)


def _is_rounding(program: LayerProgram, gap: Array, value: Array, terms: Array) -> Array:
    """Whether a gap is no more than the rounding of sums whose terms may cancel explains.

    Not where the point is so far away, or the multipliers so large, that rounding hides the
    program's own numbers. And a bound above the value by more than the rows' tolerance explains
    shows a point that is none.
    """
    unit = _unit(program)
    own = np.abs(value) + np.where(unit > 0, unit, 1.0) * _price(program)
    rounding = np.where(1e-14 * terms <= _SIGN * own, 1e-14 * terms, 0.0)
    return np.asarray((gap <= _GAP * np.abs(value) + rounding) & (gap >= -_SIGN * own))


def _terms(program: LayerProgram, dual_lower: Array, dual_upper: Array) -> Array:
    """(batch,) the magnitudes of the terms of ``lam . lower - ups . upper``."""
    lower, upper = bound_sizes(program)
    terms = _weighted(np.abs(dual_lower), lower) + _weighted(np.abs(dual_upper), upper)
    return np.asarray(terms.sum(axis=1))


def _slack_terms(program: LayerProgram, z: Array) -> Array:
    """(batch,) the magnitudes of the sums that a slack at ``z`` is made of.

    Each is in units of the slack, so that scaling a row and its rates changes nothing.
    """
    if program.slack == "none":
        return np.zeros(len(z))
    slab, size = program.slab, np.zeros_like(program.slab.lower)
    image = program.magnitude.image(np.abs(z))
    for bound, rate in ((slab.lower, slab.lower_rate), (slab.upper, slab.upper_rate)):
        bent = (rate > 0) & np.isfinite(bound)
        terms = image + np.where(bent, np.abs(bound), 0.0)
        size = np.maximum(size, np.where(bent, terms / np.where(bent, rate, 1.0), 0.0))
    return np.asarray(size.sum(axis=1) if program.slack == "own" else size.max(axis=1, initial=0.0))


def proves_infeasible(program: LayerProgram, dual_lower: Array, dual_upper: Array) -> Flags:
    """Whether multipliers are a Farkas proof that a sample has no feasible point, (batch,)."""
    lam, ups = _present(program, dual_lower, dual_upper)
    hard_lower, hard_upper = _hard(program)
    lam, ups = np.where(hard_lower, lam, 0.0), np.where(hard_upper, ups, 0.0)
    size = program.magnitude.adjoint(lam + ups)  # no more is rounding than the sums' own terms
    bound = _bound(program, np.zeros_like(program.objective), lam, ups, size)
    # Those that cancelled are terms, too: what is left of them may be all that rounding made.
    return np.asarray(bound > _SIGN * _terms(program, dual_lower, dual_upper))


def proves_unbounded(program: LayerProgram, ray: Array) -> Flags:
    """Whether the objective falls for ever along ``ray`` (batch, k), from any feasible point."""
    still = recession(program)
    fall = (program.objective * ray).sum(axis=1)
    if program.slack != "none":
        fall = fall + still.slack_at(ray)
    # Rows may be missed by a part of the ray's largest entry, so the fall must be above that too.
    size = _price(program) * (program.sizes[1] * np.abs(ray)).max(axis=1, initial=0.0)
    return np.asarray(is_feasible(still, ray) & (fall < -_SIGN * size))


def recession(program: LayerProgram) -> LayerProgram:
    """The directions in which the feasible set goes on for ever, as a program: bounds become 0."""
    slab, (low, high) = program.slab, program.box()
    return replace(
        program,
        slab=slab._replace(
            lower=np.where(slab.lower > -np.inf, 0.0, -np.inf),
            upper=np.where(slab.upper < np.inf, 0.0, np.inf),
        ),
        domain=(np.where(low > -np.inf, 0.0, -np.inf), np.where(high < np.inf, 0.0, np.inf)),
    )


def elastic(program: LayerProgram) -> LayerProgram:
    """``minimise d`` where every hard row may miss its bounds by d times its size.

    It always has a point; if its optimum is above 0, its multipliers prove that the program itself
    has none.
    """
    row = program.scaled.row_size
    size = np.where(row > 0, row, np.maximum(*bound_sizes(program)))
    rate = np.where(size > 0, size, 1.0)
    hard_lower, hard_upper = _hard(program)
    slab = Slab(
        np.where(hard_lower, program.slab.lower, -np.inf),
        np.where(hard_lower, rate, 0.0),
        np.where(hard_upper, program.slab.upper, np.inf),
        np.where(hard_upper, rate, 0.0),
    )
    return replace(program, slab=slab, slack="shared", objective=np.zeros_like(program.objective))


def _hard(program: LayerProgram) -> tuple[Flags, Flags]:
    """Which lower and upper sides exist and cannot be bent by a slack, (batch, n)."""
    slab, bent = program.slab, program.slack != "none"
    lower = (slab.lower > -np.inf) & ~(bent & (slab.lower_rate > 0))
    upper = (slab.upper < np.inf) & ~(bent & (slab.upper_rate > 0))
    return lower, upper


def _weighted(weight: Array, value: Array) -> Array:
    """``weight * value``, 0 where the weight is 0 even if the value is infinite."""
    return np.multiply(weight, value, out=np.zeros_like(weight), where=weight != 0)


def _present(program: LayerProgram, dual_lower: Array, dual_upper: Array) -> tuple[Array, Array]:
    """The multipliers, 0 where there is no side or the sign is wrong.

    What the two sides of a row have in common is taken away: that never weakens the bound (unless
    the sides cross), and large multipliers that cancel would pass for rounding.
    """
    slab = program.slab
    lam = np.where(slab.lower > -np.inf, np.maximum(dual_lower, 0.0), 0.0)
    ups = np.where(slab.upper < np.inf, np.maximum(dual_upper, 0.0), 0.0)
    common = np.where(slab.lower <= slab.upper, np.minimum(lam, ups), 0.0)
    return lam - common, ups - common


def bound_sizes(program: LayerProgram) -> tuple[Array, Array]:
    """(batch, n) each, the magnitudes of the lower and the upper bounds; 0 where there is none."""
    ends = program.slab.lower, program.slab.upper
    lower, upper = (np.where(np.isinf(end), 0.0, np.abs(end)) for end in ends)
    return lower, upper


def _unit(program: LayerProgram) -> Array:
    """(batch,) the largest bound, in units of its row."""
    row = program.scaled.row_size
    size = np.where(row > 0, np.maximum(*bound_sizes(program)), 0.0) / np.where(row > 0, row, 1.0)
    return np.asarray(size.max(axis=1, initial=0.0))


def _price(program: LayerProgram) -> Array:
    """(batch,) the largest cost of z, in units of its column, or of a row's violation."""
    row, column = program.sizes
    price = (np.abs(program.objective) / column).max(axis=1, initial=0.0)
    if program.slack != "none":
        for rate in (program.slab.lower_rate, program.slab.upper_rate):
            paid = _weighted((rate > 0) * row, 1.0 / np.where(rate > 0, rate, 1.0))
            price = np.maximum(price, paid.max(axis=1, initial=0.0))
    return np.asarray(price)


def _bound(program: LayerProgram, objective: Array, lam: Array, ups: Array, size: Array) -> Array:
    """The right-hand side of weak duality; ``size``, (batch, k), is that of the reduced costs."""
    low, high = program.box()
    reduced = objective + program.adjoint(ups - lam)
    end = np.where(reduced > 0, low, high)
    rows = _weighted(lam, program.slab.lower) - _weighted(ups, program.slab.upper)
    open_ = np.isinf(end) & (reduced != 0)
    box = _weighted(np.where(open_, 0.0, reduced), np.where(open_, 0.0, end))
    bound = np.asarray(rows.sum(axis=1) + box.sum(axis=1))
    bound[(open_ & (np.abs(reduced) > _ROUNDING * size)).any(axis=1)] = -np.inf
    return bound
