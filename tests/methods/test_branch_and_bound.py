"""Global minima against an oracle that goes through every sign pattern."""

import itertools

import numpy as np
import pytest
from planted import gaussian_generator
from scipy.optimize import linprog

import preimage
from preimage import BranchAndBound, InputError


def _oracle(generator, x, norm, half):
    """The least misfit over the box: one linear program for each pattern of all units' signs."""
    best = np.inf
    first, last = generator.layers
    k, m, n = generator.latent_size, first.output_size, last.output_size
    count = 1 if norm == "linf" else n
    slopes = [-layer.activation(-np.ones((1, layer.output_size)))[0] for layer in (first, last)]
    for signs in itertools.product((True, False), repeat=m + n):
        on = np.array(signs)
        share = [np.where(on[:m], 1.0, slopes[0]), np.where(on[m:], 1.0, slopes[1])]
        a1, b1 = first.weight, first.bias
        inner, shift = share[0][:, None] * a1, share[0] * b1
        a2, b2 = last.weight @ inner, last.weight @ shift + last.bias
        y, c = share[1][:, None] * a2, share[1] * b2
        slack = np.ones((n, 1)) if norm == "linf" else np.eye(n)
        none = np.zeros((m + n, count))
        turn = np.where(on, -1.0, 1.0)
        rows = np.block([[y, -slack], [-y, -slack]])
        sides = np.hstack([turn[:, None] * np.vstack([a1, a2]), none])
        left = np.vstack([rows, sides])
        right = np.concatenate([x - c, c - x, -turn * np.concatenate([b1, b2])])
        bounds = [(-half, half)] * k + [(0, None)] * count
        found = linprog(np.r_[np.zeros(k), np.ones(count)], left, right, bounds=bounds)
        best = min(best, found.fun if found.status == 0 else np.inf)
    return best


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize(("body", "head"), [
    ("relu", "relu"), ("leaky_relu(0.3)", "leaky_relu(0.3)"), ("relu", "identity"),
    ("relu", "prelu(0.5,2.0;2)"),
])  # fmt: skip
def test_the_minimum_is_that_of_all_patterns(norm, body, head):
    """Claim: value and bound are the global minimum, of observations in range and far from it."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        generator = gaussian_generator((2, 3, 4), rng, body, bias=True, head=head)
        x = generator(rng.normal(size=2)) + (0.02, 0.6)[seed] * rng.normal(size=4)
        method = BranchAndBound(norm=norm, box=3.0, time_limit=20.0)
        found = preimage.invert(generator, x, method, noise=0.01)
        exact = _oracle(generator, x, norm, 3.0)
        error = np.abs(generator(found.latent) - x)
        value = error.max() if norm == "linf" else error.sum()
        assert value == pytest.approx(exact, abs=2e-6)
        assert exact - 2e-6 <= found.bound <= value
        assert found.gap == pytest.approx(value - found.bound)
        assert np.abs(found.latent).max() <= 3.0


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_no_bound_is_above_the_minimum_at_any_scale(norm):
    """Claim: outputs s times as large have s times the minimum, whatever a solver's tolerance."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        generator = gaussian_generator((2, 3, 4), rng, bias=True, head="identity")
        x = generator(rng.normal(size=2)) + 0.4 * rng.normal(size=4)
        exact = _oracle(generator, x, norm, 3.0)
        first, last = generator.layers
        for s in (1e-9, 1e-7, 1e-3, 1e3):
            scaled = preimage.Generator((first, preimage.Layer(s * last.weight, s * last.bias,
                                                               "identity")))  # fmt: skip
            found = preimage.invert(scaled, s * x, BranchAndBound(norm=norm, box=3.0, gap=1e-4 * s))
            assert found.bound <= s * exact * (1 + 1e-9)
            assert found.residual_max > 0
            assert found.gap <= 1e-4 * s


def test_small_latents_are_split():
    """Claim: with two latents and many units, no point of a fine grid is below the bound."""
    axis = np.linspace(-1, 1, 401)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        generator = gaussian_generator((2, 80, 80, 12), rng, bias=True, head="identity")
        x = generator(rng.uniform(-1, 1, size=2)) + (0.01, 0.2, 1.0)[seed] * rng.normal(size=12)
        method = BranchAndBound(norm="l2", box=1.0, gap=1e-4, time_limit=20.0)
        found = preimage.invert(generator, x, method, noise=0.01)
        best = np.linalg.norm(generator(grid) - x, axis=1).min()
        value = np.linalg.norm(generator(found.latent) - x)
        assert found.bound <= value <= best + 1e-12
        assert found.gap == pytest.approx(value - found.bound)
        assert found.gap <= 1e-4


