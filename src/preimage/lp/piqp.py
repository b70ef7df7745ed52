"""A quicker backend for small dense programs: PIQP's interior-point method (optional extra).

PIQP stops at a tolerance on the duality gap and has no certificate of unboundedness, so only its
optimal points are used; ``lp.solve`` checks them like everybody's.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preimage.errors import MissingExtraError
from preimage.layer_program import LinearProgram
from preimage.lp.outcome import Outcome

Array = NDArray[np.float64]
_TOLERANCE = 1e-10
# Own slacks make the matrix mostly zeros; from here on PIQP's sparse solver is the quicker one.
_DENSE = 0.3


def load() -> ModuleType:
    """Import piqp.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import piqp
    except ImportError as error:
        raise MissingExtraError("piqp", "piqp") from error
    return piqp


def minimise(program: LinearProgram) -> tuple[Outcome, Array, Array]:
    """Solve a (scaled) linear program.

    Returns:
        The outcome, the minimiser over all variables and the multipliers of the rows (both
        meaningless unless optimal).
    """
    piqp = load()
    size = len(program.cost)
    matrix = program.matrix
    dense = not sparse.issparse(matrix) or matrix.nnz > _DENSE * np.prod(matrix.shape)
    if dense:
        solver, quadratic = piqp.DenseSolver(), np.zeros((size, size))
        matrix = matrix.toarray() if sparse.issparse(matrix) else matrix
    else:
        solver, quadratic = piqp.SparseSolver(), sparse.csc_matrix((size, size))
        matrix = sparse.csc_matrix(matrix)
    solver.settings.eps_abs = solver.settings.eps_rel = _TOLERANCE
    solver.settings.eps_duality_gap_abs = solver.settings.eps_duality_gap_rel = _TOLERANCE
    solver.setup(
        quadratic,
        program.cost,
        None,
        None,
        matrix,
        None,
        program.bound,
        program.lower,
        program.upper,
    )
    status = solver.solve()
    outcome = {
        piqp.PIQP_SOLVED: Outcome.OPTIMAL,
        piqp.PIQP_PRIMAL_INFEASIBLE: Outcome.INFEASIBLE,
        piqp.PIQP_DUAL_INFEASIBLE: Outcome.UNBOUNDED,
    }.get(status, Outcome.FAILED)
    return outcome, np.array(solver.result.x), np.array(solver.result.z_u)
