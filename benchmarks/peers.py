"""General solvers on a layer program, as a user of each would call it.

Each function takes a program in the general form and returns a call without arguments that solves
it and gives the objective; what the solver wants as input is made beforehand, and so costs no
time. Tolerances are each solver's own defaults. Rows are stacked as the authors' code does it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from preimage.layer_program import LinearProgram

Solve = Callable[[], float]


def _with_bounds(program: LinearProgram) -> tuple[np.ndarray, np.ndarray]:
    """``G v <= h``: the rows, then the finite bounds of the variables."""
    low, high = np.isfinite(program.lower), np.isfinite(program.upper)
    eye = np.eye(len(program.cost))
    left = np.vstack([program.matrix.toarray(), -eye[low], eye[high]])
    return left, np.concatenate([program.bound, -program.lower[low], program.upper[high]])


def cvxopt(program: LinearProgram) -> Solve:
    """The authors' way: all rows in one dense matrix, cvxopt's own interior-point method."""
    from cvxopt import matrix, solvers

    parts = [matrix(part) for part in (program.cost, *_with_bounds(program))]
    options = {"show_progress": False}
    return lambda: float(solvers.lp(*parts, options=options)["primal objective"] or np.nan)


def piqp(program: LinearProgram) -> Solve:
    """PIQP's dense solver, or the sparse one where most of the matrix is 0."""
    import piqp as package

    size, dense = len(program.cost), program.matrix.toarray()
    if np.count_nonzero(dense) > 0.3 * dense.size:
        solver, left, quadratic = package.DenseSolver(), dense, np.zeros((size, size))
    else:
        solver, left = package.SparseSolver(), sparse.csc_matrix(dense)
        quadratic = sparse.csc_matrix((size, size))

    def solve() -> float:
        solver.setup(
            quadratic, program.cost, None, None, left, None,
            program.bound, program.lower, program.upper,
        )  # fmt: skip
        solved = solver.solve() == package.PIQP_SOLVED
        return float(program.cost @ solver.result.x) if solved else np.nan

    return solve


def clarabel(program: LinearProgram) -> Solve:
    """Clarabel with one thread."""
    import clarabel as package

    left, right = _with_bounds(program)
    left, size = sparse.csc_matrix(left), len(program.cost)
    quadratic, cones = sparse.csc_matrix((size, size)), [package.NonnegativeConeT(len(right))]
    settings = package.DefaultSettings()
    settings.verbose, settings.max_threads = False, 1

    def solve() -> float:
        solver = package.DefaultSolver(quadratic, program.cost, left, right, cones, settings)
        found = solver.solve()
        return found.obj_val if found.status == package.SolverStatus.Solved else np.nan

    return solve


def highs(program: LinearProgram) -> Solve:
    """The ``highs`` backend's solver: the simplex method at a tolerance of 1e-9."""
    from preimage.lp.highs import minimise

    def solve() -> float:
        found = minimise(program)
        return found.bound if found.outcome == "optimal" else np.nan

    return solve


def scipy(program: LinearProgram) -> Solve:
    """``scipy.optimize.linprog(method="highs")``."""
    bounds = np.stack([program.lower, program.upper], axis=1)

    def solve() -> float:
        found = linprog(program.cost, program.matrix, program.bound, bounds=bounds, method="highs")
        return found.fun if found.status == 0 else np.nan

    return solve


PEERS: dict[str, Callable[[LinearProgram], Solve]] = {
    "cvxopt": cvxopt,
    "PIQP": piqp,
    "Clarabel": clarabel,
    "HiGHS": highs,
    "SciPy": scipy,
}
