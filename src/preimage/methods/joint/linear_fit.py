"""Joint fits in the l1 and l-infinity norms: a linear program a step.

``descend_by_programs`` solves one program for each run, takes the step where it lowers the loss,
and asks for the next. ``TrustRegion`` makes the programs for any network; for chains of
piecewise-linear layers ``linear_regions.LinearRegions`` makes better ones.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from preimage import lp
from preimage.activation import Identity
from preimage.layer_program import LayerProgram
from preimage.matrix import Array, Flags, Indices, slices
from preimage.methods.joint.descent import DescentResult
from preimage.methods.joint.least_squares import LeastSquares

# A run is stationary when its program promises less than this, relatively, or when the trust
# region has shrunk to this without a step that lowers the loss (a kink, or a local minimum).
_STATIONARY = 1e-9
_SMALLEST_RADIUS = 1e-10


class Programs(Protocol):
    """Which program each run solves next.

    Attributes:
        entries: Numbers of the matrix of one program.
        gain: Relative decrease of the loss that makes a step worth taking.
        done: (runs,) whether there is no further program.
    """

    entries: int
    gain: float
    done: Flags

    @property
    def stationary(self) -> Flags:
        """(runs,) whether the end is known to be a local minimum."""

    def program(self, runs: Indices, z: Array) -> LayerProgram:
        """The programs of these runs over their steps from ``z``."""

    def learn(
        self, runs: Indices, solution: lp.Solution, before: Array, after: Array, better: Flags
    ) -> None:
        """The losses before and after the steps of ``solution``, and which were taken."""


def descend_by_programs(
    problem: LeastSquares,
    programs: Programs,
    z: Array,
    samples: Indices,
    *,
    norm: str,
    steps: int,
    backend: lp.Backend,
) -> DescentResult:
    """Minimise ``||y - A G(z)||_p``, p = 1 or infinity, from each row of ``z``; no loss ever rises.

    Args:
        problem: What to fit; a box is kept, the prior and the ball are not used.
        programs: Of the same runs.
        z: (runs, k) starts, in the box.
        samples: (runs,) the sample of each.
        norm: ``"l1"`` or ``"linf"``.
        steps: Most programs of a run.
        backend: Of the programs.
    """
    z, clock = z.copy(), problem.observation.clock
    loss = fit_size(problem.error(z, samples), norm)
    for _ in range(steps):
        open_ = np.flatnonzero(~programs.done)
        for part in slices(len(open_), programs.entries):
            runs = open_[part]
            if clock.is_over:
                break
            solution = lp.solve(programs.program(runs, z[runs]), backend, clock=clock)
            trial = problem.region.project(z[runs] + np.nan_to_num(solution.z))
            before, after = loss[runs], fit_size(problem.error(trial, samples[runs]), norm)
            better = after < before * (1 - programs.gain)
            programs.learn(runs, solution, before, after, better)
            z[runs[better]], loss[runs[better]] = trial[better], after[better]
        if clock.is_over or not len(open_):
            break
    return DescentResult(z, loss, programs.stationary, np.zeros(len(z)))


class TrustRegion:
    """The programs of steps within a trust region; see ``Programs``.

    While no unit changes its sign, ``A G(z + dz) = A G(z) + J dz``, so that the best step is

        minimise ||error - J dz||_p   subject to  -radius <= dz <= radius,  z + dz in the box.

    It is a layer program whose layer is J, with an identity for its activation. The radius follows
    the ratio of the achieved to the predicted decrease.
    """

    gain = 0.0

    def __init__(self, problem: LeastSquares, z: Array, samples: Indices, norm: str) -> None:
        self.problem, self.samples, self.norm = problem, samples, norm
        self.entries = problem.network.observation_size * z.shape[1]
        self.radius = np.maximum(np.abs(z).max(axis=1, initial=0.0), 1.0)
        self.done, self.stationary = np.zeros(len(z), dtype=bool), np.zeros(len(z), dtype=bool)

    def program(self, runs: Indices, z: Array) -> LayerProgram:
        """See ``Programs``."""
        problem, samples, reach = self.problem, self.samples[runs], self.radius[runs, None]
        region, seen = problem.region, problem.observation.take(samples).mask
        slab = Identity().slab(problem.error(z, samples), 0.0)
        return LayerProgram(
            problem.jacobian(z, samples),
            slab if seen is None else slab.where(seen),
            "own" if self.norm == "l1" else "shared",
            np.zeros_like(z),
            (np.maximum(-reach, region.low - z), np.minimum(reach, region.high - z)),
        )

    def learn(
        self, runs: Indices, solution: lp.Solution, before: Array, after: Array, better: Flags
    ) -> None:
        """See ``Programs``."""
        radius, predicted = self.radius[runs], before - solution.slack
        settled = (predicted <= _STATIONARY * before) | (radius <= _SMALLEST_RADIUS)
        self.stationary[runs] = settled
        # A program without an answer promises NaN, and ends its run without a claim.
        self.done[runs] = settled | ~np.isfinite(predicted)
        ratio = (before - after) / np.where(settled, 1.0, predicted)
        length = np.abs(solution.z).max(axis=1, initial=0.0)
        radius = np.where(ratio > 0.75, np.maximum(radius, 2 * length), radius)
        self.radius[runs] = np.where(ratio < 0.25, length / 4, radius)


def fit_size(error: Array, norm: str) -> Array:
    """(runs,) the norm of each row."""
    size = np.abs(error)
    return size.sum(axis=1) if norm == "l1" else size.max(axis=1, initial=0.0)
