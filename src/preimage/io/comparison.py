"""When the layers of an import are known, and how an import is compared with its original."""

from __future__ import annotations

import math

import numpy as np

from preimage.errors import FormatError
from preimage.matrix import Array

# A layer whose matrix, dense or CSR, would take more is not built. No program with millions of
# entries ends in reasonable time, and torch evaluates such a layer faster than a matrix product.
MAX_MATRIX_BYTES = 32 * 2**20
# Standard deviations of the latents at which an import is compared with its original.
SCALES = (0.0, 0.1, 1.0, 3.0, 30.0)
_DRAWS = 3


class NotKnownError(FormatError):
    """The network cannot be written as a chain of layers; the message says why."""


def probes(latent_size: int, most: float = math.inf) -> Array:
    """Latents of several scales, up to ``most``, at which an import is compared."""
    scales = [scale for scale in SCALES if scale <= most]
    draws = np.random.default_rng(2026).standard_normal((len(scales), _DRAWS, latent_size))
    return (draws * np.array(scales)[:, None, None]).reshape(-1, latent_size)


def differs(found: Array, expected: Array, size: Array, rounding: float) -> bool:
    """Whether a sample, a row, differs by more than ``rounding``, or all have another shape.

    That is relative to ``size``, the largest number in the computation of a sample, (batch,).
    Samples whose expected values are not finite are left out.
    """
    if found.shape != expected.shape:
        return True
    with np.errstate(invalid="ignore"):
        worst = np.abs(found - expected).max(axis=1, initial=0.0)
    finite = np.isfinite(expected).all(axis=1)
    return bool((finite & ~(worst <= rounding * np.maximum(size, 1e-30))).any())
