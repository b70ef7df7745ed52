"""The kernel by itself, without HiGHS behind it: verdicts, proofs, batches."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from degenerate import DOMAINS, SCALED, SLACKS, draw, judge, rescaled, units, value_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planted import program_of
from scipy import sparse

from preimage import LayerwiseLP, engine, from_arrays, invert, lp
from preimage.generator import Layer
from preimage.layer_program import LayerProgram, take
from preimage.lp import Outcome, kernel
from preimage.lp.duality import dual_bound
from preimage.slab import Slab


def check(program, found, right, columns=1.0):
    """Claim: the verdict is HiGHS's, or none; values agree, in the units of ``program``."""
    if found.outcome[0] == Outcome.FAILED:
        return
    assert found.outcome[0] == right.outcome[0]
    if found.outcome[0] == Outcome.OPTIMAL:
        value = value_of(program, found.z * columns)
        np.testing.assert_allclose(value, right.value, rtol=1e-6, atol=1e-6)


@settings(max_examples=300)
@given(seed=st.integers(0, 10**9), slack=st.sampled_from(SLACKS))
@example(seed=25095, slack="none")  # a ray whose fall was within the rows' tolerance
@example(seed=18931, slack="none")  # a Farkas proof of rounding errors
@example(seed=170, slack="none")  # another, of multipliers that cancel but for rounding
def test_verdicts_are_those_of_highs(seed, slack):
    program = draw(np.random.default_rng(seed), slack)
    right = lp.solve(program, "highs")
    if right.outcome[0] != Outcome.FAILED:
        check(program, kernel.minimise(program), right)


def test_the_verdicts_of_the_benchmark():
    """Claim: of its first 400 programs none is wrong, and fewer than 2 % stay open."""
    found = [judge(seed) for seed in range(400)]
    assert set(found) <= {"right", "open"}
    assert found.count("open") < 8


@pytest.mark.parametrize("what", SCALED[1:])
@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**9),
    slack=st.sampled_from(SLACKS),
    exponent=st.sampled_from([-12, -6, 6, 12]),
)
def test_scaled_programs_have_the_verdict_of_the_unscaled_one(seed, slack, exponent, what):
    rng = np.random.default_rng(seed)
    program = draw(rng, slack)
    right = lp.solve(program, "highs")
    rows, columns = units(program, what, exponent, rng)
    if right.outcome[0] != Outcome.FAILED:
        scaled = rescaled(program, rows, columns)
        check(program, kernel.minimise(scaled), right, columns)


@pytest.mark.parametrize("slack", SLACKS)
def test_it_settles_nearly_everything(slack):
    """Claim: it does not hide behind 'failed'; fewer than 2 % of degenerate programs stay open."""
    count = 300
    programs = [draw(np.random.default_rng(seed), slack) for seed in range(count)]
    failed = sum(kernel.minimise(p).outcome[0] == Outcome.FAILED for p in programs)
    assert failed < 0.02 * count


def exact(values):
    return [Fraction(float(value)) for value in values]


def exact_bound(program, lam, ups, price):
    """Weak duality in rational arithmetic: a bound that no rounding can make wrong."""
    weight = [exact(row) for row in program.weight]
    lam, ups = exact(np.maximum(lam, 0)), exact(np.maximum(ups, 0))
    rows = range(len(weight))
    paid = [Fraction(0)] * len(weight)
    if program.slack != "none":
        low_rate, up_rate = exact(program.slab.lower_rate[0]), exact(program.slab.upper_rate[0])
        paid = [lam[j] * low_rate[j] + ups[j] * up_rate[j] for j in rows]
    if price:
        # Shrunk until the slack pays for them exactly.
        spent = sum(paid) if program.slack == "shared" else max(paid)
        lam, ups = ([m / max(spent, Fraction(1)) for m in part] for part in (lam, ups))
    else:
        assert not any(paid)
    bound = Fraction(0)
    for j in rows:
        for multiplier, end, sign in (
            (lam[j], program.slab.lower[0, j], 1),
            (ups[j], program.slab.upper[0, j], -1),
        ):
            if multiplier:
                bound += sign * multiplier * Fraction(float(end))
    low, high = program.box()
    for a in range(program.weight.shape[1]):
        cost = Fraction(float(program.objective[0, a])) if price else Fraction(0)
        reduced = cost + sum(weight[j][a] * (ups[j] - lam[j]) for j in rows)
        bound += reduced * Fraction(float(low[0, a] if reduced > 0 else high[0, a]))
    return bound


