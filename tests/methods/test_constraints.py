"""Box, ball and prior against SciPy, a closed form and the secular equation."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gaussian_generator, relative_error
from scipy.optimize import brentq, lsq_linear, minimize
from test_joint_norms import best_fit

from preimage import BranchAndBound, GaussNewton, InputError, LayerwiseLP, from_arrays, invert
from preimage.inversion import Estimate, Status
from preimage.methods.parameters import Region

SEEDS = st.integers(0, 10_000)


def affine_problem(seed):
    """``W z + b`` of any shape, from well to ill conditioned, and an observation of any size."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(1, 8)), int(rng.integers(1, 20))
    spread = 10.0 ** (-float(rng.choice([0, 1, 3])) * np.linspace(0, 1, k))
    weight, bias = rng.normal(size=(n, k)) * spread, rng.normal(size=n)
    x = rng.normal(size=n) * 10 ** rng.uniform(-2, 2)
    return rng, weight, bias, x, from_arrays([weight], [bias], "identity")


def excess(residual, best, x):
    """How much a residual exceeds the best possible one, relatively."""
    return (residual - best) / max(best, 1e-6 * np.linalg.norm(x))


@settings(max_examples=40)
@given(seed=SEEDS)
def test_a_box_on_an_affine_network_is_bounded_least_squares(seed):
    """Claim: the optimum of ``scipy.optimize.lsq_linear``, and inside the box to the last bit."""
    rng, weight, bias, x, generator = affine_problem(seed)
    k = weight.shape[1]
    low = -rng.random(k) * rng.choice([0.1, 1, 10])
    high = low + 1e-3 + rng.random(k) * rng.choice([0.1, 1, 10])
    found = invert(generator, x, GaussNewton(box=(low, high), restarts=2, flip_rounds=1))
    best = lsq_linear(weight, x - bias, (low, high), method="bvls", tol=1e-14, max_iter=1000)
    assert excess(found.residual, np.linalg.norm(weight @ best.x + bias - x), x) < 1e-8
    assert (low <= found.latent).all()
    assert (found.latent <= high).all()


@pytest.mark.parametrize("decades", [0, 3, 6])
def test_a_box_on_an_ill_conditioned_network(decades):
    """Claim: the same with many binding faces and a condition number up to a million."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        left = np.linalg.qr(rng.normal(size=(30, 20)))[0]
        right = np.linalg.qr(rng.normal(size=(20, 20)))[0]
        weight = left * 10.0 ** (-decades * np.linspace(0, 1, 20)) @ right
        x = weight @ (3 * rng.normal(size=20)) + 0.1 * rng.normal(size=30)
        found = invert(
            from_arrays([weight], None, "identity"),
            x,
            GaussNewton(box=1.0, restarts=2, flip_rounds=0),
        )
        best = lsq_linear(weight, x, (-1, 1), method="bvls", tol=1e-14, max_iter=1000)
        assert excess(found.residual, np.linalg.norm(weight @ best.x - x), x) < 1e-8
        assert (np.abs(best.x) == 1).any()


@settings(max_examples=40)
@given(seed=SEEDS)
def test_a_prior_on_an_affine_network_is_ridge_regression(seed):
    """Claim: ``(W^T W + prior I)^-1 W^T (x - b)``, also where W has fewer rows than columns."""
    rng, weight, bias, x, generator = affine_problem(seed)
    prior = 10 ** rng.uniform(-4, 2)
    found = invert(generator, x, GaussNewton(prior=prior, restarts=2, flip_rounds=0))
    gram = weight.T @ weight + prior * np.eye(weight.shape[1])
    exact = np.linalg.solve(gram, weight.T @ (x - bias))
    np.testing.assert_allclose(found.latent, exact, atol=1e-5 * np.abs(exact).max())

    def loss(z):
        return 0.5 * np.sum((weight @ z + bias - x) ** 2) + 0.5 * prior * z @ z

    assert loss(found.latent) <= loss(exact) * (1 + 1e-10)


def in_ball(weight, rhs, radius):
    """Least squares over a ball, by bisection of the secular equation in log(mu)."""
    values, vectors = np.linalg.eigh(weight.T @ weight)
    values, slope = np.maximum(values, 0.0), vectors.T @ (weight.T @ rhs)
    free = np.linalg.lstsq(weight, rhs, rcond=1e-12)[0]
    if np.linalg.norm(free) <= radius:
        return free

    def over(log_mu):
        return np.linalg.norm(slope / (values + np.exp(log_mu))) - radius

    mu = np.exp(brentq(over, -80, 60, xtol=1e-14))
    return vectors @ (slope / (values + mu))


@settings(max_examples=40)
@given(seed=SEEDS)
def test_a_ball_on_an_affine_network_solves_the_secular_equation(seed):
    """Claim: the optimum over the ball, and never outside it by more than rounding."""
    rng, weight, bias, x, generator = affine_problem(seed)
    radius = 10 ** rng.uniform(-2, 1)
    found = invert(generator, x, GaussNewton(ball=radius, restarts=2, flip_rounds=0))
    best = in_ball(weight, x - bias, radius)
    assert excess(found.residual, np.linalg.norm(weight @ best + bias - x), x) < 1e-8
    assert np.linalg.norm(found.latent) <= radius * (1 + 1e-14)


@pytest.mark.parametrize("constraint", ["box", "ball"])
def test_on_a_smooth_network_slsqp_finds_nothing_better(constraint):
    """Claim: the answer is a local minimum over the region: SLSQP from it gains nothing."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        generator = gaussian_generator((3, 25), rng, bias=True, head="tanh")
        x = generator(3 * rng.normal(size=3))
        found = invert(generator, x, GaussNewton(**{constraint: 0.8}))
        limits = (
            dict(bounds=[(-0.8, 0.8)] * 3)
            if constraint == "box"
            else dict(constraints=dict(type="ineq", fun=lambda z: 0.64 - z @ z))
        )
        better = minimize(
            lambda z, g=generator, x=x: np.sum((x - g(z)) ** 2),
            found.latent,
            method="SLSQP",
            tol=1e-12,
            **limits,
        )
        size = np.abs(better.x).max() if constraint == "box" else np.linalg.norm(better.x)
        assert size <= 0.8 + 1e-8
        assert found.residual**2 <= better.fun + 1e-8


