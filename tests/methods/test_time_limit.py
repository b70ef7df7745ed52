"""Every method keeps its time limit: the best code so far, a status, and no more than a step."""

import time

import numpy as np
import pytest
from planted import gaussian_generator

import preimage
from preimage import METHODS, Adam, BranchAndBound, Exact, GaussNewton, LayerwiseLP, invert
from preimage.methods.perturbed import Perturbed

LIMIT = 0.3
SLOW = {
    **METHODS,
    "adam": Adam(steps=10**6),
    "gradient": preimage.GradientDescent(rate=1e-3, steps=10**7),
    "exact, highs": Exact("highs"),
    "linf, highs": LayerwiseLP(backend="highs"),
    "l1, highs": LayerwiseLP("l1", backend="highs"),
    "joint l1": GaussNewton(norm="l1", steps=10**6),
    "joint linf, highs": GaussNewton(norm="linf", backend="highs"),
    "many starts": GaussNewton(restarts=10**4, flip_rounds=100),
    "perturbed": Perturbed(np.full((40, 12), np.nan), rounds=10**4),
    "projected": preimage.ProjectedGradient(steps=10**6),
    "branch and bound": BranchAndBound(box=4.0, gap=1e-9),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_method_ends_in_time_with_a_code(name):
    """Claim: at most a tenth and a second beyond the limit, and every sample has a status."""
    rng = np.random.default_rng(0)
    generator = gaussian_generator((12, 40, 150), rng, bias=True)
    x = generator(rng.normal(size=(40, 12))) + 0.3 * rng.normal(size=(40, 150))
    start = time.perf_counter()
    found = invert(generator, x, SLOW[name], noise=1e-3, time_limit=LIMIT)
    assert time.perf_counter() - start <= 1.1 * LIMIT + 1
    late = found.status == "time_limit"
    assert np.isfinite(found.latent[late]).all()
    assert len(found.status) == 40


@pytest.mark.parametrize("name", ["exact", "linf", "l1", "relaxed", "auto", "gauss_newton"])
def test_what_is_late_at_once_has_a_rough_code(name):
    """Claim: without time for one program there is a code that is better than none."""
    rng = np.random.default_rng(0)
    generator = gaussian_generator((5, 30, 90), rng, bias=True)
    x = generator(rng.normal(size=(4, 5))) + 0.1 * rng.normal(size=(4, 90))
    found = invert(generator, x, name, time_limit=1e-9)
    assert (found.status == "time_limit").all()
    far = np.linalg.norm(x - generator(np.zeros((1, 5))), axis=1)
    assert (found.residual <= far).all()
    assert all(len(report.programs) == 4 for report in found.layers)
