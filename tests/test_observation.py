"""Noise, rounding and their tolerances: each entry in its own units."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import preimage
from preimage import InputError, Status
from preimage.observation import check_observation

RNG = np.random.default_rng(0)
CODES = RNG.standard_normal((10, 5))


def network(*, row=None, head="identity", sizes=(5, 60, 150)):
    """A trained-like network with a leaky hidden layer, whose output rows are scaled."""
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((n, k)) / np.sqrt(k) for k, n in pairwise(sizes)]
    weights[-1] *= np.ones(sizes[-1])[:, None] if row is None else row[:, None]
    return preimage.from_arrays(weights, activation="leaky_relu(0.2)", head=head)


@pytest.mark.parametrize("method", ["auto", "exact", "linf", "gauss_newton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head", [nn.Sigmoid(), nn.Tanh(), nn.Identity(), nn.LeakyReLU(0.1)])
def test_a_decoder_explains_its_own_output(dtype, head, method):
    """An output in low precision is solved at noise 0: its rounding is that of its data type."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(5, 40), nn.LeakyReLU(0.1), nn.Linear(40, 200), head).to(dtype)
    with torch.no_grad():
        output = decoder(torch.tensor(CODES, dtype=dtype))
    inversion = preimage.invert(preimage.from_torch(decoder.double()), output, method)
    assert (inversion.status == Status.SOLVED).all()
    codes = torch.tensor(CODES, dtype=dtype).double().numpy()
    precision = {torch.float32: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.4}[dtype]
    assert np.abs(inversion.latent - codes).max() < precision


def test_float32_noise_above_its_rounding_is_not_explained():
    generator = network()
    output = (generator(CODES) + 1e-4 * RNG.standard_normal((10, 150))).astype(np.float32)
    assert (preimage.invert(generator, output).status == Status.ABOVE_NOISE).all()


def test_pixels_are_rounded_to_half_a_level():
    generator = network(row=np.full(150, 20.0))
    output = generator(CODES)
    shift = 100 - np.floor(output.min())
    *layers, last = generator.layers
    shifted = preimage.Generator((*layers, preimage.Layer(last.weight, last.bias + shift)))
    pixels = np.rint(output + shift).astype(np.uint8)
    assert pixels.max() < 255
    assert (preimage.invert(shifted, pixels).status == Status.SOLVED).all()
    assert (preimage.invert(shifted, pixels.astype(float)).status == Status.ABOVE_NOISE).all()


@pytest.mark.parametrize(("head", "low"), [("sigmoid", 0), ("tanh", -1)])
def test_pixels_beyond_the_range_are_refused_with_the_scale(head, low):
    pixels = np.full(150, 255, dtype=np.uint8)
    with pytest.raises(InputError, match=rf"range \[{low}, 1\].* / 255 \* {1 - low}"):
        preimage.invert(network(head=head), pixels)


@pytest.mark.parametrize("method", ["auto", "linf", "gauss_newton"])
@pytest.mark.parametrize("large", [1e9, -1e6, 1e13])
@pytest.mark.parametrize("rows", [[3], [3, 4, 5], range(0, 150, 2)])
def test_large_entries_do_not_set_the_tolerance_of_others(rows, large, method):
    row = np.ones(150)
    row[list(rows)] = large
    generator = network(row=row)
    output = generator(CODES)
    inversion = preimage.invert(generator, output, method)
    assert (inversion.status == Status.SOLVED).all()
    assert np.abs(inversion.latent - CODES).max() < 1e-5
    for error in (0.05, 1e-6):
        moved = output.copy()
        moved[:, 7] += error
        assert (preimage.invert(generator, moved, method).status == Status.ABOVE_NOISE).all()


def test_a_single_large_error_leaves_others_alone():
    """An entry of 1e9 that no code explains must not let the method end at any code."""
    generator, output = network(), network()(CODES)
    output[:, 3] = 1e9
    inversion = preimage.invert(generator, output)
    assert (inversion.status == Status.ABOVE_NOISE).all()


@pytest.mark.parametrize("method", ["auto", "linf", "l1", "gauss_newton", "adam"])
def test_noise_of_each_entry(method):
    """Entries of large noise hardly count: the code is better than with one level for all."""
    generator = network()
    noise = np.where(np.arange(150) < 50, 1.0, 1e-4)
    output = generator(CODES) + noise * RNG.uniform(-1, 1, (10, 150))
    own = preimage.invert(generator, output, method, noise=noise)
    one = preimage.invert(generator, output, method, noise=1.0)
    if method in ("auto", "gauss_newton"):
        assert (own.status == Status.SOLVED).all()
    error, other = (np.abs(found.latent - CODES).max() for found in (own, one))
    assert error < 1e-2
    assert error < 0.1 * other or method == "l1"  # absolute errors already forgive large ones


