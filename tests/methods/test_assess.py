"""What a status claims, recomputed from the network: it never says more than the code shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import preimage
from preimage.inversion import Estimate, Status
from preimage.methods.assess import assess
from preimage.observation import check_observation

RNG = np.random.default_rng(1)
HIDDEN, OUTER = RNG.standard_normal((40, 8)), RNG.standard_normal((120, 40)) / 2
CODES = RNG.standard_normal((12, 8))
DEPENDENT = [[1.0, -1.0], [1.0, -1.0]]  # sees z_1 - z_2 alone
EXPLAINING = {Status.SOLVED, Status.AMBIGUOUS}


@pytest.mark.parametrize("head", ["sigmoid", "tanh"])
@pytest.mark.parametrize(("scale", "shift"), [(255, 0), (1, 3), (-1, 0), (1e6, 0)])
def test_ambiguous_says_that_the_code_explains(head, scale, shift):
    """Values outside the range: no code explains them, so that no status may say so."""
    generator = preimage.from_arrays([HIDDEN, OUTER], activation="relu", head=head)
    observation = scale * generator(CODES) + shift
    inversion = preimage.invert(generator, observation, noise=1e-3)
    assert not set(inversion.status) & (EXPLAINING - {Status.SOLVED})
    assert (inversion.residual_max[inversion.status == Status.SOLVED] < 2e-3).all()


@pytest.mark.parametrize("method", ["auto", "linf", "l1", "gauss_newton", "exact"])
def test_dependent_columns(method):
    """The code is never unique; only an observation in the range has one that explains it."""
    generator = preimage.from_arrays([DEPENDENT], activation="identity")
    inversion = preimage.invert(generator, [[1.0, 1.0], [1.0, 2.0]], method)
    assert inversion.status[0] == Status.AMBIGUOUS
    assert inversion.status[1] not in EXPLAINING


@pytest.mark.parametrize("ended", [s for s in Status if s.has_latent])
def test_how_a_method_ended_does_not_matter_to_a_code_that_explains(ended):
    generator = preimage.from_arrays([HIDDEN], activation="relu")
    observation, _ = check_observation(generator, generator(CODES), 0.0)
    for codes, expected in ((CODES, Status.SOLVED), (CODES + 1, None)):
        status = assess(generator, observation, Estimate(codes, ended.each(12))).status
        if expected is None:
            limit = ended in (Status.STEP_LIMIT, Status.TIME_LIMIT)
            expected = ended if limit else Status.ABOVE_NOISE
        elif ended == Status.AMBIGUOUS:
            expected = ended
        assert (status == expected).all()


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_a_message(status):
    assert len(status.message) > 20
    assert (status.each(2) == status).all()


@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("method", ["linf", "gauss_newton", "auto"])
def test_conditioning_is_told(method, apart):
    """Claim (18.L): almost dependent columns give a code whose condition number says so."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(30, 4))
    weight[:, 3] = weight[:, 2] + apart * weight[:, 3]
    weight[:, 1] *= 1e4  # units of a coordinate are no matter
    generator = preimage.from_arrays([weight], activation="identity")
    x = generator(rng.normal(size=(2, 4))) + rng.uniform(-1e-3, 1e-3, (2, 30))
    inversion = preimage.invert(generator, x, method, noise=1e-3)
    exact = np.linalg.cond(weight / np.linalg.norm(weight, axis=0))
    assert (inversion.condition >= exact * (1 - 1e-4)).all()
    assert (inversion.condition <= 4 * exact).all()
    assert preimage.invert(generator, x[0], method, noise=1e-3).condition.shape == ()


@pytest.mark.parametrize("decades", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("method", ["linf", "l1", "gauss_newton", "auto"])
def test_rank_and_steps_do_not_depend_on_units(method, decades):
    """Claim: columns scaled by s, 1 and 1/s are a code in other units, and no other status."""
    rng = np.random.default_rng(0)
    weight, z = rng.standard_normal((30, 3)), rng.standard_normal(3)
    x = weight @ z + rng.uniform(-0.01, 0.01, 30)
    units = 10.0 ** np.array([-decades, 0, decades])
    plain, scaled = (
        preimage.invert(
            preimage.from_arrays([weight * s], activation="identity"), x, method, noise=0.01
        )
        for s in (np.ones(3), units)
    )
    assert (scaled.status, scaled.rank) == ("solved", 3)
    np.testing.assert_allclose(scaled.latent * units, z, atol=0.01)
    np.testing.assert_allclose(scaled.residual, plain.residual, rtol=0.5)


@pytest.mark.parametrize("apart", [1e8, 1e20])
@pytest.mark.parametrize("method", ["exact", "linf", "gauss_newton"])
def test_columns_that_rounding_hides_are_ambiguous(apart, method):
    """A coordinate whose column is 1e20 times smaller than another's is not determined."""
    rng = np.random.default_rng(0)
    generator = preimage.from_arrays([rng.standard_normal((30, 3)) * [1.0, apart, 1 / apart]])
    found = preimage.invert(generator, generator(rng.standard_normal((4, 3))), method)
    assert set(found.status) == {"ambiguous"}


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    method=st.sampled_from(["linf", "l1", "highs", "gauss_newton", "adam"]),
    apart=st.floats(0, 17),
)
def test_no_code_of_other_columns_is_called_solved(seed, method, apart):
    """Claim: what is solved without noise is the code, in units of 1 or of its own size.

    Whatever the columns' units are: linear programs resolve 1e-9 of the observation, so that they
    tell nothing of a coordinate whose column is smaller than that.
    """
    rng = np.random.default_rng(seed)
    units = 10.0 ** (apart * rng.uniform(-0.5, 0.5, size=3))
    generator = preimage.from_arrays([rng.normal(size=(30, 3)) * units])
    z = rng.normal(size=(2, 3))
    method = {
        "adam": preimage.Adam(steps=50, restarts=1),
        "highs": preimage.LayerwiseLP(backend="highs"),
    }.get(method, method)
    found = preimage.invert(generator, generator(z), method)
    solved = found.status == "solved"
    assert (np.abs(found.latent - z)[solved] <= np.maximum(np.abs(z[solved]), 1.0)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e100, 1e140, 1e-140])
@pytest.mark.parametrize("method", ["auto", "gauss_newton", "linf", "exact"])
@pytest.mark.parametrize("place", [0, 1])
def test_weights_of_any_size_leave_no_warning(size, method, place):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(10, 3)), rng.normal(size=(25, 10))]
    weights[place] *= size
    generator = preimage.from_arrays(weights, activation="leaky_relu(0.2)")
    z = rng.normal(size=(2, 3))
    found = preimage.invert(generator, generator(z), method)
    solved = found.status == "solved"
    np.testing.assert_allclose(found.latent[solved], z[solved], rtol=1e-5)


def test_columns_in_other_units_are_not_hidden():
    rng = np.random.default_rng(0)
    units = np.array([1.0, 1e20, 1e-20])
    generator = preimage.from_arrays([rng.standard_normal((30, 3)) * units])
    z = rng.standard_normal((4, 3)) / units
    found = preimage.invert(generator, generator(z), "exact")
    assert set(found.status) == {"solved"}
    np.testing.assert_allclose(found.latent, z, rtol=1e-6)
