"""Joint l1 and l-infinity fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gaussian_generator, relative_error
from scipy.optimize import linprog

from preimage import GaussNewton, InputError, LayerwiseLP, from_arrays, invert, zoo

SEEDS = st.integers(0, 10_000)
BACKENDS = ("highs", "kernel")
NORMS = ("l1", "linf")


def value_of(error, norm):
    size = np.abs(error)
    return size.sum(axis=-1) if norm == "l1" else size.max(axis=-1)


def best_fit(weight, rhs, norm, half=None):
    """``min ||rhs - W z||_p`` over ``|z_i| <= half``, by ``scipy.optimize.linprog``."""
    n, k = weight.shape
    slack = np.eye(n) if norm == "l1" else np.ones((n, 1))
    cost = np.concatenate([np.zeros(k), np.ones(slack.shape[1])])
    left = np.block([[weight, -slack], [-weight, -slack]])
    bounds = [(None, None) if half is None else (-half, half)] * k + [(0, None)] * slack.shape[1]
    return linprog(cost, left, np.concatenate([rhs, -rhs]), bounds=bounds, method="highs").fun


# Against an independent solver


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=8)
@given(seed=SEEDS, boxed=st.booleans())
def test_on_an_affine_network_the_fit_is_linprogs_optimum(norm, backend, seed, boxed):
    """Claim: G is affine, so that one program within a wide region must give the best fit."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(1, 6)), int(rng.integers(1, 25))
    weight, bias = rng.normal(size=(n, k)), rng.normal(size=n)
    x = rng.normal(size=n) * 10 ** rng.uniform(-3, 3)
    box = 0.3 if boxed else None
    method = GaussNewton(norm=norm, backend=backend, restarts=1, flip_rounds=0, box=box)
    found = invert(from_arrays([weight], [bias], "identity"), x, method)
    best = best_fit(weight, x - bias, norm, box)
    value = value_of(weight @ found.latent + bias - x, norm)
    assert value - best <= 1e-7 * best + 1e-9 * np.abs(x).max()


@pytest.mark.parametrize("norm", NORMS)
def test_the_end_is_a_local_minimum(norm):
    """Claim: what is called the end is one, also at kinks: small random steps gain nothing."""
    gains = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        generator = gaussian_generator((3, 10, 25), rng, bias=True)
        x = generator(rng.normal(size=3)) + 0.1 * rng.normal(size=25)
        method = GaussNewton(norm=norm, restarts=2, flip_rounds=0, backend="kernel")
        z = invert(generator, x, method).latent
        first = value = value_of(x - generator(z), norm)
        for size in np.repeat([1e-5, 1e-4, 1e-3, 1e-2], 100):
            trial = z + size * rng.normal(size=3)
            reached = value_of(x - generator(trial), norm)
            z, value = (trial, reached) if reached < value else (z, value)
        gains.append(1 - value / first)
    assert max(gains) < 1e-9


