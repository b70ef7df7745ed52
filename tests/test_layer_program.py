"""Claim: optimal values equal those of the formulas of the paper, written out independently.

The oracle states each case of Algorithms 1 and 2, Remark 1 and equation 8 row by row, as the
paper prints them, and hands them to GLPK's simplex method (through cvxopt).
"""

import cvxopt
import numpy as np
import pytest
from planted import program_of

from preimage import Identity, LeakyReLU, ReLU, lp
from preimage.generator import Layer

DRAWS = 50


def paper_rows(activation, x, eps):
    """``(sign, j, factor, constant)``: sign * (w_j z + b_j) <= sign * constant + factor * d."""
    rows = []
    for j, value in enumerate(x):
        if isinstance(activation, Identity):
            rows += [(+1, j, 1.0, value), (-1, j, 1.0, value)]
        elif isinstance(activation, ReLU):
            rows.append((+1, j, 1.0, value))
            if value > eps:
                rows.append((-1, j, 1.0, value))
        else:
            c = activation.slope
            if value > eps:
                rows += [(+1, j, 1.0, value), (-1, j, 1.0, value)]
            elif value >= -eps:
                rows += [(+1, j, 1.0, value), (-1, j, 1 / c, value / c)]
            else:
                rows += [(+1, j, 1 / c, value / c), (-1, j, 1 / c, value / c)]
    return rows


def relaxed_rows(activation, x, eps):
    rows = [(+1, j, 0.0, value + eps) for j, value in enumerate(x)]
    if isinstance(activation, Identity):
        rows += [(-1, j, 0.0, value - eps) for j, value in enumerate(x)]
    if isinstance(activation, LeakyReLU):
        rows += [(-1, j, 0.0, min(0.0, v - eps) / activation.slope) for j, v in enumerate(x)]
    return rows


def oracle(layer, x, eps, norm, nonnegative):
    (n, k), w, b = layer.weight.shape, layer.weight, layer.bias
    rows = (relaxed_rows if norm == "relaxed" else paper_rows)(layer.activation, x, eps)
    slacks = {"linf": 1, "l1": n, "relaxed": 0}[norm]
    left, right = np.zeros((len(rows), k + slacks)), np.zeros(len(rows))
    for i, (sign, j, factor, constant) in enumerate(rows):
        left[i, :k] = sign * w[j]
        right[i] = sign * (constant - b[j])
        if slacks:
            left[i, k + (j if norm == "l1" else 0)] = -factor
    cost = np.concatenate([np.zeros(k), np.ones(slacks)])
    if norm == "relaxed":
        push = np.maximum(x, 0) if isinstance(layer.activation, ReLU) else x
        cost = -(push @ w)
    positive = np.eye(k + slacks)[0 if nonnegative else k :]
    result = cvxopt.solvers.lp(
        cvxopt.matrix(cost),
        cvxopt.matrix(np.vstack([left, -positive])),
        cvxopt.matrix(np.concatenate([right, np.zeros(len(positive))])),
        solver="glpk",
        options={"glpk": {"msg_lev": "GLP_MSG_OFF"}},
    )
    assert result["status"] == "optimal"
    return result["primal objective"]


@pytest.mark.parametrize("backend", ["highs", "kernel"])
@pytest.mark.parametrize("norm", ["linf", "l1", "relaxed"])
@pytest.mark.parametrize(
    "activation", [ReLU(), LeakyReLU(0.1), LeakyReLU(0.3), Identity()], ids=repr
)
def test_value_equals_the_papers_formulation_by_another_solver(activation, norm, backend):
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        k = int(rng.integers(1, 8))
        n = int(rng.integers(2 * k, 6 * k + 2))
        layer = Layer(rng.normal(size=(n, k)), 0.1 * rng.normal(size=n), activation)
        nonnegative = bool(draw % 2)
        truth = np.maximum(rng.normal(size=(1, k)), 0) if nonnegative else rng.normal(size=(1, k))
        eps = 10.0 ** -rng.integers(1, 4)
        # Half of the draws have noise beyond eps, so that the slack is really needed.
        x = layer(truth) + rng.uniform(-1, 1, size=(1, n)) * eps * (0.9 if draw % 4 < 2 else 3)
        if norm == "relaxed" and draw % 4 >= 2:
            x = layer(truth) + rng.uniform(-0.9, 0.9, size=(1, n)) * eps
        domain = (0.0, np.inf) if nonnegative else (-np.inf, np.inf)
        program = program_of(layer, x, np.array([eps]), norm, domain)
        solution = lp.solve(program, backend)
        assert solution.outcome[0] == "optimal"
        expected = oracle(layer, x[0], eps, norm, nonnegative)
        assert solution.value[0] == pytest.approx(expected, rel=1e-7, abs=1e-9)
