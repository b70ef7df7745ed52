"""The transformer beside the real scikit-learn."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

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


def test_every_check_of_scikit_learn_passes():
    """Claim: each passes with a generator of the size of that check's data.

    A generator fixes the number of features, and the checks are for estimators that take any; they
    bring data of the sizes below. What fails otherwise does so because the size is refused.
    """
    passed, found = set(), set()
    for size in (1, 2, 3, 4, 5, 10):
        weight = np.random.default_rng(0).standard_normal((size, min(size, 2)))
        generator = preimage.from_arrays([weight], activation="identity")
        encoder = PreimageEncoder(generator, method="exact")
        for result in check_estimator(encoder, on_fail=None, on_skip=None):
            found.add(result["check_name"])
            if result["status"] == "passed":
                passed.add(result["check_name"])
            elif result["status"] == "failed":
                assert "observation size, got" in _told(result["exception"]), result
    # Skipped by scikit-learn itself, unless SCIPY_ARRAY_API is set.
    assert found - passed <= {"check_array_api_input"}
    assert len(passed) > 40


def _told(error):
    return f"{error} {_told(error.__cause__)}" if error is not None else ""
