"""One bad sample never changes another: the same to 1e-9 alone, in a batch, in any order."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from planted import gaussian_generator
from scipy import sparse

from preimage import (
    METHODS,
    Adam,
    Auto,
    Exact,
    GaussNewton,
    GradientDescent,
    LayerwiseLP,
    ProjectedGradient,
    from_arrays,
    invert,
    zoo,
)
from preimage.matrix import slices

NOISE = 0.01
# Every method, with few steps: where the batch matters, it does at once.
CASES = {
    "auto": Auto(restarts=2),
    "exact": Exact(),
    "linf": LayerwiseLP(norm="linf"),
    "l1": LayerwiseLP(norm="l1"),
    "relaxed": LayerwiseLP(norm="relaxed", growth=4.0),
    "gauss_newton": GaussNewton(restarts=4, flip_rounds=1, steps=20),
    "projected_gradient": ProjectedGradient(
        GaussNewton(restarts=2, flip_rounds=0, steps=20), steps=3
    ),
    "gradient": GradientDescent(rate=0.5, steps=60),
    "adam": Adam(steps=40, restarts=2),
}
VARIANTS = {
    "one start": GaussNewton(restarts=1, flip_rounds=1, steps=30),
    "odd starts": GaussNewton(restarts=4, flip_rounds=0, steps=30),
    "many starts": GaussNewton(restarts=18, flip_rounds=0, steps=20),
    "start": GaussNewton(restarts=2, start=LayerwiseLP(), flip_rounds=0, steps=30),
    "box": GaussNewton(restarts=2, box=1.0, flip_rounds=1, steps=30),
    "ball": GaussNewton(restarts=2, ball=1.0, flip_rounds=1),
    "prior": GaussNewton(restarts=2, prior=0.1, flip_rounds=1, steps=30),
    "joint l1": GaussNewton(norm="l1", restarts=2, flip_rounds=0, steps=8),
    "joint linf": GaussNewton(norm="linf", restarts=2, flip_rounds=0, steps=8),
    "joint l1, kernel": GaussNewton(
        norm="l1", restarts=2, flip_rounds=0, steps=8, backend="kernel"
    ),
    "linf, kernel": LayerwiseLP(backend="kernel"),
    "l1, kernel": LayerwiseLP(norm="l1", backend="kernel"),
    "relaxed, kernel": LayerwiseLP(norm="relaxed", growth=4.0, backend="kernel"),
    "exact, kernel": Exact("kernel"),
    "linf in a box": LayerwiseLP(box=1.0),
    "projected exact": ProjectedGradient(Exact(), steps=3),
}


def test_every_method_has_a_case():
    assert set(CASES) == set(METHODS)


def network(activation, weights):
    rng = np.random.default_rng(0)
    generator = gaussian_generator((3, 11, 22), rng, activation, bias=True)
    if weights == "dense":
        return generator
    parts = [layer.weight * (rng.random(layer.weight.shape) < 0.6) for layer in generator.layers]
    biases = [layer.bias for layer in generator.layers]
    return from_arrays([sparse.csr_array(part) for part in parts], biases, activation)


def good_and_bad(generator):
    """Two samples within the range, then zeros, huge values, and values far outside."""
    rng = np.random.default_rng(1)
    k, n = generator.latent_size, generator.observation_size
    good = generator(rng.normal(size=(2, k))) + rng.uniform(-NOISE, NOISE, size=(2, n))
    huge = 1e12 * rng.choice([-1.0, 1.0], size=n)
    return np.concatenate([good, np.stack([np.zeros(n), huge, 5 * rng.normal(size=n) - 3])])


def said(inversion, sample):
    """All that is said of one sample: its status, and the numbers."""
    pick = (lambda part: part) if sample is None else (lambda part: part[sample])
    numbers = [inversion.latent, inversion.residual, inversion.residual_max, inversion.rank]
    numbers += [part for report in inversion.layers for part in report]
    numbers += [stage.residual for stage in inversion.stages]
    numbers += [stage.answered for stage in inversion.stages]
    return str(pick(inversion.status)), [np.asarray(pick(part), dtype=float) for part in numbers]


def assert_same(one, two, scale, where=""):
    """Equal statuses and counts, and numbers within 1e-9 of the scale of the sample."""
    assert one[0] == two[0], where
    for left, right in zip(one[1], two[1], strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9 * scale, err_msg=where)


def check(generator, x, method, sensing=None, *, each=True, groups=None):
    """Compare each sample alone with what it is in some groups."""

    def run(samples):
        seen = sensing if sensing is None or not each else sensing[samples]
        return invert(generator, x[samples], method, noise=NOISE, sensing=seen)

    alone = [said(run(sample), None) for sample in range(len(x))]
    everyone = np.arange(len(x))
    groups = groups or [everyone[::-1]]
    for group in groups:
        together = run(group)
        for place, sample in enumerate(group):
            scale = max(np.abs(x[sample]).max(), 1.0)
            where = f"sample {sample} in {group}"
            assert_same(said(together, place), alone[sample], scale, where)


@pytest.mark.parametrize(
    ("activation", "weights", "masked"),
    [
        ("relu", "dense", False),
        ("relu", "csr", True),
        ("leaky_relu(0.1)", "dense", True),
        ("leaky_relu(0.1)", "csr", False),
    ],
)
@pytest.mark.parametrize("method", CASES.values(), ids=CASES)
def test_every_method_is_the_same_in_any_batch(method, activation, weights, masked):
    """Claim (issue 3): alone, in a batch, in reverse, twice, and next to bad samples."""
    generator = network(activation, weights)
    x = good_and_bad(generator)
    if method in (CASES["auto"], CASES["projected_gradient"]):  # they take longest
        x = x[[0, 3, 4, 1]] if masked else x[:3]
    mask = np.random.default_rng(2).random(x.shape) < 0.8 if masked else None
    check(generator, x, method, mask, groups=[np.arange(len(x))[::-1], np.array([1, 2, 1])])


@pytest.mark.parametrize("method", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_the_same_in_any_batch(method):
    """Claim: so are constraints, norms, backends, and any number of starts."""
    generator = network("relu", "dense")
    x = good_and_bad(generator)
    mask = np.random.default_rng(3).random(x.shape) < 0.8
    check(generator, x, method, mask, groups=[np.array([4, 1, 3, 0, 2, 1])])


@pytest.mark.parametrize("method", ["exact", "gauss_newton", "gradient", "adam"])
def test_the_same_in_a_large_batch(method):
    """Claim: more samples than one block of a product takes, and than one thread."""
    generator = network("relu", "dense")
    x = good_and_bad(generator)
    check(generator, x, CASES[method], groups=[np.tile(np.arange(5), 9)])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("method", ["gauss_newton", "projected_gradient", "adam"])
def test_so_it_is_behind_a_matrix(method, form):
    generator = network("relu", "dense")
    A = np.random.default_rng(4).normal(size=(13, 22))
    y = good_and_bad(generator) @ A.T
    check(generator, y, CASES[method], form(A), each=False)


def test_the_trained_decoder_in_any_batch():
    """Claim: also at the size of digits, where products are cut into several blocks."""
    generator = zoo.load("mnist-20-60-784")
    rng = np.random.default_rng(6)
    x = generator(rng.normal(size=(20, 20))) + rng.uniform(-NOISE, NOISE, size=(20, 784))
    x[1], x[2] = 0.0, 1e12
    method = GaussNewton(restarts=3, flip_rounds=1, steps=20)
    together = invert(generator, x, method, noise=NOISE)
    again = invert(generator, x[::-1], method, noise=NOISE)
    for sample in range(20):
        scale = max(np.abs(x[sample]).max(), 1.0)
        assert_same(said(again, 19 - sample), said(together, sample), scale)
    for sample in (0, 3, 19):
        alone = invert(generator, x[sample], method, noise=NOISE)
        assert_same(said(together, sample), said(alone, None), 1.0)


def test_a_batch_that_is_cut_into_parts(monkeypatch):
    """Claim: memory has a cap, and no result depends on where the cuts are."""
    generator = network("relu", "dense")
    x = good_and_bad(generator)
    mask = np.random.default_rng(7).random(x.shape) < 0.8
    module = sys.modules["preimage.invert"]
    for method in (CASES["auto"], CASES["linf"]):
        whole = invert(generator, x, method, noise=NOISE, sensing=mask)
        monkeypatch.setattr(module, "slices", lambda count, entries: slices(count, 1, 2))
        cut = invert(generator, x, method, noise=NOISE, sensing=mask)
        monkeypatch.undo()
        for sample in range(len(x)):
            scale = max(np.abs(x[sample]).max(), 1.0)
            assert_same(said(cut, sample), said(whole, sample), scale)


def test_batches_in_any_number_of_threads():
    """Claim: callers may have threads of their own, and compiled code any number of its own."""
    generator = network("relu", "dense")
    x = np.tile(good_and_bad(generator)[:3], (4, 1))
    for method in (GaussNewton(flip_rounds=0, steps=20), LayerwiseLP(backend="kernel")):
        expected = invert(generator, x, method, noise=NOISE)
        with ThreadPoolExecutor(4) as pool:
            found = list(
                pool.map(
                    lambda i, method=method: invert(generator, x[i : i + 3], method, noise=NOISE),
                    range(0, 12, 3),
                )
            )
        latent = np.concatenate([inversion.latent for inversion in found])
        np.testing.assert_allclose(latent, expected.latent, rtol=1e-9, atol=1e-9)


SCRIPT = textwrap.dedent(
    """
    import os, sys
    import numpy as np
    import preimage
    rng = np.random.default_rng(0)
    generator = preimage.from_arrays([rng.normal(size=(9, 3)), rng.normal(size=(20, 9))])
    x = generator(rng.normal(size=(40, 3)))
    methods = [preimage.GaussNewton(flip_rounds=0), preimage.LayerwiseLP(backend="kernel")]
    def run(i):
        return np.concatenate([preimage.invert(generator, x, m).latent for m in methods])
    def same(a, b):
        return np.allclose(a, b, rtol=1e-9, atol=1e-9)
    first = run(0)
    if sys.argv[1] == "fork":
        child = os.fork()
        if child == 0:
            os._exit(0 if same(run(0), first) else 7)
        status = os.waitpid(child, 0)[1]
        sys.exit(0 if status == 0 else f"the child ended with status {status}")
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(4) as pool:
        sys.exit(0 if all(same(other, first) for other in pool.map(run, range(8))) else "differs")
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("way", ["fork", "threads"])
def test_after_a_fork_and_from_threads(way):
    """Claim: a forked worker may invert after its parent did, and threads may invert at once."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, way],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
