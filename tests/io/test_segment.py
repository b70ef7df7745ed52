"""Runs of linear maps: as a matrix when it fits the budget, else as a chain; the same map."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from preimage.errors import InputError
from preimage.generator import Operator
from preimage.io import segment
from preimage.io.convolution import Convolution
from preimage.io.segment import Chain, Sum, as_segment, fuse

RNG = np.random.default_rng(0)


def convolution(inputs=3, outputs=4, size=6, transposed=False):
    kernel = RNG.standard_normal((outputs, inputs, 3, 3))
    return Convolution(
        kernel, (size, size), (1, 1), ((1, 1), (1, 1)), (1, 1), transposed=transposed
    )


def diagonal(factors):
    return sparse.diags_array(np.asarray(factors, dtype=float), format="csr")


def residual():
    """1 -> 3 x 6 x 6 -> two branches that meet."""
    branches = Sum((Chain((convolution(),)), Chain((convolution(3, 3), convolution(3, 4)))))
    return (RNG.standard_normal((108, 5)), branches, RNG.standard_normal((7, 144)))


CASES = {
    "dense": lambda: (RNG.standard_normal((9, 5)),),
    "dense, scaled": lambda: (RNG.standard_normal((9, 5)), diagonal(RNG.standard_normal(9))),
    "scaled, dense": lambda: (diagonal(RNG.standard_normal(5)), RNG.standard_normal((9, 5))),
    "convolution": lambda: (convolution(),),
    "transposed": lambda: (convolution(transposed=True),),
    "normalised": lambda: (convolution(), diagonal(np.repeat(RNG.standard_normal(4), 36))),
    "masked": lambda: (convolution(), diagonal(RNG.standard_normal(144))),
    "normalised first": lambda: (diagonal(np.repeat([1.0, 2, 3], 36)), convolution()),
    "upsampled": lambda: (sparse.kron(sparse.eye_array(27), np.ones((4, 1)), "csr"), convolution()),
    "two convolutions": lambda: (convolution(), convolution(4, 2)),
    "widening": lambda: (RNG.standard_normal((108, 5)), convolution()),
    "narrowing": lambda: (convolution(), RNG.standard_normal((5, 144))),
    "residual": residual,
}


def product(parts):
    total = np.eye(parts[0].shape[1])
    for part in parts:
        total = part.matmat(total) if isinstance(part, Operator) else part @ total
    return total


@pytest.mark.parametrize("name", CASES)
def test_matrix_and_operator_are_the_same_map(name):
    """Claim: with any budget the segment is the product of its parts, with its adjoint."""
    parts = CASES[name]()
    expected = product(parts)
    for budget in (0, 10**9):
        found = as_segment(parts, budget)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found @ np.eye(found.shape[1]), expected, atol=1e-11)
        if isinstance(found, Chain):
            np.testing.assert_allclose(found.rmatmat(np.eye(len(expected))), expected.T, atol=1e-11)
            vector = RNG.standard_normal(found.shape[1])
            np.testing.assert_allclose(found @ vector, expected @ vector, atol=1e-11)
    assert not isinstance(as_segment(parts, 10**9), Chain)


@pytest.mark.parametrize("name", CASES)
def test_a_column_of_a_chain_does_not_depend_on_its_company(name):
    """Claim: bit by bit, forward and adjoint."""
    chain = Chain(CASES[name]())
    for apply, length in ((chain.matmat, chain.shape[1]), (chain.rmatmat, chain.shape[0])):
        X = RNG.standard_normal((length, 37))
        together = apply(X)
        for column in (0, 5, 36):
            assert np.array_equal(apply(X[:, [column]])[:, 0], together[:, column])


def test_what_is_fused():
    """Claim: BatchNorm goes into the kernel before it or after it; a mask does not."""
    lengths = {name: len(fuse(make())) for name, make in CASES.items()}
    assert lengths["normalised"] == lengths["normalised first"] == lengths["dense, scaled"] == 1
    assert lengths["masked"] == lengths["two convolutions"] == lengths["upsampled"] == 2


def test_a_single_matrix_is_kept_exactly():
    """Claim: one Linear is its weights, bit for bit; and with mostly zeros it is CSR."""
    weight = RNG.standard_normal((40, 30))
    assert as_segment((weight,), 0) is weight
    pruned = np.where(RNG.random((40, 30)) < 0.2, weight, 0.0)
    found = as_segment((pruned,), 0)
    assert sparse.issparse(found)
    assert np.array_equal(found.toarray(), pruned)


def test_the_budget_is_exact():
    """Claim: a matrix that takes just the budget is made, one byte less and it is not."""
    part = convolution(8, 8, 12)
    size = 12 * part.nonzeros + 4 * (part.shape[0] + 1)
    assert sparse.issparse(as_segment((part,), size))
    assert isinstance(as_segment((part,), size - 1), Chain)


def test_nothing_beyond_the_budget_is_made(monkeypatch):
    """Claim: the size is predicted; the matrix of a convolution over the budget is never built."""
    monkeypatch.setattr(Convolution, "to_csr", lambda self: pytest.fail("was built"))
    assert isinstance(as_segment((convolution(8, 8, 12),), 1000), Chain)
    narrow = (convolution(8, 8, 12), RNG.standard_normal((3, 8 * 144)))
    assert isinstance(as_segment(narrow, 0), Chain)


def test_products_larger_than_their_bound_says_are_cut_short():
    """Claim: where entries coincide the product fits though its bound does not, and is found."""
    first, second = convolution(4, 4, 16), convolution(4, 4, 16)
    exact = (second.to_csr() @ first.to_csr()).nnz
    size = 12 * exact + 4 * (second.shape[0] + 1)
    assert segment._row_bounds(second.to_csr(), first.to_csr()).sum() > 2 * exact
    found = as_segment((first, second), size)
    assert found.nnz == exact
    np.testing.assert_allclose(found @ np.ones(1024), product((first, second)) @ np.ones(1024))
    assert isinstance(as_segment((first, second), size - 1), Chain)


def test_digests_tell_content_apart():
    """Claim: equal chains are equal layers, and any other content is another."""
    parts = residual()
    assert Chain(parts).digest == Chain(parts).digest
    assert Chain(parts).digest != Chain(residual()).digest
    assert Chain((parts[0],)).digest != Chain((sparse.csr_array(parts[0]),)).digest


def test_what_does_not_chain():
    """Claim: misuse says what was expected and what came."""
    with pytest.raises(InputError, match="expected at least one"):
        Chain(())
    with pytest.raises(InputError, match=r"parts\[1\]: expected 4 inputs, .*got shape \(2, 3\)"):
        Chain((np.ones((4, 5)), np.ones((2, 3))))
    with pytest.raises(InputError, match="two or more of the same shape"):
        Sum((Chain((np.ones((4, 5)),)), Chain((np.ones((3, 5)),))))
