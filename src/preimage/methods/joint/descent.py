"""Descents of many runs at once: which steps are taken, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from preimage.clock import Clock
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
        return DescentResult._make(part[runs] for part in self)


class Steps(Protocol):
    """Which step each of some runs tries next.

    Attributes:
        gain: Relative decrease of the loss that makes a step worth taking.
        done: (runs,) whether there is no further step.
        stationary: (runs,) whether the end is known to be a local minimum.
        damping: (runs,) with which another descent may go on.
    """

    gain: float
    done: Flags
    stationary: Flags
    damping: Array

    def loss(self, runs: Indices, z: Array, below: Array) -> Array:
        """Losses at ``z``; where they are lower than ``below``, the next step is from there."""

    def step(self, runs: Indices, z: Array, loss: Array) -> tuple[Array, Array]:
        """Codes to try next, and the decreases that they promise; runs without one are done."""

    def learn(
        self, runs: Indices, promised: Array, before: Array, after: Array, better: Flags
    ) -> None:
        """The losses before and after steps, and which were taken."""


def descend(
    steps_of: Callable[[slice], Steps], entries: int, z: Array, samples: Indices, steps: int,
    clock: Clock, target_loss: Array | None = None,
) -> DescentResult:  # fmt: skip
    """Take steps from each row of ``z``, (runs, k), where they lower the loss.

    Args:
        steps_of: Makes the steps of some of the runs.
        entries: Numbers that these hold for a run.
        z: Starts, inside the region.
        samples: (runs,) the sample of each; runs of a sample stand side by side.
        steps: Most steps of a run.
        clock: When to stop.
        target_loss: (samples,) once a run's loss is at most this, the sample's other runs end.
    """
    ends = []
    for part in slices(len(z), entries) or [slice(0)]:
        target = None if target_loss is None else target_loss[samples[part]]
        ends.append(_descend(steps_of(part), z[part].copy(), samples[part], steps, clock, target))
    return DescentResult(*map(np.concatenate, zip(*ends, strict=True)))


def _descend(
    control: Steps, z: Array, samples: Indices, steps: int, clock: Clock, target: Array | None
) -> DescentResult:
    open_ = np.arange(len(z))
    loss = control.loss(open_, z, np.full(len(z), np.inf))
    for turn in range(steps):
        over = control.done
        if target is not None:
            good = loss <= target
            over = over | (np.isin(samples, samples[good]) & ~good)
        open_ = open_[~over[open_]]
        if not len(open_) or clock.is_over:
            break
        trial, promised = control.step(open_, z[open_], loss[open_])
        going = ~control.done[open_]
        open_, trial, promised = open_[going], trial[going], promised[going]
        if not len(open_):
            break
        # Steps that promise nothing are not taken, and nothing is asked of a model after the last.
        before = loss[open_]
        below = np.where((promised > 0) & (turn < steps - 1), before, -np.inf)
        after = control.loss(open_, trial, below)
        better = (after < before * (1 - control.gain)) & (promised > 0)
        control.learn(open_, promised, before, after, better)
        z[open_[better]], loss[open_[better]] = trial[better], after[better]
    return DescentResult(z, loss, control.stationary, control.damping)


def levenberg_marquardt(
    problem: LeastSquares, z: Array, samples: Indices, steps: int, damping: Array | float,
    target_loss: Array | None = None,
) -> DescentResult:  # fmt: skip
    """``descend`` by damped steps; ``damping`` is the initial one, a number or one a run."""
    z, damping = problem.region.project(z), damping + np.zeros(len(z))

    def steps_of(part: slice) -> Steps:
        return LevenbergMarquardt(problem, samples[part], damping[part])

    clock = problem.observation.clock
    return descend(steps_of, z.shape[1] ** 2, z, samples, steps, clock, target_loss)


class LevenbergMarquardt:
    """Damped steps; the damping follows the gain ratio (Nielsen, IMM-REP-1999-05). See ``Steps``.

    A faithful model is trusted at once, a poor one by degrees.
    """

    gain = 0.0

    def __init__(self, problem: LeastSquares, samples: Indices, damping: Array) -> None:
        count = len(samples)
        self.problem, self.samples, self.damping = problem, samples, damping
        self.model = model_of(problem, samples)
        self.loss = self.model.loss
        self.done, self.moved = np.zeros(count, dtype=bool), np.ones(count, dtype=bool)
        self.stationary, self.growth = self.done, np.full(count, 2.0)
        # Steps taken since the loss was this, of which there are at most ``_IDLE_STEPS``.
        self.taken, self.earlier = np.zeros(count, dtype=np.int64), np.full(count, np.inf)

    def step(self, runs: Indices, z: Array, loss: Array) -> tuple[Array, Array]:
        """See ``Steps``."""
        problem, samples, damping = self.problem, self.samples[runs], self.damping[runs]
        rounding = loss <= problem.rounding[samples]
        moved = self.moved[runs] & ~rounding
        self.model.update(runs[moved], z[moved])
        step, promised = self.model.step(runs, z, damping)
        flat = ~(promised > problem.negligible(loss, samples))
        flat |= (damping > _LARGEST_DAMPING) | rounding
        due = self.taken[runs] == _IDLE_STEPS
        flat |= due & (loss >= (1 - problem.idle) * self.earlier[runs])
        self.taken[runs[due]] = 0
        fresh = self.taken[runs] == 0
        self.earlier[runs[fresh]] = loss[fresh]
        self.done[runs] = flat
        trial = problem.region.project(z + step)
        if problem.region.has_box or np.isfinite(problem.region.radius):
            # The region may cut the step short, so the model is asked about what is taken.
            promised = self.model.decrease(runs, trial - z)
        return trial, promised

    def learn(
        self, runs: Indices, promised: Array, before: Array, after: Array, better: Flags
    ) -> None:
        """See ``Steps``."""
        taken, rejected = runs[better], runs[~better]
        ratio = (before[better] - after[better]) / promised[better]
        cubic = np.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3)
        self.damping[taken] *= np.where(ratio > 0.9, 0.01, cubic)
        self.damping[rejected] = np.maximum(self.damping[rejected], 1e-12) * self.growth[rejected]
        self.growth[taken] = 2.0
        self.growth[rejected] *= 2.0
        self.moved[runs] = better
        self.taken[taken] += 1
