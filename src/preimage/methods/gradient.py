"""The baselines: plain gradient descent, and Adam with restarts, on ``0.5 ||G(z) - x||_2^2``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from preimage.inversion import Estimate, Status
from preimage.matrix import Array, Indices
from preimage.methods.parameters import check_positive, draws_of
from preimage.network import Network
from preimage.observation import Observation

# Of the number of the step, the samples, their gradients, and the two moments of all samples.
Change = Callable[[int, Indices, Array, Array], Array]


def _descend(
    network: Network, observation: Observation, starts: Array, steps: int, change: Change,
    gradient_tolerance: float = -1.0,
) -> Estimate:  # fmt: skip
    """Take ``change`` from z in each step, from each of ``starts``, (starts, k).

    The best point of each sample is kept; a descent that diverges keeps what it had.
    """
    shape, clock = (len(observation), network.latent_size), observation.clock
    best, lowest = np.zeros(shape), np.full(shape[0], np.inf)
    status = Status.TIME_LIMIT.each(len(best))

    def gradient_at(z: Array, samples: Indices) -> Array:
        part, safe = observation.take(samples), np.where(np.isfinite(z), z, 0.0)
        error = part.error(network(safe))
        loss = 0.5 * np.einsum("ij,ij->i", error, error)
        # A descent that diverged: networks take finite numbers only.
        lost = ~(np.isfinite(z).all(axis=1) & np.isfinite(loss))
        error[lost] = 0.0
        gradient = network.vjp(safe, -part.restrict(error))
        loss[lost], gradient[lost] = np.nan, np.nan
        better = loss < lowest[samples]
        best[samples[better]], lowest[samples[better]] = z[better], loss[better]
        return gradient

    # Divergence is an outcome here, not a fault.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in starts:
            if clock.is_over:
                break
            z, open_ = np.tile(start, (len(best), 1)), np.arange(len(best))
            moments = np.zeros((2, *shape))
            status = Status.STEP_LIMIT.each(len(best))
            for count in range(1, steps + 1):
                if clock.is_over:
                    status[open_] = Status.TIME_LIMIT
                    break
                clock.report(f"step {count} of {steps}", len(open_))
                gradient = gradient_at(z[open_], open_)
                size = np.linalg.norm(gradient, axis=1)
                status[open_[size <= gradient_tolerance]] = Status.SOLVED
                going = np.isfinite(size) & (size > gradient_tolerance)
                open_, gradient = open_[going], gradient[going]
                if not len(open_):
                    break
                z[open_] -= change(count, open_, gradient, moments)
            gradient_at(z[open_], open_)
    return Estimate(best, status)


@dataclass(frozen=True)
class GradientDescent:
    """The paper's baseline: fixed rate, one Gaussian start, the same for each sample.

    The paper's settings are ``rate=1, steps=1000`` on random networks and ``rate=1e-3,
    steps=10_000`` on its MNIST network, with ``gradient_tolerance=1e-9``.

    Args:
        rate: Step length, positive.
        steps: Most steps taken.
        gradient_tolerance: A sample is done when its gradient's norm is below this.
        seed: Of the start.

    Raises:
        InputError: A parameter is out of its range.
    """

    rate: float = 1.0
    steps: int = 1000
    gradient_tolerance: float = 1e-9
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive(
            {"rate": self.rate, "gradient_tolerance": self.gradient_tolerance},
            {"steps": self.steps},
        )

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        start = draws_of(self.seed).normal(size=(1, network.latent_size))
        return _descend(
            network, observation, start, self.steps,
            lambda count, own, gradient, moments: self.rate * gradient, self.gradient_tolerance,
        )  # fmt: skip


@dataclass(frozen=True)
class Adam:
    """A strong baseline: Adam from several Gaussian starts, the best point of all kept.

    Kingma and Ba's update (arXiv:1412.6980, Algorithm 1) with their moment decay rates. Starts do
    not depend on the batch, so a sample sees the same ones alone or in a batch.

    Args:
        rate: Step length, positive.
        steps: Steps taken from each start.
        restarts: Number of starts.
        seed: Of the starts.

    Raises:
        InputError: A parameter is out of its range.
    """

    rate: float = 0.1
    steps: int = 1000
    restarts: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive({"rate": self.rate}, {"steps": self.steps, "restarts": self.restarts})

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        starts = draws_of(self.seed).normal(size=(self.restarts, network.latent_size))
        return _descend(network, observation, starts, self.steps, self._change)

    def _change(self, count: int, own: Indices, gradient: Array, moments: Array) -> Array:
        mean, square = moments
        mean[own] += 0.1 * (gradient - mean[own])
        square[own] += 0.001 * (gradient**2 - square[own])
        correction = np.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        return np.asarray(self.rate * correction * mean[own] / (np.sqrt(square[own]) + 1e-8))
