"""Projected gradient for partial measurements: the paper's way, with any inversion inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import scipy

from preimage.errors import InputError
from preimage.inversion import Estimate, Status
from preimage.matrix import Weight, multiply, multiply_adjoint
from preimage.methods.gauss_newton import GaussNewton
from preimage.methods.parameters import check_positive, is_method
from preimage.network import Measured, Network
from preimage.observation import ROUNDING, Observation

if TYPE_CHECKING:
    from preimage.methods import Method


# An estimate of ||A|| by this many steps of the power method is at most a few percent too small.
_POWER_STEPS = 30
# A code that moves by less than this, relatively, has settled. Convergence is linear, so that a
# step much larger than rounding may have many more like it to come.
_STILL = 1e-14


@dataclass(frozen=True)
class ProjectedGradient:
    """``x <- P_G(x + eta A^T (y - A x))``, where P_G is an inversion followed by G.

    The paper's method for partial measurements ``y = A G(z*) + e`` (its figure 4), from
    ``x = A^T y`` (zeros where a mask is False). The step length is ``eta = rate / ||A||^2``, so
    that ``rate=1`` is that of a mask. The code with the smallest ``||y - A G(z)||`` is returned.
    Errors count in units of each entry's noise: ``A`` and ``y`` are divided by it, and the step is
    as much shorter. ``GaussNewton`` works on ``A G`` directly, and as a rule needs far less time.

    Args:
        projection: The inversion in each step. Between steps x is not in the range of G, which
            l-infinity programs take badly: a least-squares method is the safer choice.
        rate: Step length, relative to ``1 / ||A||^2``; positive, and below 2 to be stable.
        steps: Most steps.

    Raises:
        InputError: A parameter is out of its range.
    """

    projection: Method = field(default_factory=lambda: GaussNewton(restarts=4, flip_rounds=0))
    rate: float = 1.0
    steps: int = 20

    def __post_init__(self) -> None:
        check_positive({"rate": self.rate}, {"steps": self.steps})
        if not is_method(self.projection):
            raise InputError(
                f"projection: expected a method such as GaussNewton(), got {self.projection!r}"
            )

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        batch, y = len(observation), observation.values
        if not isinstance(network, Measured):
            whole = scipy.sparse.eye_array(network.observation_size, format="csr")
            network = Measured(network, whole)
        A, generator = network.sensing, network.network
        # The step that decreases the squared error of every sample, in units of each entry's noise.
        largest = observation.restrict(np.ones_like(y)).max(axis=1, initial=0.0, keepdims=True)
        eta = self.rate / (largest * _norm(A)) ** 2
        best = np.full((batch, generator.latent_size), np.nan)
        before = np.full_like(best, np.inf)
        lowest = np.full(batch, np.inf)
        status = Status.FAILED.each(batch)
        # Where nothing is known of x yet, the gradient alone is the first guess.
        seen = observation.restrict(y)
        x = eta * multiply_adjoint(A, observation.restrict(seen))
        size = np.linalg.norm(seen, axis=1)
        open_ = np.arange(batch)
        clock = observation.clock
        for step in range(self.steps):
            if step and clock.is_over:
                status[open_] = Status.TIME_LIMIT
                break
            clock.report(f"step {step + 1} of {self.steps}", len(open_))
            part = observation.take(open_)
            target = Observation(x[open_], part.noise, unit=part.unit, clock=clock)
            found = self.projection.solve(generator, target)
            known = np.isfinite(found.latent).all(axis=1)
            open_, part = open_[known], part.take(np.flatnonzero(known))
            latent = found.latent[known]
            image = generator(latent)
            error = part.error(multiply(A, image))
            loss = np.linalg.norm(error, axis=1)
            better = loss < lowest[open_]
            best[open_[better]], lowest[open_[better]] = latent[better], loss[better]
            moved = np.abs(latent - before[open_]).max(axis=1, initial=0.0)
            still = moved <= _STILL * np.abs(latent).max(axis=1, initial=0.0)
            settled = still | (loss <= ROUNDING * size[open_])
            status[open_] = Status.STEP_LIMIT
            status[open_[settled]] = Status.SOLVED
            before[open_] = latent
            x[open_] = image + eta[open_] * multiply_adjoint(A, part.restrict(error))
            open_ = open_[~settled]
            if not len(open_):
                break
        return Estimate(best, status)


def _norm(operator: Weight) -> float:
    """Largest singular value, by the power method."""
    v = np.random.default_rng(0).normal(size=(1, operator.shape[1]))
    size = 1.0
    for _ in range(_POWER_STEPS):
        v = multiply_adjoint(operator, multiply(operator, v))
        size = float(np.linalg.norm(v))
        if size == 0:
            return 1.0
        v = v / size
    return float(np.sqrt(size))
