"""Formulas as networks: decided as a SAT solver decides them, assignments read back."""

import itertools

import numpy as np
import pytest
from pysat.solvers import Cadical153

import preimage
from examples import hardness
from preimage import BranchAndBound, FormatError

METHOD = BranchAndBound(decide=True, box=(0.0, 1.0), rounds=0)


def _write(path, count, clauses):
    rows = "".join(" ".join(map(str, clause)) + " 0\n" for clause in clauses)
    path.write_text(f"c a comment\np cnf {count} {len(clauses)}\n{rows}")
    return path


def _random_formula(rng, count, ratio=4.26):
    clauses = []
    for _ in range(round(ratio * count)):
        variables = rng.choice(count, 3, replace=False) + 1
        clauses.append([int(v) for v in variables * rng.choice([-1, 1], size=3)])
    return clauses


@pytest.mark.parametrize("seed", range(8))
def test_random_formulas_are_decided_as_by_a_sat_solver(seed, tmp_path):
    """Claim: a code within the noise exists iff the formula is satisfiable; the code says how."""
    rng = np.random.default_rng(seed)
    count = 5 + seed % 4
    clauses = _random_formula(rng, count, ratio=4.26 + seed % 3)
    path = _write(tmp_path / "f.cnf", count, clauses)
    with Cadical153(bootstrap_with=clauses) as solver:
        satisfiable = solver.solve()
    generator, x = hardness.from_cnf(path)
    found = preimage.invert(generator, x, METHOD, noise=hardness.NOISE)
    assert (found.residual_max <= hardness.NOISE) == satisfiable
    assert (found.bound > hardness.NOISE) == (not satisfiable)
    if satisfiable:
        assert hardness.satisfies(path, hardness.assignment(found.latent))


def test_outputs_count_what_is_unsatisfied(tmp_path):
    """Claim: at 0/1 codes the outputs are (unsatisfied clauses, 0), for every assignment."""
    clauses = [[1, -2, 3], [-1, 2], [-3]]
    path = _write(tmp_path / "f.cnf", 3, clauses)
    generator, x = hardness.from_cnf(path)
    assert x.tolist() == [0.0, 0.0]
    for values in itertools.product((False, True), repeat=3):
        wrong = sum(not any(values[abs(v) - 1] == (v > 0) for v in clause) for clause in clauses)
        assert generator(np.array(values, dtype=float)).tolist() == [wrong, 0.0]
        assert hardness.satisfies(path, np.array(values)) == (wrong == 0)
    assert generator([0.5, 7.0, -3.0])[1] == 0.5


def test_the_preimage_is_not_convex():
    """Claim: Example 1: two preimages whose midpoint is none."""
    generator, x, corners = hardness.non_convex()
    assert np.array_equal(generator(corners), [x, x])
    assert not np.array_equal(generator(corners.mean(axis=0)), x)
    assert preimage.certify(generator, x, noise=0.0, box=2.0).verdict == "ambiguous"


@pytest.mark.parametrize("text", [
    "", "p cnf 0 0\n", "p sat 3 1\n1 0\n", "p cnf 2 1\n1 3 0\n", "p cnf 2 1\n1 2\n",
    "p cnf 2 2\n1 0\n", "p cnf 2 1\none 0\n", "p cnf 2\n", "p cnf 9999999 1\n1 0\n",
])  # fmt: skip
def test_malformed_files_are_refused(text, tmp_path):
    path = tmp_path / "f.cnf"
    path.write_text(text)
    with pytest.raises(FormatError):
        hardness.from_cnf(path)


def test_the_plane_shows_where_the_misfit_is_zero(tmp_path):
    """Claim: Example 1: dark at both preimages, not at the midpoint."""
    generator, x, corners = hardness.non_convex()
    figure = hardness.plane_figure(generator, x, corners)
    figure.savefig(tmp_path / "plane.png")
    misfit = figure.axes[0].images[0].get_array()
    assert misfit[200, 300] == misfit[200, 100] == 0.0
    assert misfit[200, 200] == 1.0
    with pytest.raises(preimage.InputError, match="two latent"):
        hardness.plane_figure(preimage.from_arrays([np.eye(3)]), np.zeros(3), corners)