class From:
    """A start that is given."""

    def __init__(self, z):
        self.z = z

    def solve(self, generator, observation):
        return Estimate(
            np.tile(self.z, (len(observation), 1)), Status.SOLVED.each(len(observation))
        )


CONSTRAINTS = {
    "box": dict(box=0.5),
    "box of two ends": dict(box=([0.2, -1.0, 0.1, -3.0], [0.7, 1.0, 0.3, -2.0])),
    "box of a matrix": dict(box=np.array([[-1.0, -1, -1, -1], [0.1, 0.1, 0.1, 0.1]])),
    "ball": dict(ball=0.7),
    "prior": dict(prior=0.3),
    "box in l1": dict(box=0.5, norm="l1"),
    "box in linf": dict(box=0.5, norm="linf"),
}


@pytest.mark.parametrize("arguments", CONSTRAINTS.values(), ids=CONSTRAINTS)
@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.2)"])
def test_inside_the_region_and_never_worse_than_the_projected_start(arguments, activation):
    """Claim: whatever the start, network and number of steps; the loss is recomputed here."""
    for seed in range(2 if "norm" in arguments else 3):
        rng = np.random.default_rng(seed)
        head = [None, "tanh", "identity"][seed % 3]
        generator = gaussian_generator((4, 12, 20), rng, activation, bias=True, head=head)
        x, start = rng.normal(size=20), 3 * rng.normal(size=4)
        inside = start
        if "box" in arguments:
            box = arguments["box"]
            low, high = (-box, box) if np.ndim(box) == 0 else box
            inside = np.clip(start, low, high)
        elif "ball" in arguments:
            inside = start * min(1.0, 0.7 / np.linalg.norm(start))

        def loss(z, generator=generator, x=x):
            error = np.abs(x - generator(z))
            norm = arguments.get("norm", "l2")
            if norm == "l2":
                return 0.5 * error @ error + 0.5 * arguments.get("prior", 0.0) * z @ z
            return error.sum() if norm == "l1" else error.max()

        for steps in (1, 3, 40):
            method = GaussNewton(
                start=From(start),
                restarts=1,
                flip_rounds=1,
                steps=steps,
                backend="kernel",
                **arguments,
            )
            z = invert(generator, x, method).latent
            assert loss(z) <= loss(inside) * (1 + 1e-12)
            if "box" in arguments:
                assert (low <= z).all()
                assert (z <= high).all()
            if "ball" in arguments:
                assert np.linalg.norm(z) <= 0.7 * (1 + 1e-14)


