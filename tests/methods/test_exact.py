import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import gaussian_generator, relative_error

from preimage import Exact, Generator, Layer, LayerwiseLP, Status, from_arrays, invert
from preimage.methods.equations import least_squares, rank_of_rows
from preimage.scaling import scale as units_of


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.1)", "leaky_relu(0.01)", "identity"])
@pytest.mark.parametrize("sizes", [(20, 100, 500), (20, 100, 200, 500)])
def test_codes_come_back_to_rounding(sizes, activation, bias):
    """Theorem 2 and equation 5; `make claims` runs 100 draws of each."""
    for draw in range(3):
        rng = np.random.default_rng(draw)
        generator = gaussian_generator(sizes, rng, activation, bias=bias)
        z = rng.normal(size=(1, sizes[0]))
        inversion = invert(generator, generator(z), "exact")
        assert inversion.status[0] == "solved"
        assert relative_error(inversion.latent, z)[0] < 1e-9


@pytest.mark.parametrize("head", ["tanh", "sigmoid"])
def test_heads_are_inverted_analytically_and_saturated_entries_left_out(head):
    rng = np.random.default_rng(0)
    generator = gaussian_generator((5, 20, 60), rng, "relu", bias=True, head=head)
    z = rng.normal(size=(2, 5))
    x = generator(z)
    assert relative_error(invert(generator, x, "exact").latent, z).max() < 1e-9
    # An entry at the end of the range says only that its pre-activation is large.
    loud = from_arrays([np.vstack([np.eye(3), 60 * np.eye(3)])], head=head)
    z = np.array([[0.5, 0.7, -0.4]])
    inversion = invert(loud, loud(z), "exact")
    assert inversion.layers[0].active[0] < 6
    assert relative_error(inversion.latent, z)[0] < 1e-9


def test_fewer_active_rows_than_columns_but_a_domain_that_decides():
    """Claim (section 1): with z >= 0 a hidden layer may be unique below full rank."""
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(10):
        generator = gaussian_generator((5, 40, 72), rng)
        z = rng.normal(size=(1, 5))
        inversion = invert(generator, generator(z), "exact")
        if inversion.layers[1].rank[0] < 40 and inversion.status[0] == "solved":
            assert relative_error(inversion.latent, z)[0] < 1e-9
            assert inversion.layers[1].programs[0] == 3
            found += 1
    assert found >= 3


def test_example_of_uniqueness_without_any_active_row():
    """W = [I; -I], x = 0: rank 0, and yet z = 0 is the only preimage."""
    generator = from_arrays([np.vstack([np.eye(2), -np.eye(2)])])
    inversion = invert(generator, np.zeros(4), "exact")
    assert inversion.status == "solved"
    np.testing.assert_allclose(inversion.latent, 0, atol=1e-7)
    assert inversion.layers[0].rank == 0


@pytest.mark.parametrize("backend", ["highs", "kernel"])
def test_a_layer_that_does_not_determine_its_input_is_ambiguous(backend):
    wide = from_arrays([[[1.0, 1.0]]])  # z1 + z2 is all that can be seen
    inversion = invert(wide, [3.0], Exact(backend))
    assert inversion.status == "ambiguous"
    assert inversion.layers[0].rank == 1
    dead = from_arrays([np.eye(3)])
    assert invert(dead, [1.0, 0.0, 2.0], Exact(backend)).status == "ambiguous"


def test_out_of_range_is_not_solved():
    rng = np.random.default_rng(2)
    generator = gaussian_generator((3, 12, 30), rng)
    x = generator(rng.normal(size=3)) + 0.1 * rng.normal(size=30)
    inversion = invert(generator, x, "exact")
    assert inversion.status == "above_noise"
    assert inversion.residual_max > 1e-3


def test_least_squares_tells_units_from_rank():
    """Claim: columns of very different size are full rank, dependent ones are not; many at once."""
    rng = np.random.default_rng(3)
    matrix, z = rng.normal(size=(30, 4)), rng.normal(size=4)
    units = np.array([1e-12, 1.0, 1e12, 1e3])
    scale = np.ones((3, 30))
    scale[1, 3:] = 0  # three rows for four columns
    scale[2, ::2] = 0
    found, full = least_squares(units_of(matrix * units), scale, np.tile(matrix @ z, (3, 1)))
    np.testing.assert_allclose(found[full], np.tile(z / units, (2, 1)), rtol=1e-9)
    assert full.tolist() == [True, False, True]
    assert rank_of_rows(units_of(matrix), scale > 0).tolist() == [4, 3, 4]
    for column in (matrix[:, 0] + matrix[:, 1], 0):
        matrix[:, 3] = column
        assert not least_squares(units_of(matrix), scale, np.tile(matrix @ z, (3, 1)))[1].any()
        assert rank_of_rows(units_of(matrix), scale > 0).tolist() == [3, 3, 3]


