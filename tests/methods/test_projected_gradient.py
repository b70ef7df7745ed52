"""The paper's way with partial measurements: gradient steps, each followed by an inversion."""

import numpy as np
import pytest
from planted import gaussian_generator, relative_error
from scipy import sparse
from scipy.sparse.linalg import aslinearoperator

from preimage import Exact, GaussNewton, InputError, ProjectedGradient, from_arrays, invert
from preimage.inversion import Estimate, Status
from preimage.methods.projected_gradient import _norm

GENERATOR = gaussian_generator((3, 15, 60), np.random.default_rng(0), bias=True)
CODES = np.random.default_rng(1).normal(size=(4, 3))
QUICK = GaussNewton(restarts=2, flip_rounds=0)


class Recorded:
    """A projection that remembers what it was given and answers from a list of codes."""

    def __init__(self, codes):
        self.codes, self.given, self.noise = codes, [], []

    def solve(self, generator, observation):
        self.given.append(observation.values.copy())
        self.noise.append(observation.noise.copy())
        assert observation.mask is None
        assert observation.sensing is None
        code = np.asarray(self.codes[len(self.given) - 1], dtype=float)
        latent = np.tile(code, (len(observation), 1))
        return Estimate(latent, Status.SOLVED.each(len(observation)))


@pytest.mark.parametrize(
    "projection",
    [GaussNewton(restarts=4, flip_rounds=0), Exact()],
    ids=["gauss_newton", "exact"],
)
def test_planted_codes_come_back_from_masked_outputs(projection):
    """Claim (the paper's figure 4): iterating fills in what is missing; one mask a sample."""
    mask = np.random.default_rng(2).random((4, 60)) < 0.8
    x = np.where(mask, GENERATOR(CODES), np.nan)
    method = ProjectedGradient(projection, steps=150)
    inversion = invert(GENERATOR, x, method, sensing=mask)
    assert relative_error(inversion.latent, CODES).max() < 1e-7
    assert (inversion.status == "solved").all()


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, aslinearoperator])
def test_planted_codes_come_back_from_a_gaussian_matrix(form):
    """Claim: and from random measurements, in any form, where the iteration has one place to go.

    (Under a ReLU some draws end elsewhere: the iteration is local.)
    """
    A = np.random.default_rng(3).normal(size=(45, 60)) / np.sqrt(45)
    generator = gaussian_generator(
        (3, 15, 60), np.random.default_rng(0), "leaky_relu(0.3)", bias=True
    )
    method = ProjectedGradient(GaussNewton(restarts=1, flip_rounds=0), rate=1.9, steps=100)
    inversion = invert(generator, generator(CODES) @ A.T, method, sensing=form(A))
    assert relative_error(inversion.latent, CODES).max() < 1e-7
    assert (inversion.status == "solved").all()


def test_a_slow_run_is_not_said_to_be_finished():
    """Claim: what still converges is ``step_limit`` or goes on until it is solved."""
    A = np.random.default_rng(3).normal(size=(45, 60)) / np.sqrt(45)
    method = ProjectedGradient(QUICK, steps=400)
    inversion = invert(GENERATOR, A @ GENERATOR(CODES[0]), method, sensing=A)
    assert relative_error(inversion.latent, CODES[0]) < 1e-7
    assert inversion.status in ("solved", "step_limit")


def test_an_exact_projection_recovers_from_a_gaussian_matrix():
    """Claim: any inversion may be the projection, here on an affine network, where P_G is linear.

    Then the iteration is a plain projected gradient descent on a convex function, and converges.
    """
    rng = np.random.default_rng(4)
    generator = gaussian_generator((3, 12, 40), rng, "identity", bias=True)
    A = rng.normal(size=(20, 40)) / np.sqrt(20)
    method = ProjectedGradient(Exact(), rate=1.5, steps=400)
    inversion = invert(generator, generator(CODES) @ A.T, method, sensing=A)
    assert relative_error(inversion.latent, CODES).max() < 1e-6


def test_without_sensing_it_is_its_projection():
    """Claim: where all is seen, the first step is the plain inversion of the observation."""
    x = GENERATOR(CODES)
    plain = invert(GENERATOR, x, QUICK)
    projected = invert(GENERATOR, x, ProjectedGradient(QUICK))
    np.testing.assert_array_equal(projected.latent, plain.latent)


def test_each_step_is_the_formula():
    """Claim: ``x <- G(z) + eta A^T (y - A G(z))`` with ``eta = rate / ||A||^2``, from ``A^T y``."""
    rng = np.random.default_rng(5)
    A, y = rng.normal(size=(20, 60)), rng.normal(size=20)
    codes = rng.normal(size=(3, 3))
    projection = Recorded(codes)
    invert(GENERATOR, y, ProjectedGradient(projection, rate=0.7, steps=3), noise=0.2, sensing=A)
    eta = 0.7 / np.linalg.norm(A, 2) ** 2
    expected = [eta * A.T @ y]
    for code in codes[:2]:
        image = GENERATOR(code)
        expected.append(image + eta * A.T @ (y - A @ image))
    # The norm is an estimate, and a few percent too small at worst.
    for given, formula in zip(projection.given, expected, strict=True):
        np.testing.assert_allclose(given[0], formula, atol=0.05 * np.abs(formula).max())
    np.testing.assert_array_equal(projection.noise, 0.2)


