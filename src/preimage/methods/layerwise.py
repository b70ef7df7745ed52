"""Layer by layer with linear programs: the paper's Algorithms 1 and 2, and its equation 8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage import lp
from preimage.errors import InputError
from preimage.generator import Layer
from preimage.inversion import Estimate, LayerReport, Status
from preimage.layer_program import NORMS, LayerProgram, Norm, layer_program
from preimage.methods.equations import rank_of_rows
from preimage.methods.parameters import check_positive
from preimage.methods.region import Box, box_ends, check_box
from preimage.network import Network, known_chain
from preimage.observation import ROUNDING, Observation, scale_of

Array = NDArray[np.float64]

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
        x, tolerance, observed = observation.values, observation.tolerance, observation.mask
        spread = observation.spread
        reports = []
        for index in reversed(range(len(generator.layers))):
            domain: tuple[Any, Any] = generator.domain(index)
            if index == 0 and self.box is not None:
                domain = box_ends(self.box, generator.latent_size)
            step = _Step(self, generator.layers[index], domain, x, observed, spread)
            search = step.bracket if self.norm == "linf" else step.scan
            alive = np.flatnonzero(status == Status.SOLVED)
            tolerance, x, found = search(tolerance, alive)
            status[alive] = found[alive]
            reports.append(step.report(x, tolerance))
            observed = spread = None
        return Estimate(x, status, tuple(reversed(reports)))


class _Step:
    """One layer of one batch: solves programs and counts them."""

    def __init__(
        self,
        method: LayerwiseLP,
        layer: Layer,
        domain: tuple[Any, Any],
        x: Array,
        observed: NDArray[np.bool_] | None,
        spread: Array | None,
    ) -> None:
        self.method, self.layer, self.domain, self.x = method, layer, domain, x
        self.observed, self.spread = observed, spread
        self.programs = np.zeros(len(x), dtype=np.int64)
        self.limit = _LARGEST_TOLERANCE * scale_of(x if spread is None else x / spread)

    def minimise(self, tolerance: Array, samples: NDArray[np.intp]) -> lp.Solution:
        """Solve the programs of ``samples`` at their tolerances (given for the whole batch)."""
        self.programs[samples] += 1
        return lp.solve(self.program(tolerance, samples), self.method.backend)

    def program(
        self, tolerance: Array, samples: NDArray[np.intp] | slice = slice(None)
    ) -> LayerProgram:
        observed = None if self.observed is None else self.observed[samples]
        spread = None if self.spread is None else self.spread[samples]
        return layer_program(
            self.layer, self.x[samples], tolerance[samples], self.method.norm, self.domain,
            observed, spread,
        )  # fmt: skip

    def tolerances(self, eps: Array, samples: NDArray[np.intp] | slice = slice(None)) -> Array:
        """Of each entry, (samples, n) or (samples, 1)."""
        level = eps[samples, None]
        return level if self.spread is None else level * self.spread[samples]

    def error(self, z: Array, samples: NDArray[np.intp]) -> Array:
        """``|act(W z + b) - x|`` in units of ``spread``, 0 where nothing was observed."""
        error = np.abs(self.layer(z) - self.x[samples])
        error = error if self.spread is None else error / self.spread[samples]
        return error if self.observed is None else np.where(self.observed[samples], error, 0.0)

    def bracket(
        self, start: Array, samples: NDArray[np.intp]
    ) -> tuple[Array, Array, NDArray[np.object_]]:
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
        batch, log_growth = len(self.x), np.log(self.method.growth)
        z = np.full((batch, self.layer.input_size), np.nan)
        status = Status.SOLVED.each(batch)
        slopes = self.layer.activation.slopes(self.layer.output_size)
        subset_rows = slopes is not None and bool(np.isin(slopes[0], (0.0, 1.0)).all())
        trial, solved = np.zeros(batch, dtype=np.int64), np.full(batch, -1)
        infeasible, feasible = np.full(batch, -1), np.full(batch, _UNKNOWN)
        eps, open_ = start.copy(), samples
        while len(open_):
            eps[open_] = start[open_] * np.exp(log_growth * trial[open_])
            solution = self.minimise(eps, open_)
            optimal = solution.outcome == lp.Outcome.OPTIMAL
            status[open_[~optimal]] = Status.FAILED
            open_, found, slack = open_[optimal], solution.z[optimal], solution.slack[optimal]
            fits = slack <= eps[open_] * (1 + ROUNDING)
            z[open_[fits]], solved[open_[fits]] = found[fits], trial[open_[fits]]

            def exponent(error: Array, samples: NDArray[np.intp] = open_) -> NDArray[np.int64]:
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

    def scan(
        self, start: Array, samples: NDArray[np.intp]
    ) -> tuple[Array, Array, NDArray[np.object_]]:
        """Algorithm 2's tolerance: grow while the layer's own l1 error shrinks, or soon will.

        Returns:
            As ``bracket``.
        """
        batch, k = len(self.x), self.layer.input_size
        z, eps = np.full((batch, k), np.nan), start.copy()
        best, misses = np.full(batch, np.inf), np.zeros(batch, dtype=np.int64)
        status = Status.INFEASIBLE.each(batch)
        reached, open_ = start.copy(), samples
        while len(open_):
            solution = self.minimise(eps, open_)
            error = self.error(solution.z, open_).sum(axis=1)
            optimal = solution.outcome == lp.Outcome.OPTIMAL
            better = optimal & (error < best[open_] * (1 - ROUNDING))
            improved = open_[better]
            z[improved], best[improved] = solution.z[better], error[better]
            reached[improved], status[improved] = eps[improved], Status.SOLVED
            # Only the relaxed program can be infeasible, while eps is too small.
            waiting = (solution.outcome == lp.Outcome.INFEASIBLE) & ~np.isfinite(best[open_])
            broken = ~optimal & ~waiting & ~np.isfinite(best[open_])
            status[open_[broken]] = Status.FAILED
            misses[open_] = np.where(better | waiting, 0, misses[open_] + 1)
            open_ = self._advance(eps, open_[~broken], misses)
        return reached, z, status

    def _advance(
        self, eps: Array, samples: NDArray[np.intp], misses: NDArray[np.int64]
    ) -> NDArray[np.intp]:
        """Grow eps in place; return the samples whose program that changes, in time.

        Under l1 the program depends on eps only through the rates of its rows. Where these stay,
        so does the error, and the step is a miss without another program.
        """
        slab, changed = self.layer.activation.slab, []
        while len(samples := samples[misses[samples] <= self.method.patience]):
            before = np.stack(slab(self.x[samples], self.tolerances(eps, samples)))
            eps[samples] *= self.method.growth
            within = eps[samples] <= self.limit[samples]
            new = np.ones(len(samples), dtype=bool)
            if self.method.norm == "l1":
                after = np.stack(slab(self.x[samples], self.tolerances(eps, samples)))
                new = (before != after).any(axis=(0, 2))
            changed.append(samples[within & new])
            samples = samples[within & ~new]
            misses[samples] += 1
        return np.sort(np.concatenate(changed)) if changed else samples

    def report(self, z: Array, tolerance: Array) -> LayerReport:
        """What this layer did, for the inputs ``z`` that were found."""
        slack = self.program(tolerance).slack_at(z)
        equations = np.isfinite(
            self.layer.activation.slab(self.x, self.tolerances(tolerance)).lower
        )
        if self.observed is not None:
            equations &= self.observed
        return layer_report(
            self.layer, self.x, slack, tolerance, self.programs, equations, self.observed
        )


def layer_report(
    layer: Layer,
    x: Array,
    slack: Array,
    tolerance: Array,
    programs: NDArray[np.int64],
    equations: NDArray[np.bool_],
    observed: NDArray[np.bool_] | None = None,
    full: NDArray[np.bool_] | None = None,
) -> LayerReport:
    """Count and rank the ``equations`` (batch, n) of each sample; NaN rows of ``x`` give -1.

    ``full`` names the samples whose equations are known to have full column rank.
    """
    eps = tolerance[:, None]
    low, high = layer.activation.range
    outside = (x < low - eps) | (x > high + eps)
    outside = outside if observed is None else outside & observed
    known = np.isfinite(x).all(axis=1)
    rank = np.full(len(x), -1, dtype=np.int64)
    open_ = known if full is None else known & ~full
    rank[known] = layer.input_size
    rank[open_] = rank_of_rows(layer.scaled, equations[open_])
    return LayerReport(
        slack,
        np.where(known, tolerance, np.nan),
        np.where(known, equations.sum(axis=1), -1),
        rank,
        np.where(known, outside.sum(axis=1), -1),
        programs,
    )
