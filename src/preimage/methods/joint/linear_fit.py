"""Joint fits in the l1 and l-infinity norms: a linear program a step.

``descend_by_programs`` solves one program for each run, takes the step where it lowers the loss,
and asks for the next. ``TrustRegion`` makes the programs for any network; for chains of
piecewise-linear layers ``LinearRegions`` makes better ones.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from preimage import lp
from preimage.generator import Generator
from preimage.layer_program import LayerProgram
from preimage.matrix import Array, Flags, Indices, slices
from preimage.methods.joint.descent import DescentResult
from preimage.methods.joint.flips import jumps
from preimage.methods.joint.least_squares import LeastSquares
from preimage.network import known_chain
from preimage.slab import Slab

# A run is stationary when its program promises less than this, relatively, or when the trust
# region has shrunk to this without a step that lowers the loss (a kink, or a local minimum).
_STATIONARY = 1e-9
_SMALLEST_RADIUS = 1e-10
# No step is longer than so many times the code: a region may be unbounded.
_FARTHEST = 10.0
# Candidate flips that are tried before a point is taken for a local minimum.
_MOST_FLIPS = 24


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

    It is a layer program whose layer is J, without an activation. The radius follows the ratio of
    the achieved to the predicted decrease.
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
        error, mask = problem.error(z, samples), problem.observation.take(samples).mask
        one = np.ones_like(error)
        slab = Slab(error, one, error, one)
        return LayerProgram(
            problem.jacobian(z, samples),
            slab if mask is None else slab.where(mask),
            "own" if self.norm == "l1" else "shared",
            np.zeros_like(z),
            problem.region.steps(z, reach),
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


def takes(generator: Generator) -> bool:
    """Whether every layer is a matrix with a piecewise-linear activation, the last a ReLU or none.

    (Under a leaky head the bound above would not hold.)
    """
    *hidden, last = generator.layers
    return (
        all(layer.slopes is not None for layer in hidden)
        and last.slopes is not None
        and bool((last.slopes[0] == 0).all() or (last.slopes[0] == 1).all())
    )


class LinearRegions:
    """The programs of one linear region after another; see ``Programs``.

    Let s say of every hidden unit whether it is active. Where all signs are as s says, in the
    linear region of s, the last layer's pre-activations are affine in z, and the best fit there is
    one linear program over z, whose constraints are the fit's rows and the signs. What the program
    promises is exact. At its optimum some units stand at their kink; their multipliers say how much
    the program would gain beyond. These are the candidate flips: they are tried one at a time, most
    gain first, and when no neighbouring region holds a better point, the fit is a local minimum.

    The outputs' own kinks need no signs. A program bounds the error of a ReLU output from above,

        |x - a|         where x > 0 and the unit is active (above |x - max(a, 0)|),
        max(a, 0) - x   where x <= 0,
        x               where x > 0 and the unit is inactive, as long as a <= 2 x,

    exactly at the present z, so that what lowers the bound lowers the loss.

    Attributes:
        active: (runs, hidden units) s.
        candidates: (runs, hidden units + 1) units to flip, most gain first; then -1.
        tried: (runs,) how many of them have been; -1 before a run's own region was.
    """

    gain = 1e-11

    def __init__(self, problem: LeastSquares, z: Array, samples: Indices, norm: str) -> None:
        self.problem, self.samples, self.norm = problem, samples, norm
        self.chain = known_chain(problem.network, "a fit region by region")
        self.entries, self.outputs = sum(self.chain.sizes[1:]) * z.shape[1], self.chain.sizes[-1]
        self.active = np.concatenate(self.chain.preactivations(z), axis=1)[:, : -self.outputs] > 0
        self.candidates = np.full((len(z), self.active.shape[1] + 1), -1)
        self.tried, self.done = np.full(len(z), -1), np.zeros(len(z), dtype=bool)
        self.flipped = self.active.copy()

    @property
    def stationary(self) -> Flags:
        """Runs without a better neighbouring region."""
        return self.done

    def program(self, runs: Indices, z: Array) -> LayerProgram:
        """In a run's own region, or beyond its next candidate flip."""
        active, tried = self.active[runs].copy(), self.tried[runs]
        going = np.flatnonzero(tried >= 0)
        active[going, self.candidates[runs[going], tried[going]]] ^= True
        self.flipped[runs] = active
        return self._program(z, self.samples[runs], active)

    def learn(
        self, runs: Indices, solution: lp.Solution, before: Array, after: Array, better: Flags
    ) -> None:
        """New candidates where a run has moved, or has tried its own region for the first time."""
        self.active[runs[better]] = self.flipped[runs[better]]
        fresh = better | (self.tried[runs] < 0)
        price = np.nan_to_num(solution.dual_lower + solution.dual_upper)
        price = price[:, self.outputs :]
        order = np.argsort(-price, axis=1, kind="stable")
        ranked = np.where(np.take_along_axis(price, order, axis=1) > 0, order, -1)
        self.candidates[runs[fresh], :-1] = ranked[fresh]
        self.tried[runs] = tried = np.where(fresh, 0, self.tried[runs] + 1)
        self.done[runs] = (self.candidates[runs, tried] < 0) | (tried >= _MOST_FLIPS)

    def _program(self, z: Array, samples: Indices, active: Flags) -> LayerProgram:
        """The program of each run over its step: rows of the outputs, then a sign a hidden unit."""
        problem, layers = self.problem, self.chain.layers
        # Values and slopes as s says: at a kink they may differ from what the sign of a says.
        hidden_sizes = np.cumsum(self.chain.sizes[1:-1])
        signs = np.split(np.where(active, 1.0, -1.0), hidden_sizes, axis=1)
        gradients = [gradient.copy() for gradient in self.chain.jacobians(signs)]
        offsets = [layers[0].affine(z)]
        for below, layer, sign in zip(layers, layers[1:], signs, strict=False):
            offsets.append(layer.affine(below.activation.derivative(sign) * offsets[-1]))
        observation = problem.observation.take(samples)
        slab = observation.admit(self._output_slab(offsets[-1], observation.values))
        hidden = np.concatenate(offsets, axis=1)[:, : -self.outputs]
        bent = np.concatenate([np.zeros(0), *jumps(self.chain)]) > 0
        # A unit may stand beyond its kink by rounding.
        lower = np.where(active & bent, np.minimum(-hidden, 0.0), -np.inf)
        upper = np.where(~active & bent, np.maximum(-hidden, 0.0), np.inf)
        sides = (slab, Slab(lower, np.zeros_like(hidden), upper, np.zeros_like(hidden)))
        reach = _FARTHEST * np.maximum(np.abs(z).max(axis=1, initial=0.0, keepdims=True), 1.0)
        return LayerProgram(
            np.concatenate([gradients[-1], *gradients[:-1]], axis=1),
            Slab(*(np.concatenate(parts, axis=1) for parts in zip(*sides, strict=True))),
            "own" if self.norm == "l1" else "shared",
            np.zeros_like(z),
            problem.region.steps(z, reach),
        )

    def _output_slab(self, a: Array, x: Array) -> Slab:
        """Bounds on the step's effect on the last pre-activations; see the class's text."""
        one, zero = np.ones_like(a), np.zeros_like(a)
        if (self.chain.layers[-1].activation.derivative(-one) == 1).all():
            return Slab(x - a, one, x - a, one)
        fitted = (x > 0) & (a > 0)
        dead = (x > 0) & ~fitted
        lower, lower_rate = np.where(fitted, x - a, -np.inf), np.where(fitted, one, zero)
        if self.norm == "linf":
            return Slab(lower, lower_rate, x - a, one)
        upper = np.where(fitted, x - a, np.where(dead, 2 * x - a, -a))
        return Slab(lower, lower_rate, upper, np.where(dead, zero, one))


def fit_size(error: Array, norm: str) -> Array:
    """(runs,) the norm of each row."""
    size = np.abs(error)
    return size.sum(axis=1) if norm == "l1" else size.max(axis=1, initial=0.0)
