"""What notebooks show."""

import numpy as np
import pytest

import preimage

REFERENCE = preimage.LayerwiseLP(backend="highs")  # nothing to compile


@pytest.fixture
def inverted():
    rng = np.random.default_rng(0)
    generator = preimage.from_arrays([rng.standard_normal((36, 3))])
    images = generator(rng.standard_normal((8, 3)))
    return generator, images, preimage.invert(generator, images, REFERENCE)


def test_tables_and_thumbnails(inverted):
    generator, images, inversion = inverted
    assert generator._repr_html_().count("<img") == 6
    assert "3 -&gt; 36" in generator._repr_html_()
    assert inversion._repr_html_().count("<img") == 6
    assert preimage.invert(generator, images[0], REFERENCE)._repr_html_().count("<img") == 1


def test_frame_holds_every_sample(inverted):
    _, _, inversion = inverted
    frame = inversion.to_pandas()
    np.testing.assert_array_equal(frame[["z0", "z1", "z2"]], inversion.latent)
    np.testing.assert_array_equal(frame["residual"], inversion.residual)
    assert list(frame["status"]) == list(inversion.status)


def test_plot_shows_both_rows(inverted):
    generator, images, inversion = inverted
    assert len(inversion.plot(generator).axes) == 1
    assert len(inversion.plot(generator, images).axes) == 2
    with pytest.raises(preimage.InputError, match="one shape"):
        inversion.plot(generator, images[:2])


def test_certificates_show_their_intervals():
    """Claim: a table with every verdict, and a drawing wherever there may be a code."""
    generator = preimage.from_arrays([np.random.default_rng(0).standard_normal((36, 3))])
    images = generator(np.random.default_rng(1).standard_normal((2, 3)))
    certificate = preimage.certify(generator, [*images, -np.ones(36)], noise=1e-3, box=4.0)
    assert list(certificate.verdict) == ["unique", "unique", "infeasible"]
    shown = certificate._repr_html_()
    assert shown.count("<svg") == 2
    for verdict in certificate.verdict:
        assert f"<td>{verdict}</td>" in shown
    single = preimage.certify(generator, images[0], noise=1e-3, box=4.0)
    assert single._repr_html_().count("<svg") == 1


def test_versions(capsys):
    assert preimage.show_versions() is None
    shown = capsys.readouterr().out
    assert f"preimage: {preimage.__version__}" in shown
    assert f"numpy: {np.__version__}" in shown
