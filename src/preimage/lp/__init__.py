"""Solving layer programs: ``solve(program, backend)``.

``"kernel"`` is made for these programs; ``"highs"`` and ``"piqp"`` are general solvers. What a
backend says is checked here and in ``duality``: feasibility, slack and value are recomputed from
the unscaled data. Programs that the kernel cannot settle go to HiGHS, one by one, and are marked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError
from preimage.layer_program import LayerProgram, LinearProgram
from preimage.lp import highs, kernel, piqp
from preimage.lp.duality import dual_bound
from preimage.lp.outcome import Outcome
from preimage.lp.scaling import scale

Array = NDArray[np.float64]
Backend = Literal["kernel", "highs", "piqp"]

# The general solvers: minimiser over all variables, and multipliers of the rows (NaN if unknown).
GENERAL: dict[str, Callable[[LinearProgram], tuple[Outcome, Array, Array]]] = {
    "highs": highs.minimise,
    "piqp": piqp.minimise,
}
BACKENDS = ("kernel", *GENERAL)

__all__ = [
    "BACKENDS",
    "Backend",
    "Outcome",
    "Solution",
    "check_backend",
    "dual_bound",
    "kernel",
    "solve",
    "with_objective",
]

# Largest violation, relative to the program's scaled bounds, of a point that counts as feasible.
# General solvers are asked for 1e-9; the rest is what unscaling may add.
_FEASIBLE = 1e-7


@dataclass(frozen=True, eq=False)
class Solution:
    """Answers to a batch of layer programs.

    Attributes:
        z: (batch, k) minimisers; NaN where the outcome is not optimal.
        slack: (batch,) the slack needed at z (largest, or summed under l1), recomputed.
        value: (batch,) objective plus slack at z; NaN where there is no z.
        outcome: (batch,) of ``Outcome``.
        dual_lower: (batch, n) multipliers, at least 0, of the lower sides: ``dual_bound`` turns
            them into a lower bound on the value, and where the outcome is infeasible they are a
            Farkas proof of it. NaN where the backend gives none.
        dual_upper: (batch, n), of the upper sides.
        ray: (batch, k) a direction along which the value falls for ever; NaN unless the outcome
            is unbounded and the kernel found one.
        fallback: (batch,) True where the kernel could not settle it and HiGHS was asked.
    """

    z: Array
    slack: Array
    value: Array
    outcome: NDArray[np.object_]
    dual_lower: Array
    dual_upper: Array
    ray: Array
    fallback: NDArray[np.bool_]


def check_backend(backend: str) -> None:
    """Raise ``InputError`` for an unknown backend, ``MissingExtraError`` for one not installed."""
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "piqp":
        piqp.load()


def solve(
    program: LayerProgram, backend: Backend = "kernel", threads: int | None = None
) -> Solution:
    """Minimise every sample of ``program``.

    Args:
        program: A batch of layer programs.
        backend: ``"kernel"`` (batched interior point, compiled on first use), ``"highs"``
            (simplex, the reference) or ``"piqp"`` (dense interior point).
        threads: Threads of the kernel; None for all processors of the process. The answers do
            not depend on it.
    """
    check_backend(backend)
    if backend == "kernel" and kernel.accepts(program):
        found = kernel.minimise(program, threads)
        open_ = found.outcome == Outcome.FAILED
    else:
        found, open_ = kernel.unsettled(program), np.ones(len(program), dtype=bool)
    general = "highs" if backend == "kernel" else backend
    for sample in np.flatnonzero(open_):
        _solve_general(program, GENERAL[general], sample, found)
    slack = program.slack_at(found.z)
    value = (program.objective * found.z).sum(axis=1)
    return Solution(
        found.z,
        slack,
        value if program.slack == "none" else value + slack,
        found.outcome,
        found.dual_lower,
        found.dual_upper,
        found.ray,
        open_ & (backend == "kernel"),
    )


def _solve_general(
    program: LayerProgram,
    minimise: Callable[[LinearProgram], tuple[Outcome, Array, Array]],
    sample: np.intp,
    found: kernel.Settled,
) -> None:
    """Solve one sample with a general solver and write the checked answer into ``found``."""
    scaled = scale(program.linear_program(int(sample)), program.objective.shape[1])
    outcome, point, dual = minimise(scaled.program)
    if outcome is Outcome.OPTIMAL:
        excess = scaled.program.matrix @ point - scaled.program.bound
        if not excess.max(initial=0.0) <= _FEASIBLE:
            outcome = Outcome.FAILED
    found.outcome[sample] = outcome
    if outcome is Outcome.OPTIMAL:
        # The domain binds exactly: a tiny negative input would be a wrong sign below.
        low, high = program.box()
        found.z[sample] = np.clip(scaled.restore(point), low[sample], high[sample])
        above, below = program.finite_sides(int(sample))
        multipliers = scaled.restore_dual(dual)
        found.dual_lower[sample], found.dual_upper[sample] = 0.0, 0.0
        found.dual_upper[sample, above] = multipliers[: len(above)]
        found.dual_lower[sample, below] = multipliers[len(above) :]


def with_objective(program: LayerProgram, objective: Array, delta: Array) -> LayerProgram:
    """Minimise ``objective @ z`` over the points of ``program`` whose slack is at most ``delta``.

    Args:
        program: Its slacks must be shared or absent.
        objective: (batch, k).
        delta: (batch,).
    """
    return replace(program, slab=program.slab.at(delta[:, None]), slack="none", objective=objective)
