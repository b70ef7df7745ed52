"""The parts of the joint method: the C kernel beside NumPy, neighbours beside brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gaussian_generator
from scipy import sparse

from preimage import engine, from_arrays
from preimage.activation import PReLU, ReLU
from preimage.generator import Generator, Layer
from preimage.methods.joint.descent import levenberg_marquardt
from preimage.methods.joint.flips import neighbours
from preimage.methods.joint.least_squares import LeastSquares
from preimage.methods.joint.model import NormalEquations, Products, damped_step
from preimage.methods.parameters import Region
from preimage.observation import check_observation

ACTIVATIONS = ("relu", "leaky_relu(0.2)", "identity", "tanh", "sigmoid")
NEEDS_KERNEL = pytest.mark.skipif(engine.library() is None, reason="no kernel was built")


def free(k):
    infinite = np.full(k, np.inf)
    return Region(-infinite, infinite, np.inf)


def problem_of(generator, x, sensing=None, prior=0.0):
    observation, _ = check_observation(generator, x, 0.0, sensing)
    return LeastSquares(generator, observation, prior, free(generator.latent_size))


def both(generator, x, sensing=None, prior=0.0):
    """The same problem with dense weights, and with weights that the kernel does not take."""
    other = Generator(
        tuple(Layer(sparse.csr_array(la.weight), la.bias, la.activation) for la in generator.layers)
    )
    pair = [problem_of(g, x, sensing, prior) for g in (generator, other)]
    assert pair[0].compiled is not None
    assert pair[1].compiled is None
    return pair


def drawn(seed, body, head, masked, prior=0.0):
    rng = np.random.default_rng(seed)
    k, hidden = int(rng.integers(1, 40)), int(rng.integers(1, 50))
    generator = gaussian_generator((k, hidden, 45), rng, body, bias=True, head=head)
    x = generator(rng.normal(size=(3, k))) + 0.1 * rng.normal(size=(3, 45))
    pair = both(generator, x, rng.random((3, 45)) < 0.8 if masked else None, prior)
    return pair, rng.normal(size=(5, k)), np.array([0, 0, 1, 2, 2])


@NEEDS_KERNEL
@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    body=st.sampled_from(ACTIVATIONS),
    head=st.sampled_from(ACTIVATIONS),
    masked=st.booleans(),
    prior=st.sampled_from([0.0, 0.3]),
)
def test_the_kernel_linearises_as_numpy_does(seed, body, head, masked, prior):
    """Claim: losses, normal matrices and slopes of dense chains are those of the Jacobian."""
    (one, two), z, samples = drawn(seed, body, head, masked, prior=prior)
    np.testing.assert_allclose(one.loss(z, samples), two.loss(z, samples), rtol=1e-12, atol=1e-13)
    gram, slope = one.linearize(z, samples)
    jacobian, error = two.jacobian(z, samples), two.error(z, samples)
    expected = np.swapaxes(jacobian, 1, 2) @ jacobian + prior * np.eye(z.shape[1])
    np.testing.assert_allclose(gram, expected, rtol=1e-11, atol=1e-12)
    pulled = np.einsum("rm,rmk->rk", error, jacobian) - prior * z
    np.testing.assert_allclose(slope, pulled, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(one.identify(z, samples)[0], two.identify(z, samples)[0])


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    k=st.integers(0, 5),
    runs=st.integers(0, 4),
    body=st.sampled_from(ACTIVATIONS[:3]),
    head=st.sampled_from(ACTIVATIONS),
    masked=st.booleans(),
    dead=st.booleans(),
)
def test_normal_equations_of_active_rows_are_those_of_the_jacobian(
    seed, sizes, k, runs, body, head, masked, dead
):
    """Claim: ``J^T J + prior I`` and ``J^T e - prior z``, with J made densely, row by row.

    For networks of any depth, without latent coordinates, without runs, with dead layers (no
    active unit at all) and unobserved rows.
    """
    rng = np.random.default_rng(seed)
    widths = [k, *sizes]
    weights = [rng.normal(size=(n, m)) for m, n in zip(widths, sizes, strict=False)]
    biases = [rng.normal(size=n) for n in sizes]
    if dead:
        biases[int(rng.integers(len(sizes)))] -= 100.0
    generator = from_arrays(weights, biases, body, head)
    mask = None
    if masked:
        mask = rng.random((3, sizes[-1])) < 0.5
        mask[np.arange(3), rng.integers(sizes[-1], size=3)] = True
    problem = problem_of(generator, rng.normal(size=(3, sizes[-1])), mask, prior=0.7)
    z, samples = rng.normal(size=(runs, k)), rng.integers(3, size=runs)
    gram, slope = problem.linearize(z, samples)
    assert gram.shape == (runs, k, k)
    assert slope.shape == (runs, k)
    for run in range(runs):
        jacobian, value = np.eye(k), z[run]
        for layer in generator.layers:
            a = layer.weight @ value + layer.bias
            jacobian = layer.activation.derivative(a)[:, None] * (layer.weight @ jacobian)
            value = layer.activation(a)
        seen = np.ones(sizes[-1]) if mask is None else mask[samples[run]].astype(float)
        jacobian = seen[:, None] * jacobian
        missed = seen * (problem.observation.values[samples[run]] - value)
        curvature = jacobian.T @ jacobian + 0.7 * np.eye(k)
        np.testing.assert_allclose(gram[run], curvature, rtol=1e-9, atol=1e-9)
        downhill = jacobian.T @ missed - 0.7 * z[run]
        np.testing.assert_allclose(slope[run], downhill, rtol=1e-9, atol=1e-9)
        # The rank is that of columns of norm 1, so that units of z do not matter.
        norm = np.linalg.norm(jacobian, axis=0)
        columns = jacobian / np.where(norm > 0, norm, 1.0)
        rank = np.linalg.matrix_rank(columns, rtol=1e-9) if k else 0
        assert problem.identify(z[[run]], samples[[run]])[0] == rank


def test_the_kernel_leaves_a_slope_above_zero_to_numpy():
    """Claim: an activation of one's own whose slope above 0 is not 1 is evaluated as it is."""

    class Steep(ReLU):
        def slopes(self, size):
            return np.zeros(size), np.full(size, 2.0)

        def __call__(self, a):
            return 2.0 * np.maximum(a, 0.0)

    rng = np.random.default_rng(0)
    layers = Layer(rng.normal(size=(30, 4)), activation=Steep()), Layer(rng.normal(size=(60, 30)))
    chain, z = Generator(layers), rng.normal(size=(3, 4))
    problem = LeastSquares(chain, check_observation(chain, chain(z), 0.0)[0])
    np.testing.assert_allclose(problem.loss(z, np.arange(3)), 0.0, atol=1e-20)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), masked=st.booleans())
