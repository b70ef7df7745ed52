import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preimage import Identity, InputError, LeakyReLU, ReLU, Sigmoid, Tanh
from preimage.activation import ELU, PReLU, Softplus, as_activation

SMOOTH = [Tanh(), Sigmoid(), ELU(), ELU(0.3), ELU(1.7), Softplus(), Softplus(3.0)]
KINKED = [ReLU(), LeakyReLU(0.1), LeakyReLU(0.01), LeakyReLU(0.9), Identity(), PReLU((0.0,))]
ALL = [*KINKED, *SMOOTH]
number = st.floats(-4, 4, allow_nan=False)


@pytest.mark.parametrize("activation", ALL, ids=repr)
@given(a=number, x=number, tolerance=st.floats(1e-3, 2))
def test_slab_at_its_tolerance_is_exactly_the_pre_activations_within_it(
    activation, a, x, tolerance
):
    """Claim: at delta = eps the rows say |act(a) - x| <= eps, no more and no less.

    Outside the range of the activation the rows are looser (heads) or one-sided (a ReLU at
    x < -eps), as the paper's are, so x is drawn inside.
    """
    low, high = activation.range
    x = float(np.clip(x, low, high))
    slab = activation.slab(np.array([x]), tolerance).at(tolerance)
    error = abs(activation(np.array([a]))[0] - x)
    inside = slab.lower[0] <= a <= slab.upper[0]
    if abs(error - tolerance) > 1e-9:
        assert inside == (error < tolerance)


@pytest.mark.parametrize("activation", ALL, ids=repr)
@given(a=number)
def test_derivative_is_the_limit_of_differences(activation, a):
    step = 1e-6
    if abs(a) < 1e-5:
        return
    pair = activation(np.array([a + step, a - step]))
    assert activation.derivative(np.array([a]))[0] == pytest.approx(
        (pair[0] - pair[1]) / (2 * step), abs=1e-8
    )


@pytest.mark.parametrize("activation", ALL, ids=repr)
@given(a=number)
def test_inverse_undoes_the_activation(activation, a):
    x = activation(np.array([a]))
    back = activation.inverse(x)[0]
    if activation in (ReLU(), PReLU((0.0,))) and a <= 0:
        assert np.isnan(back)
    else:
        assert back == pytest.approx(a, abs=1e-10)


@pytest.mark.parametrize("head", [Tanh(), Sigmoid()], ids=repr)
def test_saturated_values_constrain_one_side_only(head):
    low, high = head.range
    x = np.array([low, high, low - 0.5, high + 0.5])
    assert np.isnan(head.inverse(x)).all()
    slab = head.slab(x, 0.0)
    assert np.isneginf(slab.lower[[0, 2]]).all()
    assert np.isposinf(slab.upper[[1, 3]]).all()
    assert np.isfinite(slab.lower[[1, 3]]).all()
    assert np.isfinite(slab.upper[[0, 2]]).all()


@pytest.mark.parametrize("activation", ALL, ids=repr)
def test_names_round_trip(activation):
    assert as_activation(activation.name) == activation


@pytest.mark.parametrize("slope", [0, 1, -0.1, 1.5, float("nan"), "0.1", None])
def test_slopes_outside_the_open_unit_interval_are_refused(slope):
    with pytest.raises(InputError, match=r"slope must lie in the open interval \(0, 1\)"):
        LeakyReLU(slope)


@pytest.mark.parametrize(
    "name", ["gelu", "elu(0)", "relu(1)", "leaky_relu(", "leaky_relu(2)", 3, ReLU]
)
def test_unknown_activations_are_refused(name):
    with pytest.raises((InputError, ValueError), match=r"expected one of|slope|positive"):
        as_activation(name)


@pytest.mark.parametrize("activation", KINKED, ids=repr)
@given(a=number)
def test_slopes_are_those_of_the_pieces(activation, a):
    below, above = activation.slopes(1)
    expected = a * (above if a >= 0 else below)
    assert activation(np.array([a])) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("activation", SMOOTH, ids=repr)
def test_smooth_activations_have_no_pieces(activation):
    assert activation.slopes(3) is None


def test_a_prelu_mixes_rectified_and_carried_units():
    """Claim: slopes of 0 and 1 act as ReLU and as identity, unit by unit, in the relaxation too."""
    mixed, x = PReLU((0.0, 1.0)), np.array([[-0.5, -0.5], [0.05, 0.05], [2.0, 2.0]])
    for column, part in enumerate((ReLU(), Identity())):
        for name in ("__call__", "derivative", "inverse"):
            found = getattr(mixed, name)(x)[:, column]
            assert np.array_equal(found, getattr(part, name)(x[:, column]), equal_nan=True)
        for name in ("slab", "relaxed_slab"):
            expected = getattr(part, name)(x[:, column], 0.1).at(0.1)
            found = getattr(mixed, name)(x, 0.1).at(0.1)
            for mine, other in zip(found, expected, strict=True):
                assert np.array_equal(mine[:, column], other)
