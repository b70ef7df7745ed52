import numpy as np
import pytest
from planted import gaussian_generator, program_of, relative_error

from preimage import (
    Generator,
    InputError,
    Layer,
    LayerwiseLP,
    engine,
    from_arrays,
    invert,
    lp,
    zoo,
)

NORMS = ["linf", "l1", "relaxed"]


def scanned(generator, x, start, growth=1.2):
    """Algorithm 1 as printed: try eps, 1.2 eps, ... one program each, until it is feasible."""
    z, eps, tolerances = x[None], start, []
    for index in reversed(range(len(generator.layers))):
        while True:
            layer, domain = generator.layers[index], generator.domain(index)
            solution = lp.solve(program_of(layer, z, np.array([eps]), "linf", domain))
            if solution.slack[0] <= eps * (1 + 1e-9):
                break
            eps *= growth
        z = solution.z
        tolerances.append(eps)
    return z[0], tolerances[::-1]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.2)", "tanh"])
@pytest.mark.parametrize("noise", [1e-4, 1e-2, 0.1])
def test_the_bracketed_tolerance_is_that_of_the_scan(activation, noise):
    for draw in range(4):
        rng = np.random.default_rng(draw)
        generator = gaussian_generator((5, 25, 100), rng, activation, bias=True)
        x = generator(rng.normal(size=5)) + rng.uniform(-noise, noise, size=100)
        start = noise / 3  # too low a guess, so that the last layer has to search, too
        inversion = invert(generator, x, "linf", noise=start)
        z, tolerances = scanned(generator, x, start)
        np.testing.assert_allclose([r.tolerance for r in inversion.layers], tolerances, rtol=1e-9)
        np.testing.assert_allclose(inversion.latent, z, atol=1e-6 * np.linalg.norm(z))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.1)"])
def test_error_is_of_the_order_of_the_noise(norm, activation):
    """Theorems 3 and 4, numerically: relative error at most 30 times the noise, all draws."""
    for draw in range(3):
        rng = np.random.default_rng(draw)
        generator = gaussian_generator((10, 50, 250), rng, activation, bias=True)
        z = rng.normal(size=(1, 10))
        for noise in (1e-5, 1e-3):
            x = generator(z) + rng.uniform(-noise, noise, size=(1, 250))
            method = LayerwiseLP(norm=norm)
            inversion = invert(generator, x, method, noise=noise)
            assert relative_error(inversion.latent, z)[0] < 30 * noise


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("head", [None, "tanh", "sigmoid"])
def test_noiseless_codes_come_back(norm, head):
    rng = np.random.default_rng(1)
    generator = gaussian_generator((6, 30, 120), rng, "relu", bias=True, head=head)
    z = rng.normal(size=(2, 6))
    inversion = invert(generator, generator(z), LayerwiseLP(norm=norm))
    assert relative_error(inversion.latent, z).max() < 1e-5


def test_wrong_points_keep_their_noise_verdict():
    """A generator that contracts has no layer-wise answer; the status must not say solved."""
    rng = np.random.default_rng(2)
    generator = gaussian_generator((5, 60, 20), rng)
    inversion = invert(generator, generator(rng.normal(size=5)), "linf")
    assert inversion.status != "solved"


@pytest.mark.parametrize("patience", [0, 1, 6])
def test_l1_stops_where_its_own_error_stops_falling(patience):
    """Algorithm 2 on one layer, written out: solve at eps, 1.2 eps, ... while the error falls."""
    rng = np.random.default_rng(3)
    generator = gaussian_generator((5, 40), rng)
    x = generator(rng.normal(size=5)) + 0.05 * rng.normal(size=40)
    eps, best, misses = 0.01, np.inf, 0
    while misses <= patience:
        program = program_of(generator.layers[0], x[None], np.array([eps]), "l1", (-9e9, 9e9))
        z = lp.solve(program).z[0]
        error = np.abs(generator(z) - x).sum()
        misses = 0 if error < best * (1 - 1e-12) else misses + 1
        if not misses:
            best, kept = error, z
        eps *= 1.2
    inversion = invert(generator, x, LayerwiseLP("l1", patience=patience), noise=0.01)
    assert np.abs(generator(inversion.latent) - x).sum() == pytest.approx(best, rel=1e-7)
    np.testing.assert_allclose(inversion.latent, kept, rtol=1e-5, atol=1e-7)


