"""Compiled code for dense networks against the same method in NumPy, which sparse weights take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import gaussian_generator
from scipy import sparse

from preimage import from_arrays
from preimage.activation import PReLU
from preimage.generator import Generator
from preimage.methods import dense
from preimage.methods.flips import NEAREST, flips
from preimage.methods.levenberg_marquardt import Misfit, descend
from preimage.methods.region import Region
from preimage.observation import check_observation

ACTIVATIONS = ("relu", "leaky_relu(0.2)", "identity", "tanh", "sigmoid")


def both(generator, x, sensing=None, prior=0.0):
    """The same misfit with dense weights, and with weights that compiled code does not take."""
    layers = [(layer.weight, layer.bias, layer.activation) for layer in generator.layers]
    other = Generator(tuple(type(generator.layers[0])(sparse.csr_array(w), b, a)
                            for w, b, a in layers))  # fmt: skip
    infinite = np.full(generator.latent_size, np.inf)
    region = Region(-infinite, infinite, np.inf)
    observation, _ = check_observation(generator, x, 0.0, sensing)
    pair = [Misfit(g, observation, prior, region) for g in (generator, other)]
    assert pair[0].network is not None
    assert pair[1].network is None
    return pair


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    body=st.sampled_from(ACTIVATIONS),
    head=st.sampled_from(ACTIVATIONS),
    masked=st.booleans(),
    relaxed=st.booleans(),
    prior=st.sampled_from([0.0, 0.3]),
    steps=st.integers(1, 6),
)
def test_a_descent_takes_the_steps_of_the_one_in_numpy(
    seed, body, head, masked, relaxed, prior, steps
):
    """Claim: same codes, losses, damping and verdicts after the same number of steps."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 6))
    generator = gaussian_generator((k, 9, 14), rng, body, bias=True, head=head)
    x = generator(rng.normal(size=(3, k))) + 0.1 * rng.normal(size=(3, 14))
    pair = both(generator, x, rng.random((3, 14)) < 0.8 if masked else None, prior)
    pair = [misfit.relaxed for misfit in pair] if relaxed else pair
    samples, z = np.array([0, 0, 1, 2, 2]), rng.normal(size=(5, k))
    one, two = (descend(misfit, z, samples, steps=steps, damping=1e-2) for misfit in pair)
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(one.z, two.z, rtol=1e-5, atol=1e-7)
    # What has come down to rounding may end one step sooner or later.
    going = one.loss > 1e-12
    np.testing.assert_array_equal(one.stationary[going], two.stationary[going])


def test_later_runs_of_an_explained_sample_are_left_out():
    rng = np.random.default_rng(1)
    generator = gaussian_generator((3, 12, 40), rng)
    truth = rng.normal(size=(2, 3))
    misfit, _ = both(generator, generator(truth))
    z = np.array([truth[0], truth[0] + 1, truth[1] + 1, truth[1]])
    ends = descend(
        misfit, z, np.array([0, 0, 1, 1]), steps=3, damping=1e-2, enough=np.full(2, 1e-20)
    )
    assert ends.loss[1] == np.inf
    assert ends.loss[0] < 1e-20
    assert np.isfinite(ends.loss[2:]).all()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.sampled_from([(3, 9, 14), (2, 7, 5, 12), (4, 20, 6)]),
    activation=st.sampled_from(["relu", "leaky_relu(0.2)"]),
    masked=st.booleans(),
)
def test_flips_are_those_of_numpy(seed, sizes, activation, masked):
    """Claim: the same neighbours in the same order, where their losses can be told apart."""
    rng = np.random.default_rng(seed)
    generator = gaussian_generator(sizes, rng, activation, bias=True)
    x = generator(rng.normal(size=(1, sizes[0]))) + 0.1 * rng.normal(size=(1, sizes[-1]))
    misfit, other = both(generator, x, rng.random(x.shape) < 0.9 if masked else None)
    z, one = rng.normal(size=(1, sizes[0])), np.array([0])
    derivatives = [d[0] for d in other.derivatives(z, one)]
    curved = np.linalg.matrix_rank(other.jacobian(z, one)[0], rtol=1e-3) == sizes[0]
    reference = flips(other.generator, z[0], other.error(z, one)[0], derivatives)
    count = len(reference.z)
    found = dense.flips(misfit.network, misfit.fit(), one, z, np.zeros(1, int), NEAREST, count)[0]
    if curved:
        # Ridges differ, so that pieces without a minimum of their own may, too.
        plain = np.abs(reference.z - z).max(axis=1) < 30
        apart = np.diff(reference.loss, prepend=-1, append=2 * reference.loss[-1] + 1)
        plain &= np.minimum(apart[:-1], apart[1:]) > 1e-6
        np.testing.assert_allclose(found[plain], reference.z[plain], rtol=2e-2, atol=1e-3)


def test_a_neighbour_whose_minimum_lies_inside_its_piece_is_that_minimum():
    """Claim: the closed form is the least-squares minimiser of the other piece."""
    rng = np.random.default_rng(3)
    generator = gaussian_generator((2, 6, 30), rng, bias=True, head="identity")
    truth = rng.normal(size=(1, 2))
    x = generator(truth)
    misfit, _ = both(generator, x)
    hits = 0
    for size in (0.5, 1.0, 2.0):
        for direction in rng.normal(size=(60, 2)):
            z = truth + size * direction / np.linalg.norm(direction)
            before, after = (generator.preactivations(p)[0][0] > 0 for p in (z, truth))
            if (before != after).sum() == 1:
                found = dense.flips(
                    misfit.network, misfit.fit(), np.array([0]), z, np.zeros(1, int), NEAREST, 1
                )
                np.testing.assert_allclose(found[0, 0], truth[0], atol=1e-4)
                hits += 1
    assert hits > 3


def test_what_compiled_code_does_not_take():
    class Other:
        range = (0.0, 1.0)

        def __call__(self, a):
            return np.abs(a)

        def derivative(self, a):
            return np.sign(a)

        inverse = slab = relaxed_slab = __call__

    weight = np.ones((4, 2))
    assert dense.as_network(from_arrays([weight], activation=Other())) is None
    assert dense.as_network(from_arrays([sparse.csr_array(weight)])) is None
    network = dense.as_network(from_arrays([weight], activation=PReLU((0.5, 0.2), 2)))
    assert network.slope.tolist() == [0.5, 0.5, 0.2, 0.2]


@pytest.mark.parametrize("runs", [0, 1, 100])
def test_parts_cover_all_runs_and_keep_samples_together(runs):
    samples = np.sort(np.random.default_rng(0).integers(0, 30, size=runs))
    seen = []
    dense.in_parts(samples, lambda part: seen.append((part.start, part.stop)))
    seen.sort()
    assert [i for part in seen for i in range(*part)] == list(range(runs))
    assert all(stop == runs or samples[stop - 1] != samples[stop] for _, stop in seen)
