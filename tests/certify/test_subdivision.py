"""Subdivisions: bounds against sampled codes, verdicts against grids, and forged records."""

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import preimage
from preimage.certify import boxes, checker
from preimage.certify.certify import exact_layers
from preimage.enclosure.contraction import Ball, Contractor, Interval
from preimage.enclosure.grouped import GroupedMatrix
from preimage.enclosure.linear_bounds import linear_bounds, pull_back
from preimage.enclosure.network import as_network

ACTIVATIONS = ("relu", "leaky_relu(0.3)", "prelu(0.2,1.7;12)")


def _deep(rng, sizes, activation="relu", head="identity"):
    """Weights N(0, 2/k), which keep the scale from layer to layer; biases N(0, 0.1)."""
    weights = [rng.normal(size=(n, k)) * (2 / k) ** 0.5 for k, n in itertools.pairwise(sizes)]
    biases = [0.3 * rng.normal(size=n) for n in sizes[1:]]
    return preimage.from_arrays(weights, biases, activation, head)


def _convolution(rng, k=2, sides=(3, 6, 12), channels=(36, 20, 1)):
    """Transposed convolutions of 4 x 4 with stride 2 as matrices: 15 of 16 entries are 0."""
    weights = [rng.normal(size=(channels[0] * sides[0] ** 2, k))]
    for side, size, old, new in zip(sides, sides[1:], channels, channels[1:], strict=False):
        weight = np.zeros((new, size, size, old, side, side))
        kernel = rng.normal(size=(old, new, 4, 4)) / (2 * old**0.5)
        for y, x, dy, dx in itertools.product(range(side), range(side), range(4), range(4)):
            if 0 < 2 * y + dy <= size and 0 < 2 * x + dx <= size:
                weight[:, 2 * y + dy - 1, 2 * x + dx - 1, :, y, x] = kernel[:, :, dy, dx].T
        weights.append(weight.reshape(new * size * size, -1))
    assert GroupedMatrix.of(weights[1]).groups
    return preimage.from_arrays(weights, [0.3 * rng.normal(size=len(w)) for w in weights])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), patterns=st.integers(1, 9))
def test_a_grouped_matrix_is_the_matrix(seed, patterns):
    """Claim: products by groups and dense ones agree."""
    rng = np.random.default_rng(seed)
    kept = (rng.uniform(size=(patterns, 300)) < 0.1)[rng.integers(patterns, size=400)]
    dense = np.where(kept, rng.normal(size=kept.shape), 0.0)
    x = rng.normal(size=(300, 2, 3))
    grouped = GroupedMatrix.of(dense)
    assert 0 < len(grouped.groups) <= patterns
    assert grouped.terms == kept.sum(axis=1).max()
    expected = np.tensordot(dense, x, 1)
    for found in (grouped @ x, GroupedMatrix(dense, (), 0) @ x):
        assert np.allclose(found, expected, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    activation=st.sampled_from((*ACTIVATIONS, "convolution")),
    radius=st.sampled_from([1e-7, 1e-3, 0.1, 1.0]),
    precision=st.sampled_from([np.float32, np.float64]),
)
def test_bounds_hold_at_sampled_codes(seed, activation, radius, precision):
    """Claim: intervals of all layers and rows pulled back hold at every code of a box."""
    rng = np.random.default_rng(seed)
    if activation == "convolution":
        generator = _convolution(rng, 3)
    else:
        generator = _deep(rng, (3, 24, 24, 8), activation, head="leaky_relu(0.5)")
    low = rng.normal(size=(2, 3))
    high = low + radius * rng.uniform(0.1, 1.0, size=(2, 3))
    network = as_network(generator)
    forms = linear_bounds(network.cast(precision), low, high)
    rows = rng.normal(size=(2, 4, generator.layers[-1].output_size))
    pulled = [pull_back(network, forms, rows, values) for values in (False, True)]
    for box in range(2):
        z = low[box] + (high[box] - low[box]) * rng.uniform(size=(200, 3))
        z[:8] = np.where(rng.uniform(size=(8, 3)) < 0.5, low[box], high[box])
        exact = generator.preactivations(z)
        for i, a in enumerate(exact):
            assert (a >= forms.lower[i][:, box]).all()
            assert (a <= forms.upper[i][:, box]).all()
        for found, values in zip(pulled, (exact[-1], generator(z)), strict=True):
            top = z @ found.slope[box].T + found.shift[box]
            assert (values @ rows[box].T <= top).all()


