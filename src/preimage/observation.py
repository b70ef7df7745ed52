"""What was observed: values, noise level, mask or sensing operator; checked once, at the door."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from preimage.errors import InputError
from preimage.generator import (
    Operator,
    Weight,
    as_array,
    as_float64,
    as_weight,
)
from preimage.network import Network

Array = NDArray[np.float64]

# Relative to the largest entry of an observation: differences below this are taken as rounding.
# Linear programs are solved to about 1e-10 of their scale, so this is what "exact" can mean.
ROUNDING = 1e-9


def scale_of(x: Array) -> Array:
    """(batch,) largest absolute entry of each sample; 1 where all are 0."""
    largest = np.max(np.abs(x), axis=1, initial=0.0)
    return np.where(largest > 0, largest, 1.0)


@dataclass(frozen=True, eq=False)
class Observation:
    """``y = A G(z*) + e`` with ``max |e| <= noise``; A is the identity, a mask or any linear map.

    Attributes:
        values: (batch, m) float64; 0 where nothing was observed.
        noise: (batch,) bound on the largest absolute noise entry, in units of ``values``.
        mask: (batch, m), True where observed; None for everywhere.
        sensing: A, of shape (m, n): an array, CSR, or an ``Operator``; None for the identity, and
            in what a method gets, whose network is ``Measured`` then.
    """

    values: Array
    noise: Array
    mask: NDArray[np.bool_] | None = None
    sensing: Weight | None = None

    @property
    def tolerance(self) -> Array:
        """(batch,) the initial tolerance: the noise, but never below rounding error."""
        return np.maximum(self.noise, ROUNDING * scale_of(self.values))

    @property
    def count(self) -> Array:
        """(batch,) number of observed entries, as floats."""
        batch, m = self.values.shape
        return np.full(batch, float(m)) if self.mask is None else self.mask.sum(axis=1) * 1.0

    @property
    def explained(self) -> Array:
        """(batch,) the largest ``||y - A G(z)||_2`` that noise accounts for.

        That of noise whose root mean square is the tolerance, and three standard deviations more,
        should it be Gaussian.
        """
        n = np.maximum(self.count, 1.0)
        return self.tolerance * np.sqrt(n) * (1 + 3 / np.sqrt(2 * n))

    def restrict(self, rows: Array) -> Array:
        """``rows``, (batch, m, ...), with 0 where nothing was observed."""
        if self.mask is None:
            return rows
        return np.where(self.mask.reshape(self.mask.shape + (1,) * (rows.ndim - 2)), rows, 0.0)

    def error(self, outputs: Array) -> Array:
        """``values - outputs``, (batch, m), for measured outputs; 0 where unobserved."""
        return self.restrict(self.values - outputs)

    def also_masked(self, mask: NDArray[np.bool_]) -> Observation:
        """Only what ``mask``, (batch, m), leaves."""
        both = mask if self.mask is None else mask & self.mask
        return replace(self, values=np.where(both, self.values, 0.0), mask=both)

    def take(self, samples: NDArray[np.intp] | slice) -> Observation:
        """Only these samples."""
        mask = None if self.mask is None else self.mask[samples]
        return Observation(self.values[samples], self.noise[samples], mask, self.sensing)

    def __len__(self) -> int:
        return len(self.values)


def check_observation(
    generator: Network, values: ArrayLike, noise: ArrayLike, sensing: Any = None
) -> tuple[Observation, bool]:
    """Check ``values``, ``noise`` and ``sensing`` against a generator.

    Args:
        generator: Whose outputs are observed.
        values: Shape (m,) or (batch, m), real, and finite wherever observed.
        noise: Largest absolute noise entry; a number, or one for each sample.
        sensing: None, a boolean mask of shape (n,) or (batch, n), or a linear map of shape (m, n).

    Returns:
        The observation, always with a batch dimension, and whether ``values`` had none.

    Raises:
        InputError: Wrong shape, NaN or infinity, complex numbers, negative noise, a mask that
            leaves nothing.
    """
    mask, operator = _as_sensing(generator, sensing)
    if mask is not None:
        values = _without_unobserved(values, mask)
    x = as_float64(values, "observation")
    m = generator.observation_size if operator is None else operator.shape[0]
    if x.ndim not in (1, 2) or x.shape[-1] != m:
        size = "the generator's output size" if operator is None else "the rows of `sensing`"
        raise InputError(
            f"observation: expected shape ({m},) or (batch, {m}), {size}, got shape {x.shape}; "
            "flatten images to vectors first"
        )
    level = as_float64(noise, "noise")
    batch = 1 if x.ndim == 1 else len(x)
    if level.shape not in ((), (batch,)):
        raise InputError(
            f"noise: expected a number or shape ({batch},), one a sample, got shape {level.shape}"
        )
    if (level < 0).any():
        raise InputError(f"noise: expected a level of at least 0, got {level.min()}")
    if mask is not None:
        mask = np.broadcast_to(mask, (batch, m))
    levels = np.broadcast_to(level, (batch,))
    return Observation(np.atleast_2d(x), levels, mask, operator), x.ndim == 1


def _as_sensing(generator: Network, sensing: Any) -> tuple[NDArray[np.bool_] | None, Weight | None]:
    """The mask or the operator that ``sensing`` is."""
    if sensing is None:
        return None, None
    n = generator.observation_size
    is_operator = isinstance(sensing, Operator) or hasattr(sensing, "tocsr")
    mask = None if is_operator else as_array(sensing, "sensing")
    if mask is not None and mask.dtype == np.bool_:
        if mask.ndim not in (1, 2) or mask.shape[-1] != n:
            raise InputError(
                f"sensing: expected a boolean mask of shape ({n},) or (batch, {n}), True where "
                f"observed, got shape {mask.shape}"
            )
        empty = np.flatnonzero(~np.atleast_2d(mask).any(axis=1))
        if len(empty):
            where = f" of sample {empty[0]} ({len(empty)} in all)" if mask.ndim == 2 else ""
            raise InputError(f"sensing: the mask{where} is False everywhere: nothing is observed")
        return mask, None
    operator = as_weight(sensing, "sensing")
    if operator.shape[1] != n or operator.shape[0] < 1:
        raise InputError(
            f"sensing: expected a boolean mask, or a linear map of shape (m, {n}) with m >= 1, "
            f"which takes the generator's outputs, got shape {tuple(operator.shape)}"
        )
    if not isinstance(operator, np.ndarray) and not sparse.issparse(operator):
        try:
            operator.rmatmat(np.zeros((operator.shape[0], 1)))
        except Exception as error:
            raise InputError(
                f"sensing: expected an operator with an adjoint, but its rmatmat raised {error!r}"
            ) from error
    return None, operator


def _without_unobserved(values: ArrayLike, mask: NDArray[np.bool_]) -> Any:
    """``values`` with 0 where the mask is False: what is there may be anything, NaN included."""
    array = as_array(values, "observation")
    if array.shape[-1:] != mask.shape[-1:] or (mask.ndim == 2 and array.shape != mask.shape):
        raise InputError(
            f"sensing: a mask of shape {mask.shape} does not fit an observation of shape "
            f"{array.shape}"
        )
    return np.where(mask, array, np.zeros((), dtype=array.dtype))
