"""General solvers of linear programs, one program at a time: scaled, asked, checked.

What a general solver says is not believed: a point is feasible in the scaled program, or the
outcome is ``FAILED``. Numbers that overflow or vanish when scaled never reach it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preimage.layer_program import LayerProgram, LinearProgram, take
from preimage.lp import highs, piqp
from preimage.lp.outcome import Outcome
from preimage.scaling import Scaled, power_of_two

Array = NDArray[np.float64]
Minimise = Callable[[LinearProgram], tuple[Outcome, Array, Array]]

# Each returns the outcome, the minimiser over all variables and multipliers of the rows.
SOLVERS: dict[str, Minimise] = {"highs": highs.minimise, "piqp": piqp.minimise}

# Largest violation, relative to the program's scaled bounds, of a point that counts as feasible.
# The solvers are asked for 1e-9; the rest is what they add.
_FEASIBLE = 1e-7


def solve(program: LayerProgram, sample: int, solver: str) -> tuple[Outcome, Array, Array, Array]:
    """Solve one sample of ``program`` with a general solver.

    Returns:
        The outcome; z (k,), inside its domain; and the multipliers, at least 0, of the lower and
        of the upper sides (n,). All NaN unless optimal, multipliers also if the solver has none.
    """
    n, k = program.weight.shape[-2:]
    z, lower, upper = np.full(k, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    scaled, column, row, unit, price = _standard_form(program, sample)
    if not (program.scaled.usable and _is_finite(scaled)):
        return Outcome.FAILED, z, lower, upper
    try:
        outcome, point, dual = SOLVERS[solver](scaled)
    except (ArithmeticError, RuntimeError, ValueError):
        return Outcome.FAILED, z, lower, upper
    if outcome is Outcome.UNBOUNDED and not program.objective[sample].any():
        outcome = Outcome.FAILED  # a slack alone is at least 0
    if outcome is Outcome.OPTIMAL:
        excess = scaled.matrix @ point - scaled.bound
        if not excess.max(initial=0.0) <= _FEASIBLE:
            outcome = Outcome.FAILED
    if outcome is Outcome.OPTIMAL:
        # The domain binds exactly: a tiny negative input would be a wrong sign below.
        low, high = program.box()
        z = np.clip(point[:k] * column * unit, low[sample], high[sample])
        above, below = program.finite_sides(sample)
        dual = np.maximum(dual, 0.0) * price
        lower[:], upper[:] = 0.0, 0.0
        upper[above] = dual[: len(above)] * row[above]
        lower[below] = dual[len(above) :] * row[below]
    return outcome, z, lower, upper


def _standard_form(
    program: LayerProgram, sample: int
) -> tuple[LinearProgram, Array, Array, float, float]:
    """One sample in its units: rows, columns, slacks, bounds and costs have their largest near 1.

    Returns:
        The program; factors of z's entries and of the rows; units of the bounds and of the costs.
    """
    one, units = take(program, slice(sample, sample + 1)), program.scaled
    _, row, column = units.of(sample)
    slab, (low, high) = one.slab, one.box()
    # A row without an entry has no unit of its own: its rates give one, or its bounds.
    size = np.maximum(slab.lower_rate, slab.upper_rate)[0]
    bounds = [np.where(np.isinf(part[0]), 0.0, np.abs(part[0])) for part in slab[::2]]
    empty = (units.row_size[sample] if units.row_size.ndim == 2 else units.row_size) == 0
    row = np.where(empty, 1.0 / power_of_two(np.where(size > 0, size, np.maximum(*bounds))), row)
    scaled = LayerProgram(
        units.matrix(sample),
        slab._replace(**{name: part * row for name, part in slab._asdict().items()}),
        one.slack,
        one.objective * column,
        (low / column, high / column),
    ).linear_program(0)
    k = len(column)
    slacks = scaled.matrix[:, k:]
    if slacks.shape[1] and slacks.shape[0]:
        factor = np.ones(len(scaled.cost))
        largest = abs(slacks).max(axis=0)
        largest = largest.toarray().ravel() if not isinstance(largest, np.ndarray) else largest
        factor[k:] = 1.0 / power_of_two(largest)
        matrix = Scaled(scaled.matrix, np.ones(len(scaled.bound)), factor, factor, factor).matrix()
        scaled = LinearProgram(
            scaled.cost * factor, matrix, scaled.bound, scaled.lower, scaled.upper
        )
    unit = float(power_of_two(np.abs(scaled.bound).max(initial=0.0)))
    price = float(power_of_two(np.abs(scaled.cost).max(initial=0.0)))
    return (
        LinearProgram(
            scaled.cost / price,
            scaled.matrix,
            scaled.bound / unit,
            scaled.lower / unit,
            scaled.upper / unit,
        ),
        column,
        row,
        unit,
        price,
    )


def _is_finite(program: LinearProgram) -> bool:
    matrix = program.matrix if isinstance(program.matrix, np.ndarray) else program.matrix.data
    numbers = (matrix, program.bound, program.cost)
    bounds = np.concatenate([program.lower, program.upper])
    return all(np.isfinite(part).all() for part in numbers) and not np.isnan(bounds).any()
