"""``invert``: shapes, bad input, and statuses that do not rely on the method's own."""

import time
from dataclasses import dataclass

import numpy as np
import pytest
from planted import gaussian_generator

import preimage
from preimage import METHODS, InputError, Status, from_arrays, invert
from preimage.inversion import Estimate

GENERATOR = gaussian_generator((3, 12, 30), np.random.default_rng(0), bias=True)
QUICK = {
    **METHODS,
    "gradient": preimage.GradientDescent(steps=20),
    "adam": preimage.Adam(steps=20, restarts=2),
}
EVERY_METHOD = pytest.mark.parametrize("method", QUICK.values(), ids=QUICK)


@dataclass(frozen=True)
class Answer:
    """A method that says SOLVED and returns what it is told to."""

    latent: tuple
    status: Status = Status.SOLVED

    def solve(self, generator, observation):
        return Estimate(
            np.array(self.latent, dtype=float).reshape(len(observation), -1),
            self.status.each(len(observation)),
        )


@EVERY_METHOD
def test_shapes_for_a_batch_a_single_vector_and_an_empty_batch(method):
    x = GENERATOR(np.random.default_rng(1).normal(size=(2, 3)))
    batch = invert(GENERATOR, x, method)
    assert batch.latent.shape == (2, 3)
    assert batch.residual.shape == batch.residual_max.shape == batch.status.shape == (2,)
    single = invert(GENERATOR, x[0], method)
    assert single.latent.shape == (3,)
    assert np.ndim(single.residual) == np.ndim(single.residual_max) == 0
    assert isinstance(single.status, Status)
    assert all(np.ndim(part) == 0 for report in single.layers for part in report)
    empty = invert(GENERATOR, x[:0], method)
    assert empty.latent.shape == (0, 3)
    assert len(empty) == len(empty.status) == 0


@EVERY_METHOD
def test_no_latent_coordinates(method):
    constant = from_arrays([np.zeros((3, 0))], [[1.0, -1.0, 2.0]])
    inversion = invert(constant, [[1.0, 0.0, 2.0], [1.0, 0.0, 3.0]], method, noise=0.5)
    assert inversion.latent.shape == (2, 0)
    np.testing.assert_allclose(inversion.residual_max, [0, 1])
    assert list(inversion.status) == ["solved", "above_noise"] or method is QUICK["adam"]


@EVERY_METHOD
def test_residuals_are_those_of_the_generator(method):
    x = GENERATOR(np.random.default_rng(2).normal(size=(2, 3))) + 0.1
    inversion = invert(GENERATOR, x, method, noise=0.1)
    error = x - GENERATOR(inversion.latent)
    np.testing.assert_allclose(inversion.residual, np.linalg.norm(error, axis=1))
    np.testing.assert_allclose(inversion.residual_max, np.abs(error).max(axis=1))


@EVERY_METHOD
def test_a_sample_does_not_depend_on_the_rest_of_its_batch(method):
    """Rounding may differ with the shape of a matrix product, and nothing else."""
    x = GENERATOR(np.random.default_rng(3).normal(size=(4, 3))) + 0.01
    together = invert(GENERATOR, x, method, noise=0.01)
    alone = np.stack([invert(GENERATOR, row, method, noise=0.01).latent for row in x])
    np.testing.assert_allclose(together.latent, alone, rtol=1e-7, atol=1e-9)


@dataclass(frozen=True)
class OnlyRun:
    """A network whose layers are not known: the protocol only."""

    hidden: preimage.Generator
    latent_size: int = 3
    observation_size: int = 30
    digest: str = "run"
    draft: None = None

    def __call__(self, z):
        return self.hidden(z)

    def linearize(self, z):
        return self.hidden(z), self.hidden.jacobian(z)

    def jvp(self, z, tangent):
        return np.einsum("bnk,bk->bn", self.hidden.jacobian(z), tangent)

    def vjp(self, z, v):
        return self.hidden.vjp(z, v)


