"""PReLU: a LeakyReLU with a slope for each channel, in every part of the protocol."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preimage import InputError, LeakyReLU
from preimage.activation import Activation, PReLU, as_activation

number = st.floats(-4, 4, allow_nan=False)
# Slopes above 1 too: they occur in trained networks.
positive = st.floats(0.05, 3)
RNG = np.random.default_rng(0)


def test_it_is_an_activation():
    assert isinstance(PReLU((0.5,)), Activation)


@pytest.mark.parametrize("repeat", [1, 4])
def test_it_is_a_leaky_relu_in_each_channel(repeat):
    """Claim: values, derivatives, inverses and slabs are those of LeakyReLU, channel by channel."""
    slopes = (0.1, 0.5, 0.9)
    activation = PReLU(slopes, repeat)
    a = RNG.standard_normal((7, 3 * repeat))
    for tolerance in (0.3, RNG.uniform(0.1, 1, (7, 1))):
        for channel, slope in enumerate(slopes):
            one = LeakyReLU(slope)
            part = slice(channel * repeat, (channel + 1) * repeat)
            for name in ("__call__", "derivative", "inverse"):
                found = getattr(activation, name)(a)[:, part]
                assert np.array_equal(found, getattr(one, name)(a[:, part]))
            for name in ("slab", "relaxed_slab"):
                found = getattr(activation, name)(a, tolerance)
                expected = getattr(one, name)(a[:, part], tolerance)
                for mine, others in zip(found, expected, strict=True):
                    assert np.array_equal(mine[:, part], others)


@given(a=number, x=number, slope=positive, tolerance=st.floats(1e-3, 2))
def test_slab_at_its_tolerance_is_exactly_the_pre_activations_within_it(a, x, slope, tolerance):
    """Claim: at delta = eps the rows say |act(a) - x| <= eps, for slopes above 1 as well."""
    activation = PReLU((slope,))
    slab = activation.slab(np.array([x]), tolerance).at(tolerance)
    error = abs(activation(np.array([a]))[0] - x)
    inside = slab.lower[0] <= a <= slab.upper[0]
    if abs(error - tolerance) > 1e-9:
        assert inside == (error < tolerance)


@given(a=number, slope=positive, tolerance=st.floats(1e-3, 2), error=st.floats(-1, 1))
def test_relaxed_slab_holds_every_pre_activation(a, slope, tolerance, error):
    """Claim: whatever the sign, a pre-activation whose value is within eps of x is inside."""
    activation = PReLU((slope,))
    x = activation(np.array([a])) + error * tolerance
    slab = activation.relaxed_slab(x, tolerance).at(tolerance)
    assert slab.lower[0] - 1e-12 <= a <= slab.upper[0] + 1e-12


@given(a=number, slope=positive)
def test_inverse_undoes_the_activation(a, slope):
    activation = PReLU((slope, 0.5), repeat=2)
    values = np.full(4, a)
    assert activation.inverse(activation(values)) == pytest.approx(values, abs=1e-12)


def test_names_round_trip():
    """Claim: a file keeps every slope exactly."""
    activation = PReLU((1 / 3, 2.0, 1e-300), repeat=49)
    assert as_activation(activation.name) == activation
    assert PReLU((0.25,), 2).name == "prelu(0.25;2)"


@pytest.mark.parametrize("slopes", [(), (0.1, -0.2), (np.nan,), (np.inf,)])
def test_negative_slopes_are_refused(slopes):
    with pytest.raises(InputError, match="slopes must not be negative"):
        PReLU(slopes)


@pytest.mark.parametrize("repeat", [0, -1, 1.5])
def test_repeats_that_are_no_count_are_refused(repeat):
    with pytest.raises(InputError, match="repeat must be a positive integer"):
        PReLU((0.1,), repeat)


@pytest.mark.parametrize("name", ["prelu", "prelu()", "prelu(0.1)", "prelu(0.1;0)", "prelu(x;1)"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError):
        as_activation(name)