def test_a_realisable_observation_is_decided_by_splitting():
    """Claim: ``decide`` stops at a code within the noise, or proves that there is none."""
    rng = np.random.default_rng(0)
    generator = gaussian_generator((2, 80, 80, 12), rng, bias=True, head="identity")
    x = generator(rng.uniform(-1, 1, size=2))
    method = BranchAndBound(box=1.0, decide=True)
    assert preimage.invert(generator, x, method, noise=1e-3).residual_max <= 1e-3
    far = preimage.invert(generator, x + rng.normal(size=12), method, noise=0.1)
    assert far.bound > 0.1


def test_l2_needs_few_latents_in_a_box():
    generator = preimage.from_arrays([np.eye(2)], activation="identity")
    with pytest.raises(InputError, match="finite"):
        preimage.invert(generator, [0.1, 0.2], BranchAndBound(norm="l2"))
    found = preimage.invert(generator, [0.1, 5.0], BranchAndBound(norm="l2", box=1.0, gap=1e-6))
    assert found.latent == pytest.approx([0.1, 1.0], abs=1e-3)
    assert found.bound == pytest.approx(4.0, abs=1e-5)


def test_the_joint_method_is_never_made_worse_and_the_gap_is_closed():
    """Claim: on a network too large for the oracle, the gap is proven small."""
    rng = np.random.default_rng(4)
    generator = gaussian_generator((4, 16, 40), rng)
    x = np.maximum(generator(rng.normal(size=(2, 4))) + rng.uniform(-0.1, 0.1, size=(2, 40)), -0.1)
    joint = preimage.invert(generator, x, preimage.GaussNewton(norm="linf", box=5.0), noise=0.1)
    found = preimage.invert(generator, x, BranchAndBound(box=5.0), noise=0.1)
    assert (found.residual_max <= joint.residual_max + 1e-12).all()
    assert (found.gap <= 1e-6).all()


def test_realisability_is_decided_both_ways():
    """Claim: ``decide`` finds a code within the noise, or proves that there is none."""
    weight = np.array([[1.0, 0.5], [1.0, 0.5], [0.3, 1.0]])
    generator = preimage.from_arrays([weight])
    for gap, possible in ((0.0201, False), (0.0199, True)):
        x = np.array([2.0, 2.0 + gap, 1.0])
        found = preimage.invert(generator, x, BranchAndBound(box=9.0, decide=True), noise=0.01)
        assert (found.residual_max <= 0.01) == possible
        assert (found.bound > 0.01) == (not possible)


def test_a_time_limit_leaves_a_gap_not_a_claim():
    rng = np.random.default_rng(6)
    generator = gaussian_generator((6, 30, 20), rng)
    x = generator(rng.normal(size=6)) + rng.normal(size=20)
    found = preimage.invert(generator, x, BranchAndBound(box=5.0, time_limit=1e-6), noise=0.1)
    assert found.bound <= found.residual_max
    assert found.gap == pytest.approx(found.residual_max - found.bound)


def test_other_methods_claim_no_bound():
    generator = preimage.from_arrays([np.eye(2)])
    assert np.isnan(preimage.invert(generator, [1.0, 2.0]).bound)
    assert np.isnan(preimage.invert(generator, np.ones((3, 2))).gap).all()


def test_bad_input():
    generator = preimage.from_arrays([np.eye(2)], activation="tanh")
    for wrong in ({"norm": "l3"}, {"gap": 0.0}, {"box": -1.0}, {"norm": "l1", "decide": True},
                  {"rounds": -1}):  # fmt: skip
        with pytest.raises(InputError):
            BranchAndBound(**wrong)
    with pytest.raises(InputError, match="head"):
        preimage.invert(generator, [0.1, 0.2], BranchAndBound(box=1.0))
    relu, mask = preimage.from_arrays([np.eye(2)]), np.array([True, False])
    with pytest.raises(InputError, match="sensing"):
        preimage.invert(relu, [0.1, 0.2], BranchAndBound(box=1.0), sensing=mask)