@pytest.mark.parametrize("shape", [(), (10,), (150,), (1, 150), (10, 1), (10, 150)])
def test_equal_noise_in_any_shape(shape):
    generator = network()
    output = generator(CODES) + RNG.uniform(-0.01, 0.01, (10, 150))
    expected = preimage.invert(generator, output, noise=0.01)
    found = preimage.invert(generator, output, noise=np.full(shape, 0.01))
    assert np.array_equal(found.latent, expected.latent)
    assert (found.status == expected.status).all()


def test_noise_of_each_entry_under_a_mask_and_a_sensing_map():
    generator = network()
    noise = np.where(np.arange(150) % 2, 1e-4, 0.5)
    output = generator(CODES) + noise * RNG.uniform(-1, 1, (10, 150))
    mask = RNG.random((10, 150)) < 0.7
    masked = preimage.invert(generator, np.where(mask, output, np.nan), noise=noise, sensing=mask)
    assert (masked.status == Status.SOLVED).all()
    assert np.abs(masked.latent - CODES).max() < 1e-2
    rows = np.eye(150)[::3]
    sensed = preimage.invert(generator, output @ rows.T, noise=noise[::3], sensing=rows)
    assert (sensed.status == Status.SOLVED).all()
    assert np.abs(sensed.latent - CODES).max() < 1e-2


@pytest.mark.parametrize("noise", [-1.0, [0.1] * 7, np.full((2, 150), 0.1), np.nan, "much"])
def test_refused_noise(noise):
    with pytest.raises(InputError, match="noise"):
        preimage.invert(network(), network()(CODES), noise=noise)


def test_a_sample_of_a_batch_is_as_alone():
    generator = network()
    noise = 10.0 ** RNG.uniform(-4, -1, (10, 150))
    output = generator(CODES) + noise * RNG.uniform(-1, 1, (10, 150))
    batch = preimage.invert(generator, output, noise=noise)
    for i in (0, 7):
        alone = preimage.invert(generator, output[i], noise=noise[i])
        np.testing.assert_allclose(alone.latent, batch.latent[i], rtol=1e-9)
        np.testing.assert_allclose(alone.standard_error, batch.standard_error[i], rtol=1e-6)


@pytest.mark.parametrize("units", [np.ones(5), 10.0 ** np.arange(-4, 6, 2)])
@pytest.mark.parametrize("levels", [(1e-3, 1e-3), (1e-4, 1e-2)])
def test_standard_errors_are_calibrated(levels, units):
    """(code - truth) / standard error of Gaussian draws has mean square 1, in any units."""
    generator = network()
    first, *rest = generator.layers
    generator = preimage.Generator(
        (preimage.Layer(first.weight * units, first.bias, first.activation), *rest)
    )
    noise = np.where(np.arange(150) % 3, *levels)
    rng = np.random.default_rng(2)
    codes = np.repeat(rng.standard_normal((4, 5)) / units, 100, axis=0)
    output = generator(codes) + noise * rng.standard_normal((400, 150))
    found = preimage.invert(generator, output, noise=noise)
    ratio = (found.latent - codes) / found.standard_error
    # 2,000 squares of standard normals: their mean has a standard deviation of 0.03.
    assert 0.85 < (ratio**2).mean() < 1.15
    assert (np.abs((ratio.reshape(4, 100, 5) ** 2).mean(axis=1) - 1) < 0.6).all()


def test_standard_errors_that_are_unknown():
    generator = network()
    assert np.isnan(preimage.invert(generator, generator(CODES)).standard_error).all()
    flat = preimage.from_arrays([[[1.0, -1.0], [1.0, -1.0]]], activation="identity")
    found = preimage.invert(flat, [1.0, 1.0], noise=0.1)
    assert found.status == Status.AMBIGUOUS
    assert np.isnan(found.standard_error).all()


def test_rounding_is_no_noise():
    observation, single = check_observation(network(), np.ones(150, dtype=np.float32), 0.0)
    assert single
    assert observation.noise == 0
    assert observation.weight is None
    assert 0 < observation.tolerance[0] < 1e-5


@pytest.mark.parametrize("size", [1e160, 1e221, 1e300])
def test_numbers_whose_squares_are_infinite_are_refused(size):
    generator = preimage.from_arrays([[[size], [1.0]]])
    with pytest.raises(preimage.InputError, match=r"layers\[0\]: weights up to 1e"):
        preimage.invert(generator, [1.0, 1.0])
    with pytest.raises(preimage.InputError, match="observation: values up to 1e"):
        preimage.invert(preimage.from_arrays([[[1.0], [1.0]]]), [size, 1.0])
