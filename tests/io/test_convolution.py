"""Convolutions without a matrix: against torch, the adjoint law, and bits that do not depend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from preimage.errors import InputError
from preimage.io.convolution import Convolution

RNG = np.random.default_rng(0)


@st.composite
def convolutions(draw, transposed=st.booleans()):
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    numbers = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    outputs, inputs, window = draw(st.integers(1, 3)), draw(st.integers(1, 3)), numbers(1, 3)
    dilation = numbers(1, 2)
    size = tuple(
        draw(st.integers((w - 1) * d + 1, 7)) for w, d in zip(window, dilation, strict=True)
    )
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    kernel = RNG.standard_normal((outputs * groups, inputs, *window))
    return Convolution(kernel, size, numbers(1, 3), padding, dilation, groups, draw(transposed))


def by_torch(convolution, X):
    """The plain convolution of each column, padded by hand."""
    rank = len(convolution.size)
    x = torch.tensor(np.ascontiguousarray(X.T)).reshape(-1, *convolution.input_space)
    pads = [n for pair in reversed(convolution.padding) for n in pair]
    compute = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    y = compute(
        functional.pad(x, pads), torch.tensor(convolution.kernel.copy()), None,
        convolution.stride, 0, convolution.dilation, convolution.groups,
    )  # fmt: skip
    return y.reshape(len(x), -1).numpy().T


@given(convolutions(transposed=st.just(False)))
def test_convolution_is_that_of_torch(convolution):
    """Claim: any stride, padding, dilation and groups, in one to three dimensions."""
    X = RNG.standard_normal((convolution.shape[1], 3))
    np.testing.assert_allclose(convolution.matmat(X), by_torch(convolution, X), atol=1e-12)


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_convolution_is_that_of_torch(size, stride):
    """Claim: the adjoint is what torch calls a transposed convolution, for every output padding."""
    for extra in range(stride):
        kernel = RNG.standard_normal((4, 3, 3, 3))
        x = RNG.standard_normal((2, 4, size, size))
        expected = functional.conv_transpose2d(
            torch.tensor(x), torch.tensor(kernel), None, stride, 1, extra, groups=2
        )
        found = Convolution(
            kernel, tuple(expected.shape[2:]), (stride,) * 2, ((1, 1),) * 2, (1, 1), 2, True
        )
        np.testing.assert_allclose(
            found.matmat(x.reshape(2, -1).T), expected.reshape(2, -1).numpy().T, atol=1e-12
        )


@given(convolutions())
def test_adjoint_law_and_matrix(convolution):
    """Claim: <Ax, y> = <x, A'y>; the matrix is the same map, its size known beforehand."""
    X = RNG.standard_normal((convolution.shape[1], 2))
    Y = RNG.standard_normal((convolution.shape[0], 2))
    forward, back = convolution.matmat(X), convolution.rmatmat(Y)
    assert (forward * Y).sum() == pytest.approx((X * back).sum(), rel=1e-11, abs=1e-11)
    matrix = convolution.to_csr()
    assert matrix.shape == convolution.shape
    assert matrix.nnz == convolution.nonzeros
    np.testing.assert_allclose(matrix @ X, forward, atol=1e-12)
    np.testing.assert_allclose(matrix.T @ Y, back, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 8, 16])  # windows: 1, 9, 16 (in blocks), 49, 64, 256
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_column_does_not_depend_on_its_company(size, transposed, groups):
    """Claim: bit by bit the same alone, among others and at another place among them."""
    convolution = Convolution(
        RNG.standard_normal((16, 8, 3, 3)), (size, size), (1, 1), ((1, 1), (1, 1)), (1, 1),
        groups, transposed,
    )  # fmt: skip
    for apply, length in (
        (convolution.matmat, convolution.shape[1]),
        (convolution.rmatmat, convolution.shape[0]),
    ):
        X = RNG.standard_normal((length, 101))
        together = apply(X)
        for column in (0, 1, 3, 50, 100):
            assert np.array_equal(apply(X[:, [column]])[:, 0], together[:, column])
        order = RNG.permutation(101)
        assert np.array_equal(apply(X[:, order]), together[:, order])
        assert np.array_equal(apply(X[:, 3:40]), together[:, 3:40])
    assert convolution.matmat(np.zeros((convolution.shape[1], 0))).shape == (
        convolution.shape[0], 0,
    )  # fmt: skip