def test_bounds_are_exact_where_no_sign_is_open():
    """Claim: on one linear piece the bounds are the piece itself, up to rounding."""
    rng = np.random.default_rng(0)
    generator = _deep(rng, (3, 30, 30, 10))
    z = rng.normal(size=(1, 3))
    network = as_network(generator)
    forms = linear_bounds(network, z - 1e-9, z + 1e-9)
    ends = zip(forms.lower[:-1], forms.upper[:-1], strict=True)
    assert all(((low >= 0) | (high <= 0)).all() for low, high in ends)
    rows = rng.normal(size=(1, 5, 10))
    found = pull_back(network, forms, rows)
    top = found.slope[0] @ z[0] + found.shift[0]
    assert np.allclose(top, rows[0] @ generator(z[0]), atol=1e-10, rtol=0)


def test_no_code_that_explains_is_cut_off():
    """Claim: contraction keeps every code within the radius, and bounds the misfit of the rest."""
    rng = np.random.default_rng(1)
    generator = _deep(rng, (2, 20, 20, 12), head="leaky_relu(0.2)")
    contractor = Contractor.of(as_network(generator))
    axis = np.linspace(-1, 1, 81)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    x = generator(np.array([0.3, -0.2])) + 0.01 * rng.normal(size=12)
    misfit = np.linalg.norm(generator(grid) - x, axis=1)
    radius = float(np.quantile(misfit, 0.02))
    low = rng.uniform(-1, 0.9, size=(60, 2))
    high = np.minimum(low + rng.uniform(0.01, 1.0, size=(60, 2)), 1.0)
    found = contractor.contract(low, high, Ball(x, radius))
    cut = 0
    for box in range(60):
        inside = ((grid >= low[box]) & (grid <= high[box])).all(axis=1)
        left = ((grid >= found.low[box]) & (grid <= found.high[box])).all(axis=1)
        explain = inside & (misfit <= radius)
        assert not (explain & found.empty[box]).any()
        assert not (explain & ~left).any()
        assert (misfit[inside] >= found.misfit[box]).all()
        cut += bool(found.empty[box])
    assert cut > 20


def _certified(seed, noise=0.003, shift=0.0, **changes):
    rng = np.random.default_rng(seed)
    head = changes.pop("head", "identity")
    generator = (
        _convolution(rng) if head == "convolution" else _deep(rng, (2, 90, 90, 20), head=head)
    )
    z = rng.uniform(-0.9, 0.9, size=2)
    x = generator(z)
    x += noise * rng.uniform(-1, 1, size=x.shape) + shift
    return generator, x, z, preimage.certify(generator, x, noise=noise, box=1.0, **changes)


@pytest.mark.parametrize("head", ["identity", "relu", "leaky_relu(0.1)", "tanh", "convolution"])
def test_verdicts_agree_with_a_grid(head):
    """Claim: unique codes are near the truth, infeasible ones are nowhere on a fine grid."""
    axis = np.linspace(-1, 1, 151)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    verdicts = set()
    for seed in range(2):
        for shift in (0.0, 0.5):
            noise = 0.001 if head == "tanh" else 0.003
            generator, x, z, found = _certified(seed, noise, shift, head=head)
            assert "subdivision" in found.claims[0].proof
            verdicts.add(str(found.verdict))
            misfit = np.abs(generator(grid) - x).max(axis=1)
            if found.verdict == "infeasible":
                assert (misfit > noise).all()
            else:
                explain = grid[misfit <= noise]
                assert ((explain >= found.lower) & (explain <= found.upper)).all()
                if not shift:
                    assert ((z >= found.lower) & (z <= found.upper)).all()
                if found.verdict == "unique":
                    assert np.abs(found.witness - z).max() <= found.distance
    assert {"unique", "infeasible"} <= verdicts