@pytest.mark.parametrize(
    "arguments", [dict(box=3.0), dict(ball=4.0), dict(box=([0] * 4, [3] * 4))], ids=str
)
def test_a_region_that_holds_the_planted_code_does_not_hide_it(arguments):
    """Claim: without noise, the code comes back, alone and under a mask."""
    rng = np.random.default_rng(0)
    generator = gaussian_generator((4, 20, 80), rng, bias=True)
    z = np.abs(rng.normal(size=(4, 4)))
    mask = rng.random((4, 80)) < 0.6
    for sensing in (None, mask):
        inversion = invert(generator, generator(z), GaussNewton(**arguments), sensing=sensing)
        assert list(inversion.status) == ["solved"] * 4
        assert relative_error(inversion.latent, z).max() < 1e-9


def test_a_code_on_a_corner_of_the_box_comes_back():
    """Claim: binding faces do no harm, even where all bind."""
    rng = np.random.default_rng(1)
    generator = gaussian_generator((3, 15, 60), rng, bias=True)
    z = np.array([[0.5, -0.5, 0.5], [0.5, 0.1, -0.5]])
    inversion = invert(generator, generator(z), GaussNewton(box=0.5))
    assert relative_error(inversion.latent, z).max() < 1e-9
    assert (np.abs(inversion.latent) <= 0.5).all()


def test_a_prior_resolves_what_was_not_seen_and_the_rank_still_says_so():
    """Claim: rank is about the observation: a prior picks a code, it does not see one."""
    generator = from_arrays([[[1.0, 1.0]]], head="identity")
    inversion = invert(generator, [2.0], GaussNewton(prior=1e-6), noise=1e-5)
    np.testing.assert_allclose(inversion.latent, [1, 1], rtol=1e-5)
    assert (inversion.status, inversion.rank) == ("ambiguous", 1)


@pytest.mark.parametrize("ends", [0.3, -1.0, 0.0])
@pytest.mark.parametrize(
    "method", [LayerwiseLP, GaussNewton, partial(GaussNewton, norm="linf"), BranchAndBound],
    ids=["layerwise", "l2", "linf", "branch and bound"],
)  # fmt: skip
def test_a_box_with_equal_ends_fixes_a_coordinate(method, ends):
    """Claim: the coordinate has that value, and the others are found as without it."""
    rng = np.random.default_rng(3)
    generator = gaussian_generator((3, 15, 40), rng)
    z = rng.uniform(-1, 1, size=(2, 3))
    z[:, 1] = ends
    low, high = np.array([-1.0, ends, -1.0]), np.array([1.0, ends, 1.0])
    inversion = invert(generator, generator(z), method(box=(low, high)))
    assert (inversion.latent[:, 1] == ends).all()
    assert (inversion.status == "solved").all()
    np.testing.assert_allclose(inversion.latent, z, atol=1e-6)


# The layer programs


@pytest.mark.parametrize("backend", ["highs", "kernel"])
@pytest.mark.parametrize("norm", ["linf", "l1", "relaxed"])
def test_layer_programs_stay_in_the_box_and_find_what_is_in_it(norm, backend):
    """Claim: codes never leave the box; planted codes inside it come back."""
    rng = np.random.default_rng(2)
    generator = gaussian_generator((3, 15, 60), rng)
    z = rng.uniform(-1, 1, size=(3, 3))
    method = LayerwiseLP(norm=norm, backend=backend, box=1.0)
    inversion = invert(generator, generator(z), method)
    assert relative_error(inversion.latent, z).max() < 1e-6
    low, high = np.array([-0.1, 0.2, -2.0]), np.array([0.1, 0.3, 0.5])
    outside = invert(
        generator, generator(z), LayerwiseLP(norm=norm, backend=backend, box=(low, high))
    )
    known = np.isfinite(outside.latent).all(axis=1)
    assert known.all() or norm == "relaxed"
    assert (low <= outside.latent[known]).all()
    assert (outside.latent[known] <= high).all()


@settings(max_examples=15)
@given(seed=SEEDS)
def test_a_box_in_the_l1_program_of_an_affine_network_is_optimal(seed):
    """Claim: on one affine layer Algorithm 2 with a box is ``linprog``'s bounded l1 fit."""
    rng, weight, bias, x, generator = affine_problem(seed)
    half = 10 ** rng.uniform(-1, 1)
    found = invert(generator, x, LayerwiseLP(norm="l1", box=half))
    value = np.abs(weight @ found.latent + bias - x).sum()
    best = best_fit(weight, x - bias, "l1", half)
    assert value <= best + 1e-8 * np.abs(x).sum()
    assert (np.abs(found.latent) <= half).all()


# The region itself


