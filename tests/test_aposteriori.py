"""The bound without linear programs holds, and is infinite where nothing is known."""

import numpy as np
import pytest
from planted import gaussian_generator

from preimage import InputError, from_arrays
from preimage.enclosure.aposteriori import error_bound


@pytest.mark.parametrize("body", ["relu", "leaky_relu(0.2)", "identity"])
def test_every_planted_code_is_within_the_bound(body):
    """Claim: the true code is never farther from the answer, at any noise; often far less."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        generator = gaussian_generator((4, 24, 80), rng, body, bias=True)
        z, noise = rng.normal(size=4), 10.0 ** rng.uniform(-9, -1)
        x = generator(z) + rng.uniform(-noise, noise, size=80)
        found = error_bound(generator, x, noise)
        assert not np.abs(found.latent - z).max() > found.bound
        if noise < 1e-6:
            assert found.bound < 1e4 * noise


def test_constants_bound_the_layer_from_below():
    """Claim: |W v| >= c |v| for the rows used."""
    rng = np.random.default_rng(0)
    generator = gaussian_generator((4, 40), rng)
    x = generator(rng.normal(size=4))
    c = error_bound(generator, x, 1e-9).constants[0]
    v = rng.normal(size=(500, 4))
    image = np.abs(v @ generator.layers[0].weight[x > 1e-9].T).max(axis=1)
    assert c > 0
    assert (image >= c * np.abs(v).max(axis=1)).all()


def test_too_few_rows_bound_nothing():
    found = error_bound(from_arrays([np.eye(3)]), [1.0, 0.0, 2.0], 0.01)
    assert found.bound == np.inf
    assert np.isnan(found.latent).all()


def test_bad_input():
    with pytest.raises(InputError, match="piecewise"):
        error_bound(from_arrays([np.eye(2)], activation="tanh"), [0.1, 0.2], 0.01)
    with pytest.raises(InputError, match="one vector"):
        error_bound(from_arrays([np.eye(2)]), np.ones((2, 2)), 0.01)
