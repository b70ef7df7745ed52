"""Enclosures hold every code, whatever the multipliers, and are as small as a reference's."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import gaussian_generator
from scipy.optimize import linprog

from preimage import InputError, from_arrays
from preimage.enclosure import tighten
from preimage.enclosure.bound_proofs import proven_ends, proven_radius
from preimage.enclosure.descent import add_radius, enclose
from preimage.enclosure.network import (
    Bounds,
    Targets,
    as_network,
    observed_interval,
    rounding_error,
    starting_bounds,
)
from preimage.enclosure.tighten import Budget, Deduction

CASES = [
    ("relu", "relu"),
    ("leaky_relu(0.2)", "leaky_relu(0.2)"),
    ("relu", "identity"),
    ("leaky_relu(0.3)", "tanh"),
    ("relu", "sigmoid"),
    ("identity", "relu"),
    ("prelu(0.25,1.5;6)", "identity"),
]


def _budget():
    return Budget(time.perf_counter() + 60.0, 1)


def _planted(sizes, body, head, seed, noise, half):
    rng = np.random.default_rng(seed)
    generator = gaussian_generator(sizes, rng, body, bias=True, head=head)
    z = rng.uniform(-2, 2, size=sizes[0])
    x = generator(z) + rng.uniform(-noise, noise, size=sizes[-1])
    network = as_network(generator)
    wide = noise + rounding_error(network, x, z)
    low = np.full(sizes[0], -half)
    bounds = starting_bounds(network, x, wide, low, -low)
    inside = [z, *(a[0] for a in generator.preactivations(z[None]))]
    return network, bounds, inside


def _holds(bounds, inside):
    return all(
        (low <= value).all() and (value <= high).all()
        for low, value, high in zip(bounds.lower, inside, bounds.upper, strict=True)
    )


@pytest.mark.parametrize(("body", "head"), CASES)
@pytest.mark.parametrize("half", [5.0, np.inf])
def test_the_true_code_and_all_its_units_lie_inside(body, head, half):
    """Claim: enclosures are proofs; every activation, with and without a box."""
    for seed in range(3):
        network, bounds, inside = _planted((3, 12, 40), body, head, seed, 1e-3, half)
        found = enclose(network, bounds, _budget(), rounds=2)
        assert not found.empty
        assert _holds(found.bounds, inside)


def test_three_layers_are_enclosed_tightly():
    """Claim: with every sign decided, the box is of the size of the noise."""
    network, bounds, inside = _planted((3, 12, 30, 60), "relu", "relu", 1, 1e-4, 5.0)
    found = enclose(network, bounds, _budget(), rounds=6)
    assert _holds(found.bounds, inside)
    assert (found.bounds.upper[0] - found.bounds.lower[0]).max() < 0.05


def test_no_relaxation_is_built_without_time_for_a_program(monkeypatch):
    """Claim: what a relaxation costs is known before it is built; interval arithmetic remains."""
    network, bounds, inside = _planted((3, 300, 20), "relu", "relu", 1, 1e-2, 5.0)
    monkeypatch.setattr(tighten, "_PRODUCTS", 1.0)
    monkeypatch.setattr(tighten, "relax", None)
    found = enclose(network, bounds, _budget(), rounds=2)
    assert _holds(found.bounds, inside)
    assert all(np.isfinite(end).all() for end in (found.bounds.lower[1], found.bounds.upper[1]))
    assert len(found.steps) == 2  # wide layers are propagated in parts


@given(st.integers(0, 10_000), st.sampled_from(CASES))
def test_no_multipliers_whatever_cut_off_a_code(seed, case):
    """Claim: cuts are valid for every multiplier, so that a solver's errors cannot break a box."""
    rng = np.random.default_rng(seed)
    network, bounds, inside = _planted((3, 12, 10), *case, seed, 1e-2, 3.0)
    deduction = Deduction.start(bounds)
    deduction.propagate(network)
    start = int(rng.integers(0, 2))
    layer = np.array([start] * 20)
    unit = rng.integers(network.sizes[start], size=20)
    targets = Targets(layer, unit, rng.random(20) < 0.5)
    scale = 10.0 ** rng.uniform(-8, 8, size=(20, 1))
    mu = {i: scale * rng.normal(size=(20, network.sizes[i])) for i in range(start + 1, 3)}
    # Now and then something near what proves a lot.
    weight = network.weights[start + 1].dense
    mu[start + 1][:10] = np.linalg.pinv(weight)[unit[:10]] * rng.choice([-1, 1], size=(10, 1))
    ends = proven_ends(network, bounds, start, mu, targets)
    value = inside[start][unit]
    assert (np.where(targets.upper, value <= ends, value >= ends)).all()