@settings(max_examples=150)
@given(seed=st.integers(0, 10**9), slack=st.sampled_from(SLACKS))
def test_proofs_hold_in_rational_arithmetic(seed, slack):
    """Claim: over a box, multipliers give a bound within 1e-9 of the value, or above 0 (Farkas)."""
    program = replace(draw(np.random.default_rng(seed), slack), domain=(-2.0, 3.0))
    found = kernel.minimise(program)
    assert found.outcome[0] != Outcome.UNBOUNDED
    if found.outcome[0] == Outcome.OPTIMAL:
        bound = exact_bound(program, found.dual_lower[0], found.dual_upper[0], True)
        value = value_of(program, found.z)[0]
        assert abs(float(Fraction(float(value)) - bound)) <= 1e-9 * max(1.0, abs(value))
    elif found.outcome[0] == Outcome.INFEASIBLE:
        assert exact_bound(program, found.dual_lower[0], found.dual_upper[0], False) > 0


@settings(max_examples=100)
@given(seed=st.integers(0, 10**9), slack=st.sampled_from(SLACKS))
def test_rays_hold_in_rational_arithmetic(seed, slack):
    """Claim: along a ray every bound is kept and the value falls."""
    rng = np.random.default_rng(seed)
    program = replace(draw(rng, slack), domain=DOMAINS[int(rng.integers(2))])
    k = program.weight.shape[1]
    program = replace(program, objective=rng.integers(-2, 3, size=(1, k)).astype(float))
    found = kernel.minimise(program)
    if found.outcome[0] != Outcome.UNBOUNDED:
        return
    ray = exact(found.ray[0])
    change = sum(c * r for c, r in zip(exact(program.objective[0]), ray, strict=True))
    scale = max(abs(r) for r in ray)
    slab, need = program.slab, []
    for j, row in enumerate(program.weight):
        move = sum(w * r for w, r in zip(exact(row), ray, strict=True))
        for side, bound, rate in (
            (-move, slab.lower[0, j], slab.lower_rate[0, j]),
            (move, slab.upper[0, j], slab.upper_rate[0, j]),
        ):
            if np.isinf(bound) or side <= 0:
                continue
            if program.slack == "none" or rate == 0:
                assert side <= scale * Fraction(1, 10**9)
            else:
                need.append((j, side / Fraction(float(rate))))
    if program.slack == "shared":
        change += max((d for _, d in need), default=Fraction(0))
    else:
        change += sum(max(d for i, d in need if i == j) for j in {i for i, _ in need})
    assert change < 0
    low, _ = program.box()
    assert (found.ray[0][low[0] == 0] >= 0).all()


def batch_of(n, k, slack, count, many):
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(n, k)) / np.sqrt(n)
    layer = Layer(weight)
    z = np.maximum(rng.normal(size=(count, k)), 0)
    x = layer(z) + rng.uniform(-0.01, 0.01, size=(count, n))
    norm = {"shared": "linf", "own": "l1", "none": "relaxed"}[slack]
    program = program_of(layer, x, np.full(count, 0.01), norm, (0.0, np.inf))
    # One infeasible or unbounded sample must not disturb its neighbours.
    program.slab.lower[1], program.slab.lower_rate[1] = program.slab.upper[1] + 1, 0.0
    program.slab.upper_rate[1] = 0.0
    if many:
        program = replace(program, weight=weight * rng.uniform(0.9, 1.1, size=(count, 1, 1)))
    return program


def bits(settled):
    parts = (settled.z, settled.dual_lower, settled.dual_upper, settled.ray, settled.steps)
    return [[part[i].tobytes() for part in parts] for i in range(len(settled.z))]


