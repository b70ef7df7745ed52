"""Vectors as PNG, with nothing but the standard library."""

import io

import numpy as np
from PIL import Image

from preimage.pixels import png


def test_png_is_what_pillow_reads():
    vector = np.array([0.0, 1.0, 0.5, np.nan])
    image = np.asarray(Image.open(io.BytesIO(png(vector))))
    np.testing.assert_array_equal(image[..., 3], [[255, 255], [255, 0]])
    np.testing.assert_array_equal(image[..., 0].ravel()[:3], [0, 255, 128])
