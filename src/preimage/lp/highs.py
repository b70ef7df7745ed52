"""HiGHS, a general solver: one program at a time, scaled, solved and checked.

It is the reference for layer programs, solves those that the kernel cannot settle, and all programs
with integers. What it says is not believed: points and multipliers are checked from the program's
own data. Numbers that overflow or vanish when scaled never reach it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import scipy

from preimage.clock import UNLIMITED, Clock
from preimage.layer_program import LayerProgram, LinearProgram, take
from preimage.lp.duality import bound_sizes, is_optimal
from preimage.lp.solution import Outcome
from preimage.matrix import Array
from preimage.scaling import largest, multiplied, power_of_two

# HiGHS's tolerances are absolute, in scaled units; its own default for integers, 1e-6, is as large
# as the gaps asked for.
_TOLERANCE = 1e-9
_MIXED_TOLERANCE = 1e-8
# Largest violation, relative to the program's scaled bounds, of a point that counts as feasible.
_FEASIBLE = 1e-7
# Relative gap between value and proven bound that shows an optimum.
_GAP = 1e-6
_FARTHEST = 1e3
# Of the refinement, relative to the largest bound: beyond, HiGHS may not end.
_SMALLEST_UNIT = 1e-8


class Answer(NamedTuple):
    """What HiGHS says.

    Attributes:
        outcome: ``FAILED`` where it stopped before the end.
        point: (variables,) the best it found; None for none.
        multipliers: (rows,) of the rows' upper sides; NaN for none.
        bound: A lower bound on the minimum; infinite where there is no point.
        basis: HiGHS's, to start from on a program of the same matrix.
    """

    outcome: Outcome
    point: Array | None
    multipliers: Array
    bound: float
    basis: Any = None


def minimise(
    program: LinearProgram,
    seconds: float = np.inf,
    gap: float = 0.0,
    tolerance: float = _TOLERANCE,
    basis: Any = None,
) -> Answer:
    """Let HiGHS solve a program as it stands.

    Args:
        program: With or without integers.
        seconds: After which it stops.
        gap: Absolute difference of value and bound at which it stops, if there are integers.
        tolerance: Of rows, reduced costs and integers; absolute.
        basis: Of a program of the same matrix, to start from.
    """
    import highspy

    solver = highspy.Highs()
    for name, value in (
        ("output_flag", False), ("threads", 1), ("random_seed", 0), ("time_limit", seconds),
        ("primal_feasibility_tolerance", tolerance), ("dual_feasibility_tolerance", tolerance),
        ("mip_feasibility_tolerance", tolerance), ("mip_abs_gap", gap), ("mip_rel_gap", 0.0),
        # At its default of 1e-9 entries are dropped that decide programs of condition 1e5.
        ("small_matrix_value", 1e-12),
    ):  # fmt: skip
        solver.setOptionValue(name, value)
    solver.passModel(_model(highspy, program))
    if basis is not None:
        solver.setBasis(basis)
    solver.run()
    statuses, mixed = highspy.HighsModelStatus, program.integer is not None
    unclear = (statuses.kUnboundedOrInfeasible, statuses.kInfeasible)
    if solver.getModelStatus() in unclear and not mixed:
        # Presolve calls some unbounded programs infeasible; the simplex method can tell.
        solver.setOptionValue("presolve", "off")
        solver.run()
    outcome = {
        statuses.kOptimal: Outcome.OPTIMAL,
        statuses.kModelEmpty: Outcome.OPTIMAL,
        statuses.kInfeasible: Outcome.INFEASIBLE,
        statuses.kUnbounded: Outcome.UNBOUNDED,
    }.get(solver.getModelStatus(), Outcome.FAILED)
    solution, info = solver.getSolution(), solver.getInfo()
    # HiGHS gives a row that is bounded above a multiplier of at most 0 when it minimises.
    dual = -np.asarray(solution.row_dual, dtype=np.float64)
    point = np.asarray(solution.col_value, dtype=np.float64)
    known = point.shape == program.cost.shape
    if mixed:
        known, bound = known and info.primal_solution_status == 2, info.mip_dual_bound
    else:
        bound = info.objective_function_value if outcome is Outcome.OPTIMAL else -np.inf
    if outcome is Outcome.OPTIMAL and not known:
        outcome = Outcome.FAILED
    if dual.shape != program.bound.shape:
        dual = np.full(len(program.bound), np.nan)
    bound = np.inf if outcome is Outcome.INFEASIBLE else bound
    return Answer(outcome, point if known else None, dual, float(bound), solver.getBasis())


def _model(highspy, program: LinearProgram):  # type: ignore[no-untyped-def]
    matrix, rows = scipy.sparse.csc_array(program.matrix), len(program.bound)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.cost), rows
    model.col_cost_ = program.cost
    model.col_lower_, model.col_upper_ = program.lower, program.upper
    model.row_lower_ = np.full(rows, -np.inf) if program.least is None else program.least
    model.row_upper_ = program.bound
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_, model.a_matrix_.index_ = matrix.indptr, matrix.indices
    model.a_matrix_.value_ = matrix.data
    if program.integer is not None:
        kinds = highspy.HighsVarType
        model.integrality_ = [kinds.kInteger if i else kinds.kContinuous for i in program.integer]
    return model


def minimise_mixed(
    program: LinearProgram, gap: float, seconds: float
) -> tuple[Array | None, float]:
    """The best point of a program with integers, and a lower bound on the minimum.

    HiGHS is given ``v = middle + radius u``, with rows divided by their largest entry and the cost
    by its own, in which every tolerance is relative, and its bound is lowered by a tolerance for
    every variable, which is what a reduced cost of that size is worth over ``|u| <= 1``.

    It stops after ``seconds``, or where value and bound differ by ``gap``. The point is None where
    none was found, and the bound infinite where there is none.
    """
    low, high = program.lower, program.upper
    whole = np.zeros(len(low), bool) if program.integer is None else program.integer
    free = whole | ~np.isfinite(high - low)
    with np.errstate(invalid="ignore"):
        middle = np.where(free, 0.0, (low + high) / 2)
        radius = np.where(free | (high <= low), 1.0, (high - low) / 2)
    size = largest(abs(multiplied(program.matrix, None, radius)), -1)
    scaled = _in_units(program, middle, radius, 1.0 / np.where(size > 0, size, 1.0))
    unit = float(np.abs(scaled.cost).max(initial=0.0)) or 1.0
    scaled = replace(scaled, cost=scaled.cost / unit, integer=whole if whole.any() else None)
    answer = minimise(scaled, seconds, gap / unit, _MIXED_TOLERANCE)
    lost = _MIXED_TOLERANCE * len(middle)
    bound = float(program.cost @ middle) + unit * (answer.bound - lost)
    return None if answer.point is None else middle + radius * answer.point, bound


def solve(
    program: LayerProgram, sample: int, clock: Clock = UNLIMITED
) -> tuple[Outcome, Array, Array, Array]:
    """Solve one sample of a batch of layer programs.

    Where the multipliers do not prove the optimum, the program is solved once more around the
    point, in units of its slack, since tolerances are absolute (iterative refinement: Gleixner,
    Steffy and Wolter, 2016). ``FAILED`` where the gap stays above 1e-6 of the value.

    Returns:
        The outcome; z (k,), inside its domain; and the multipliers, at least 0, of the lower and
        of the upper sides (n,). All NaN unless optimal.
    """
    n, k = program.weight.shape[-2:]
    nothing = np.full(k, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    one = take(program, slice(sample, sample + 1))
    if not program.scaled.usable:
        return Outcome.FAILED, *nothing
    center, unit, found, basis = np.zeros(k), None, [], None
    for _ in range(2):
        outcome, z, lower, upper, basis = _solve(one, center, unit, clock.left, basis)
        if outcome is not Outcome.OPTIMAL:
            break
        for dual_lower, dual_upper in ((lower, upper), _refined(one, z, lower, upper)):
            found.append((z, dual_lower, dual_upper))
            if is_optimal(one, z[None], dual_lower[None], dual_upper[None])[0]:
                return outcome, z, dual_lower, dual_upper
        center, unit = z, float(one.slack_at(z[None])[0])
        if clock.is_over or not unit > 0:
            break
    for answer in found:
        if _is_best_nearby(one, *answer):
            return Outcome.OPTIMAL, *answer
    return Outcome.FAILED if found else outcome, *nothing


def _is_best_nearby(program: LayerProgram, z: Array, lower: Array, upper: Array) -> bool:
    """Whether no code up to a thousand times as large as z is better by more than 1e-6.

    In a domain without ends, or with far ones, rounding of the reduced costs may hide more.
    """
    column = program.sizes[1].reshape(-1)
    size = _FARTHEST * (column * np.abs(z)).max(initial=0.0) / column
    return bool(is_optimal(program.within(size), z[None], lower[None], upper[None], _GAP)[0])


def _refined(program: LayerProgram, z: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The multipliers of a batch of one, with reduced costs of 0 wherever z is inside its domain.

    HiGHS's are 0 within a tolerance, which is worth much where z is large. The correction is the
    least one of the multipliers that are neither 0 nor as large as their slack pays for.
    """
    y, slab, (low, high) = upper - lower, program.slab, program.box()
    inside, free = (z > low[0]) & (z < high[0]), y != 0
    matrix = program.weight_of(0)
    matrix = matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
    paid = np.where(y > 0, slab.upper_rate[0], -slab.lower_rate[0]) * (program.slack != "none")
    if program.slack == "own":
        free &= paid * y < 1 - _TOLERANCE
    equations = matrix[free][:, inside].T
    missing = -(program.objective[0] + y @ matrix)[inside]
    if program.slack == "shared" and (paid * y).sum() > 0.5:
        equations = np.vstack([equations, paid[free]])
        missing = np.append(missing, 1.0 - (paid * y).sum())
    size = np.abs(equations).max(axis=1, initial=0.0)
    size = np.where(size > 0, size, 1.0)
    y[free] += np.linalg.lstsq(equations / size[:, None], missing / size, rcond=1e-15)[0]
    return np.maximum(-y, 0.0), np.maximum(y, 0.0)


