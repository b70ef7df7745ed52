"""The reference backend: HiGHS's simplex method, through highspy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preimage.layer_program import LinearProgram
from preimage.lp.outcome import Outcome

Array = NDArray[np.float64]
_TOLERANCE = 1e-9


def minimise(program: LinearProgram) -> tuple[Outcome, Array, Array]:
    """Solve a (scaled) linear program.

    Returns:
        The outcome, the minimiser over all variables and the multipliers of the rows (both
        meaningless unless optimal).
    """
    import highspy

    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("random_seed", 0)
    solver.setOptionValue("primal_feasibility_tolerance", _TOLERANCE)
    solver.setOptionValue("dual_feasibility_tolerance", _TOLERANCE)
    # At its default of 1e-9 entries are dropped that decide programs of condition 1e5.
    solver.setOptionValue("small_matrix_value", 1e-12)
    solver.passModel(_model(highspy, program))
    solver.run()
    status = solver.getModelStatus()
    if status in (
        highspy.HighsModelStatus.kUnboundedOrInfeasible,
        highspy.HighsModelStatus.kInfeasible,
    ):
        # Presolve calls some unbounded programs infeasible; the simplex method can tell.
        solver.setOptionValue("presolve", "off")
        solver.run()
        status = solver.getModelStatus()
    outcome = {
        highspy.HighsModelStatus.kOptimal: Outcome.OPTIMAL,
        highspy.HighsModelStatus.kModelEmpty: Outcome.OPTIMAL,
        highspy.HighsModelStatus.kInfeasible: Outcome.INFEASIBLE,
        highspy.HighsModelStatus.kUnbounded: Outcome.UNBOUNDED,
    }.get(status, Outcome.FAILED)
    solution = solver.getSolution()
    point = np.asarray(solution.col_value, dtype=np.float64)
    # HiGHS gives a row that is bounded above a multiplier of at most 0 when it minimises.
    dual = -np.asarray(solution.row_dual, dtype=np.float64)
    if outcome is Outcome.OPTIMAL and point.shape != program.cost.shape:
        outcome = Outcome.FAILED
    if dual.shape != program.bound.shape:
        dual = np.full(len(program.bound), np.nan)
    return outcome, point, dual


def _model(highspy, program: LinearProgram):  # type: ignore[no-untyped-def]
    matrix = sparse.csc_array(program.matrix)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.cost), len(program.bound)
    model.col_cost_ = program.cost
    model.col_lower_, model.col_upper_ = program.lower, program.upper
    model.row_lower_ = np.full(len(program.bound), -np.inf)
    model.row_upper_ = program.bound
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = matrix.indptr
    model.a_matrix_.index_ = matrix.indices
    model.a_matrix_.value_ = matrix.data
    return model
