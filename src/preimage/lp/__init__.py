"""Solving layer programs: ``solve(program, backend)``.

Every backend sees the same scaled program and is asked for one thing, a point. Its feasibility is
checked here on the scaled program, and its slack and value are recomputed from the unscaled data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError
from preimage.layer_program import LayerProgram, LinearProgram
from preimage.lp import highs, piqp
from preimage.lp.outcome import Outcome
from preimage.lp.scaling import scale

Array = NDArray[np.float64]
Backend = Literal["highs", "piqp"]
BACKENDS: dict[str, Callable[[LinearProgram], tuple[Outcome, Array]]] = {
    "highs": highs.minimise,
    "piqp": piqp.minimise,
}

__all__ = ["BACKENDS", "Backend", "Outcome", "Solution", "check_backend", "solve"]

# Largest violation, relative to the program's scaled bounds, of a point that counts as feasible.
# Backends are asked for 1e-9; the rest is what unscaling may add.
_FEASIBLE = 1e-7


@dataclass(frozen=True, eq=False)
class Solution:
    """Answers to a batch of layer programs.

    Attributes:
        z: (batch, k) minimisers; NaN where the outcome is not optimal.
        slack: (batch,) the slack needed at z (largest, or summed under l1), recomputed.
        value: (batch,) objective plus slack at z; NaN where there is no z.
        outcome: (batch,) of ``Outcome``.
    """

    z: Array
    slack: Array
    value: Array
    outcome: NDArray[np.object_]


def check_backend(backend: str) -> None:
    """Raise ``InputError`` for an unknown backend, ``MissingExtraError`` for one not installed."""
    if backend not in BACKENDS:
        raise InputError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "piqp":
        piqp.load()


def solve(program: LayerProgram, backend: Backend = "highs") -> Solution:
    """Minimise every sample of ``program``.

    Args:
        program: A batch of layer programs.
        backend: ``"highs"`` (simplex, the reference) or ``"piqp"`` (dense interior point).
    """
    check_backend(backend)
    minimise = BACKENDS[backend]
    batch, k = program.objective.shape
    z = np.full((batch, k), np.nan)
    outcome = np.empty(batch, dtype=object)
    low, high = program.domain
    for sample in range(batch):
        scaled = scale(program.linear_program(sample), k)
        outcome[sample], point = minimise(scaled.program)
        if outcome[sample] is Outcome.OPTIMAL:
            # The domain binds exactly: a tiny negative input would be a wrong sign below.
            z[sample] = np.clip(scaled.restore(point), low, high)
            excess = scaled.program.matrix @ point - scaled.program.bound
            if not excess.max(initial=0.0) <= _FEASIBLE:
                outcome[sample] = Outcome.FAILED
                z[sample] = np.nan
    slack = program.slack_at(z)
    value = (program.objective * z).sum(axis=1)
    return Solution(z, slack, value if program.slack == "none" else value + slack, outcome)


def with_objective(program: LayerProgram, objective: Array, delta: Array) -> LayerProgram:
    """Minimise ``objective @ z`` over the points of ``program`` whose slack is at most ``delta``.

    Args:
        program: Its slacks must be shared or absent.
        objective: (batch, k).
        delta: (batch,).
    """
    return replace(program, slab=program.slab.at(delta[:, None]), slack="none", objective=objective)