def _solve(
    program: LayerProgram, center: Array, unit: float | None, seconds: float, basis: Any
) -> tuple[Outcome, Array, Array, Array, Any]:
    """A batch of one, as steps from ``center``, with bounds in units of ``unit``; see ``solve``."""
    n, k = program.weight.shape[-2:]
    z, lower, upper = np.full(k, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    failed = Outcome.FAILED, z, lower, upper, None
    scaled, column, row, price = _standard_form(program, center, unit)
    if not _is_finite(scaled):
        return failed
    try:
        outcome, point, dual, _, basis = minimise(scaled, seconds, basis=basis)
    except (ArithmeticError, RuntimeError, ValueError):
        return failed
    if outcome is Outcome.UNBOUNDED and not program.objective.any():
        outcome = Outcome.FAILED  # a slack alone is at least 0
    if outcome is Outcome.OPTIMAL and point is not None:
        if not (scaled.matrix @ point - scaled.bound).max(initial=0.0) <= _FEASIBLE:
            return failed
        # The domain binds exactly: a tiny negative input would be a wrong sign below.
        low, high = program.box()
        z = np.clip(center + point[:k] * column[:k], low[0], high[0])
        above, below = program.finite_sides(0)
        dual = np.maximum(dual, 0.0) * price * row
        lower[:], upper[:] = 0.0, 0.0
        upper[above], lower[below] = dual[: len(above)], dual[len(above) :]
    return outcome, z, lower, upper, basis


def _standard_form(
    program: LayerProgram, center: Array, unit: float | None
) -> tuple[LinearProgram, Array, Array, float]:
    """A batch of one in its units: rows, columns, slacks and costs have their largest near 1.

    Returns:
        The program; factors of its variables and of its rows, which hold the unit of the bounds (if
        not given, that of the largest); and the unit of the costs.
    """
    linear, (above, below) = program.linear_program(0), program.finite_sides(0)
    row, column = program.scaled.row.reshape(-1), program.scaled.column.reshape(-1)
    # A row without an entry has no unit of its own: its rates give one, or its bounds.
    size = np.maximum(program.slab.lower_rate, program.slab.upper_rate)[0]
    size = np.where(size > 0, size, np.maximum(*bound_sizes(program))[0])
    empty = program.scaled.row_size.reshape(-1) == 0
    row = np.where(empty, 1.0 / power_of_two(size), row)[np.concatenate([above, below])]
    slacks = largest(abs(multiplied(linear.matrix[:, len(column) :], row, None)), -2)
    column = np.concatenate([column, 1.0 / power_of_two(slacks)])
    center = np.concatenate([center, np.zeros(len(slacks))])
    most = np.abs((linear.bound - linear.matrix @ center) * row).max(initial=0.0)
    most = power_of_two(most if unit is None else max(unit, _SMALLEST_UNIT * most))
    scaled = _in_units(linear, center, column * most, row / most)
    price = float(power_of_two(np.abs(scaled.cost).max(initial=0.0)))
    return replace(scaled, cost=scaled.cost / price), column * most, row / most, price


def _in_units(program: LinearProgram, center: Array, column: Array, row: Array) -> LinearProgram:
    """The program of u in ``v = center + column u``, with its rows times ``row``.

    What ``center`` costs is left out.
    """
    shift = program.matrix @ center
    return replace(
        program,
        cost=program.cost * column,
        matrix=multiplied(program.matrix, row, column),
        bound=(program.bound - shift) * row,
        lower=(program.lower - center) / column,
        upper=(program.upper - center) / column,
        least=None if program.least is None else (program.least - shift) * row,
    )


def _is_finite(program: LinearProgram) -> bool:
    numbers = (largest(abs(program.matrix), -1), program.bound, program.cost)
    bounds = np.concatenate([program.lower, program.upper])
    return all(np.isfinite(part).all() for part in numbers) and not np.isnan(bounds).any()
