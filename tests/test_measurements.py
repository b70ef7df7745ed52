"""Measurements as layers, against what they stand for; phase retrieval from end to end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gaussian_generator

import preimage
from preimage.measurements import HALF_LEVEL, average_pooling, clipping, magnitudes


def _plain(rng):
    return gaussian_generator((3, 20, 2 * 4 * 6), rng, bias=True, head="identity")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_layers_are_what_they_stand_for(seed):
    """Claim: composed with any generator, each gives the measurement of its outputs."""
    rng = np.random.default_rng(seed)
    generator = _plain(rng)
    z = 3 * rng.normal(size=(5, 3))
    y, a = generator(z), rng.normal(size=(7, 48))
    assert np.allclose(generator.then(*magnitudes(a))(z), np.abs(y @ a.T))
    assert np.allclose(generator.then(*clipping(48))(z), np.clip(y, 0, 1))
    pooled = y.reshape(5, 2, 2, 2, 3, 2).mean(axis=(3, 5)).reshape(5, -1)
    assert np.allclose(generator.then(*average_pooling((2, 4, 6), 2))(z), pooled)


def test_rounding_to_bytes_is_within_half_a_level():
    values = np.random.default_rng(0).uniform(size=10_000)
    assert np.abs(np.round(255 * values) / 255 - values).max() <= HALF_LEVEL * (1 + 1e-12)


def test_a_code_is_found_from_magnitudes():
    rng = np.random.default_rng(1)
    generator = gaussian_generator((4, 20, 40), rng)
    z = rng.normal(size=4)
    measured = generator.then(*magnitudes(rng.normal(size=(30, 40))))
    found = preimage.invert(measured, measured(z))
    assert found.latent == pytest.approx(z, abs=1e-6)


def test_the_sign_ambiguity_is_proven():
    """Claim: |A W z| is the same for z and -z, and the certificate says so."""
    rng = np.random.default_rng(2)
    linear = preimage.from_arrays([rng.normal(size=(10, 2))], activation="identity")
    measured = linear.then(*magnitudes(rng.normal(size=(8, 10))))
    found = preimage.certify(measured, measured([0.5, -0.3]), noise=1e-3, box=1.0)
    assert found.verdict == "ambiguous"
    assert found.witness == pytest.approx(-found.other, abs=0.01)


def test_bad_input():
    with pytest.raises(preimage.InputError, match="matrix"):
        magnitudes([1.0, 2.0])
    with pytest.raises(preimage.InputError, match="window"):
        average_pooling((1, 4, 6), 4)
    with pytest.raises(preimage.InputError, match="size"):
        clipping(0)
    with pytest.raises(preimage.InputError, match="layers"):
        _plain(np.random.default_rng(0)).then(*clipping(3))