def test_no_subdivision_is_deeper_than_the_checker_follows(monkeypatch):
    """Claim: splits end at the largest depth; what is left encloses the code, and is accepted."""
    monkeypatch.setattr(checker, "DEPTH", 6)
    monkeypatch.setattr(checker.forms, "DEPTH", 6)
    _, _, z, found = _certified(0)
    assert found.verdict == "undecided"
    assert found.reason == "a part is neither empty nor near, by less than can be told"
    assert "split" in str(found.claims[0].proof["subdivision"])
    assert ((z >= found.lower) & (z <= found.upper)).all()
    assert (found.upper - found.lower < 2).any()


def test_hidden_pixels_demand_nothing():
    """Claim: with a mask, codes are excluded by what was seen alone."""
    rng = np.random.default_rng(5)
    generator = _deep(rng, (2, 90, 90, 20))
    z, seen = np.array([0.3, -0.4]), np.arange(20) % 4 > 0
    x = np.where(seen, generator(z), 1e3)
    found = preimage.certify(generator, x, noise=1e-3, box=1.0, sensing=seen)
    assert "subdivision" in found.claims[0].proof
    assert found.verdict == "unique"
    assert np.abs(found.witness - z).max() <= found.distance


def test_two_codes_are_ambiguous():
    """Claim: |z| cannot tell z from -z, and an interval of codes is not one code."""
    rng = np.random.default_rng(3)
    first = np.array([[1.0], [-1.0]])
    wide = rng.normal(size=(200, 2)) @ np.ones((2, 2))
    generator = preimage.from_arrays([first, wide, rng.normal(size=(6, 200))], head="identity")
    found = preimage.certify(generator, generator([0.5]), noise=1e-3, box=1.0)
    assert found.verdict == "ambiguous"
    assert found.distance > 0.9


