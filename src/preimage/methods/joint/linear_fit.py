"""Joint fits in the l1 and l-infinity norms: a linear program a step, within a trust region."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preimage import lp
from preimage.activation import Identity
from preimage.layer_program import LayerProgram
from preimage.methods.joint.descent import DescentResult
from preimage.methods.joint.least_squares import Indices, LeastSquares

Array = NDArray[np.float64]

# A run is stationary when its program promises less than this, relatively, or when the trust
# region has shrunk to this without a step that lowers the loss (a kink, or a local minimum).
_STATIONARY = 1e-9
_SMALLEST_RADIUS = 1e-10
# Programs whose matrices are held at a time, in entries.
_MATRIX_ENTRIES = 2**24


def descend_in_trust_region(
    problem: LeastSquares, z: Array, samples: Indices, *, norm: str, steps: int, backend: lp.Backend
) -> DescentResult:
    """Minimise ``||y - A G(z)||_p``, p = 1 or infinity, from each row of ``z``.

    While no unit changes its sign, ``A G(z + dz) = A G(z) + J dz``, so that the best step is the
    linear program

        minimise ||error - J dz||_p   subject to  -radius <= dz <= radius,  z + dz in the box.

    It is a layer program whose layer is J, with an identity for its activation. A step is taken
    only if it lowers the loss, so that no start is ever made worse; the radius follows the ratio
    of the achieved to the predicted decrease.

    Args:
        problem: What to fit; a box is kept, the prior and the ball are not used.
        z: (runs, k) starts.
        samples: (runs,) the sample of each.
        norm: ``"l1"`` or ``"linf"``.
        steps: Most steps of a run.
        backend: Of the programs.
    """
    z = problem.region.project(z).copy()
    error = problem.error(z, samples)
    run = DescentResult(z, fit_size(error, norm), np.zeros(len(z), dtype=bool), np.zeros(len(z)))
    radius = np.maximum(np.abs(z).max(axis=1, initial=0.0), 1.0)
    open_ = np.arange(len(z))
    for _ in range(steps):
        if problem.observation.clock.is_over:
            break
        step, promised = _steps(problem, run.z[open_], samples[open_], error[open_],
                                radius[open_], norm, backend)  # fmt: skip
        predicted = run.loss[open_] - promised
        # A program without an answer promises NaN, and ends its run without a claim.
        settled = (predicted <= _STATIONARY * run.loss[open_]) | (run.loss[open_] == 0)
        settled |= radius[open_] <= _SMALLEST_RADIUS
        run.stationary[open_[settled]] = True
        going = ~settled & np.isfinite(predicted)
        open_, step, predicted = open_[going], step[going], predicted[going]
        if not len(open_):
            break
        trial = problem.region.project(run.z[open_] + step)
        missed = problem.error(trial, samples[open_])
        loss = fit_size(missed, norm)
        ratio = (run.loss[open_] - loss) / predicted
        better = loss < run.loss[open_]
        moved = open_[better]
        run.z[moved], run.loss[moved], error[moved] = trial[better], loss[better], missed[better]
        length = np.abs(step).max(axis=1, initial=0.0)
        radius[open_] = np.where(
            ratio > 0.75, np.maximum(radius[open_], 2 * length), np.where(ratio < 0.25, length / 4,
                                                                         radius[open_])
        )  # fmt: skip
    return run


def _steps(
    problem: LeastSquares, z: Array, samples: Indices, error: Array, radius: Array, norm: str,
    backend: lp.Backend,
) -> tuple[Array, Array]:  # fmt: skip
    """The step of each run, and the loss that the linear model promises after it."""
    runs, k = z.shape
    step, promised = np.empty((runs, k)), np.empty(runs)
    rows = problem.network.observation_size
    size = max(_MATRIX_ENTRIES // max(rows * k, 1), 1)
    for i in range(0, runs, size):
        part = slice(i, i + size)
        reach = radius[part, None]
        domain = (
            np.maximum(-reach, problem.region.low - z[part]),
            np.minimum(reach, problem.region.high - z[part]),
        )
        slab = Identity().slab(error[part], 0.0)
        seen = problem.observation.take(samples[part]).mask
        program = LayerProgram(
            problem.jacobian(z[part], samples[part]),
            slab if seen is None else slab.where(seen),
            "own" if norm == "l1" else "shared",
            np.zeros_like(z[part]),
            domain,
        )
        solution = lp.solve(program, backend)
        step[part], promised[part] = solution.z, solution.slack
    return step, promised


def fit_size(error: Array, norm: str) -> Array:
    """(runs,) the norm of each row."""
    size = np.abs(error)
    return size.sum(axis=1) if norm == "l1" else size.max(axis=1, initial=0.0)
