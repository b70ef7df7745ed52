import numpy as np
import pytest
import torch
from planted import gaussian_generator, relative_error

from preimage import Adam, GradientDescent, InputError, from_arrays, invert
from preimage.methods.parameters import draws_of


def test_gradient_descent_finds_codes_of_an_easy_network():
    rng = np.random.default_rng(0)
    generator = gaussian_generator((3, 60, 200), rng, "leaky_relu(0.5)")
    z = rng.normal(size=(2, 3))
    method = GradientDescent(rate=1.0, steps=3000, gradient_tolerance=1e-11)
    inversion = invert(generator, generator(z), method)
    assert (inversion.status == "solved").all()
    assert relative_error(inversion.latent, z).max() < 1e-6


def test_steps_are_those_of_torch():
    """Claim: GradientDescent is x <- x - rate * gradient, Adam is torch's Adam."""
    rng = np.random.default_rng(1)
    generator = from_arrays([rng.normal(size=(8, 3))])
    x = generator(rng.normal(size=3)) + 0.3
    weight = torch.tensor(np.array(generator.layers[0].weight))
    for method, optimiser in [
        (GradientDescent(rate=0.01, steps=7, seed=5), torch.optim.SGD),
        (Adam(rate=0.01, steps=7, restarts=1, seed=5), torch.optim.Adam),
    ]:
        z = torch.tensor(draws_of(5).normal(size=3), requires_grad=True)
        run = optimiser([z], lr=0.01)
        points = []
        for _ in range(7):
            loss = 0.5 * ((torch.relu(weight @ z) - torch.tensor(x)) ** 2).sum()
            run.zero_grad()
            loss.backward()
            run.step()
            points.append(z.detach().numpy().copy())
        best = min(points, key=lambda p: np.linalg.norm(generator(p) - x))
        np.testing.assert_allclose(invert(generator, x, method).latent, best, rtol=1e-6)


def test_no_start_is_a_code_that_a_user_plants():
    """Claim: a code drawn by ``default_rng(seed)`` is no start, so that no method knows it."""
    generator = gaussian_generator((6, 40, 100), np.random.default_rng(3))
    for seed in range(3):
        z = np.random.default_rng(seed).standard_normal((4, 6))
        for method in (GradientDescent(steps=1, seed=seed), Adam(steps=1, seed=seed)):
            found = invert(generator, generator(z), method)
            assert (np.abs(found.latent - z).max(axis=1) > 0.1).all()


def test_divergence_keeps_the_best_point_and_says_so():
    generator = gaussian_generator((3, 60, 200), np.random.default_rng(2))
    x = generator(np.ones((1, 3)))
    inversion = invert(generator, x, GradientDescent(rate=1e6, steps=50))
    assert inversion.status[0] == "step_limit"
    assert np.isfinite(inversion.latent).all()


def test_adam_with_more_restarts_is_never_worse():
    rng = np.random.default_rng(3)
    generator = gaussian_generator((4, 20, 40), rng)
    x = generator(rng.normal(size=(3, 4)))
    few, many = (invert(generator, x, Adam(steps=60, restarts=r)).residual for r in (1, 5))
    assert (many <= few + 1e-12).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientDescent(rate=0), "rate: expected a number above 0"),
        (lambda: GradientDescent(rate=np.inf), "rate: expected a number above 0"),
        (lambda: GradientDescent(steps=0), "steps: expected a whole number"),
        (lambda: GradientDescent(gradient_tolerance=-1), "gradient_tolerance: expected"),
        (lambda: Adam(restarts=1.5), "restarts: expected a whole number"),
        (lambda: Adam(steps=True), "steps: expected a whole number"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