def test_one_latent_and_one_output_is_decided():
    """Claim: the set of a 1-128-128-128-1 network is an interval, or several: never undecided."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        generator = _deep(rng, (1, 128, 128, 128, 1))
        x = generator([0.4])
        found = preimage.certify(generator, x, noise=0.01, box=1.0, time_limit=20.0)
        assert found.verdict in ("unique", "ambiguous")
        grid = np.linspace(-1, 1, 20001)[:, None]
        explain = grid[np.abs(generator(grid) - x).max(axis=1) <= 0.01]
        spread = np.ptp(explain)
        assert found.verdict == ("ambiguous" if spread > 0.02 else found.verdict)


def _parts(found, generator, record):
    layers = exact_layers(generator)
    claim = copy.deepcopy(found.claims[0].record())
    claim["proof"] = record
    sample = checker.read_sample(claim, layers)
    checker.prove(layers, sample, boxes.remaining)


def test_forged_subdivisions_are_refused():
    """Claim: no token can be changed so that the truth is lost; the form is strict."""
    generator, _, z, found = _certified(0)
    assert found.verdict == "unique"
    tokens = found.claims[0].proof["subdivision"]
    _parts(found, generator, {"subdivision": tokens})
    forged = []
    for i, token in enumerate(tokens):
        if token[0] == "box":
            forged.append([*tokens[:i], ["empty", []], *tokens[i + 1 :]])
    whole = [["empty", []]]
    away = [["cut", *([v.hex() for v in z + s] for s in (0.02, 0.05)), []], ["box"]]
    outside = [["cut", [(-3.0).hex()] * 2, [(3.0).hex()] * 2, []], ["box"]]
    forged += [whole, away, outside, tokens[:-1], [*tokens, ["box"]], [], [["box", []]],
               [["split", True, "0x0.0p+0"], ["box"], ["box"]], [["split", 0, 0.0]], ["box"],
               [["split", 2, (0.5).hex()], ["box"], ["box"]], [["nothing"]], [[]], {}]  # fmt: skip
    assert len(forged) > 12
    for record in forged:
        with pytest.raises((ValueError, TypeError)):
            _parts(found, generator, {"subdivision": record})


def test_the_standard_library_checker_says_what_it_cannot_do():
    generator, _, _, found = _certified(0)
    layers = exact_layers(generator)
    sample = checker.read_sample(found.claims[0].record(), layers)
    with pytest.raises(ValueError, match="preimage check"):
        checker.prove(layers, sample)


def test_intervals_of_an_open_head_are_those_of_the_box():
    """Claim: an observation of 0 under a ReLU bounds the pre-activation from above alone."""
    generator = preimage.from_arrays([np.eye(2)])
    contractor = Contractor.of(as_network(generator))
    low, high = -np.ones((1, 2)), np.ones((1, 2))
    ends = Interval(np.array([-np.inf, 0.4]), np.array([0.1, 0.6]))
    found = contractor.contract(low, high, ends)
    assert found.low[0] == pytest.approx([-1.0, 0.4], abs=1e-4)
    assert found.high[0] == pytest.approx([0.1, 0.6], abs=1e-4)


def test_the_band_of_a_subdivision_is_finite():
    """Claim: the band is no wider than the observation says, and holds G of the true code."""
    rng = np.random.default_rng(1)
    generator = _deep(rng, (2, 100, 100, 40))
    z = rng.uniform(-1, 1, size=2)
    found = preimage.certify(generator, generator(z), noise=0.05, box=1.0)
    assert "subdivision" in found.claims[0].proof
    low, high = preimage.reconstruction_band(generator, found)
    assert ((low <= generator(z)) & (generator(z) <= high)).all()
    assert (high - low).max() <= 0.1 + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_the_verdict_changes_where_the_codes_reach_the_resolution(seed):
    """Claim: S a little wider than the resolution is ambiguous, a little narrower unique.

    How wide S is says SciPy, on the linear piece that holds S.
    """
    generator, x, _, found = _certified(seed)
    witness = found.witness
    jacobian, rest = generator.jacobian(witness), x - generator(witness)
    ends = np.concatenate([0.003 + rest, 0.003 - rest])
    rows, far = np.vstack([jacobian, -jacobian]), []
    for direction in (*np.eye(2), *-np.eye(2)):
        best = linprog(direction, rows, ends, bounds=(None, None))
        assert np.abs(generator(witness + best.x) - x).max() <= 0.003 * (1 + 1e-9)  # on the piece
        far.append(best.x)
    width = np.ptp(far, axis=0).max()
    for factor, verdict in ((0.99, "ambiguous"), (0.999, "ambiguous"), (1.001, "unique")):
        again = preimage.certify(
            generator, x, noise=0.003, box=1.0, resolution=factor * width, time_limit=10
        )
        assert again.verdict == verdict, (factor, again.reason)


def test_what_exceeds_the_noise_in_few_places_is_refuted():
    """Claim: where most errors are below the noise, the few above it refute a small box.

    No linear program is needed.
    """
    rng = np.random.default_rng(0)
    generator = _deep(rng, (2, 90, 90, 60))
    z = rng.uniform(-0.5, 0.5, size=2)
    x = generator(z) + 0.5 * rng.uniform(-1, 1, size=60)
    x[7] = generator(z)[7] + 1.01
    low, high = z[None] - 1e-12, z[None] + 1e-12
    contractor = Contractor.of(as_network(generator))
    found = contractor.contract(low, high, Interval(x - 1.0, x + 1.0))
    assert found.empty.all()
    assert not found.rows.any()
    assert not contractor.contract(low, high, Interval(x - 1.02, x + 1.02)).empty.any()