@pytest.mark.parametrize(
    "method",
    ["auto", *(preimage.GaussNewton(norm=p, restarts=24) for p in ("l2", "l1", "linf")),
     preimage.ProjectedGradient(steps=60), preimage.Adam(restarts=3)],
)  # fmt: skip
@pytest.mark.parametrize("sensing", [None, "mask", "matrix"])
def test_a_network_that_is_only_run_is_inverted(method, sensing):
    """Claim (issue 14): joint and gradient methods need the protocol and nothing of the layers."""
    rng = np.random.default_rng(7)
    z, network = rng.normal(size=(3, 3)), OnlyRun(GENERATOR)
    x, map_ = GENERATOR(z), None
    if sensing == "mask":
        map_ = rng.random((3, 30)) < 0.8
    if sensing == "matrix":
        map_ = np.linalg.qr(rng.normal(size=(30, 24)))[0].T
        x = x @ map_.T
    inversion = invert(network, x, method, sensing=map_)
    assert list(inversion.status) == ["solved"] * 3
    np.testing.assert_allclose(inversion.latent, z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "linf", "l1", "relaxed", preimage.BranchAndBound()])
def test_methods_that_need_the_layers_say_so(method):
    with pytest.raises(InputError, match=r"expected a preimage.Generator.*got OnlyRun.*use method"):
        invert(OnlyRun(GENERATOR), np.zeros(30), method)


def test_noise_may_differ_by_sample():
    z = np.random.default_rng(4).normal(size=(2, 3))
    x = GENERATOR(z)
    x[1] += 0.05
    inversion = invert(GENERATOR, x, "linf", noise=[0.0, 0.05])
    assert inversion.layers[-1].tolerance[0] < 1e-6
    assert inversion.layers[-1].tolerance[1] == pytest.approx(0.05)


def test_a_wrong_point_is_never_called_solved():
    x = GENERATOR(np.ones((1, 3)))
    assert invert(GENERATOR, x, Answer((1, 1, 1))).status[0] == "solved"
    assert invert(GENERATOR, x, Answer((1, 1, 1.001))).status[0] == "above_noise"
    assert invert(GENERATOR, x, Answer((1, 1, 1.001)), noise=1.0).status[0] == "solved"
    broken = invert(GENERATOR, x, Answer((1, 1, np.nan)))
    assert broken.status[0] == "failed"
    assert np.isnan(broken.latent).all()
    assert np.isnan(broken.residual[0])
    claimed = invert(GENERATOR, x, Answer((1, 1, 1), Status.AMBIGUOUS))
    assert claimed.status[0] == "ambiguous"
    gone = invert(GENERATOR, x, Answer((1, 1, 1), Status.INFEASIBLE))
    assert np.isnan(gone.latent).all()
    assert np.isnan(gone.residual_max[0])


def test_solved_means_within_the_noise_on_average_and_twice_that_at_worst():
    weight = np.eye(4, 1)
    generator = from_arrays([weight], [[1.0, 1.0, 1.0, 1.0]])
    errors = [[0.1] * 4, [0.19, 0.0, 0.0, 0.0], [0.21, 0.0, 0.0, 0.0], [0.11] * 4]
    inversion = invert(generator, 1 + np.array(errors), Answer((0, 0, 0, 0)), noise=0.1)
    assert list(inversion.status) == ["solved", "solved", "above_noise", "above_noise"]


def test_every_status_names_a_knob():
    for status in Status:
        assert len(status.message) > 20
    assert "noise" in Status.ABOVE_NOISE.message
    assert "steps" in Status.STEP_LIMIT.message
    assert "backend" in Status.FAILED.message


def test_negative_entries_under_a_relu_are_noise_and_counted():
    z = np.random.default_rng(5).normal(size=(1, 3))
    x = GENERATOR(z)
    zeros = np.flatnonzero(x[0] == 0)
    x[0, zeros[0]], x[0, zeros[1]] = -0.5, -0.01
    inversion = invert(GENERATOR, x, "linf", noise=0.1)
    assert inversion.layers[-1].outside[0] == 1
    assert np.isfinite(inversion.latent).all()


