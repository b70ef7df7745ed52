"""Feasible, infeasible, unbounded, degenerate and badly scaled programs, each backend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import program_of
from scipy import sparse
from scipy.optimize import linprog

from preimage import InputError, engine, lp
from preimage.clock import Clock
from preimage.generator import Layer
from preimage.layer_program import LayerProgram
from preimage.lp.duality import dual_bound
from preimage.slab import Slab

FREE = (-np.inf, np.inf)
BACKENDS = ["kernel", "highs"]


def polytope(weight, lower, upper, objective, domain=FREE):
    weight = np.asarray(weight, dtype=float)
    zero = np.zeros((1, len(weight)))
    slab = Slab(np.atleast_2d(lower) + zero, zero, np.atleast_2d(upper) + zero, zero)
    return LayerProgram(weight, slab, "none", np.atleast_2d(np.asarray(objective, float)), domain)


@pytest.mark.parametrize("backend", BACKENDS)
def test_planted_vertex(backend):
    solution = lp.solve(polytope(np.eye(2), [1, 2], [5, 5], [1, 1]), backend)
    np.testing.assert_allclose(solution.z, [[1, 2]], atol=1e-8)
    np.testing.assert_allclose(solution.value, [3], atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_infeasible_is_said_and_gives_no_point(backend):
    solution = lp.solve(polytope([[1.0], [1.0]], [2, -9], [9, 1], [1]), backend)
    assert solution.outcome[0] in ("infeasible", "failed")
    assert np.isnan(solution.z).all()


def test_highs_tells_infeasible_from_unbounded():
    infeasible = lp.solve(polytope([[1.0], [1.0]], [2, -9], [9, 1], [1]))
    unbounded = lp.solve(polytope([[1.0]], [-np.inf], [1], [1]))
    assert infeasible.outcome[0] == "infeasible"
    assert unbounded.outcome[0] == "unbounded"
    assert np.isnan(unbounded.value).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("exponent", [-12, -10, -6, 0, 6, 12])
def test_tiny_and_huge_weights_are_scaled_away(backend, exponent):
    """HiGHS drops matrix entries below 1e-9: unscaled, weights of 1e-10 give a wrong optimum."""
    rng = np.random.default_rng(0)
    layer = Layer(rng.normal(size=(30, 4)) * 10.0**exponent)
    z = np.abs(rng.normal(size=(1, 4)))
    x = layer(z)
    program = program_of(layer, x, np.array([1e-9 * x.max()]), "linf", (0, np.inf))
    np.testing.assert_allclose(lp.solve(program, backend).z, z, rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_very_different_size(backend):
    rng = np.random.default_rng(1)
    rows = 10.0 ** rng.integers(-6, 7, size=40)
    layer = Layer(rng.normal(size=(40, 4)) * rows[:, None])
    z = np.abs(rng.normal(size=(1, 4)))
    slab = layer.activation.slab(layer(z), 0.0)
    program = LayerProgram(layer.weight, slab.at(0.0), "none", np.ones((1, 4)), (0, np.inf))
    np.testing.assert_allclose(lp.solve(program, backend).z, z, rtol=1e-5)


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["linf", "l1", "relaxed"]))
def test_backends_agree_on_degenerate_programs(seed, norm):
    """Duplicate, parallel and zero rows, zero columns, ties at zero."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 5))
    weight = rng.integers(-2, 3, size=(int(rng.integers(1, 9)), k)).astype(float)
    weight = np.vstack([weight, weight[:1], 2 * weight[:1], np.zeros(k)])
    layer = Layer(weight)
    x = np.maximum(rng.integers(-1, 3, size=(1, len(weight))), 0).astype(float)
    program = program_of(layer, x, np.array([0.1]), norm, (0.0, np.inf))
    first = lp.solve(program, "highs")
    assert first.outcome[0] != "failed"
    second = lp.solve(program, "kernel")
    assert first.outcome[0] == second.outcome[0]
    if first.outcome[0] == "optimal":
        np.testing.assert_allclose(first.value, second.value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", ["linf", "l1", "relaxed"])
def test_sparse_weights_have_the_dense_answer(backend, norm):
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(40, 5)) * (rng.random((40, 5)) < 0.5)
    z = np.abs(rng.normal(size=(3, 5)))
    x = Layer(weight)(z) + rng.uniform(-0.01, 0.01, size=(3, 40))
    values = [
        lp.solve(program_of(Layer(w), x, np.full(3, 0.01), norm, (0, np.inf)), backend).value
        for w in (weight, sparse.csr_array(weight))
    ]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(5, 0), (0, 3)])
