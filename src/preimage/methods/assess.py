"""What an estimate is worth: recomputed from the network, for every method alike."""

from __future__ import annotations

import numpy as np

from preimage.inversion import Estimate, Inversion, Status, outputs_of
from preimage.matrix import Array, Flags, Indices
from preimage.methods.joint.least_squares import LeastSquares
from preimage.network import Network, chain_of
from preimage.observation import Observation

# What differs by more is lost in the rounding of a float64 sum of some terms.
_FAR_APART = 2.0**46


def assess(network: Network, observation: Observation, estimate: Estimate) -> Inversion:
    """Recompute the residuals and settle the status: a solver's own word counts for nothing.

    ``SOLVED`` stays only where the code explains the observation, up to rounding: the residual's
    root mean square is at most the noise, as that of the true code is, and no entry is off by
    more than twice the noise, the most by which x and an output within the noise of the true one
    can differ, each entry in units of its own noise. (A least-squares fit of bounded noise exceeds
    the bound itself in a few entries.)
    A method that ended for another reason is solved all the same if its code is that good. Codes
    that are not finite become NaN and ``FAILED``.

    Where the code explains and the observed Jacobian there has dependent columns, other codes
    explain as much, and the sample is ``AMBIGUOUS``; a method that has a better proof of uniqueness
    says so by its rank. So it is where the error that is left, of the code or of rounding, could
    have moved a coordinate by its own size, and by 1, as with columns of weights 1e20 apart.
    """
    latent = np.array(estimate.latent, dtype=np.float64)
    finite = np.isfinite(latent).all(axis=1)
    error = observation.seen(observation.values - outputs_of(network, latent))
    largest = np.max(np.abs(error), axis=1, initial=0.0)
    ratio = error / observation.allowed
    mean_square = np.einsum("ij,ij->i", ratio, ratio) / np.maximum(observation.count, 1.0)
    within = (mean_square <= 1) & (np.max(np.abs(ratio), axis=1, initial=0.0) <= 2)
    status = np.array(estimate.status, dtype=object)
    has_latent = np.array([each.has_latent for each in status], dtype=bool)
    status[has_latent & ~finite] = Status.FAILED
    finite &= has_latent
    latent[~finite] = np.nan
    rank = np.full(len(latent), -1)
    if estimate.rank is not None:
        rank[finite] = estimate.rank[finite]
    standard_error, condition = np.full(latent.shape, np.nan), np.full(len(latent), np.nan)
    hidden = np.zeros(len(latent), dtype=bool)
    wanted = finite & ((observation.noise > 0) | (rank < 0) | _far_apart(network))
    if observation.clock.is_over:
        wanted &= within  # of other codes it is of little use
    if len(samples := np.flatnonzero(wanted)):
        fit = LeastSquares(network, observation)
        found, variance, condition[samples] = fit.identify(latent[samples], samples)
        rank[samples] = np.where(rank[samples] < 0, found, rank[samples])
        hidden[samples] = _hidden(observation, error, latent, samples, np.sqrt(variance))
        known = observation.noise[samples] > 0
        known &= np.isin(rank[samples], (-1, network.latent_size))
        deviation = observation.tolerance[samples, None] * np.sqrt(variance)
        standard_error[samples[known]] = deviation[known]
    # Whatever ended a method: a code that explains is solved, or ambiguous; one that does not is
    # neither.
    status[finite & within & (status != Status.AMBIGUOUS)] = Status.SOLVED
    unique = (rank < 0) | (rank >= network.latent_size)
    status[(status == Status.SOLVED) & (hidden | ~unique)] = Status.AMBIGUOUS
    claimed = (status == Status.SOLVED) | (status == Status.AMBIGUOUS)
    status[claimed & ~within] = Status.ABOVE_NOISE
    residual = np.linalg.norm(error, axis=1)
    residual[~finite] = largest[~finite] = np.nan
    bound, gap = (
        np.where(finite, np.nan if part is None else part, np.nan)
        for part in (estimate.bound, estimate.gap)
    )
    return Inversion(
        latent, residual, largest, status, rank, estimate.layers, estimate.stages, bound, gap,
        standard_error, condition,
    )  # fmt: skip


def _far_apart(network: Network) -> bool:
    """Whether columns of the first layer differ by more than float64 resolves in one sum."""
    chain = chain_of(network)
    size = np.ones(1) if chain is None else chain.layers[0].scaled.column_size
    size = size[size > 0]
    return bool(size.max(initial=0.0) > _FAR_APART * size.min(initial=np.inf))


def _hidden(
    observation: Observation, error: Array, latent: Array, samples: Indices, deviation: Array
) -> Flags:
    """Whether the error ``x - G(z)`` that is left hides a coordinate of these samples, (samples,).

    ``deviation``, (samples, k), is each coordinate's under noise of variance 1.
    """
    part, own = observation.take(samples), latent[samples]
    left = np.linalg.norm(part.restrict(error[samples]), axis=1)
    left[part.noise > 0] = 0.0  # the standard error tells what noise does
    left = np.maximum(left, np.linalg.norm(part.restrict(part.values), axis=1) / _FAR_APART)
    moved = deviation * left[:, None]
    return np.asarray((moved > np.maximum(np.abs(own), 1.0)).any(axis=1))
