"""What notebooks show."""

import io

import numpy as np
from PIL import Image

import preimage
from preimage.notebook import table
from preimage.pixels import png


def test_png_is_read_by_another_library():
    """Claim: an independent reader finds the gray levels again; NaN is transparent."""
    image = np.asarray(Image.open(io.BytesIO(png(np.array([0.0, 0.2, 1.0, np.nan])))))
    np.testing.assert_array_equal(image[..., 0], [[0, 51], [255, 0]])
    np.testing.assert_array_equal(image[..., 3], [[255, 255], [255, 0]])


def test_cells_are_text():
    assert "<td>&lt;b&gt;</td>" in table(("x",), [("<b>",)])


def test_generator_has_a_row_a_layer_and_thumbnails():
    found = preimage.from_arrays([np.eye(3), np.ones((4, 3))])._repr_html_()
    assert found.count("<tr>") == 1 + 2
    assert found.count("<img") == found.count('alt="output') == 6