@pytest.mark.parametrize("slack", SLACKS)
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("shape", [(45, 7), (130, 33)])
def test_bits_do_not_depend_on_company_or_threads(slack, many, shape, monkeypatch):
    """Claim: alone, in a batch of any size and order, on 1 to 4 threads: the same bits."""
    program = batch_of(*shape, slack, 21, many)
    right = bits(kernel.minimise(program))
    for threads in (4, 3, 1, 2):
        monkeypatch.setenv("PREIMAGE_NUM_THREADS", str(threads))
        assert bits(kernel.minimise(program)) == right
    order = np.random.default_rng(0).permutation(21)
    shuffled = bits(kernel.minimise(take(program, order)))
    assert [shuffled[i] for i in np.argsort(order)] == right
    for first, last in ((0, 1), (1, 2), (2, 11), (20, 21)):
        part = take(program, slice(first, last))
        assert bits(kernel.minimise(part)) == right[first:last]


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (64, 15), (65, 16), (130, 33), (300, 64)])
@pytest.mark.parametrize("slack", ["shared", "own"])
def test_sizes_around_whole_tiles(shape, slack):
    """Claim: padding is invisible; values are those of HiGHS and the kernel leaves none open."""
    program = take(batch_of(*shape, slack, 5, False), [0, 2, 3, 4])
    solution = lp.solve(program, "kernel")
    assert not solution.fallback.any()
    right = lp.solve(program, "highs")
    np.testing.assert_allclose(solution.value, right.value, rtol=1e-7, atol=1e-12)


@pytest.mark.skipif(engine.library() is None, reason="HiGHS leaves errors of its tolerance")
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_a_slack_of_nothing_is_proven(norm):
    """Claim: without noise the least slack is 0, which needs no multipliers and no other solver."""
    rng = np.random.default_rng(0)
    layer = Layer(rng.normal(size=(200, 80)) / np.sqrt(200))
    x = layer(np.maximum(rng.normal(size=(40, 80)), 0))
    program = program_of(layer, x, np.zeros(40), norm, (0.0, np.inf))
    solution = lp.solve(program, "kernel")
    assert not solution.fallback.any()
    assert solution.value.max() < 1e-12
    useless = np.full_like(program.slab.lower, 1e3)  # more than the slack can pay for
    assert (dual_bound(program, useless, useless) == 0).all()


@pytest.mark.parametrize("noise", [1e-5, 1e-6, 1e-7])
def test_small_noise_before_a_sigmoid_is_solved_under_l1(noise):
    """Claim: bounds that differ by the rounding of an inverse keep few programs open."""
    left = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        layer = Layer(rng.normal(size=(100, 50)) / 10, activation="sigmoid")
        x = layer(np.maximum(rng.normal(size=(1, 50)), 0))
        x += noise * rng.uniform(-1, 1, size=x.shape)
        program = program_of(layer, x, np.full(1, noise), "l1", (0.0, np.inf))
        left += kernel.minimise(program).outcome[0] == Outcome.FAILED
    assert left <= 2


