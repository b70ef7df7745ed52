import numpy as np
import pytest
from planted import gaussian_generator, relative_error

import preimage
from preimage import Auto, InputError, invert


def answered(inversion):
    """Name of the stage that answered each sample."""
    names = np.array([stage.name for stage in inversion.stages])
    return names[np.argmax([stage.answered for stage in inversion.stages], axis=0)]


def test_noiseless_codes_come_from_the_exact_stage():
    rng = np.random.default_rng(0)
    generator = gaussian_generator((5, 25, 100), rng)
    z = rng.normal(size=(4, 5))
    inversion = invert(generator, generator(z))
    assert (answered(inversion) == "exact").all()
    assert (inversion.status == "solved").all()
    assert relative_error(inversion.latent, z).max() < 1e-9
    # The later stages were not tried.
    assert all(np.isnan(stage.residual).all() for stage in inversion.stages[1:])


def test_where_a_layer_contracts_a_later_stage_answers():
    rng = np.random.default_rng(1)
    generator = gaussian_generator((5, 60, 30), rng, bias=True)
    z = rng.normal(size=(6, 5))
    inversion = invert(generator, generator(z), "auto")
    assert (answered(inversion) != "exact").all()
    assert np.isnan(inversion.stages[0].residual).all()
    assert relative_error(inversion.latent, z).max() < 1e-9


@pytest.mark.parametrize("noise", [0.0, 1e-4])
@pytest.mark.parametrize(("wide", "tried"), [((40, 40), False), ((40, 60), True)])
def test_square_layers_of_relus_are_not_inverted_layer_by_layer(wide, tried, noise):
    """Claim: half of the rows do not determine the input; programs of that size are not solved."""
    rng = np.random.default_rng(4)
    generator = gaussian_generator((5, *wide, 200), rng, bias=True)
    z = rng.normal(size=(4, 5))
    inversion = invert(generator, generator(z), "auto", noise=noise)
    first = next(stage for stage in inversion.stages if np.isfinite(stage.residual).all())
    assert (first.name == "exact") == (tried and not noise)
    assert tried or all(
        np.isnan(s.residual).all() for s in inversion.stages if s.name in ("exact", "layerwise")
    )
    assert tried or (inversion.status == "solved").all()
    assert relative_error(inversion.latent, z).max() < 1e-3


@pytest.mark.parametrize("noise", [1e-4, 0.05])
def test_no_worse_than_the_true_code_and_than_any_stage(noise):
    """Claim: under noise the residual is at most that of the true code, on these draws."""
    rng = np.random.default_rng(2)
    generator = gaussian_generator((6, 30, 120), rng, bias=True)
    z = rng.normal(size=(12, 6))
    error = rng.uniform(-noise, noise, size=(12, 120))
    x = generator(z) + error
    inversion = invert(generator, x, "auto", noise=noise)
    assert (inversion.residual <= np.linalg.norm(x - generator(z), axis=1) * (1 + 1e-9)).all()
    best = np.nanmin([stage.residual for stage in inversion.stages], axis=0)
    np.testing.assert_allclose(inversion.residual, best, rtol=1e-12)
    assert sum(stage.answered.astype(int) for stage in inversion.stages).tolist() == [1] * 12


def test_out_of_range_is_not_called_solved_and_costs_no_layer_programs():
    """Claim: where the last layer alone cannot come near, no code can, and less is tried."""
    rng = np.random.default_rng(3)
    generator = gaussian_generator((3, 12, 30), rng)
    inversion = invert(generator, rng.normal(size=(2, 30)), "auto", noise=0.01)
    assert (inversion.status == "above_noise").all()
    tried = {s.name for s in inversion.stages if np.isfinite(s.residual).all()}
    assert tried == {"joint", "restarts"}


@pytest.mark.parametrize("hidden", [0, 3])
def test_what_the_last_layer_can_reach_is_tried_by_more_stages(hidden):
    """Claim: an image of the last layer that no code of the first explains is no easy case.

    Perturbations are tried where entries are hidden; else restarts find what there is.
    """
    rng = np.random.default_rng(3)
    generator = gaussian_generator((3, 12, 30), rng)
    x = generator.layers[1](np.abs(rng.normal(size=(2, 12))))
    inversion = invert(generator, x, "auto", noise=0.01, sensing=np.arange(30) >= hidden)
    assert (inversion.status == "above_noise").all()
    tried = {s.name for s in inversion.stages if np.isfinite(s.residual).all()}
    assert tried == {"joint", "layerwise", "restarts"} | ({"perturbed"} if hidden else set())


def test_stages_compare_errors_in_units_of_the_noise_of_each_entry():
    """Claim: entries of much noise neither hide a code that explains, nor ask for more stages."""
    rng = np.random.default_rng(5)
    generator = gaussian_generator((6, 30, 120), rng, bias=True)
    noise = np.where(rng.random(120) < 0.3, 10.0, 1e-3)
    z = rng.normal(size=(4, 6))
    x = generator(z) + noise * rng.uniform(-1, 1, size=(4, 120))
    inversion = invert(generator, x, "auto", noise=noise)
    assert (inversion.status == "solved").all()
    assert relative_error(inversion.latent, z).max() < 1e-2
    assert (answered(inversion) == "joint").all()
    assert np.isnan(inversion.stages[-1].residual).all()


def test_stages_survive_squeezing_and_joining():
    rng = np.random.default_rng(4)
    generator = gaussian_generator((3, 12, 30), rng)
    x = generator(rng.normal(size=(2, 3)))
    single = invert(generator, x[0])
    assert single.stages[0].answered
    joined = preimage.Inversion.concatenate([invert(generator, row[None]) for row in x])
    assert [stage.name for stage in joined.stages] == [s.name for s in single.stages]
    assert joined.stages[0].residual.shape == (2,)


def test_bad_parameters_are_named():
    with pytest.raises(InputError, match="restarts: expected a whole number"):
        Auto(restarts=0)
    with pytest.raises(InputError, match="backend: expected one of"):
        Auto(backend="glpk")
