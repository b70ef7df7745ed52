"""Iterated local search where a network contracts: phase retrieval."""

import numpy as np
from planted import gaussian_generator, relative_error

import preimage
from preimage.measurements import magnitudes
from preimage.methods.auto import Perturbed
from preimage.observation import check_observation


def _measured(count, rng):
    generator = gaussian_generator((8, 24, 60), rng)
    return generator.then(*magnitudes(rng.normal(size=(24, 60)))), rng.normal(size=(count, 8))


def test_codes_are_recovered_from_magnitudes_alone():
    """Claim: three magnitudes an unknown are enough for nearly all codes, and `auto` finds them."""
    measured, z = _measured(12, np.random.default_rng(0))
    found = preimage.invert(measured, measured(z), preimage.Auto())
    assert (relative_error(found.latent, z) < 1e-4).sum() >= 11


def test_known_codes_are_never_made_worse():
    """Claim: the answer's residual is at most that of the code that was known."""
    measured, z = _measured(3, np.random.default_rng(1))
    x = measured(z) + 0.3 * np.random.default_rng(2).normal(size=(3, 24))
    observation, _ = check_observation(measured, x, 0.01)
    known = z + 0.01
    found = Perturbed(known, starts=8, rounds=2).solve(measured, observation).latent
    before, after = (np.linalg.norm(measured(code) - x, axis=1) for code in (known, found))
    assert (after <= before).all()
