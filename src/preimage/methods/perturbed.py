"""Least squares from perturbations of the best codes so far: iterated local search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from preimage.inversion import Estimate
from preimage.matrix import Array
from preimage.methods.gauss_newton import GaussNewton, Given
from preimage.network import Network
from preimage.observation import Observation

# Steps from each start; a good one needs few.
_STEPS = 60
# Rounds in a row that improve nothing, after which a sample is given up.
_PATIENCE = 4


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Rounds of damped Gauss-Newton steps from codes near the best ones.

    Where a network contracts, as behind the magnitudes of phase retrieval, its misfit has many
    local minima, and good ones lie near each other: a perturbed good code ends at a better one far
    more often than a fresh draw does (Lourenco, Martin and Stuetzle 2003, "Iterated local search").

    Args:
        latent: (batch, k) codes that are known; NaN where there are none.
        starts: Of each round; the first round's are Gaussian draws.
        kept: Codes that are perturbed.
        rounds: Most rounds after the first.
        size: Of the perturbations, relative to the best code's root mean square.
        seed: Of all draws.
    """

    latent: Array
    starts: int = 64
    kept: int = 8
    rounds: int = 12
    size: float = 0.5
    seed: int = 0

    def solve(self, network: Network, observation: Observation) -> Estimate:
        """Invert every sample; see ``methods.Method``."""
        latent = np.array(self.latent)
        for sample in range(len(observation)):
            if observation.clock.is_over:
                break
            many = observation.take(np.full(self.starts, sample))
            latent[sample] = self._search(network, many, latent[sample])
        return GaussNewton(restarts=1, flip_rounds=0, start=Given(latent)).solve(
            network, observation
        )

    def _search(self, network: Network, many: Observation, known: Array) -> Array:
        """The best code of one sample."""
        rng = np.random.default_rng(self.seed)
        codes = rng.normal(size=(self.starts, network.latent_size))
        if np.isfinite(known).all():
            codes[0] = known
        best, loss = np.empty((0, codes.shape[1])), np.empty(0)
        lowest, vain = np.inf, 0
        for _ in range(1 + self.rounds):
            joint = GaussNewton(restarts=1, flip_rounds=0, steps=_STEPS, start=Given(codes))
            found = joint.solve(network, many).latent
            error = np.linalg.norm(many.error(network(found)), axis=1)
            error = np.where(np.isfinite(error), error, np.inf)
            best, loss = np.concatenate([best, found]), np.concatenate([loss, error])
            # Starts that end at one code count once.
            digits = np.round(loss / max(loss.min(), 1e-300), 6)
            _, different = np.unique(digits, return_index=True)
            best, loss = best[different[: self.kept]], loss[different[: self.kept]]
            vain = 0 if loss[0] < lowest * (1 - 1e-6) else vain + 1
            lowest = loss[0]
            if loss[0] <= many.explained[0] or vain == _PATIENCE or many.clock.is_over:
                break
            scale = self.size * float(np.sqrt(np.mean(best[0] ** 2)))
            pick = np.arange(self.starts) % len(best)
            codes = best[pick] + scale * rng.normal(size=codes.shape)
        return best[0]