def test_repr_counts_the_statuses():
    inversion = invert(GENERATOR, GENERATOR(np.ones((2, 3))), "exact")
    assert repr(inversion) == "Inversion(2 samples: 2 solved)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(observation=np.zeros(29)), r"observation: expected shape \(30,\) or \(batch, 30\)"),
        (dict(observation=np.zeros((1, 5, 6))), "flatten images"),
        (dict(observation=np.full(30, np.nan)), r"observation: .*nan at index \(0,\) \(30 in all"),
        (dict(observation=np.full(30, np.nan)), "hide missing entries by a mask, `sensing`"),
        (dict(observation=np.ma.array(np.zeros(30), mask=np.arange(30) < 3)), "getmaskarray"),
        (dict(observation=None), "observation: expected real numbers .*got NoneType"),
        (dict(observation=np.zeros(30, complex)), "observation: expected real numbers"),
        (dict(observation=np.zeros(30, object)), "observation: expected real numbers"),
        (dict(observation=[[0.0], [0.0, 1.0]]), "observation: expected an array"),
        (dict(noise=-1e-3), "noise: expected a level of at least 0, got -0.001"),
        (dict(noise=np.nan), "noise: expected finite"),
        (dict(noise=[0.1, 0.2]), r"noise: expected a number, shape \(1,\)"),
        (dict(method="newton"), "method: expected one of auto, exact, linf"),
        (dict(method=preimage.Exact), "method: expected one of"),
        (dict(method=None), "method: expected one of"),
        (dict(generator=lambda z: z), "expected a preimage.Generator or another Network, got f"),
    ],
)
def test_bad_input_is_named(arguments, message):
    good = dict(generator=GENERATOR, observation=np.zeros(30), method="exact", noise=0.0)
    with pytest.raises(InputError, match=message):
        _call(**{**good, **arguments})


def _call(generator, observation, method, noise):
    return invert(generator, observation, method, noise=noise)


def test_batches_join_and_reconstruct():
    """Claim: the parts of a batch, joined, are the batch; a missing code is a missing output."""
    x = GENERATOR(np.random.default_rng(6).normal(size=(4, 3)))
    whole = invert(GENERATOR, x, "exact")
    joined = preimage.Inversion.concatenate([invert(GENERATOR, p, "exact") for p in (x[:1], x[1:])])
    np.testing.assert_allclose(joined.latent, whole.latent, rtol=1e-9)
    assert list(joined.status) == list(whole.status)
    np.testing.assert_array_equal(joined.layers[1].active, whole.layers[1].active)
    np.testing.assert_allclose(whole.reconstruct(GENERATOR), x, atol=1e-9)
    lost = invert(GENERATOR, x, Answer((np.nan,) * 12))
    assert np.isnan(lost.reconstruct(GENERATOR)).all()
    assert lost.squeeze().reconstruct(GENERATOR).shape == (30,)


@pytest.mark.parametrize("name", ["auto", "gauss_newton", "gradient", "adam", "projected_gradient"])
def test_a_time_limit_ends_with_the_best_so_far(name):
    """Claim (issue 14): the call ends soon after its time, with finite codes and a status."""
    rng = np.random.default_rng(8)
    generator = gaussian_generator((20, 100, 300), rng, bias=True)
    x = np.abs(rng.normal(size=(400, 300)))
    slow = {
        "auto": preimage.Auto(restarts=500),
        "gauss_newton": preimage.GaussNewton(restarts=500),
        "gradient": preimage.GradientDescent(rate=1e-4, steps=10**6),
        "adam": preimage.Adam(steps=10**6),
        "projected_gradient": preimage.ProjectedGradient(steps=10**6),
    }
    start = time.perf_counter()
    inversion = invert(generator, x, slow[name], noise=1e-3, time_limit=0.3, progress=False)
    assert time.perf_counter() - start < 10
    assert np.isfinite(inversion.latent).all()
    assert set(inversion.status) == {"time_limit"}
    # What is explained in time is solved all the same, however long the limit is.
    if name not in ("gradient", "adam"):
        easy = invert(generator, generator(rng.normal(size=(2, 20))), name, time_limit=1e6)
        assert list(easy.status) == ["solved"] * 2


def test_progress_is_shown_on_request_only_and_after_a_second(monkeypatch, capsys):
    monkeypatch.setattr("preimage.clock._DELAY", 0.0)
    x = GENERATOR(np.random.default_rng(9).normal(size=(3, 3)))
    for method in ("auto", "exact", preimage.Adam(steps=3, restarts=1)):
        invert(GENERATOR, x, method)
        assert capsys.readouterr().err == ""
        invert(GENERATOR, x, method, progress=True)
        shown = capsys.readouterr()
        assert "/3 " in shown.err
        assert shown.out == ""


@pytest.mark.parametrize("limit", [0, -1, np.nan, "long"])
def test_a_time_limit_is_a_positive_number(limit):
    with pytest.raises(InputError, match="time_limit: expected a number above 0"):
        invert(GENERATOR, np.zeros(30), time_limit=limit)
