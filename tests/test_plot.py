"""Image grids."""

from xml.etree import ElementTree

import numpy as np
import pytest

import preimage
from preimage.plot import (
    certificate_figure,
    histogram_svg,
    image_grid,
    image_shape,
    intervals_svg,
)


@pytest.mark.parametrize(
    ("size", "shape"), [(784, (28, 28)), (3072, (3, 32, 32)), (500, (1, 500)), (1, (1, 1))]
)
def test_shape_guess(size, shape):
    assert image_shape(size) == shape


def test_one_axes_a_row_on_a_fixed_scale(tmp_path):
    bright = np.full((2, 16), 3.0)
    figure = image_grid({"observation": bright, "linf": -bright}, columns=["outputs"])
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["observation", "linf"]
    assert figure.axes[0].texts[1].get_text() == "outputs"
    mosaics = [axes.images[0].get_array() for axes in figure.axes]
    assert [mosaic.shape for mosaic in mosaics] == [(4, 9, 4)] * 2  # a gap of one pixel
    assert mosaics[0][:, :4, :3].min() == 1.0
    assert mosaics[1][..., :3].max() == 0.0
    figure.savefig(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 500


def test_missing_samples_stay_blank():
    values = np.array([[0.5] * 4, [np.nan] * 4])
    alpha = image_grid({"linf": values}).axes[0].images[0].get_array()[..., 3]
    np.testing.assert_array_equal(alpha, [[1, 1, 0, 0, 0]] * 2)


def test_colour_is_channels_first():
    red = np.concatenate([np.ones(4), np.zeros(8)])[None]
    image = image_grid({"x": red}).axes[0].images[0].get_array()
    np.testing.assert_array_equal(image, np.broadcast_to([1.0, 0, 0, 1], (2, 2, 4)))


def test_strips(tmp_path):
    figure = image_grid({"x": np.zeros((3, 50)), "long label of a row": np.ones((3, 50))})
    figure.savefig(tmp_path / "strips.png")
    assert figure.axes[0].images[0].get_array().shape[0] == 1


@pytest.mark.parametrize(
    ("rows", "shape", "message"),
    [
        ({}, None, "one or more"),
        ({"x": np.zeros((0, 4))}, None, "non-empty"),
        ({"x": np.zeros(4)}, None, r"\(4,\)"),
        ({"x": np.zeros((1, 4)), "y": np.zeros((2, 4))}, None, "one shape"),
        ({"x": np.zeros((1, 4))}, (3, 3), "4 entries"),
        ({"x": np.zeros((1, 4))}, (1, 2, 2), "4 entries"),
    ],
)
def test_bad_input(rows, shape, message):
    with pytest.raises(preimage.InputError, match=message):
        image_grid(rows, shape)


def test_certificate_figure_shows_intervals_and_the_band(tmp_path):
    """Claim: what is drawn is what is given; shapes are checked."""
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 0.5])
    band = np.zeros(16), np.linspace(0.0, 1.0, 16)
    figure = certificate_figure(low, high, (low + high) / 2, band, title="unique")
    figure.savefig(tmp_path / "certificate.png")
    left, least, most, width = figure.axes[:4]
    assert left.get_title() == "unique"
    np.testing.assert_array_equal(
        [segment[:, 1] for segment in left.collections[0].get_segments()], np.c_[low, high]
    )
    np.testing.assert_array_equal(most.images[0].get_array(), band[1].reshape(4, 4))
    np.testing.assert_array_equal(width.images[0].get_array(), band[1].reshape(4, 4))
    assert not least.images[0].get_array().any()
    with pytest.raises(preimage.InputError, match="one shape"):
        certificate_figure(low, high[:1], low, band)
    with pytest.raises(preimage.InputError, match="16 entries"):
        certificate_figure(low, high, low, band, shape=(3, 3))


def test_intervals_in_a_page():
    """Claim: one line an interval, also without ends, and the words for those who do not see."""
    lower, upper = [-np.inf, 0.0, -1.0], [1.0, np.inf, 1.0]
    shown = intervals_svg(lower, upper, {"witness": np.zeros(3)}, 'a "label"')
    assert shown.startswith('<svg role="img" aria-label="a &quot;label&quot;" fill="currentColor"')
    assert "#000000" not in shown
    assert "http" not in shown
    assert "witness" in shown
    assert ElementTree.fromstring(shown.replace("xlink:", "")).tag == "svg"


def test_histograms():
    shown = histogram_svg(np.array([0.0, 1e-3, 1.0]), "residuals", 0.1)
    assert ">noise<" in shown
    assert histogram_svg(np.zeros(3), "residuals") == ""
    assert histogram_svg(np.ones(3), "residuals") == ""
