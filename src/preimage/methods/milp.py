"""A relaxation with integers: HiGHS's branch and bound, through highspy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]

# HiGHS holds rows to its tolerance; its own default, 1e-6, is as large as the gaps asked for.
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

    Args:
        program: What to solve.
        gap: Absolute difference of value and bound at which to stop.
        seconds: Time limit.
        start: A feasible point, if one is known.

    Returns:
        (variables,) or None where none was found; the bound, infinite where there is no point.
    """
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