def test_patient_l1_survives_wrong_equations():
    """Claim: on the trained network, the paper's rule loses codes that a patient one finds."""
    generator, a = zoo.load("mnist-20-60-784"), 1e-4
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20, 20))
    x = generator(z) + rng.uniform(-a, a, size=(20, 784))
    lost = {}
    for patience in (0, 6):
        found = invert(generator, x, LayerwiseLP("l1", patience=patience), noise=a).latent
        error = np.linalg.norm(found - z, axis=1) / np.linalg.norm(z, axis=1)
        lost[patience] = int((error > 100 * a).sum())
    assert lost[0] >= 5
    assert lost[6] <= 1


def test_relaxed_tolerance_grows_until_feasible_or_gives_up():
    never = from_arrays([[[0.0]]], [[5.0]])  # a = 5 whatever z is, x = 1 needs a <= 1 + eps
    inversion = invert(never, [1.0], "relaxed")
    assert inversion.layers[0].tolerance >= 4
    none = from_arrays([[[0.0]]], [[50.0]])
    inversion = invert(none, [1.0], "relaxed")
    assert inversion.status == "infeasible"
    assert np.isnan(inversion.latent).all()


def test_one_hopeless_sample_leaves_the_others_alone():
    generator = from_arrays([[[1.0], [0.0]]], [[0.0, 50.0]])
    inversion = invert(generator, [[1.0, 1.0], [1.0, 50.0]], "relaxed", noise=1e-3)
    assert list(inversion.status) == ["infeasible", "solved"]
    np.testing.assert_allclose(inversion.latent[1], 1, atol=2e-3)


def test_a_failing_backend_is_a_status(monkeypatch):
    def broken(program, seconds, basis=None):
        return lp.highs.Answer(lp.Outcome.FAILED, program.cost, program.bound, -np.inf)

    monkeypatch.setattr(lp.highs, "minimise", broken)
    generator = gaussian_generator((3, 12), np.random.default_rng(0))
    for norm in NORMS:
        method = LayerwiseLP(norm=norm, backend="highs")
        inversion = invert(generator, generator(np.ones(3)), method)
        assert inversion.status == "failed"
        assert "backend" in inversion.status.message


def test_one_failing_sample_leaves_the_search_of_the_others_alone(monkeypatch):
    rng = np.random.default_rng(5)
    generator = gaussian_generator((4, 40), rng)
    x = generator(rng.normal(size=(3, 4))) + rng.uniform(-0.1, 0.1, size=(3, 40))
    method = LayerwiseLP(backend="highs")
    expected = invert(generator, x[1:], method, noise=0.01)
    real, calls = lp.highs.minimise, []

    def fails_once(program, seconds, basis=None):
        calls.append(program)
        failed = lp.highs.Answer(lp.Outcome.FAILED, program.cost, program.bound, -np.inf)
        return failed if len(calls) == 1 else real(program, seconds, basis=basis)

    monkeypatch.setattr(lp.highs, "minimise", fails_once)
    inversion = invert(generator, x, method, noise=0.01)
    assert inversion.status[0] == "failed"
    np.testing.assert_allclose(inversion.latent[1:], expected.latent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(norm="l2"), "norm: expected one of linf, l1, relaxed, got 'l2'"),
        (dict(growth=1.0), "growth: expected a number above 1"),
        (dict(growth=np.nan), "growth: expected a number above 1"),
        (dict(backend="glpk"), "backend: expected one of"),
    ],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        LayerwiseLP(**arguments)


@pytest.mark.skipif(engine.library() is None, reason="about the kernel")
@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3, 0.01, 0.05])
def test_pixels_at_the_ends_of_a_sigmoid_stay_in_the_kernel(noise, monkeypatch):
    """Claim: l1 inversion of a sigmoid decoder with 5 % of its pixels at 0 or 1 asks no HiGHS.

    Their rates are up to 1e9 times those of the others, and without noise all others fit exactly.
    """
    rng = np.random.default_rng(0)
    hidden = Layer(rng.normal(size=(150, 8)) / np.sqrt(8), 0.1 * rng.normal(size=150))
    head = Layer(rng.normal(size=(300, 150)) / np.sqrt(150), rng.normal(size=300) / 2, "sigmoid")
    generator = Generator((hidden, head))
    z = rng.normal(size=(2, 8))
    x = np.array(generator(z))
    x[:, rng.permutation(300)[:15]] = rng.integers(0, 2, size=(2, 15))
    asked = []
    monkeypatch.setattr(lp.highs, "minimise", lambda program, seconds, basis: asked.append(program))
    found = invert(generator, x, LayerwiseLP(norm="l1"), noise=noise)
    assert not asked
    if not noise:
        np.testing.assert_allclose(found.latent, z, rtol=1e-6)
