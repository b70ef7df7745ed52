"""A relaxation with integers: HiGHS's branch and bound, through highspy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]

# HiGHS holds rows and reduced costs to its tolerance; its own default, 1e-6, is as large as the
# gaps asked for.
_TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class MixedProgram:
    """``minimise cost v  subject to  lower <= matrix v <= upper, low <= v <= high``.

    Attributes:
        cost: (variables,).
        matrix: (rows, variables), CSR.
        lower: (rows,).
        upper: (rows,).
        low: (variables,).
        high: (variables,).
        integer: (variables,) which of them are whole numbers.
    """

    cost: Array
    matrix: sparse.csr_array
    lower: Array
    upper: Array
    low: Array
    high: Array
    integer: NDArray[np.bool_]


def minimise(
    program: MixedProgram, gap: float, seconds: float, start: Array | None = None
) -> tuple[Array | None, float]:
    """The best point found, and a lower bound on the minimum.

    HiGHS's tolerances are absolute. So it is given ``v = middle + radius u``, with rows divided by
    their largest entry and the cost by its own, in which every tolerance is relative, and its bound
    is lowered by a tolerance for every variable, which is what a reduced cost of that size is worth
    over ``|u| <= 1``.

    Args:
        program: What to solve.
        gap: Absolute difference of value and bound at which to stop.
        seconds: Time limit.
        start: A feasible point, if one is known.

    Returns:
        (variables,) or None where none was found; the bound, infinite where there is no point.
    """
    scaled, middle, radius = _scaled(program)
    fixed, unit = float(program.cost @ middle), float(np.abs(scaled.cost).max(initial=0.0)) or 1.0
    scaled = replace(scaled, cost=scaled.cost / unit)
    known = None if start is None else (start - middle) / radius
    point, bound = _run(scaled, gap / unit, seconds, known)
    lost = _TOLERANCE * len(program.cost)
    return None if point is None else middle + radius * point, fixed + unit * (bound - lost)


def _scaled(program: MixedProgram) -> tuple[MixedProgram, Array, Array]:
    """The program in ``u``, and ``v = middle + radius u``; whole numbers stay as they are."""
    low, high = program.low, program.high
    free = program.integer | ~np.isfinite(high - low)
    with np.errstate(invalid="ignore"):
        middle = np.where(free, 0.0, (low + high) / 2)
        radius = np.where(free | (high <= low), 1.0, (high - low) / 2)
    matrix = sparse.csr_array(program.matrix.multiply(radius[None, :]))
    size = abs(matrix).max(axis=1).toarray().ravel() if matrix.nnz else np.ones(len(program.lower))
    size = np.where(size > 0, size, 1.0)
    shift = program.matrix @ middle
    return (
        MixedProgram(
            cost=program.cost * radius,
            matrix=sparse.csr_array(matrix.multiply(1.0 / size[:, None])),
            lower=(program.lower - shift) / size,
            upper=(program.upper - shift) / size,
            low=(low - middle) / radius,
            high=(high - middle) / radius,
            integer=program.integer,
        ),
        middle,
        radius,
    )


def _run(
    program: MixedProgram, gap: float, seconds: float, start: Array | None
) -> tuple[Array | None, float]:
    """What HiGHS says of a program as it stands."""
    import highspy

    solver = highspy.Highs()
    for name, value in (
        ("output_flag", False), ("threads", 1), ("random_seed", 0), ("time_limit", seconds),
        ("mip_abs_gap", gap), ("mip_rel_gap", 0.0), ("mip_feasibility_tolerance", _TOLERANCE),
        ("primal_feasibility_tolerance", _TOLERANCE), ("dual_feasibility_tolerance", _TOLERANCE),
        ("small_matrix_value", 1e-12),
    ):  # fmt: skip
        solver.setOptionValue(name, value)
    matrix = sparse.csc_array(program.matrix)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.cost), len(program.lower)
    model.col_cost_ = program.cost
    model.col_lower_, model.col_upper_ = program.low, program.high
    model.row_lower_, model.row_upper_ = program.lower, program.upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_, model.a_matrix_.index_ = matrix.indptr, matrix.indices
    model.a_matrix_.value_ = matrix.data
    kinds = highspy.HighsVarType
    model.integrality_ = [kinds.kInteger if i else kinds.kContinuous for i in program.integer]
    solver.passModel(model)
    if start is not None:
        known = highspy.HighsSolution()
        known.col_value = start.tolist()
        solver.setSolution(known)
    solver.run()
    status, statuses = solver.getModelStatus(), highspy.HighsModelStatus
    if status == statuses.kInfeasible:
        return None, np.inf
    info = solver.getInfo()
    point = np.asarray(solver.getSolution().col_value, dtype=np.float64)
    found = info.primal_solution_status == 2 and point.shape == program.cost.shape
    whole = bool(program.integer.any())
    if status == statuses.kOptimal:
        bound = info.mip_dual_bound if whole else info.objective_function_value
    else:
        bound = info.mip_dual_bound if whole else -np.inf
    return point if found else None, float(bound)
