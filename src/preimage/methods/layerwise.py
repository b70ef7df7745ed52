"""Layer by layer with linear programs: the paper's Algorithms 1 and 2, and its equation 8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preimage import lp
from preimage.errors import InputError
from preimage.generator import Layer
from preimage.inversion import Estimate, Status
from preimage.layer_program import NORMS, Norm, layer_program
from preimage.matrix import Array, Flags, Indices, Integers
from preimage.methods.layers import Domain, LayerAnswer, invert_layers
from preimage.methods.parameters import Box, box_ends, check_positive
from preimage.network import Network, known_chain
from preimage.observation import ROUNDING, Observation, scale_of
from preimage.slab import Slab

# eps may grow this far beyond the largest observed entry; by then every row is inactive.
_LARGEST_TOLERANCE = 10.0

# An exponent beyond all that are tried.
_UNKNOWN = 2**31


@dataclass(frozen=True)
class LayerwiseLP:
    """Invert the last layer by linear programs, then the one before it, down to the code.

    Every program keeps the domain of the layer below (``z >= 0`` under a ReLU), without which a
    layer must expand twofold before its input is unique.

    * ``norm="linf"``, Algorithm 1: minimise the largest error; the tolerance eps grows by
      ``growth`` until the program is feasible, and is handed to the layer below. The smallest
      feasible eps on that grid is found by bracketing instead of scanning: the answer is the same.
    * ``norm="l1"``, Algorithm 2: minimise the sum of errors; eps grows while the layer's own
      error ``||act(W z + b) - x||_1`` shrinks. A hidden layer's errors are some three times the
      noise, so that inactive rows first count as equations, and the error may stay or rise for a
      few steps before all of these are gone. The paper stops there, and on a trained 20-60-784
      network loses half of the codes; ``patience`` waits, at two to four times the programs
      (``python -m experiments layer-errors``).
    * ``norm="relaxed"``, equation 8: never commits to a sign; eps as under l1.

    Args:
        norm: ``"linf"``, ``"l1"`` or ``"relaxed"``.
        growth: Factor by which eps grows, above 1 (the paper's alpha; 1.2 there).
        backend: Of the programs: ``"kernel"`` or ``"highs"``.
        box: Only codes with ``|z_i| <= box``, or ``(low, high)``, numbers or one a coordinate.
        patience: Steps of eps, one after another, that may bring no smaller error before it stays
            (l1 and relaxed); the paper's is 0.

    Raises:
        InputError: A parameter is out of its range.
    """

    norm: Norm = "linf"
    growth: float = 1.2
    backend: lp.Backend = "kernel"
    box: Box = None
    patience: int = 6

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InputError(f"norm: expected one of {', '.join(NORMS)}, got {self.norm!r}")
        if not (np.isfinite(self.growth) and self.growth > 1):
            raise InputError(f"growth: expected a number above 1, got {self.growth!r}")
        check_positive({}, {"patience": self.patience} if self.patience else {})
        lp.check_backend(self.backend)
        box_ends(self.box)

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        generator = known_chain(network, "layer-wise programs")
        return invert_layers(generator, observation, self._invert, self.box)

    def _invert(
        self, layer: Layer, domain: Domain, observation: Observation, tolerance: Array,
        samples: Indices,
    ) -> LayerAnswer:  # fmt: skip
        step = _Step(self, layer, domain, observation, tolerance)
        search = step.bracket if self.norm == "linf" else step.scan
        search(samples)
        slack = np.where(np.isfinite(step.z).all(axis=1), step.slack, np.nan)
        equations = np.isfinite(step.slab(step.tolerance).lower)
        return LayerAnswer(
            step.z, step.tolerance, step.status, slack, step.programs, equations, step.full
        )


class _Step:
    """One layer of one batch, whose outputs are ``observation``: solves programs, counts them."""

    def __init__(
        self, method: LayerwiseLP, layer: Layer, domain: Domain, observation: Observation,
        start: Array,
    ) -> None:  # fmt: skip
        batch = len(observation)
        self.method, self.layer, self.domain = method, layer, domain
        self.observation, self.clock, self.start = observation, observation.clock, start
        self.limit = _LARGEST_TOLERANCE * scale_of(observation.restrict(observation.values))
        self.z, self.tolerance = np.full((batch, layer.input_size), np.nan), start.copy()
        self.status, self.slack = Status.SOLVED.each(batch), np.full(batch, np.nan)
        self.programs = np.zeros(batch, dtype=np.int64)
        self.full = np.zeros(batch, dtype=bool)

    def minimise(self, eps: Array, samples: Indices) -> lp.Solution:
        """Solve the programs of ``samples`` at their tolerances (given for the whole batch)."""
        self.programs[samples] += 1
        x, method = self.observation.take(samples), self.method
        program = layer_program(self.layer, x, eps[samples], method.norm, self.domain)
        return lp.solve(program, method.backend, clock=self.clock)

    def keep(self, eps: Array, samples: Indices, solution: lp.Solution, which: Flags) -> None:
        """Make those answers to ``samples`` that are marked the ones of this layer."""
        kept = samples[which]
        self.z[kept], self.slack[kept] = solution.z[which], solution.slack[which]
        self.tolerance[kept], self.status[kept] = eps[kept], Status.SOLVED
        # The relaxed program's rows with two sides are not the equations that are reported.
        self.full[kept] = solution.full[which] & (self.method.norm != "relaxed")

    def give_up(self, samples: Indices) -> None:
        """These samples' programs have no answer."""
        self.status[samples] = Status.TIME_LIMIT if self.clock.is_over else Status.FAILED

    def slab(self, eps: Array, samples: Indices | slice = slice(None)) -> Slab:
        """The layer's slab, whose tolerance is that of each entry."""
        x = self.observation.take(samples)
        return self.layer.activation.slab(x.values, eps[samples, None] * x.spread)

    def error(self, z: Array, samples: Indices) -> Array:
        """``|act(W z + b) - x|`` in units of each entry's tolerance; 0 where unobserved."""
        return np.abs(self.observation.take(samples).error(self.layer(z)))

    def bracket(self, samples: Indices) -> None:
        """Algorithm 1's tolerance: the smallest ``eps = start * growth**t`` that is feasible.

        eps is feasible iff the program without ``delta <= eps`` has ``delta* <= eps``. At
        ``delta = eps`` the rows say no more than ``|act(a) - x| <= eps``. So feasibility is
        monotone in eps, and the error of any point at all is a feasible eps: each program bounds
        the exponent t from above, and the rest is bisection. The last program solved is that of
        the answer, so z is what the scan would have returned.
        """
        start, log_growth = self.start, np.log(self.method.growth)
        trial, solved = np.zeros(len(start), dtype=np.int64), np.full(len(start), -1)
        infeasible, feasible = np.full(len(start), -1), np.full(len(start), _UNKNOWN)
        open_ = samples
        while len(open_):
            eps = start * np.exp(log_growth * trial)
            solution = self.minimise(eps, open_)
            optimal = solution.outcome == lp.Outcome.OPTIMAL
            self.give_up(open_[~optimal])
            fits = optimal & (solution.slack <= eps[open_] * (1 + ROUNDING))
            self.keep(eps, open_, solution, fits)
            solved[open_[fits]] = trial[open_[fits]]
            infeasible[open_[~fits]] = trial[open_[~fits]]
            open_, fits = open_[optimal], fits[optimal]
            error = self.error(solution.z[optimal], open_).max(axis=1, initial=0.0)
            ratio = np.maximum(error / start[open_], 1.0)
            near = np.ceil(np.log(ratio) / log_growth - ROUNDING).astype(np.int64)
            near = np.where(fits, np.minimum(near, trial[open_]), near)
            # Rounding may let the two bounds cross by one step; a miss that was solved counts.
            least = infeasible[open_] + 1
            feasible[open_] = np.maximum(np.minimum(feasible[open_], near), least)
            gap = feasible[open_] - infeasible[open_]
            trial[open_] = infeasible[open_] + np.maximum(gap // 2, 1)
            open_ = open_[(gap > 1) | (solved != feasible)[open_]]

    def scan(self, samples: Indices) -> None:
        """Algorithm 2's tolerance: grow while the layer's own l1 error shrinks, or soon will."""
        batch, eps = len(self.start), self.start.copy()
        best, misses = np.full(batch, np.inf), np.zeros(batch, dtype=np.int64)
        self.status[samples], open_ = Status.INFEASIBLE, samples
        while len(open_):
            if self.clock.is_over:
                self.give_up(open_)
                break
            solution = self.minimise(eps, open_)
            error = self.error(solution.z, open_).sum(axis=1)
            optimal = solution.outcome == lp.Outcome.OPTIMAL
            better = optimal & (error < best[open_] * (1 - ROUNDING))
            self.keep(eps, open_, solution, better)
            best[open_[better]] = error[better]
            # Only the relaxed program can be infeasible, while eps is too small.
            waiting = (solution.outcome == lp.Outcome.INFEASIBLE) & ~np.isfinite(best[open_])
            broken = ~optimal & ~waiting & ~np.isfinite(best[open_])
            self.give_up(open_[broken])
            misses[open_] = np.where(better | waiting, 0, misses[open_] + 1)
            open_ = self._advance(eps, open_[~broken], misses)

    def _advance(self, eps: Array, samples: Indices, misses: Integers) -> Indices:
        """Grow eps in place; return the samples whose program that changes, in time.

        Under l1 the program depends on eps only through the rates of its rows. Where these stay,
        so does the error, and the step is a miss without another program.
        """
        changed = []
        while len(samples := samples[misses[samples] <= self.method.patience]):
            before = np.stack(self.slab(eps, samples))
            eps[samples] *= self.method.growth
            within = eps[samples] <= self.limit[samples]
            new = np.ones(len(samples), dtype=bool)
            if self.method.norm == "l1":
                new = (before != np.stack(self.slab(eps, samples))).any(axis=(0, 2))
            changed.append(samples[within & new])
            samples = samples[within & ~new]
            misses[samples] += 1
        return np.sort(np.concatenate(changed)) if changed else samples
