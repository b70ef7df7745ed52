"""Measurements as layers, to be put behind a generator: ``generator.then(*magnitudes(matrix))``.

What is composed is a generator again, so that every method and every certificate takes it. Its
observation is the measurement, and its noise that of the measurement.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike

from preimage.activation import Identity, ReLU
from preimage.errors import InputError
from preimage.generator import Layer
from preimage.matrix import as_float64

# The largest error that rounding to 8 bits makes, of values in [0, 1]: half a gray level. As the
# ``noise`` of an observation it says all that an 8-bit file says.
HALF_LEVEL = 0.5 / 255


def magnitudes(matrix: ArrayLike) -> tuple[Layer, ...]:
    """``|A x|``, as in phase retrieval: ``ReLU(A x) + ReLU(-A x)``.

    Args:
        matrix: A, real, of shape (m, n).

    Raises:
        InputError: Not a matrix of finite real numbers.

    >>> import preimage
    >>> plain = preimage.from_arrays([[[1.0], [2.0]]], head="identity")
    >>> plain.then(*magnitudes([[1.0, -1.0]]))([3.0])
    array([3.])
    """
    a = as_float64(matrix, "matrix")
    if a.ndim != 2:
        raise InputError(f"matrix: expected shape (m, n), got shape {a.shape}")
    both = scipy.sparse.eye_array(len(a), format="csr")
    sums = scipy.sparse.hstack([both, both], format="csr")
    return Layer(np.concatenate([a, -a]), activation=ReLU()), Layer(sums, activation=Identity())


def clipping(size: int) -> tuple[Layer, ...]:
    """``min(max(x, 0), 1)`` of each entry: ``1 - ReLU(1 - ReLU(x))``.

    Args:
        size: Entries of the observation.

    >>> import preimage
    >>> plain = preimage.from_arrays([[[1.0], [-1.0], [0.1]]], head="identity")
    >>> plain.then(*clipping(3))([3.0])
    array([1. , 0. , 0.3])
    """
    if size < 1:
        raise InputError(f"size: expected at least 1, got {size!r}")
    each, ones = scipy.sparse.eye_array(size, format="csr"), np.ones(size)
    return (
        Layer(each, activation=ReLU()),
        Layer(-each, ones, ReLU()),
        Layer(-each, ones, Identity()),
    )


def average_pooling(shape: tuple[int, int, int], window: int) -> tuple[Layer, ...]:
    """Means over squares of pixels that do not overlap.

    Args:
        shape: Channels, height and width of the observation, flattened in this order.
        window: Side of the squares; it has to divide height and width.

    Raises:
        InputError: It does not.

    >>> import preimage
    >>> plain = preimage.from_arrays([[[1.0], [2.0], [3.0], [4.0]]], head="identity")
    >>> plain.then(*average_pooling((1, 2, 2), 2))([1.0])
    array([2.5])
    """
    channels, height, width = shape
    if window < 1 or height % window or width % window:
        raise InputError(
            f"window: expected a divisor of height and width, got {window!r} for shape {shape}"
        )
    down, across = (
        scipy.sparse.kron(
            scipy.sparse.eye_array(side // window), np.full((1, window), 1.0 / window)
        )
        for side in (height, width)
    )
    each = scipy.sparse.kron(scipy.sparse.eye_array(channels), scipy.sparse.kron(down, across))
    return (Layer(scipy.sparse.csr_array(each), activation=Identity()),)