@pytest.mark.skipif(engine.library() is None, reason="HiGHS solves them all")
@pytest.mark.parametrize("sizes", [(3, 20, 60), (4, 30, 100), (5, 60, 200), (8, 150, 300)])
@pytest.mark.parametrize("noise", [3e-5, 1e-6, 1e-7, 1e-8])
def test_saturated_pixels_of_a_sigmoid_need_no_other_solver(sizes, noise, monkeypatch):
    """Claim: bounds near 20 beside values near the noise leave hardly a program to HiGHS.

    Pixels of 0 and 1 have bounds that are far away, at a price that is nearly nothing.
    """
    rng = np.random.default_rng(0)
    pairs = list(itertools.pairwise(sizes))
    weights = [rng.normal(size=(n, k)) * np.sqrt(2 / k) for k, n in pairs]
    biases = [rng.normal(size=n) / 10 for n in sizes[1:]]
    generator = from_arrays(weights, biases, head="sigmoid")
    clean = generator(rng.normal(size=(6, sizes[0])))
    x = np.clip(clean + noise * rng.uniform(-1, 1, size=clean.shape), 0, 1)
    ends = rng.random(x.shape) < 0.05
    x[ends] = rng.random(ends.sum()) < 0.5
    calls, solve = [], lp.highs.solve
    monkeypatch.setattr(lp.highs, "solve", lambda *given: calls.append(1) or solve(*given))
    found = invert(generator, x, "l1", noise=noise)
    assert len(calls) <= 2
    if sizes[-1] > 100:  # HiGHS takes seconds for each
        return
    reference = invert(generator, x[:1], LayerwiseLP("l1", backend="highs"), noise=noise)
    np.testing.assert_allclose(found.latent[0], reference.latent[0], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(engine.library() is None, reason="HiGHS has no start")
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("shape", [(30, 4), (60, 5), (200, 10)])
def test_errors_of_one_sign_are_no_start_on_the_boundary(shape, sign):
    """Claim: where all equations err to the same side, the start still keeps its distance."""
    rng, (n, k) = np.random.default_rng(1), shape
    weight = np.column_stack([rng.normal(size=(n, k - 1)), np.zeros(n)]) / np.sqrt(n)
    x = sign * np.abs(rng.normal(size=(20, n))) * 3
    one = np.ones_like(x)
    program = LayerProgram(
        weight, Slab(x, one, x, one), "own", np.zeros((20, k)), (-np.inf, np.inf)
    )
    near = replace(program, domain=(-1e-3, 1e-3))
    for one_of in (program, near):
        found = kernel.minimise(one_of)
        assert (found.outcome == Outcome.OPTIMAL).all()
        right = lp.solve(take(one_of, slice(3)), "highs")
        np.testing.assert_allclose(one_of.slack_at(found.z)[:3], right.value, rtol=1e-7)


@pytest.mark.parametrize("slack", SLACKS)
def test_sparse_matrices_are_solved(slack):
    """Claim: a matrix of few entries has HiGHS's values, and nothing is left open."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(300, 64)) * (rng.random((300, 64)) < 0.05)
    weight[np.arange(64), np.arange(64)] = 1.0
    layer = Layer(sparse.csr_array(weight))
    z = np.maximum(rng.normal(size=(4, 64)), 0)
    x = layer(z) + rng.uniform(-0.01, 0.01, size=(4, 300))
    norm = {"shared": "linf", "own": "l1", "none": "relaxed"}[slack]
    program = program_of(layer, x, np.full(4, 0.01), norm, (0.0, np.inf))
    solution = lp.solve(program, "kernel")
    assert not solution.fallback.any()
    right = lp.solve(program, "highs")
    np.testing.assert_allclose(solution.value, right.value, rtol=1e-7, atol=1e-12)


def test_wide_sparse_matrices_are_left_to_highs():
    """Claim: the last layer of a convolutional decoder does not take minutes."""
    rng = np.random.default_rng(4)
    columns = np.arange(8192) % 40
    entries = rng.normal(size=8192), (columns, np.arange(8192))
    layer = Layer(sparse.csr_array(entries, shape=(40, 8192)))
    x = layer(np.maximum(rng.normal(size=(2, 8192)), 0)) * 0.1
    program = program_of(layer, x, np.full(2, 0.01), "linf", (0.0, np.inf))
    assert (kernel.minimise(program).outcome == Outcome.FAILED).all()
    solution = lp.solve(program, "kernel")
    assert solution.fallback.all()
    assert (solution.outcome == Outcome.OPTIMAL).all()
    np.testing.assert_allclose(solution.slack, 0.0, atol=1e-9)


@settings(max_examples=100)
@given(seed=st.integers(0, 10**9), slack=st.sampled_from(SLACKS))
@example(seed=7214, slack="shared")  # the start's small weights on the box make a pivot of 1e-7
def test_full_rank_is_claimed_only_where_it_holds(seed, slack):
    """Claim: rows with two sides have full column rank wherever the kernel says so."""
    program = draw(np.random.default_rng(seed), slack)
    two_sided = np.isfinite(program.slab.lower[0]) & np.isfinite(program.slab.upper[0])
    rows = program.weight[two_sided]
    if kernel.minimise(program).full[0]:
        assert np.linalg.matrix_rank(rows) == program.weight.shape[1]


@pytest.mark.skipif(engine.library() is None, reason="only the kernel says it")
def test_full_rank_is_seen():
    """Claim: the kernel sees it with more equations than unknowns, and not with fewer."""
    layer = Layer(np.random.default_rng(0).normal(size=(60, 12)))
    x = layer(np.random.default_rng(1).normal(size=(3, 12)))
    x[2, 8:] = 0.0
    program = program_of(layer, x, np.full(3, 1e-3), "linf", (-np.inf, np.inf))
    assert kernel.minimise(program).full.tolist() == [True, True, False]
