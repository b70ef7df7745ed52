"""Layer by layer with linear programs: the paper's Algorithms 1 and 2, and its equation 8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage import lp
from preimage.errors import InputError
from preimage.generator import Generator, Layer
from preimage.inversion import Estimate, LayerReport, Status
from preimage.layer_program import NORMS, Norm, layer_program
from preimage.matrix import Array, Flags, Indices
from preimage.methods.equations import rank_of_rows
from preimage.methods.joint.least_squares import LeastSquares
from preimage.methods.joint.search import plug_in
from preimage.methods.parameters import check_positive
from preimage.methods.region import Box, Region, box_ends, check_box
from preimage.network import Network, known_chain
from preimage.observation import ROUNDING, Observation, scale_of
from preimage.slab import Slab

# eps may grow this far beyond the largest observed entry; by then every row is inactive.
_LARGEST_TOLERANCE = 10.0

# An exponent beyond all that are tried.
_UNKNOWN = 2**31

# Exponents skipped while no feasible tolerance was seen: 1.2**12 = 9, what a layer usually adds.
_FIRST_STRIDE = 12


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
        check_box(self.box)

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        status = Status.SOLVED.each(len(observation))
        generator = known_chain(network, "layer-wise programs")
        clock, tolerance, reports = observation.clock, observation.tolerance, []
        above = observation
        for index in reversed(range(len(generator.layers))):
            domain: tuple[Any, Any] = generator.domain(index)
            if index == 0 and self.box is not None:
                domain = box_ends(self.box, generator.latent_size)
            clock.report(f"layer {index + 1} of {len(generator.layers)}", len(above))
            step = _Step(self, generator.layers[index], domain, above)
            search = step.bracket if self.norm == "linf" else step.scan
            going = np.flatnonzero(status == Status.SOLVED)
            tolerance, z, found = search(tolerance, going)
            status[going] = found[going]
            reports.append(no_report(len(z)) if clock.is_over else step.report(z, tolerance))
            above = Observation(z, tolerance, clock=clock)
        fill_late(generator, observation, z, status, self.box)
        return Estimate(z, status, tuple(reversed(reports)))


class _Step:
    """One layer of one batch, whose outputs are ``observation``: solves programs, counts them."""

    def __init__(
        self,
        method: LayerwiseLP,
        layer: Layer,
        domain: tuple[Any, Any],
        observation: Observation,
    ) -> None:
        self.method, self.layer, self.domain = method, layer, domain
        self.observation, self.clock = observation, observation.clock
        self.programs = np.zeros(len(observation), dtype=np.int64)
        self.slack = np.full(len(observation), np.nan)
        self.full = np.zeros(len(observation), dtype=bool)
        self.limit = _LARGEST_TOLERANCE * scale_of(observation.restrict(observation.values))

    def keep(self, z: Array, samples: Indices, solution: lp.Solution, which: Flags) -> None:
        """Make those answers to ``samples`` that are marked the ones of this layer."""
        kept = samples[which]
        z[kept], self.slack[kept] = solution.z[which], solution.slack[which]
        # The relaxed program's rows with two sides are not the equations that are reported.
        self.full[kept] = solution.full[which] & (self.method.norm != "relaxed")

    def minimise(self, tolerance: Array, samples: Indices) -> lp.Solution:
        """Solve the programs of ``samples`` at their tolerances (given for the whole batch)."""
        self.programs[samples] += 1
        x = self.observation.take(samples)
        program = layer_program(
            self.layer, x.values, tolerance[samples], self.method.norm, self.domain, x.mask,
            x.spread,
        )  # fmt: skip
        return lp.solve(program, self.method.backend, clock=self.clock)

    def slab(self, tolerance: Array, samples: Indices | slice = slice(None)) -> Slab:
        """The layer's slab, whose tolerance is that of each entry."""
        x = self.observation.take(samples)
        level = tolerance[samples, None]
        return self.layer.activation.slab(x.values, level if x.spread is None else level * x.spread)

    def error(self, z: Array, samples: Indices) -> Array:
        """``|act(W z + b) - x|`` in units of each entry's tolerance; 0 where unobserved."""
        return np.abs(self.observation.take(samples).error(self.layer(z)))

    @property
    def broken(self) -> Status:
        """Of a sample whose program has no answer."""
        return Status.TIME_LIMIT if self.clock.is_over else Status.FAILED

    def bracket(self, start: Array, samples: Indices) -> tuple[Array, Array, NDArray[np.object_]]:
        """Algorithm 1's tolerance: the smallest ``eps = start * growth**t`` that is feasible.

        eps is feasible iff the program without ``delta <= eps`` has ``delta* <= eps``. At
        ``delta = eps`` the rows say no more than ``|act(a) - x| <= eps``. So feasibility is
        monotone in eps, and the error of any point at all is a feasible eps: each program bounds
        the exponent t from above. Where delta* never grows with eps (the rows of a larger eps are
        a subset), a feasible program's delta* also bounds it from below. The last program solved
        is that of the answer, so z is what the scan would have returned.

        Returns:
            Tolerances (batch,), inputs (batch, k), statuses (batch,).
        """
        batch, log_growth = len(start), np.log(self.method.growth)
        z = np.full((batch, self.layer.input_size), np.nan)
        status = Status.SOLVED.each(batch)
        slopes = self.layer.activation.slopes(self.layer.output_size)
        subset_rows = slopes is not None and bool(np.isin(slopes[0], (0.0, 1.0)).all())
        trial, solved = np.zeros(batch, dtype=np.int64), np.full(batch, -1)
        infeasible, feasible = np.full(batch, -1), np.full(batch, _UNKNOWN)
        eps, open_ = start.copy(), samples
        while len(open_):
            if self.clock.is_over:
                status[open_] = Status.TIME_LIMIT
                break
            eps[open_] = start[open_] * np.exp(log_growth * trial[open_])
            solution = self.minimise(eps, open_)
            optimal = solution.outcome == lp.Outcome.OPTIMAL
            status[open_[~optimal]] = self.broken
            fits = optimal & (solution.slack <= eps[open_] * (1 + ROUNDING))
            self.keep(z, open_, solution, fits)
            solved[open_[fits]] = trial[open_[fits]]
            open_, fits = open_[optimal], fits[optimal]
            found, slack = solution.z[optimal], solution.slack[optimal]

            def exponent(error: Array, samples: Indices = open_) -> NDArray[np.int64]:
                ratio = np.maximum(error / start[samples], 1.0)
                return np.ceil(np.log(ratio) / log_growth - ROUNDING).astype(np.int64)

            error = self.error(found, open_).max(axis=1, initial=0.0)
            above = np.where(fits, trial[open_], exponent(error))
            feasible[open_] = np.minimum(feasible[open_], np.minimum(above, exponent(error)))
            below = np.where(fits, exponent(slack) - 1 if subset_rows else -1, trial[open_])
            infeasible[open_] = np.maximum(infeasible[open_], below)
            # Rounding may let the two bounds cross by one step; a miss that was solved counts.
            feasible[open_] = np.maximum(feasible[open_], infeasible[open_] + 1)
            gap = feasible - infeasible
            stride = np.where(solved < 0, np.minimum(gap // 2, _FIRST_STRIDE), gap // 2)
            trial = np.where(gap <= 1, feasible, infeasible + np.maximum(stride, 1))
            open_ = open_[(gap > 1)[open_] | (solved != feasible)[open_]]
        return start * np.exp(log_growth * np.maximum(solved, 0)), z, status

    def scan(self, start: Array, samples: Indices) -> tuple[Array, Array, NDArray[np.object_]]:
        """Algorithm 2's tolerance: grow while the layer's own l1 error shrinks, or soon will.

        Returns:
            As ``bracket``.
        """
        batch, k = len(start), self.layer.input_size
        z, eps = np.full((batch, k), np.nan), start.copy()
        best, misses = np.full(batch, np.inf), np.zeros(batch, dtype=np.int64)
        status = Status.INFEASIBLE.each(batch)
        reached, open_ = start.copy(), samples
        while len(open_):
            if self.clock.is_over:
                status[open_] = Status.TIME_LIMIT
                break
            solution = self.minimise(eps, open_)
            error = self.error(solution.z, open_).sum(axis=1)
            optimal = solution.outcome == lp.Outcome.OPTIMAL
            better = optimal & (error < best[open_] * (1 - ROUNDING))
            improved = open_[better]
            self.keep(z, open_, solution, better)
            best[improved] = error[better]
            reached[improved], status[improved] = eps[improved], Status.SOLVED
            # Only the relaxed program can be infeasible, while eps is too small.
            waiting = (solution.outcome == lp.Outcome.INFEASIBLE) & ~np.isfinite(best[open_])
            broken = ~optimal & ~waiting & ~np.isfinite(best[open_])
            status[open_[broken]] = self.broken
            misses[open_] = np.where(better | waiting, 0, misses[open_] + 1)
            open_ = self._advance(eps, open_[~broken], misses)
        return reached, z, status

    def _advance(self, eps: Array, samples: Indices, misses: NDArray[np.int64]) -> Indices:
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

    def report(self, z: Array, tolerance: Array) -> LayerReport:
        """What this layer did, for the inputs ``z`` that were found."""
        slack = np.where(np.isfinite(z).all(axis=1), self.slack, np.nan)
        equations = np.isfinite(self.slab(tolerance).lower)
        return layer_report(
            self.layer, self.observation, slack, tolerance, self.programs, equations, self.full
        )


def no_report(batch: int) -> LayerReport:
    """Of a layer that was not reached in time."""
    unknown, none = np.full(batch, np.nan), np.full(batch, -1)
    return LayerReport(unknown, unknown, none, none, none, np.zeros(batch, dtype=np.int64))


def fill_late(
    generator: Generator,
    observation: Observation,
    z: Array,
    status: NDArray[np.object_],
    box: Box = None,
) -> None:
    """Give rough codes, in place, to samples that time left without one: see ``plug_in``."""
    late = np.flatnonzero((status == Status.TIME_LIMIT) & ~np.isfinite(z).all(axis=1))
    if len(late):
        region = Region(*box_ends(box, generator.latent_size), np.inf)
        problem = LeastSquares(generator, observation.take(late), 0.0, region)
        z[late] = region.project(plug_in(problem, generator, np.arange(len(late))))


def layer_report(
    layer: Layer,
    observation: Observation,
    slack: Array,
    tolerance: Array,
    programs: NDArray[np.int64],
    equations: Flags,
    full: Flags | None = None,
) -> LayerReport:
    """Count and rank the ``equations`` (batch, n) that are observed; NaN outputs give -1.

    ``full`` names the samples whose equations are known to have full column rank.
    """
    x, eps = observation.values, tolerance[:, None]
    low, high = layer.activation.range
    outside = (x < low - eps) | (x > high + eps)
    if observation.mask is not None:
        outside, equations = outside & observation.mask, equations & observation.mask
    known = np.isfinite(x).all(axis=1)
    rank = np.full(len(x), -1, dtype=np.int64)
    open_ = known if full is None else known & ~full
    rank[known] = layer.input_size
    rank[open_] = rank_of_rows(layer.scaled, equations[open_], observation.clock)
    return LayerReport(
        slack,
        np.where(known, tolerance, np.nan),
        np.where(known, equations.sum(axis=1), -1),
        rank,
        np.where(known, outside.sum(axis=1), -1),
        programs,
    )