def test_no_columns_or_no_rows(backend, shape):
    layer = Layer(np.zeros(shape), np.ones(shape[0]))
    program = program_of(layer, np.ones((2, shape[0])), np.full(2, 0.1), "linf", (0, np.inf))
    solution = lp.solve(program, backend)
    assert solution.z.shape == (2, shape[1])
    assert (solution.outcome == "optimal").all()


def test_a_lying_backend_is_not_believed(monkeypatch):
    """Claim: a point that violates the rows is a failure, whatever the solver calls it."""

    def liar(program, seconds, basis=None):
        point, none = np.full(len(program.cost), 1e3), np.zeros(len(program.bound))
        return lp.highs.Answer(lp.Outcome.OPTIMAL, point, none, -np.inf)

    monkeypatch.setattr(lp.highs, "minimise", liar)
    solution = lp.solve(polytope(np.eye(2), [1, 2], [5, 5], [1, 1]), "highs")
    assert solution.outcome[0] == "failed"
    assert np.isnan(solution.z).all()


def test_a_feasible_point_that_is_not_the_best_is_not_believed(monkeypatch):
    """Claim: an optimum is one that multipliers prove, whatever the solver calls it."""

    def early(program, seconds, basis=None):
        return real(program, seconds, basis=basis)._replace(point=np.full(len(program.cost), 4.0))

    real = lp.highs.minimise
    monkeypatch.setattr(lp.highs, "minimise", early)
    assert lp.solve(polytope(np.eye(2), [1, 2], [5, 5], [1, 1]), "highs").outcome[0] == "failed"


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_sums_of_errors_are_smallest(backend):
    """Claim: below HiGHS's tolerances, too, the gap to the proven bound is at most 1e-6."""
    rng, noise = np.random.default_rng(0), 1e-6
    layer = Layer(rng.normal(size=(100, 50)) / 10, activation="sigmoid")
    clean = layer(np.maximum(rng.normal(size=(3, 50)), 0))
    x = clean + noise * rng.uniform(-1, 1, size=clean.shape)
    found = lp.solve(program_of(layer, x, np.full(3, noise), "l1", (0, np.inf)), backend)
    assert (found.outcome == "optimal").all()
    program = program_of(layer, x, np.full(3, noise), "l1", (0, 1e2))
    bound = dual_bound(program, found.dual_lower, found.dual_upper)
    assert (found.value - bound <= 1e-6 * found.value).all()


def test_a_time_limit_ends_a_batch():
    """Claim: what is not reached in time is failed, with either backend."""
    rng = np.random.default_rng(0)
    layer = Layer(rng.normal(size=(40, 8)))
    x = layer(np.maximum(rng.normal(size=(5, 8)), 0))
    program = program_of(layer, x, np.full(5, 1e-3), "linf", (0, np.inf))
    for backend in BACKENDS:
        assert (lp.solve(program, backend, clock=Clock(0.0)).outcome == "failed").all()


def test_unknown_backend():
    with pytest.raises(InputError, match="expected one of kernel, highs, got 'glpk'"):
        lp.check_backend("glpk")


POINTS = np.linspace(0, 1, 200)
RUNGE = 1 / (1 + 25 * (2 * POINTS - 1) ** 2)
FITS = {
    "degree 7": (np.vander(POINTS, 8), RUNGE),
    "degree 9": (np.vander(POINTS, 10), RUNGE),
    "degree 10": (np.vander(POINTS, 11), RUNGE),
    "bumps": (
        np.exp(-(((POINTS[:, None] - np.linspace(0, 1, 12)) / 0.2) ** 2)),
        np.sin(6 * POINTS),
    ),
    "exponentials": (np.exp(-POINTS[:, None] * np.arange(1, 7)), np.cos(3 * POINTS)),
}


@pytest.mark.parametrize("backend", ["kernel", "highs"])
@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("fit", FITS)
def test_fits_of_ill_conditioned_functions(fit, norm, backend):
    """Claim: at conditions of 1e4 to 1e8 the optimum is found, not above that of SciPy's HiGHS."""
    weight, x = FITS[fit]
    layer = Layer(weight, activation="identity")
    program = program_of(layer, x[None], np.array([1e-3]), norm, FREE)
    solution = lp.solve(program, backend)
    linear = program.linear_program(0)
    bounds = np.stack([linear.lower, linear.upper], axis=1)
    found = linprog(linear.cost, linear.matrix, linear.bound, bounds=bounds).x
    # At its point, for SciPy's own value is that of rows which it violates a little.
    expected = program.slack_at(found[None, : layer.input_size])[0]
    assert solution.outcome[0] == "optimal"
    assert solution.value[0] <= expected * (1 + 1e-6)
    if backend == "kernel" and engine.library() is not None:
        assert not solution.fallback[0]