@given(seed=st.integers(0, 10**6), decades=st.floats(0, 9))
def test_least_squares_is_numpys(seed, decades):
    """Claim: weighted least squares on chosen rows, as ``lstsq`` has it, however conditioned."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(6, 40)), int(rng.integers(1, 6))
    matrix = rng.normal(size=(n, k)) @ np.diag(10.0 ** -np.linspace(0, decades, k))
    matrix = matrix @ np.linalg.qr(rng.normal(size=(k, k)))[0]
    scale = rng.uniform(0.5, 2, size=(5, n)) * (rng.random((5, n)) < 0.8)
    z = rng.normal(size=(5, k))
    noise = rng.normal(size=(5, n)) * 1e-6
    found, full = least_squares(units_of(matrix), scale, z @ matrix.T + noise)
    for i in np.flatnonzero(full):
        rows = scale[i][:, None] * matrix
        expected = np.linalg.lstsq(rows, scale[i] * (matrix @ z[i] + noise[i]), rcond=None)[0]
        error = np.abs(rows @ (found[i] - expected)).max()
        assert error <= 1e-12 * np.abs(rows).max() * max(1, np.abs(expected).max())
    assert full[(scale > 0).sum(axis=1) >= k].all()


@pytest.mark.parametrize("units", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("latents", [(1.0, 1.0), (1.0, 1e4), (1e-4, 1.0)])
def test_a_free_code_is_ambiguous_in_any_units(units, latents):
    """Claim: what the rows leave free is said to be free, whatever the units of x and of z.

    z_0 is given by one equation; z_1 lies between 0 and 1, where both of its rows are inactive.
    """
    weight = units * np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) / np.array(latents)
    generator = Generator((Layer(weight, units * np.array([0.0, -1.0, -1.0])),))
    x = generator(np.array([1.0, 0.5]) * latents)
    assert invert(generator, x, "exact").status == Status.AMBIGUOUS
    found = invert(generator, generator(np.array([1.0, 2.0]) * latents), "exact")
    assert found.status == Status.SOLVED
    np.testing.assert_allclose(found.latent, np.array([1.0, 2.0]) * latents, rtol=1e-9)


def mixed(exponent, of, rng):
    size = {"entries": (30, 5), "rows": (30, 1), "columns": (1, 5), "all": (1, 1)}[of]
    return 10.0 ** (exponent * rng.choice([-1, 1], size=size))


@pytest.mark.parametrize("of", ["entries", "rows", "columns", "all"])
@pytest.mark.parametrize("exponent", [20, 65, 117, 140])
@pytest.mark.parametrize("method", [Exact(), Exact("highs"), LayerwiseLP(), LayerwiseLP("l1")])
def test_weights_of_any_magnitude_are_a_status(of, exponent, method):
    """Claim: no exception, no crash, no hang; numbers that cannot be solved are said to fail."""
    rng = np.random.default_rng(exponent)
    weight = rng.normal(size=(30, 5)) * mixed(exponent, of, rng)
    generator = Generator((Layer(weight),))
    z = np.abs(rng.normal(size=(2, 5)))
    found = invert(generator, generator(z), method)
    if of in ("rows", "all"):  # one unit for each latent: nothing is lost in rounding
        assert found.status.tolist() == ["solved"] * 2
        np.testing.assert_allclose(found.latent, z, rtol=1e-6)


@pytest.mark.parametrize("method", ["auto", "linf", "gauss_newton", "projected_gradient"])
@pytest.mark.parametrize("size", [1e-153, 1e-155, 1e-157, 1e-160, 1e-163, 1e-180])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_whose_squares_nearly_vanish_are_a_status(size, method):
    """Claim: steps that are too long for floats are no exception."""
    rng = np.random.default_rng(0)
    layers = (
        Layer(rng.normal(size=(8, 3)) * size, activation="relu"),
        Layer(rng.normal(size=(20, 8))),
    )
    found = invert(Generator(layers), rng.normal(size=(2, 20)), method, noise=1e-3)
    assert np.isfinite(found.latent).all()
    assert found.status.shape == (2,)