# Against starts


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("start", ["l1", "linf"])
def test_never_above_the_start(norm, start):
    """Claim: the value at the answer is at most that at the start method's code, on any input."""
    rng = np.random.default_rng(0)
    generator = gaussian_generator((4, 16, 48), rng, bias=True)
    x = generator(rng.normal(size=(3, 4))) + rng.uniform(-0.2, 0.2, size=(3, 48))
    x[2] = rng.normal(size=48)
    mask = rng.random(x.shape) < 0.8
    first = LayerwiseLP(norm=start, backend="kernel")
    for sensing in (None, mask):
        rough = invert(generator, x, first, noise=0.2, sensing=sensing)
        for steps in (1, 12):
            method = GaussNewton(
                norm=norm, start=first, restarts=1, flip_rounds=0, steps=steps, backend="kernel"
            )
            fine = invert(generator, x, method, noise=0.2, sensing=sensing)
            seen = 1.0 if sensing is None else mask
            before = value_of((x - rough.reconstruct(generator)) * seen, norm)
            after = value_of((x - generator(fine.latent)) * seen, norm)
            assert (after[np.isfinite(before)] <= before[np.isfinite(before)] * (1 + 1e-12)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_each_norm_is_best_at_its_own(norm):
    """Claim: the l1 fit has the smaller sum, the l-infinity fit the smaller maximum, than l2's."""
    rng = np.random.default_rng(1)
    generator = gaussian_generator((4, 16, 48), rng, bias=True)
    x = generator(rng.normal(size=(3, 4))) + rng.uniform(-0.1, 0.1, size=(3, 48))
    least_squares = invert(generator, x, GaussNewton(), noise=0.1)
    own = invert(generator, x, GaussNewton(norm=norm), noise=0.1)
    own_value = value_of(x - generator(own.latent), norm)
    other = value_of(x - generator(least_squares.latent), norm)
    assert (own_value <= other * (1 + 1e-9)).all()
    assert (own_value < other * (1 - 1e-3)).any()


# Gross errors


def grossly_wrong(rng, x, share=0.09):
    """Some entries of each row replaced, within the range in every other row and far out."""
    wrong = x.copy()
    for i, row in enumerate(wrong):
        picked = rng.choice(x.shape[1], int(share * x.shape[1]), replace=False)
        far = 10 * rng.normal(size=len(picked))
        row[picked] = rng.uniform(0, x.max(), size=len(picked)) if i % 2 else far
    return wrong


@pytest.mark.parametrize("backend", BACKENDS)
def test_l1_recovers_codes_under_gross_errors_on_a_gaussian_network(backend):
    """Claim (issue 3, item 3): below 10 % arbitrarily wrong entries; least squares does not."""
    rng = np.random.default_rng(3)
    generator = gaussian_generator((5, 30, 100), rng)
    z = rng.normal(size=(4, 5))
    wrong = grossly_wrong(rng, generator(z))
    found = invert(generator, wrong, GaussNewton(norm="l1", flip_rounds=1, backend=backend))
    assert relative_error(found.latent, z).max() < 1e-9
    assert (found.rank == 5).all()
    # The observation is not explained, and it is not said that it were.
    assert (found.status == "above_noise").all()
    assert relative_error(invert(generator, wrong, GaussNewton()).latent, z).min() > 1e-3


def test_l1_recovers_codes_under_gross_errors_on_the_trained_decoder():
    """Claim: and so it does on digits."""
    rng = np.random.default_rng(4)
    generator = zoo.load("mnist-20-60-784")
    z = rng.normal(size=(2, 20))
    method = GaussNewton(norm="l1")
    found = invert(generator, grossly_wrong(rng, generator(z)), method)
    assert relative_error(found.latent, z).max() < 1e-9


def test_backends_agree():
    """Claim: the value of the fit does not depend on who solves the programs."""
    rng = np.random.default_rng(5)
    generator = gaussian_generator((4, 16, 40), rng, bias=True)
    x = generator(rng.normal(size=(2, 4))) + rng.uniform(-0.1, 0.1, size=(2, 40))
    for norm in NORMS:
        values = [
            value_of(x - generator(invert(generator, x, method).latent), norm)
            for method in (
                GaussNewton(norm=norm, backend=b, restarts=2, flip_rounds=0) for b in BACKENDS
            )
        ]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-6)


def few_of_many():
    """Thirty of 400 entries are seen of each sample, two of them grossly wrong."""
    rng = np.random.default_rng(0)
    generator = gaussian_generator((5, 30, 400), rng, bias=True)
    z = rng.normal(size=(6, 5))
    x, mask = generator(z), np.zeros((6, 400), dtype=bool)
    for sample in range(6):
        mask[sample, rng.choice(400, 30, replace=False)] = True
    for sample in range(6):
        x[sample, rng.choice(np.flatnonzero(mask[sample]), 2, replace=False)] += 5
    return generator, x[:3], mask[:3], z[:3]


def test_l1_finds_codes_from_few_rows_some_of_them_wrong():
    generator, x, mask, z = few_of_many()
    for sample in range(3):
        method = GaussNewton(norm="l1", flip_rounds=0, backend="kernel")
        rows = np.eye(400)[mask[sample]]
        found = invert(generator, x[sample, mask[sample]], method, sensing=rows)
        assert relative_error(found.latent, z[sample]) < 1e-9


def test_l1_finds_the_same_codes_from_a_mask_of_these_rows():
    """Claim: how what is seen is written does not matter."""
    generator, x, mask, z = few_of_many()
    method = GaussNewton(norm="l1", flip_rounds=0, backend="kernel")
    found = invert(generator, x, method, sensing=mask)
    assert relative_error(found.latent, z).max() < 1e-9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(norm="l3"), "norm: expected l2, l1 or linf, got 'l3'"),
        (dict(norm=None), "norm: expected l2, l1 or linf, got None"),
        (dict(norm="l1", backend="glpk"), "backend: expected one of"),
        (dict(steps=0), "steps: expected a whole number of at least 1"),
        (dict(restarts=2.0), "restarts: expected a whole number"),
        (dict(restarts=True), "restarts: expected a whole number"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        GaussNewton(**arguments)
