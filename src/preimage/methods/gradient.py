"""The baselines: plain gradient descent, and Adam with restarts, on ``0.5 ||G(z) - x||_2^2``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preimage.inversion import Estimate, Status
from preimage.methods.parameters import check_positive
from preimage.network import Network
from preimage.observation import Observation

Array = NDArray[np.float64]


def _loss_and_gradient(network: Network, z: Array, observation: Observation) -> tuple[Array, Array]:
    """``0.5 ||x - G(z)||^2`` and its gradient in z, (batch,) and (batch, k)."""
    safe = np.where(np.isfinite(z), z, 0.0)
    error = observation.error(network(safe))
    loss = 0.5 * np.einsum("ij,ij->i", error, error)
    # A descent that diverged: networks take finite numbers only.
    lost = ~(np.isfinite(z).all(axis=1) & np.isfinite(loss))
    error[lost] = 0.0
    gradient = network.vjp(safe, -observation.restrict(error))
    loss[lost], gradient[lost] = np.nan, np.nan
    return loss, gradient


class _Best:
    """The best point seen by each sample; a descent that diverges keeps what it had."""

    def __init__(self, z: Array) -> None:
        self.z, self.loss = z.copy(), np.full(len(z), np.inf)

    def see(self, z: Array, loss: Array, samples: NDArray[np.intp]) -> None:
        better = loss < self.loss[samples]
        self.z[samples[better]], self.loss[samples[better]] = z[better], loss[better]


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
        batch = len(observation)
        start = np.random.default_rng(self.seed).normal(size=network.latent_size)
        z = np.tile(start, (batch, 1))
        best = _Best(z)
        status = Status.STEP_LIMIT.each(batch)
        open_ = np.arange(batch)
        # Divergence is an outcome here, not a fault.
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(self.steps):
                if observation.clock.is_over:
                    status[open_] = Status.TIME_LIMIT
                    break
                observation.clock.report(f"step {step + 1} of {self.steps}", len(open_))
                part = observation.take(open_)
                loss, gradient = _loss_and_gradient(network, z[open_], part)
                best.see(z[open_], loss, open_)
                size = np.linalg.norm(gradient, axis=1)
                status[open_[size <= self.gradient_tolerance]] = Status.SOLVED
                going = np.isfinite(size) & (size > self.gradient_tolerance)
                open_, gradient = open_[going], gradient[going]
                if not len(open_):
                    break
                z[open_] -= self.rate * gradient
            loss, _ = _loss_and_gradient(network, z[open_], observation.take(open_))
            best.see(z[open_], loss, open_)
        return Estimate(best.z, status)


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
        batch, k = len(observation), network.latent_size
        best = _Best(np.zeros((batch, k)))
        everyone = np.arange(batch)
        random = np.random.default_rng(self.seed)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in random.normal(size=(self.restarts, k)):
                if observation.clock.is_over:
                    break
                self._descend(network, observation, np.tile(start, (batch, 1)), best, everyone)
        over = observation.clock.is_over
        return Estimate(best.z, (Status.TIME_LIMIT if over else Status.STEP_LIMIT).each(batch))

    def _descend(
        self,
        network: Network,
        observation: Observation,
        z: Array,
        best: _Best,
        everyone: NDArray[np.intp],
    ) -> None:
        mean, square = np.zeros_like(z), np.zeros_like(z)
        clock = observation.clock
        for step in range(1, self.steps + 1):
            if clock.is_over:
                break
            clock.report(f"step {step} of {self.steps}", len(z))
            loss, gradient = _loss_and_gradient(network, z, observation)
            best.see(z, loss, everyone)
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            correction = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            z -= self.rate * correction * mean / (np.sqrt(square) + 1e-8)
        best.see(z, _loss_and_gradient(network, z, observation)[0], everyone)
