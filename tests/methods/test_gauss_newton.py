import numpy as np
import pytest
from planted import gaussian_generator, relative_error

from preimage import GaussNewton, InputError, LayerwiseLP, from_arrays, invert
from preimage.inversion import Estimate, Status


def oracle(generator, x, z):
    """Least squares with the true pattern known: as accurate as any method can be."""
    a = generator.preactivations(z[None])
    jacobian, offset = np.eye(generator.latent_size), np.zeros(generator.latent_size)
    for layer, pre in zip(generator.layers, a, strict=True):
        slope = layer.activation.derivative(pre[0])
        jacobian = slope[:, None] * (layer.weight @ jacobian)
        offset = slope * (layer.weight @ offset + layer.bias)
    return np.linalg.lstsq(jacobian, x - offset, rcond=None)[0]


@pytest.mark.parametrize("sizes", [(5, 25, 100), (5, 60, 30), (6, 40, 60, 30)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.1)"])
def test_noiseless_codes_come_back_even_where_layers_contract(sizes, activation):
    rng = np.random.default_rng(0)
    generator = gaussian_generator(sizes, rng, activation, bias=True)
    z = rng.normal(size=(4, sizes[0]))
    inversion = invert(generator, generator(z), GaussNewton(restarts=30))
    assert (inversion.status == "solved").all()
    assert relative_error(inversion.latent, z).max() < 1e-9


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 1e-2])
def test_as_accurate_as_the_oracle(noise):
    """Claim: the minimiser within the true pattern is found, not merely approached."""
    rng = np.random.default_rng(1)
    generator = gaussian_generator((5, 25, 100), rng, "relu", bias=True)
    errors = []
    for z in rng.normal(size=(10, 5)):
        x = generator(z) + rng.uniform(-noise, noise, size=100)
        found = invert(generator, x, "gauss_newton", noise=noise)
        assert found.residual <= np.linalg.norm(x - generator(z))
        best = relative_error(oracle(generator, x, z), z)
        errors.append(relative_error(found.latent, z) / best)
    assert np.median(errors) < 1.1


@pytest.mark.parametrize("head", ["tanh", "sigmoid"])
def test_smooth_heads(head):
    rng = np.random.default_rng(2)
    generator = gaussian_generator((5, 25, 40), rng, "relu", bias=True, head=head)
    z = rng.normal(size=(3, 5))
    inversion = invert(generator, generator(z), "gauss_newton")
    assert relative_error(inversion.latent, z).max() < 1e-9


class Far:
    """A start that is bad, and one that is no start at all."""

    def solve(self, generator, observation):
        latent = np.array([[3.0, -2.0, 1.0], [np.nan] * 3])
        return Estimate(latent, Status.SOLVED.each(2))


def test_never_worse_than_a_start():
    rng = np.random.default_rng(3)
    generator = gaussian_generator((3, 10, 12), rng)
    x = rng.normal(size=(2, 12))
    start = np.array([3.0, -2.0, 1.0])
    for steps in (1, 3, 50):
        found = invert(generator, x, GaussNewton(restarts=1, steps=steps, start=Far()))
        assert found.residual[0] <= np.linalg.norm(x[0] - generator(start))
        assert np.isfinite(found.residual[1])


def test_a_layerwise_start_is_improved():
    rng = np.random.default_rng(4)
    generator = gaussian_generator((5, 25, 100), rng)
    z = rng.normal(size=(3, 5))
    x = generator(z) + rng.uniform(-0.05, 0.05, size=(3, 100))
    first = LayerwiseLP()
    rough = invert(generator, x, first, noise=0.05)
    fine = invert(generator, x, GaussNewton(restarts=1, start=first), noise=0.05)
    assert (fine.residual <= rough.residual).all()


def test_an_unobserved_direction_is_ambiguous():
    generator = from_arrays([np.array([[1.0, 0.0], [2.0, 0.0]])])
    inversion = invert(generator, [1.0, 2.0], "gauss_newton")
    assert inversion.status == "ambiguous"
    assert inversion.residual_max < 1e-9


def test_running_out_of_steps_is_said():
    rng = np.random.default_rng(5)
    generator = gaussian_generator((5, 25, 100), rng, head="tanh")
    x = generator(rng.normal(size=5)) + 0.1
    assert invert(generator, x, GaussNewton(restarts=1, steps=1)).status == "step_limit"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(restarts=0), "restarts: expected a whole number"),
        (dict(flip_rounds=-1), "flip_rounds: expected a whole number"),
        (dict(damping=0.0), "damping: expected a number above 0"),
        (dict(start="linf"), "start: expected a method"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        GaussNewton(**arguments)


def test_hops_never_hurt_and_often_help():
    """Claim: restarts around the answer find neighbours whose pattern explains the noise better."""
    rng = np.random.default_rng(6)
    generator = gaussian_generator((6, 20, 60), rng)
    z = rng.normal(size=(30, 6))
    x = generator(z) + rng.uniform(-0.3, 0.3, size=(30, 60))
    without, with_hops = (invert(generator, x, GaussNewton(flip_rounds=h)).residual for h in (0, 3))
    assert (with_hops <= without * (1 + 1e-12)).all()
    assert (with_hops < without * (1 - 1e-6)).any()


def test_the_old_name_of_flip_rounds_warns():
    with pytest.warns(DeprecationWarning, match="flip_rounds"):
        method = GaussNewton(hops=2)
    assert method == GaussNewton(flip_rounds=2)