def test_each_step_under_a_mask_keeps_what_is_seen_and_fills_in_the_rest():
    """Claim: with rate 1, observed entries are the observation's, the others those of G(z)."""
    rng = np.random.default_rng(6)
    mask = rng.random(60) < 0.5
    x = np.where(mask, rng.normal(size=60), np.nan)
    codes = rng.normal(size=(2, 3))
    projection = Recorded(codes)
    invert(GENERATOR, x, ProjectedGradient(projection, steps=2), sensing=mask)
    np.testing.assert_array_equal(projection.given[0][0], np.where(mask, x, 0.0))
    filled = np.where(mask, x, GENERATOR(codes[0]))
    np.testing.assert_allclose(projection.given[1][0], filled, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_best_code_is_kept_wherever_it_came(order):
    """Claim: later, worse steps do not spoil the answer; what counts is the observed residual."""
    rng = np.random.default_rng(7)
    mask = rng.random(60) < 0.5
    truth = CODES[0]
    codes = np.stack([truth + 0.01, truth + 0.3, truth - 1.0])[list(order)]
    inversion = invert(
        GENERATOR,
        np.where(mask, GENERATOR(truth), np.nan),
        ProjectedGradient(Recorded(codes), steps=3),
        sensing=mask,
    )
    np.testing.assert_array_equal(inversion.latent, truth + 0.01)
    assert inversion.status in ("step_limit", "above_noise")


def test_more_steps_never_hurt():
    """Claim: the residual does not rise with the number of steps."""
    mask = np.random.default_rng(8).random((4, 60)) < 0.6
    x = GENERATOR(CODES) + 0.05 * np.random.default_rng(9).normal(size=(4, 60))
    residuals = [
        invert(GENERATOR, x, ProjectedGradient(QUICK, steps=steps), sensing=mask).residual
        for steps in (1, 2, 5, 10)
    ]
    assert (np.diff(residuals, axis=0) <= 1e-12).all()


def test_a_projection_that_finds_nothing_is_a_failure_and_not_an_exception():
    """Claim: NaN codes end a sample; one that had a code before keeps it."""
    nothing = np.full(3, np.nan)
    x, mask = GENERATOR(CODES[0]), np.arange(60) < 50
    lost = invert(GENERATOR, x, ProjectedGradient(Recorded([nothing]), steps=1), sensing=mask)
    assert lost.status == "failed"
    assert np.isnan(lost.latent).all()
    projection = Recorded([CODES[1], nothing])
    kept = invert(GENERATOR, x, ProjectedGradient(projection, steps=2), sensing=mask)
    np.testing.assert_array_equal(kept.latent, CODES[1])


def test_the_norm_is_that_of_the_map():
    """Claim: at most a few percent too small, so that ``rate=1`` is never an unstable step."""
    rng = np.random.default_rng(10)
    for shape in ((5, 5), (10, 40), (40, 10), (1, 7), (7, 1)):
        A = rng.normal(size=shape)
        exact = np.linalg.norm(A, 2)
        for form in (np.asarray, sparse.csr_array, aslinearoperator):
            assert 0.95 * exact <= _norm(form(A)) <= exact * (1 + 1e-12)
    assert _norm(np.zeros((3, 4))) == 1.0


def test_a_map_that_sees_nothing_is_not_solved():
    """Claim: a zero matrix divides nothing by zero, and explains nothing."""
    inversion = invert(
        GENERATOR, np.ones(3), ProjectedGradient(QUICK, steps=2), sensing=np.zeros((3, 60))
    )
    assert inversion.status != "solved"


def test_no_latent_coordinates_under_a_mask():
    constant = from_arrays([np.zeros((3, 0))], [[1.0, 2.0, 3.0]])
    mask = np.array([True, False, True])
    inversion = invert(constant, [1.0, np.nan, 3.0], "projected_gradient", sensing=mask)
    assert inversion.latent.shape == (0,)
    assert inversion.residual == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(rate=0.0), "rate: expected a number above 0, got 0.0"),
        (dict(rate=-1.0), "rate: expected a number above 0"),
        (dict(rate=np.inf), "rate: expected a number above 0"),
        (dict(rate=np.nan), "rate: expected a number above 0"),
        (dict(steps=0), "steps: expected a whole number of at least 1"),
        (dict(steps=1.5), "steps: expected a whole number"),
        (dict(steps=True), "steps: expected a whole number"),
        (dict(projection="exact"), "projection: expected a method"),
        (dict(projection=None), "projection: expected a method"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        ProjectedGradient(**arguments)


@pytest.mark.parametrize("name", ["projection", "start"])
def test_a_class_is_no_method(name):
    with pytest.raises(InputError, match=f"{name}: expected a method"):
        {"projection": ProjectedGradient, "start": GaussNewton}[name](**{name: Exact})


@pytest.mark.parametrize("measured", [False, True])
def test_errors_count_in_units_of_the_noise_of_each_entry(measured):
    """Claim: the end is that of the joint method, which weighs errors, and not of equal weights."""
    rng = np.random.default_rng(6)
    generator = gaussian_generator((4, 20, 60), rng, bias=True)
    matrix = np.linalg.qr(rng.normal(size=(60, 60)))[0] if measured else None
    z = rng.normal(size=(3, 4))
    noise = np.where(np.arange(60) < 20, 0.03, 0.01)
    clean = generator(z) if matrix is None else generator(z) @ matrix.T
    x = clean + noise * rng.normal(size=clean.shape)
    joint = invert(generator, x, GaussNewton(), noise=noise, sensing=matrix)
    plain = invert(generator, x, GaussNewton(), noise=0.02, sensing=matrix)
    method = ProjectedGradient(GaussNewton(restarts=2, flip_rounds=0), steps=60)
    found = invert(generator, x, method, noise=noise, sensing=matrix)
    distance = relative_error(found.latent, joint.latent)
    assert (distance < 0.1 * relative_error(plain.latent, joint.latent)).all()
