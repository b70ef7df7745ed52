"""The transformer beside the real scikit-learn."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import preimage
from preimage.adapters.sklearn import PreimageEncoder


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    generator = preimage.from_arrays([rng.standard_normal((12, 3)), rng.standard_normal((40, 12))])
    codes = rng.standard_normal((6, 3))
    return generator, codes, generator(codes)


def test_planted_codes_come_back_through_a_pipeline(planted):
    """Clone, parameters and a pipeline work; transform gives the codes, its inverse the images."""
    generator, codes, images = planted
    encoder = clone(PreimageEncoder(generator)).set_params(
        method=preimage.LayerwiseLP(backend="highs")
    )
    pipeline = make_pipeline(FunctionTransformer(lambda x: x / 2), encoder)
    np.testing.assert_allclose(pipeline.fit_transform(2 * images), codes, atol=1e-6)
    np.testing.assert_allclose(encoder.inverse_transform(codes), images)


def test_misuse_is_refused(planted):
    generator, _, images = planted
    with pytest.raises(NotFittedError):
        PreimageEncoder(generator).transform(images)
    with pytest.raises(preimage.InputError, match="40 features"):
        PreimageEncoder(generator).fit(images[:, :9])
    with pytest.raises(preimage.InputError, match="generator"):
        PreimageEncoder(None).fit(images)
    with pytest.raises(ValueError, match="NaN"):
        PreimageEncoder(generator).fit(images * np.nan)