def test_the_slope_is_torchs_gradient(seed, masked):
    """Claim: ``J^T e - prior z`` is minus the gradient of the loss; torch is the oracle."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    generator = gaussian_generator((3, 8, 12), rng, "leaky_relu(0.2)", bias=True, head="sigmoid")
    mask = rng.random((2, 12)) < 0.6
    mask[:, 0] = True
    problem = problem_of(generator, rng.random((2, 12)), mask if masked else None, prior=0.3)
    z, samples = rng.normal(size=(4, 3)), np.array([0, 0, 1, 1])
    _, slope = problem.linearize(z, samples)
    code = torch.tensor(z, requires_grad=True)
    first, second = generator.layers
    hidden = torch.nn.functional.leaky_relu(
        code @ torch.tensor(np.array(first.weight)).T + torch.tensor(np.array(first.bias)), 0.2
    )
    output = torch.sigmoid(
        hidden @ torch.tensor(np.array(second.weight)).T + torch.tensor(np.array(second.bias))
    )
    error = torch.tensor(problem.observation.values[samples]) - output
    if masked:
        error = error * torch.tensor(mask[samples])
    loss = 0.5 * (error**2).sum() + 0.15 * (code**2).sum()
    loss.backward()
    np.testing.assert_allclose(slope, -code.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(problem.loss(z, samples).sum(), loss.item(), rtol=1e-12)


@NEEDS_KERNEL
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    body=st.sampled_from(ACTIVATIONS),
    masked=st.booleans(),
    prior=st.sampled_from([0.0, 0.1]),
    steps=st.integers(1, 6),
)
def test_a_descent_in_the_kernel_takes_the_steps_of_numpy(seed, body, masked, prior, steps):
    """Claim: same codes, losses and verdicts after the same number of steps.

    (Without a prior the kernel linearises in the pass that gives the loss. The few active units
    of these networks need not determine a code then, and the damping, which does, falls a hundred
    times a step: after more than three, rounding takes part in what it determines.)
    """
    (one, two), z, samples = drawn(seed, body, "identity", masked, prior=prior)
    steps = steps if prior else min(steps, 3)
    one, two = (
        levenberg_marquardt(problem, z, samples, steps=steps, damping=1e-2)
        for problem in (one, two)
    )
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-7, atol=1e-13)
    if prior:
        np.testing.assert_allclose(one.z, two.z, rtol=1e-5, atol=1e-7)


@NEEDS_KERNEL
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 40),
    held=st.booleans(),
    damping=st.sampled_from([1e-6, 1e-2, 10.0]),
)
def test_damped_steps_of_the_kernel_solve_their_equations(seed, k, held, damping):
    """Claim: ``(gram + damping diag(gram)) step = slope`` on the free coordinates, 0 on others."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(4, k + 3, k)) * 10 ** rng.uniform(-3, 3, size=k)
    gram, slope = np.swapaxes(factor, 1, 2) @ factor, rng.normal(size=(4, k))
    low = np.where(rng.random(k) < 0.5, 0.0, -np.inf) if held else np.full(k, -np.inf)
    region, z = Region(low, np.full(k, np.inf), np.inf), np.zeros((4, k))
    found, predicted = damped_step(region, z, gram, slope, np.arange(4), np.full(4, damping))
    for own, matrix, rhs, promise in zip(found, gram, slope, predicted, strict=True):
        idle = (low == 0) & (rhs < 0)
        assert not own[idle].any()
        damped = (matrix + damping * np.diag(np.diag(matrix)))[~idle][:, ~idle]
        scale = 1 / np.sqrt(np.diag(damped))
        expected = scale * np.linalg.solve(damped * scale[:, None] * scale, scale * rhs[~idle])
        np.testing.assert_allclose(own[~idle], expected, rtol=1e-6, atol=1e-9 * np.abs(own).max())
        value = rhs @ own - 0.5 * own @ matrix @ own
        np.testing.assert_allclose(promise, value, rtol=1e-9)