@given(convolutions())
@settings(max_examples=30)
def test_factors_of_channels_go_into_the_kernel(convolution):
    """Claim: scaling channels before or after is the same as scaling the kernel."""
    inputs = RNG.standard_normal(convolution.input_space[0])
    outputs = RNG.standard_normal(convolution.output_space[0])
    X = RNG.standard_normal((convolution.shape[1], 2))
    before = np.repeat(inputs, convolution.shape[1] // len(inputs))[:, None]
    after = np.repeat(outputs, convolution.shape[0] // len(outputs))[:, None]
    np.testing.assert_allclose(
        convolution.scaled(outputs, inputs).matmat(X),
        after * convolution.matmat(before * X),
        atol=1e-11,
    )


def test_equal_content_has_an_equal_digest():
    """Claim: the digest tells every field apart, and -0.0 from 0.0 no more than equality does."""
    kernel = RNG.standard_normal((2, 2, 2, 2))
    make = lambda **change: Convolution(  # noqa: E731
        **{
            "kernel": kernel, "size": (4, 4), "stride": (2, 2), "padding": ((1, 1), (1, 1)),
            "dilation": (1, 1), **change,
        }
    )  # fmt: skip
    assert make().digest == make(kernel=kernel.copy()).digest
    changes = [
        {"kernel": kernel + 1}, {"size": (5, 5)}, {"stride": (1, 1)}, {"groups": 2},
        {"padding": ((1, 1), (1, 0))}, {"dilation": (2, 2)}, {"transposed": True},
    ]  # fmt: skip
    assert len({make().digest, *(make(**change).digest for change in changes)}) == 8
    zero = np.zeros((1, 1, 1))
    ends = {"size": (3,), "stride": (1,), "padding": ((0, 0),), "dilation": (1,)}
    assert make(kernel=zero, **ends).digest == make(kernel=-zero, **ends).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": np.ones((2, 2))}, "kernel: expected shape"),
        ({"kernel": np.ones((2, 0, 1, 1))}, "kernel: expected shape"),
        ({"kernel": np.full((2, 2, 1, 1), np.nan)}, "kernel: expected finite"),
        ({"size": (4,)}, "sizes do not fit"),
        ({"size": (4, 0)}, "sizes do not fit"),
        ({"size": (4, -1)}, "sizes do not fit"),
        ({"size": (4, 2**70)}, "sizes do not fit"),
        ({"stride": (0, 1)}, "sizes do not fit"),
        ({"dilation": (1, 0)}, "sizes do not fit"),
        ({"padding": ((0, 0), (0, -1))}, "sizes do not fit"),
        ({"padding": ((0, 0), (0,))}, "sizes do not fit"),
        ({"padding": ((0, 0), (0, 2**60))}, "sizes do not fit"),
        ({"groups": 3}, "sizes do not fit"),
        ({"groups": 0}, "sizes do not fit"),
        ({"dilation": (4, 4)}, "does not fit into"),
        ({"size": (2**15, 2**15)}, "entries between kernel and windows"),
        ({"padding": ((0, 2**14), (0, 2**14)), "stride": (2**14, 2**14)}, "entries between"),
    ],
)
def test_sizes_that_no_convolution_has(change, message):
    """Claim: sizes from a hostile file are refused before anything of that size is made."""
    fields = {
        "kernel": np.ones((2, 2, 2, 2)), "size": (4, 4), "stride": (1, 1),
        "padding": ((0, 0), (0, 0)), "dilation": (1, 1),
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        Convolution(**{**fields, **change})
