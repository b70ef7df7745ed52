"""Inversion as a scikit-learn transformer (extra ``sklearn``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from preimage.errors import InputError, extra
from preimage.invert import invert
from preimage.matrix import Array
from preimage.methods import Method
from preimage.network import Network

with extra("sklearn", "scikit-learn"):
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data


class PreimageEncoder(TransformerMixin, BaseEstimator):
    """Images to latent codes of a fixed generator: ``transform`` inverts, its inverse generates.

    Args:
        generator: The network, known or run; ``fit`` checks that the data fit its outputs.
        method: As in ``preimage.invert``.
        noise: As in ``preimage.invert``.
    """

    def __init__(
        self, generator: Network, method: Method | str = "auto", noise: float = 0.0
    ) -> None:
        self.generator = generator
        self.method = method
        self.noise = noise

    def fit(self, X: Any, y: Any = None) -> PreimageEncoder:
        """Check the data; nothing is learned.

        Raises:
            InputError: No generator, or X (samples, features) has not its observation size.
        """
        X = validate_data(self, X, dtype=np.float64)
        # The protocol's own check would fill caches, which scikit-learn takes for a change.
        if not callable(getattr(self.generator, "linearize", None)):
            raise InputError(
                f"generator: expected a preimage network, got {type(self.generator).__name__}"
            )
        if X.shape[1] != self.generator.observation_size:
            raise InputError(
                f"X: expected {self.generator.observation_size} features, the generator's "
                f"observation size, got {X.shape[1]}"
            )
        return self

    def transform(self, X: Any) -> Array:
        """Codes (samples, latent_size); NaN where the inversion found none."""
        check_is_fitted(self, "n_features_in_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return invert(self.generator, X, self.method, noise=self.noise).latent

    def inverse_transform(self, X: Any) -> Array:
        """Images (samples, observation_size) of codes."""
        check_is_fitted(self, "n_features_in_")
        return self.generator(X)