class Run:
    """A network whose layers are not known: only the protocol."""

    draft = None

    def __init__(self, generator):
        self.generator = generator
        self.latent_size, self.observation_size = (
            generator.latent_size,
            generator.observation_size,
        )
        for name in ("digest", "linearize", "jvp", "vjp"):
            setattr(self, name, getattr(generator, name))

    def __call__(self, z):
        return self.generator(z)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    masked=st.booleans(),
    prior=st.sampled_from([0.0, 0.1]),
    held=st.booleans(),
)
def test_conjugate_gradients_descend_to_where_normal_equations_do(seed, masked, prior, held):
    """Claim: the model that only multiplies by J has the same slope, decrease and minimiser."""
    rng = np.random.default_rng(seed)
    generator = gaussian_generator((6, 20, 40), rng, "leaky_relu(0.3)", bias=True, head="tanh")
    x = np.tanh(0.3 * rng.normal(size=(2, 40)))
    mask = rng.random(x.shape) < 0.8 if masked else None
    observation, _ = check_observation(generator, x, 0.0, mask)
    region = Region(np.full(6, -0.1), np.full(6, 0.1), np.inf) if held else free(6)
    problem = LeastSquares(Run(generator), observation, prior, region)
    z, samples = region.project(0.2 * rng.normal(size=(3, 6))), np.array([0, 0, 1])
    full, products = NormalEquations(problem, samples), Products(problem, samples)
    runs = np.array([0, 2])
    for model in (full, products):
        model.update(runs, z[runs])
    np.testing.assert_allclose(products.slope[runs], full.slope[runs], rtol=1e-9, atol=1e-11)
    some = rng.normal(size=(2, 6))
    np.testing.assert_allclose(
        products.decrease(runs, some), full.decrease(runs, some), rtol=1e-8, atol=1e-10
    )
    step, predicted = products.step(runs, z[runs], np.full(2, 1e-3))
    best = full.step(runs, z[runs], np.full(2, 1e-9))[1]
    np.testing.assert_allclose(full.decrease(runs, step), predicted, rtol=1e-8, atol=1e-10)
    # Both are 0 where all coordinates are held.
    assert np.where(best > 0, predicted > 0.8 * best, predicted == 0).all()
    if held:
        stuck = ((z[runs] <= -0.1) & (full.slope[runs] < 0)) | (
            (z[runs] >= 0.1) & (full.slope[runs] > 0)
        )
        assert not step[stuck].any()


