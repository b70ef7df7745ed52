"""Diagonals of inverses, from which rank and standard errors come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preimage.methods.equations import inverse_diagonals


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.floats(-6, 6))
def test_diagonals_of_the_inverse(seed, k, units):
    """Claim: they are those of NumPy's inverse of the matrix scaled to unit diagonal."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(5, 2 * k + 3, k)) * 10.0 ** rng.uniform(-abs(units), abs(units), k)
    gram = np.swapaxes(rows, 1, 2) @ rows
    diagonal, positive = inverse_diagonals(gram)
    assert positive.all()
    size = np.sqrt(np.einsum("raa->ra", gram))
    inverse = np.linalg.inv(gram / (size[:, :, None] * size[:, None, :]))
    np.testing.assert_allclose(diagonal, np.einsum("raa->ra", inverse), rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 8, 17])
def test_what_has_no_inverse_is_left_out(k):
    """Claim: zero columns, dependent columns and matrices that are not finite give no diagonal."""
    rng = np.random.default_rng(k)
    rows = rng.normal(size=(4, 2 * k, k))
    rows[1, :, -1] = 0.0 if k == 1 else rows[1, :, 0]
    rows[2, :, 0] = 0.0
    gram = np.swapaxes(rows, 1, 2) @ rows
    gram[3, 0, 0] = np.nan
    diagonal, positive = inverse_diagonals(gram)
    assert positive.tolist() == [True, False, False, False]
    assert np.isfinite(diagonal[0]).all()
    assert np.isnan(diagonal[1:]).all()
