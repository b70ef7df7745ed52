"""Rank, variances and condition number: what the observed Jacobian tells of a code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import preimage
from preimage.methods.joint.least_squares import LeastSquares
from preimage.observation import check_observation


def identified(weight):
    """Of any code of ``W z``, whose Jacobian is W."""
    generator = preimage.from_arrays([weight], activation="identity")
    observation, _ = check_observation(generator, np.zeros(len(weight)), 0.0)
    z = np.zeros((1, generator.latent_size))
    return (part[0] for part in LeastSquares(generator, observation).identify(z, np.array([0])))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.floats(-6, 6))
def test_variances_and_condition_are_those_of_the_inverse(seed, k, units):
    """Claim: as NumPy has them for the matrix scaled to columns of norm 1, in any units."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(2 * k + 3, k)) * 10.0 ** rng.uniform(-abs(units), abs(units), k)
    rank, variance, condition = identified(weight)
    norm = np.linalg.norm(weight, axis=0)
    inverse = np.linalg.inv((weight / norm).T @ (weight / norm))
    assert rank == k
    np.testing.assert_allclose(variance * norm**2, np.diag(inverse), rtol=1e-9)
    np.testing.assert_allclose(condition, np.linalg.cond(weight / norm), rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 8, 17])
@pytest.mark.parametrize("lost", ["zero", "dependent", "rows"])
def test_what_is_not_determined_has_no_variance(k, lost):
    """Claim: zero columns, dependent ones and too few rows lower the rank by what is not seen."""
    weight = np.random.default_rng(k).normal(size=(2 * k, k))
    if lost == "rows":
        weight = weight[: k - 1] if k > 1 else np.zeros((1, 1))
    elif lost == "zero" or k == 1:
        weight[:, 0] = 0.0
    else:
        weight[:, -1] = weight[:, 0]
    rank, variance, condition = identified(weight)
    assert rank == k - 1
    assert np.isnan(variance).all()
    assert condition == np.inf