@settings(max_examples=30)
@given(seed=SEEDS, shape=st.sampled_from(["box", "ball", "none"]))
def test_projections_are_projections(seed, shape):
    """Claim: idempotent, the identity inside, and the nearest point: closer than any other."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 6))
    low, high, radius = np.full(k, -np.inf), np.full(k, np.inf), np.inf
    if shape == "box":
        low = rng.normal(size=k)
        high = low + rng.random(k)
    elif shape == "ball":
        radius = rng.uniform(0.1, 2)
    region = Region(low, high, radius)
    z = 3 * rng.normal(size=(5, k))
    near = region.project(z)
    np.testing.assert_allclose(region.project(near), near, rtol=1e-15)
    others = region.project(3 * rng.normal(size=(50, k)))
    for point, projected in zip(z, near, strict=True):
        nearest = np.linalg.norm(point - projected)
        assert (nearest <= np.linalg.norm(point - others, axis=1) * (1 + 1e-12)).all()
    np.testing.assert_array_equal(
        region.project(np.zeros((1, k)))[0] == 0, (low <= 0) & (high >= 0)
    )


# What is refused

BAD = [
    (dict(box=0), "box: expected a number above 0, got 0"),
    (dict(box=-1.0), "box: expected a number above 0, got -1.0"),
    (dict(box=np.nan), "box: expected a number above 0"),
    (dict(box=np.inf), "box: expected a number above 0"),
    (dict(box=(2.0, 1.0)), "box: expected low <= high"),
    (dict(box=([0.0, 1.1], [1.0, 1.0])), "box: expected low <= high"),
    (dict(box=(0.0, np.nan)), "box, high: expected finite"),
    (dict(box=(0.0, 1.0, 2.0)), "box: expected a number or a pair"),
    (dict(box=(1j, 2.0)), "box, low: expected real"),
    (dict(box=(np.zeros((1, 2)), np.ones((1, 2)))), "box: expected low <= high"),
]
BAD_JOINT = [
    *BAD,
    (dict(ball=0.0), "ball: expected a number above 0, got 0.0"),
    (dict(ball=-1), "ball: expected a number above 0"),
    (dict(ball=np.inf), "ball: expected a number above 0"),
    (dict(prior=-1.0), "prior: expected a number above 0, got -1.0"),
    (dict(prior=np.nan), "prior: expected a number above 0"),
    (dict(box=1.0, ball=1.0), "box, ball: expected one of them"),
    (dict(norm="l1", prior=1.0), "prior, ball: they need norm='l2'"),
    (dict(norm="linf", ball=1.0), "prior, ball: they need norm='l2'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_JOINT, ids=str)
def test_bad_constraints_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        GaussNewton(**arguments)


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=str)
def test_bad_boxes_of_layer_programs_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        LayerwiseLP(**arguments)


@pytest.mark.parametrize("method", [GaussNewton, LayerwiseLP])
def test_a_box_for_another_latent_size_is_named(method):
    generator = gaussian_generator((3, 9, 20), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"box: expected .* or an array of shape \(3,\)"):
        invert(generator, np.zeros(20), method(box=(np.zeros(2), np.ones(2))))


@pytest.mark.parametrize("value", ["1", (1.0, 2.0), None, 1j], ids=repr)
@pytest.mark.parametrize("name", ["damping", "ball", "prior"])
def test_what_is_no_number_is_named(name, value):
    """Claim: misuse is an ``InputError`` at once, whatever the type."""
    if value is None and name != "damping":
        value = object()
    with pytest.raises(InputError, match=f"{name}: expected a number"):
        GaussNewton(**{name: value})


def test_a_box_may_have_one_end():
    """Claim: nonnegative codes are ``box=(0, inf)``."""
    generator = from_arrays([np.eye(2)], None, "identity")
    found = invert(generator, [1.0, -1.0], GaussNewton(box=(0.0, np.inf)))
    np.testing.assert_allclose(found.latent, [1, 0], atol=1e-12)


def test_one_end_of_a_box_may_be_a_number_and_the_other_an_array():
    """Claim: ``(0, array)`` is a box as ``(array, array)`` is; arrays that differ are named."""
    generator = from_arrays([np.eye(2)], None, "identity")
    found = invert(generator, [3.0, 3.0], GaussNewton(box=(0.0, [1.0, 2.0])))
    np.testing.assert_allclose(found.latent, [1, 2], atol=1e-12)
    with pytest.raises(InputError, match="box: expected low <= high"):
        GaussNewton(box=([0.0, 0.0], [1.0, 1.0, 1.0]))