def test_steps_do_not_depend_on_the_units_of_a_coordinate():
    """Claim (18.11): a latent in other units is the same code in other units, and as unique."""
    rng = np.random.default_rng(0)
    generator = gaussian_generator((3, 12, 30), rng, bias=True)
    z = rng.normal(size=(4, 3))
    x = generator(z) + 0.01 * rng.normal(size=(4, 30))
    first, *rest = generator.layers
    units = np.array([1e-5, 1.0, 1e5])
    other = Generator((Layer(first.weight * units, first.bias, first.activation), *rest))
    start, samples = z + 0.3 * rng.normal(size=(4, 3)), np.arange(4)
    plain, scaled = problem_of(generator, x), problem_of(other, x)
    ends = levenberg_marquardt(plain, start, samples, steps=30, damping=1e-2)
    twins = levenberg_marquardt(scaled, start / units, samples, steps=30, damping=1e-2)
    np.testing.assert_allclose(twins.z * units, ends.z, rtol=1e-6, atol=1e-8)
    assert scaled.identify(twins.z, samples)[0].tolist() == [3] * 4


def test_other_runs_of_an_explained_sample_end():
    rng = np.random.default_rng(1)
    generator = gaussian_generator((3, 12, 40), rng)
    truth = rng.normal(size=(2, 3))
    problem = problem_of(generator, generator(truth))
    z = np.array([truth[0], truth[0] + 1, truth[1] + 1, truth[1]])
    ends = levenberg_marquardt(
        problem, z, np.array([0, 0, 1, 1]), steps=30, damping=1e-2, target_loss=np.full(2, 1e-20)
    )
    np.testing.assert_array_equal(ends.z[[1, 2]], z[[1, 2]])
    assert (ends.loss[[0, 3]] < 1e-20).all()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    body=st.sampled_from(["relu", "leaky_relu(0.2)", "prelu"]),
    masked=st.booleans(),
    is_sparse=st.booleans(),
)
def test_neighbours_mirror_a_unit_that_promises_something(seed, body, masked, is_sparse):
    """Claim: the unit has minus its pre-activation, and the loss falls along its kink.

    For every kind of unit that has a kink, PReLU included (issue 15), dense and sparse.
    """
    rng = np.random.default_rng(seed)
    kind = PReLU((0.3, 1.7), 5) if body == "prelu" else body
    weight = rng.normal(size=(10, 3)) * (rng.random((10, 3)) < 0.7 if is_sparse else 1.0)
    first = Layer(sparse.csr_array(weight) if is_sparse else weight, rng.normal(size=10), kind)
    last = Layer(rng.normal(size=(14, 10)), activation="identity")
    generator = Generator((first, last))
    x = generator(rng.normal(size=(1, 3))) + 0.1 * rng.normal(size=(1, 14))
    problem = problem_of(generator, x, rng.random(x.shape) < 0.9 if masked else None)
    z, one = rng.normal(size=(1, 3)), np.array([0])
    found = neighbours(problem, z, one, 10)[0]
    found = found[np.isfinite(found).all(axis=1)]
    a = first.affine(z)[0]
    error = problem.observation.restrict(problem.error(z, one))[0]
    slopes = first.activation.slopes(10)
    promising = (last.weight.T @ error > 0) & (slopes[0] != slopes[1])
    mirrored = np.isclose(first.affine(found), -a, rtol=1e-3, atol=1e-6)
    assert (mirrored & promising).any(axis=1).all()
    determined = np.abs(weight).sum(axis=1) > 0
    assert len(found) == (promising & determined).sum()


def test_neighbours_lead_out_of_local_minima():
    """Claim: of the descents from the neighbours of a local minimum, one mostly ends lower."""
    rng = np.random.default_rng(3)
    generator = gaussian_generator((4, 12, 16), rng, bias=True)
    problem = problem_of(generator, generator(rng.normal(size=(1, 4))))
    starts = 3 * rng.normal(size=(60, 4))
    ends = levenberg_marquardt(problem, starts, np.zeros(60, int), steps=60, damping=1e-2)
    caught, lower = np.flatnonzero(ends.loss > 1e-3), 0
    for z, loss in zip(ends.z[caught], ends.loss[caught], strict=True):
        found = neighbours(problem, z[None], np.array([0]), 12)[0]
        found = found[np.isfinite(found).all(axis=1)]
        further = levenberg_marquardt(
            problem, found, np.zeros(len(found), int), steps=20, damping=1e-2
        )
        lower += further.loss.min(initial=np.inf) < 0.999 * loss
    assert len(caught) > 5
    assert lower > 0.8 * len(caught), (lower, len(caught))


def test_a_smooth_network_has_no_neighbours():
    generator = gaussian_generator((3, 9, 14), np.random.default_rng(0), "tanh")
    problem = problem_of(generator, np.zeros((1, 14)))
    assert np.isnan(neighbours(problem, np.ones((1, 3)), np.array([0]), 4)).all()
