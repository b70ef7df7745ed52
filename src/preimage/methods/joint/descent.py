"""Levenberg-Marquardt descents of many runs at once: which steps are taken, and when to stop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from preimage.matrix import Array, Flags, Indices, slices
from preimage.methods.joint.least_squares import LeastSquares
from preimage.methods.joint.model import model_of

# A run is stationary when no step promises more than ``LeastSquares.negligible``; when the damping
# has grown to this without a step that lowers the loss; or when so many that do, together, have
# lowered it by no more than ``LeastSquares.idle`` (the last two at a kink).
_LARGEST_DAMPING = 1e12
_IDLE_STEPS = 4


class DescentResult(NamedTuple):
    """Where runs ended: codes (runs, k), losses, whether stationary, damping (runs,) each."""

    z: Array
    loss: Array
    stationary: Flags
    damping: Array

    def take(self, runs: Indices) -> DescentResult:
        """Only these runs."""
        return DescentResult(
            self.z[runs], self.loss[runs], self.stationary[runs], self.damping[runs]
        )


class Damping:
    """The damping of each run, by the gain ratio (Nielsen, IMM-REP-1999-05).

    A faithful model is trusted at once, a poor one by degrees.
    """

    def __init__(self, weight: Array) -> None:
        self.weight, self.growth = weight, np.full(len(weight), 2.0)

    def accepted(self, runs: Indices, ratio: Array) -> None:
        """Steps whose achieved decrease was ``ratio`` times the predicted one."""
        cubic = np.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3)
        self.weight[runs] *= np.where(ratio > 0.9, 0.01, cubic)
        self.growth[runs] = 2.0

    def rejected(self, runs: Indices) -> None:
        """Steps that did not lower the loss."""
        self.weight[runs] = np.maximum(self.weight[runs], 1e-12) * self.growth[runs]
        self.growth[runs] *= 2.0


def descend(
    problem: LeastSquares,
    z: Array,
    samples: Indices,
    *,
    steps: int,
    damping: Array | float,
    target_loss: Array | None = None,
) -> DescentResult:
    """Levenberg-Marquardt from each row of ``z``; no loss ever rises.

    Args:
        problem: What to minimise.
        z: (runs, k) starts.
        samples: (runs,) the sample of each; runs of a sample stand side by side.
        steps: Most steps of a run.
        damping: Initial; a number, or one a run.
        target_loss: (samples,) once a run's loss is at most this, the sample's other runs end.
    """
    runs, k = z.shape
    weight = np.zeros(runs) + damping
    parts = slices(runs, k * k) or [slice(0)]
    ends = [_descend(problem, z[i], samples[i], steps, weight[i], target_loss) for i in parts]
    return (
        ends[0] if len(ends) == 1 else DescentResult(*map(np.concatenate, zip(*ends, strict=True)))
    )


def _descend(
    problem: LeastSquares,
    z: Array,
    samples: Indices,
    steps: int,
    weight: Array,
    target_loss: Array | None,
) -> DescentResult:
    count = len(z)
    z = problem.region.project(z).copy()
    damping, model = Damping(weight), model_of(problem, samples)
    open_ = moved = np.arange(count)
    loss = model.loss(open_, z, np.full(count, np.inf))
    run = DescentResult(z, loss, np.zeros(count, dtype=bool), weight)
    rounding = problem.rounding[samples]
    before, taken = run.loss.copy(), np.zeros(count, dtype=np.int64)
    for turn in range(steps):
        if problem.observation.clock.is_over:
            break
        unfinished = moved[run.loss[moved] > rounding[moved]]
        model.update(unfinished, run.z[unfinished])
        step, predicted = model.step(open_, run.z[open_], weight[open_])
        flat = ~(predicted > problem.negligible(run.loss[open_], samples[open_]))
        flat |= (weight[open_] > _LARGEST_DAMPING) | (run.loss[open_] <= rounding[open_])
        due = taken[open_] == _IDLE_STEPS
        flat |= due & (run.loss[open_] >= (1 - problem.idle) * before[open_])
        before[open_[due]], taken[open_[due]] = run.loss[open_[due]], 0
        run.stationary[open_[flat]] = True
        going = (
            ~flat if target_loss is None else ~flat & ~_surpassed(run, samples, target_loss)[open_]
        )
        open_, step, predicted = open_[going], step[going], predicted[going]
        if not len(open_):
            break
        trial = run.z[open_] + step
        if problem.region.is_bounded:
            # The region may cut the step short, so the model is asked about what is taken.
            trial = problem.region.project(trial)
            predicted = model.decrease(open_, trial - run.z[open_])
        # Steps that promise nothing are not taken, and nothing is asked of a model after the last.
        below = np.where((predicted > 0) & (turn < steps - 1), run.loss[open_], -np.inf)
        loss = model.loss(open_, trial, below)
        better = (loss < run.loss[open_]) & (predicted > 0)
        moved = open_[better]
        damping.accepted(moved, (run.loss[moved] - loss[better]) / predicted[better])
        damping.rejected(open_[~better])
        run.z[moved], run.loss[moved] = trial[better], loss[better]
        taken[moved] += 1
    return run


def _surpassed(run: DescentResult, samples: Indices, target_loss: Array) -> Flags:
    """Runs that are not good target_loss, while another of the same sample is."""
    good = run.loss <= target_loss[samples]
    explained = np.zeros(len(target_loss), dtype=bool)
    explained[samples[good]] = True
    return explained[samples] & ~good
