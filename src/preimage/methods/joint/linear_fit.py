"""Joint fits in the l1 and l-infinity norms: a linear program a step.

``TrustRegion`` makes the steps of any network; for chains of piecewise-linear layers
``LinearRegions`` makes better ones. Both are judged by the loss alone, whatever they promise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preimage import lp
from preimage.generator import Generator
from preimage.layer_program import LayerProgram, Slack
from preimage.matrix import Array, Flags, Indices
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


@dataclass(frozen=True, eq=False)
class Fit:
    """``||y - A G(z)||_p``, p = 1 or infinity, of some runs.

    Attributes:
        problem: What to fit; a box is kept, the prior and the ball are not used.
        samples: (runs,) the sample of each.
        norm: ``"l1"`` or ``"linf"``.
        backend: Of the programs.
    """

    problem: LeastSquares
    samples: Indices
    norm: str
    backend: lp.Backend

    def loss(self, runs: Indices, z: Array, below: Array) -> Array:
        """See ``Steps``."""
        size = np.abs(self.problem.error(z, self.samples[runs]))
        return size.sum(axis=1) if self.norm == "l1" else size.max(axis=1, initial=0.0)

    def solve(self, z: Array, weight: Array, slab: Slab, reach: Array) -> tuple[lp.Solution, Array]:
        """The best steps from ``z``, in the box and no longer than ``reach``, and their ends."""
        slack: Slack = "own" if self.norm == "l1" else "shared"
        domain = self.problem.region.steps(z, reach[:, None])
        program = LayerProgram(weight, slab, slack, np.zeros_like(z), domain)
        found = lp.solve(program, self.backend, clock=self.problem.observation.clock)
        return found, self.problem.region.project(z + np.nan_to_num(found.z))


class TrustRegion:
    """Steps within a trust region; see ``Steps``.

    While no unit changes its sign, ``A G(z + dz) = A G(z) + J dz``, so that the best step is

        minimise ||error - J dz||_p   subject to  -radius <= dz <= radius,  z + dz in the box.

    It is a layer program whose layer is J, without an activation. The radius follows the ratio of
    the achieved to the promised decrease.
    """

    gain = 0.0

    def __init__(self, fit: Fit, z: Array) -> None:
        self.fit, self.loss, self.damping = fit, fit.loss, np.zeros(len(z))
        self.radius = np.maximum(np.abs(z).max(axis=1, initial=0.0), 1.0)
        self.done, self.stationary = np.zeros((2, len(z)), dtype=bool)
        # Of the last programs: the error that they promise, and the lengths of their steps.
        self.least, self.longest = np.zeros((2, len(z)))

    def step(self, runs: Indices, z: Array, loss: Array) -> tuple[Array, Array]:
        """See ``Steps``."""
        problem, samples, radius = self.fit.problem, self.fit.samples[runs], self.radius[runs]
        error, mask = problem.error(z, samples), problem.observation.take(samples).mask
        one = np.ones_like(error)
        slab = Slab(error, one, error, one)
        slab = slab if mask is None else slab.where(mask)
        found, trial = self.fit.solve(z, problem.jacobian(z, samples), slab, radius)
        self.least[runs], self.longest[runs] = found.slack, np.abs(found.z).max(1, initial=0)
        return trial, np.full(len(z), np.inf)

    def learn(
        self, runs: Indices, promised: Array, before: Array, after: Array, better: Flags
    ) -> None:
        """See ``Steps``."""
        radius, length = self.radius[runs], self.longest[runs]
        promised = before - self.least[runs]
        settled = (promised <= _STATIONARY * before) | (radius <= _SMALLEST_RADIUS)
        self.stationary[runs] = settled
        # A program without an answer promises NaN, and ends its run without a claim.
        self.done[runs] = settled | ~np.isfinite(promised)
        ratio = (before - after) / np.where(settled, 1.0, promised)
        radius = np.where(ratio > 0.75, np.maximum(radius, 2 * length), radius)
        self.radius[runs] = np.where(ratio < 0.25, length / 4, radius)


def takes(generator: Generator) -> bool:
    """Whether every layer is a matrix with a piecewise-linear activation, the last a ReLU or none.

    (Under a leaky head the bound above would not hold.)
    """
    *hidden, last = generator.layers
    if last.slopes_below is None or any(layer.slopes is None for layer in hidden):
        return False
    return bool((last.slopes_below == 0).all() or (last.slopes_below == 1).all())


class LinearRegions:
    """Steps in one linear region after another; see ``Steps``.

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

    def __init__(self, fit: Fit, z: Array) -> None:
        self.fit, self.loss, self.damping = fit, fit.loss, np.zeros(len(z))
        self.chain = known_chain(fit.problem.network, "a fit region by region")
        self.outputs = self.chain.observation_size
        self.active = np.concatenate(self.chain.preactivations(z), axis=1)[:, : -self.outputs] > 0
        self.candidates = np.full((len(z), self.active.shape[1] + 1), -1)
        self.tried, self.done = np.full(len(z), -1), np.zeros(len(z), dtype=bool)
        # Of the last programs: the signs, and the multipliers of the rows of hidden units.
        self.flipped, self.price = self.active.copy(), np.zeros(self.active.shape)
        self.stationary = self.done  # without a better neighbouring region

    def step(self, runs: Indices, z: Array, loss: Array) -> tuple[Array, Array]:
        """In a run's own region, or beyond its next candidate flip."""
        active, tried = self.active[runs].copy(), self.tried[runs]
        going = np.flatnonzero(tried >= 0)
        active[going, self.candidates[runs[going], tried[going]]] ^= True
        found, trial = self._solve(z, self.fit.samples[runs], active)
        price = np.nan_to_num(found.dual_lower + found.dual_upper)[:, self.outputs :]
        self.flipped[runs], self.price[runs] = active, price
        return trial, np.full(len(z), np.inf)

    def learn(
        self, runs: Indices, promised: Array, before: Array, after: Array, better: Flags
    ) -> None:
        """New candidates where a run has moved, or has tried its own region for the first time."""
        self.active[runs[better]] = self.flipped[runs[better]]
        fresh, price = better | (self.tried[runs] < 0), self.price[runs]
        order = np.argsort(-price, axis=1, kind="stable")
        ranked = np.where(np.take_along_axis(price, order, axis=1) > 0, order, -1)
        self.candidates[runs[fresh], :-1] = ranked[fresh]
        self.tried[runs] = tried = np.where(fresh, 0, self.tried[runs] + 1)
        self.done[runs] = (self.candidates[runs, tried] < 0) | (tried >= _MOST_FLIPS)

    def _solve(self, z: Array, samples: Indices, active: Flags) -> tuple[lp.Solution, Array]:
        """The program of each run over its step: rows of the outputs, then a sign a hidden unit."""
        layers = self.chain.layers
        # Values and slopes as s says: at a kink they may differ from what the sign of a says.
        hidden_sizes = np.cumsum(self.chain.sizes[1:-1])
        signs = np.split(np.where(active, 1.0, -1.0), hidden_sizes, axis=1)
        gradients = [gradient.copy() for gradient in self.chain.jacobians(signs)]
        offsets = [layers[0].affine(z)]
        for below, layer, sign in zip(layers, layers[1:], signs, strict=False):
            offsets.append(layer.affine(below.activation.derivative(sign) * offsets[-1]))
        observation = self.fit.problem.observation.take(samples)
        slab = observation.admit(self._output_slab(offsets[-1], observation.values))
        hidden = np.concatenate(offsets, axis=1)[:, : -self.outputs]
        bent = np.concatenate([np.zeros(0), *jumps(self.chain)]) > 0
        # A unit may stand beyond its kink by rounding.
        lower = np.where(active & bent, np.minimum(-hidden, 0.0), -np.inf)
        upper = np.where(~active & bent, np.maximum(-hidden, 0.0), np.inf)
        sides = (slab, Slab(lower, np.zeros_like(hidden), upper, np.zeros_like(hidden)))
        weight = np.concatenate([gradients[-1], *gradients[:-1]], axis=1)
        slab = Slab(*(np.concatenate(parts, axis=1) for parts in zip(*sides, strict=True)))
        reach = _FARTHEST * np.maximum(np.abs(z).max(axis=1, initial=0.0), 1.0)
        return self.fit.solve(z, weight, slab, reach)

    def _output_slab(self, a: Array, x: Array) -> Slab:
        """Bounds on the step's effect on the last pre-activations; see the class's text."""
        one, zero = np.ones_like(a), np.zeros_like(a)
        if (self.chain.layers[-1].activation.derivative(-one) == 1).all():
            return Slab(x - a, one, x - a, one)
        fitted = (x > 0) & (a > 0)
        dead = (x > 0) & ~fitted
        lower, lower_rate = np.where(fitted, x - a, -np.inf), np.where(fitted, one, zero)
        if self.fit.norm == "linf":
            return Slab(lower, lower_rate, x - a, one)
        upper = np.where(fitted, x - a, np.where(dead, 2 * x - a, -a))
        return Slab(lower, lower_rate, upper, np.where(dead, zero, one))