@given(st.integers(0, 10_000))
def test_no_multipliers_whatever_prove_too_small_a_radius(seed):
    """Claim: the a-posteriori bound without a box holds for every approximate inverse."""
    rng = np.random.default_rng(seed)
    network, bounds, inside = _planted((3, 12), "leaky_relu(0.3)", None, seed, 1e-2, np.inf)
    inverse = np.linalg.pinv(network.weights[1].dense)
    inverse = inverse + 10.0 ** rng.uniform(-9, 0) * rng.normal(size=inverse.shape)
    unit = np.tile(np.arange(3), 2)
    upper = np.repeat([True, False], 3)
    mu = {1: np.where(upper, 1.0, -1.0)[:, None] * inverse[unit]}
    radius = proven_radius(network, bounds, 0, mu, Targets(np.zeros(6, int), unit, upper))
    assert np.abs(inside[0]).max() <= radius


def test_one_layer_agrees_with_linear_programs_of_scipy():
    """Claim: the box of one layer is the smallest one, up to 1 % of it; and never smaller."""
    network, bounds, _ = _planted((4, 20), "relu", None, 7, 1e-2, 5.0)
    rows, low, high = network.weights[1].dense, bounds.lower[1], bounds.upper[1]
    shift = network.biases[1]
    two = np.isfinite(low)
    left = np.vstack([rows, -rows[two]])
    right = np.concatenate([high - shift, (shift - low)[two]])
    found = enclose(network, bounds.copy(), _budget(), rounds=3).bounds
    for j in range(4):
        for sign, end in ((1.0, found.lower[0][j]), (-1.0, found.upper[0][j])):
            exact = linprog(sign * np.eye(4)[j], left, right, bounds=[(-5, 5)] * 4).fun
            assert sign * end <= exact + 1e-8
            assert exact - sign * end < 0.05


def test_an_observation_out_of_reach_has_an_empty_enclosure():
    """Claim: twin outputs that differ by more than twice the noise leave nothing."""
    generator = from_arrays([[[1.0, 0.5], [1.0, 0.5], [0.3, 1.0]]])
    network, box = as_network(generator), np.full(2, 9.0)
    for gap, empty in ((0.0201, True), (0.0199, False)):
        x = np.array([2.0, 2.0 + gap, 1.0])
        bounds = starting_bounds(network, x, 0.01, -box, box)
        assert enclose(network, bounds, _budget(), rounds=2).empty == empty


def test_without_a_box_unseen_directions_stay_unbounded():
    """Claim: where nothing bounds the code, no radius is made up."""
    network, bounds, _ = _planted((4, 3), "identity", None, 0, 1e-2, np.inf)
    deduction = Deduction.start(bounds)
    assert not add_radius(network, deduction, 0, _budget())
    assert np.isinf(bounds.upper[0]).all()


@pytest.mark.parametrize("name", ["relu", "leaky_relu(0.1)", "identity", "tanh", "sigmoid"])
def test_observed_intervals_hold_every_preactivation(name):
    """Claim: rounding outward loses nothing, near saturation included."""
    generator = from_arrays([np.eye(1)], activation=name)
    activation = generator.layers[0].activation
    rng = np.random.default_rng(0)
    a = rng.normal(size=2000) * np.exp(rng.uniform(-3, 3, size=2000))
    for noise in (0.0, 1e-9, 1e-2):
        x = activation(a) + rng.uniform(-noise, noise, size=2000) * (1 - 1e-9)
        low, high = observed_interval(activation, x, noise + 1e-15)
        assert ((low <= a) & (a <= high)).all()


def test_hidden_tanh_is_refused():
    with pytest.raises(InputError, match="hidden"):
        as_network(from_arrays([np.eye(2), np.eye(2)], activation="tanh"))


def test_bounds_know_when_they_are_empty():
    assert Bounds([np.array([1.0])], [np.array([0.0])]).empty
    assert Bounds([np.array([np.inf])], [np.array([np.inf])]).empty
    assert not Bounds([np.array([-np.inf])], [np.array([np.inf])]).empty
