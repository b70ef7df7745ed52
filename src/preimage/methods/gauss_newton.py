"""The whole network at once: damped Gauss-Newton steps on the piecewise-linear map."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from preimage import lp
from preimage.errors import InputError
from preimage.inversion import Estimate, Status
from preimage.matrix import Array
from preimage.methods.joint.descent import DescentResult, Steps, descend
from preimage.methods.joint.least_squares import LeastSquares
from preimage.methods.joint.linear_fit import Fit, LinearRegions, TrustRegion, takes
from preimage.methods.joint.search import Search, best_runs
from preimage.methods.parameters import Box, Region, box_ends, check_positive, is_method
from preimage.network import Network
from preimage.observation import Observation

if TYPE_CHECKING:
    from preimage.methods import Method

JointNorm = Literal["l2", "l1", "linf"]

# For l1 fits: rounds of least squares without the worst entries, and the part that is kept.
_TRIMMINGS = 4
_TRIMMED = 0.9
# Steps of an l1 or l-infinity fit that may cross many kinks, before it goes region by region.
_ROUGH_STEPS = 6


@dataclass(frozen=True)
class GaussNewton:
    """Minimise ``||y - A G(z)||`` over z, all layers at once, from several starts.

    While no unit changes its sign, G is affine, ``G(z + dz) = G(z) + J dz``, so that one
    undamped step ends at the exact minimiser of its linear piece. In the l2 norm, steps solve

        (J^T J + damping * diag(J^T J)) dz = J^T (y - A G(z))

    and are taken only if they lower the loss; the damping follows the ratio of the achieved to
    the predicted decrease (Levenberg and Marquardt; Nielsen's update, IMM-REP-1999-05). So the
    loss never rises, and no start is ever made worse. In the l1 and l-infinity norms, linear
    programs within a trust region go on from the best least-squares answers. No layer needs to
    expand: ``rank J = k`` is enough, and where the rank is lower at the answer, the sample is
    ``ambiguous`` (``inversion.rank`` tells how many directions of z are seen).

    The first start is the code of ``start``, or where there is none, that of a short PLUGIn run
    (``z <- z + mu W_1^T ... W_d^T (y - G(z))``, which goes through inactive units, too); the others
    are Gaussian draws, the same for every sample. A sample needs no more starts once it is
    explained up to rounding. The best answer often has a better neighbour, a linear region in which
    one hidden unit has the other sign; ``flip_rounds`` rounds try these, most promising first,
    until two rounds do not improve an explained sample.

    Args:
        norm: ``"l2"``; ``"linf"`` for noise with a sharp bound; ``"l1"`` for gross errors in a
            few entries.
        restarts: Number of starts.
        flip_rounds: Rounds of eight such neighbours of the best answer; 0 for none.
        steps: Most steps from each start.
        damping: Initial damping, positive.
        start: A method whose codes are the first start, such as ``LayerwiseLP()``.
        box: Only codes with ``|z_i| <= box``, or ``(low, high)``, numbers or one a coordinate.
        ball: Only codes with ``||z||_2 <= ball`` (l2 norm only).
        prior: Adds ``0.5 * prior * ||z||_2^2`` to ``0.5 ||y - A G(z)||_2^2``: for noise of
            variance v and codes from N(0, I), ``prior=v`` is the posterior mode (l2 only).
        backend: Of the linear programs.
        seed: Of the draws.
        hops: Deprecated name of ``flip_rounds``.

    Raises:
        InputError: A parameter is out of its range.
    """

    norm: JointNorm = "l2"
    restarts: int = 8
    flip_rounds: int = 3
    steps: int = 200
    damping: float = 1e-2
    start: Method | None = None
    box: Box = None
    ball: float | None = None
    prior: float = 0.0
    backend: lp.Backend = "kernel"
    seed: int = 0
    hops: int | None = None

    def __post_init__(self) -> None:
        if self.hops is not None:
            warnings.warn("hops is flip_rounds now", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "flip_rounds", self.hops)
            object.__setattr__(self, "hops", None)
        if self.norm not in ("l2", "l1", "linf"):
            raise InputError(f"norm: expected l2, l1 or linf, got {self.norm!r}")
        positive, counts = {"damping": self.damping}, {"restarts": self.restarts}
        positive |= {"prior": self.prior} if self.prior else {}
        positive |= {"ball": self.ball} if self.ball is not None else {}
        counts |= {"steps": self.steps}
        counts |= {"flip_rounds": self.flip_rounds} if self.flip_rounds else {}
        check_positive(positive, counts)
        box_ends(self.box)
        if self.ball is not None and self.box is not None:
            raise InputError("box, ball: expected one of them, got both")
        if self.norm != "l2" and (self.prior or self.ball is not None):
            raise InputError(f"prior, ball: they need norm='l2', got norm={self.norm!r}")
        if self.start is not None and not is_method(self.start):
            raise InputError(f"start: expected a method such as LayerwiseLP(), got {self.start!r}")
        lp.check_backend(self.backend)

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        ends = box_ends(self.box, network.latent_size)
        region = Region(*ends, np.inf if self.ball is None else self.ball)
        problem = LeastSquares(network, observation, self.prior, region)
        given = None if self.start is None else self.start.solve(network, observation).latent
        best = Search(problem, self).run(given)
        if self.norm == "l1":
            best = best._replace(z=self._trimmed(problem, best.z))
        if self.norm != "l2":
            best = self._linear_finish(problem, best.z, given)
        over = observation.clock.is_over
        status = (Status.TIME_LIMIT if over else Status.STEP_LIMIT).each(len(observation))
        if not over:
            status[best.stationary] = Status.SOLVED
        return Estimate(best.z, status)

    def _trimmed(self, problem: LeastSquares, z: Array) -> Array:
        """Least squares without the entries that fit worst, from ``z``, a few times over.

        Gross errors in a few entries pull a least-squares fit far away; left out, they do not.
        (Rousseeuw's least trimmed squares, by concentration steps.)
        """
        everyone = np.arange(len(z))
        for _ in range(_TRIMMINGS):
            error = np.abs(problem.error(z, everyone))
            if problem.observation.mask is not None:
                error[~problem.observation.mask] = np.nan
            kept = error <= np.nanquantile(error, _TRIMMED, axis=1, keepdims=True)
            part = replace(problem, observation=problem.observation.also_masked(kept))
            z = Search(part, self).run(z).z
        return z

    def _linear_finish(self, problem: LeastSquares, z: Array, given: Array | None) -> DescentResult:
        """Linear programs from the answer and from the given codes; the better end of these."""
        samples, chain = np.arange(len(z)), problem.chain
        if given is not None:
            known = np.flatnonzero(np.isfinite(given).all(axis=1))
            z, samples = np.concatenate([z, given[known]]), np.concatenate([samples, known])
        kinds: list[tuple[type[TrustRegion | LinearRegions], int]] = [(TrustRegion, self.steps)]
        rows = problem.network.observation_size
        if chain is not None and takes(chain):
            rough = min(_ROUGH_STEPS, self.steps)
            kinds = [(TrustRegion, rough), (LinearRegions, self.steps)]
            rows = sum(chain.sizes[1:])
        z, clock = problem.region.project(z), problem.observation.clock
        for kind, steps in kinds:

            def steps_of(part: slice, kind: Any = kind, z: Array = z) -> Steps:
                return kind(Fit(problem, samples[part], self.norm, self.backend), z[part])

            end = descend(steps_of, rows * z.shape[1], z, samples, steps, clock)
            z = end.z
        return end.take(best_runs(samples, end.loss, 1))


@dataclass(frozen=True, eq=False)
class Given:
    """A method that returns codes that are known, (batch, k): a start."""

    latent: Array

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """The codes; see ``methods.Method``."""
        return Estimate(self.latent, Status.SOLVED.each(len(self.latent)))
