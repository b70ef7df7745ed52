"""How linear programs ended, and their answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from preimage.layer_program import LayerProgram
from preimage.matrix import Array, Flags, Integers


class Outcome(StrEnum):
    """A backend's answer, after its claim was checked."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Solution:
    """Answers to a batch of layer programs.

    Attributes:
        z: (batch, k) minimisers; NaN where the outcome is not optimal.
        dual_lower: (batch, n) multipliers, at least 0, of the lower sides: ``dual_bound`` turns
            them into a lower bound on the value, and where the outcome is infeasible they are a
            Farkas proof of it. NaN where the backend gives none.
        dual_upper: (batch, n), of the upper sides.
        ray: (batch, k) a direction along which the value falls for ever; NaN unless the outcome
            is unbounded and the kernel found one.
        outcome: (batch,) of ``Outcome``; ``FAILED`` where nothing is proven.
        steps: (batch,) interior-point steps.
        slack: (batch,) the slack needed at z (largest, or summed under l1), recomputed; NaN where
            there is no z, and before ``lp.solve`` recomputes it.
        value: (batch,) objective plus slack at z; NaN likewise.
        fallback: (batch,) True where the kernel could not settle it and HiGHS was asked.
        full: (batch,) True where the rows with two sides are known to have full column rank; the
            kernel finds it on its way.
    """

    z: Array
    dual_lower: Array
    dual_upper: Array
    ray: Array
    outcome: NDArray[np.object_]
    steps: Integers
    slack: Array
    value: Array
    fallback: Flags
    full: Flags


def unsettled(program: LayerProgram) -> Solution:
    """Nothing is known yet."""
    batch, (n, k) = len(program), program.weight.shape[-2:]
    unknown = {"z": k, "dual_lower": n, "dual_upper": n, "ray": k}
    return Solution(
        **{name: np.full((batch, size), np.nan) for name, size in unknown.items()},
        outcome=np.full(batch, Outcome.FAILED, dtype=object),
        steps=np.zeros(batch, dtype=np.int64),
        slack=np.full(batch, np.nan),
        value=np.full(batch, np.nan),
        fallback=np.zeros(batch, dtype=bool),
        full=np.zeros(batch, dtype=bool),
    )
