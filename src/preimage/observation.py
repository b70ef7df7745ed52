"""What was observed: values, noise, rounding, mask or sensing operator; checked once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from preimage.clock import UNLIMITED, Clock
from preimage.errors import InputError
from preimage.matrix import (
    Array,
    Flags,
    Indices,
    Operator,
    Weight,
    as_array,
    as_float64,
    as_weight,
    is_matrix,
)
from preimage.network import Network, chain_of
from preimage.slab import Slab

# Relative to the largest entry of an observation: differences below this are taken as rounding.
# Linear programs are solved to about 1e-10 of their scale, so this is what "exact" can mean.
ROUNDING = 1e-9
# By how much an output that was computed and stored in a data type may be off, relative to the
# scale of an entry: half a unit in the last place of a narrow type, whose sums are accumulated in
# float32; some units of float32, whose sums are its own (at most 9 were measured, at ten layers of
# 512 units).
_ROUNDING_OF = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-20}
_LARGEST = 1e150
# Entries of a sample share one rounding unless their scales differ by more than this.
_ONE_SCALE = 1e3


def scale_of(x: Array) -> Array:
    """(batch,) largest absolute entry of each sample; 1 where all are 0."""
    largest = np.max(np.abs(x), axis=1, initial=0.0)
    return np.where(largest > 0, largest, 1.0)


@dataclass(frozen=True, eq=False)
class Observation:
    """``y = A G(z*) + e``; A is the identity, a mask or any linear map.

    Every entry has its own tolerance, the larger of its noise and its rounding. Where they differ
    within a sample, ``weight`` divides each error by its entry's tolerance, relative to the
    sample's level ``tolerance``; ``error`` and ``restrict`` apply it, so that a method which works
    with these minimises weighted errors, and compares them with ``tolerance``.

    Attributes:
        values: (batch, m) float64; 0 where nothing was observed.
        noise: (batch,) bound on the largest absolute noise entry, in units of ``values``; where
            entries have their own, their median.
        mask: (batch, m), True where observed; None for everywhere.
        sensing: A, of shape (m, n): an array, CSR, or an ``Operator``; None for the identity, and
            in what a method gets, whose network is ``Measured`` then.
        weight: (batch, m) positive, 0 where nothing was observed; None for 1.
        unit: Relative rounding of an entry: that of the data type it came in.
        rounding: (batch, m) or (batch, 1), absolute; None for ``unit`` times the largest entry.
        clock: How long methods may work on it.
    """

    values: Array
    noise: Array
    mask: Flags | None = None
    sensing: Weight | None = None
    weight: Array | None = None
    unit: float = ROUNDING
    rounding: Array = None  # type: ignore[assignment]  # filled in by __post_init__
    clock: Clock = UNLIMITED

    def __post_init__(self) -> None:
        if self.rounding is None:
            object.__setattr__(self, "rounding", self.unit * scale_of(self.values)[:, None])

    @property
    def tolerance(self) -> Array:
        """(batch,) the initial tolerance: the noise, but never below the rounding."""
        if self.weight is None:
            return np.maximum(self.noise, self.rounding[:, 0])
        return np.maximum(self.noise, _lower_quantile(self.rounding, 0.5, self.weight > 0))

    @property
    def spread(self) -> Array | float:
        """(batch, m) the tolerance of each entry relative to the sample's; 1 where they agree."""
        return 1.0 if self.weight is None else 1.0 / np.where(self.weight > 0, self.weight, 1.0)

    @property
    def allowed(self) -> Array:
        """(batch, m) or (batch, 1), the error that noise and rounding account for in each entry."""
        if self.weight is None:
            return self.noise[:, None] * (1 + ROUNDING) + self.rounding
        return self.tolerance[:, None] * self.spread + self.rounding

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

    def seen(self, rows: NDArray[Any]) -> NDArray[Any]:
        """``rows``, (batch, m, ...), with 0 where nothing was observed."""
        if self.mask is None:
            return rows
        mask = self.mask.reshape(self.values.shape + (1,) * (rows.ndim - 2))
        return np.where(mask, rows, rows.dtype.type(0))

    def restrict(self, rows: Array) -> Array:
        """``rows``, (batch, m, ...), times their weights: 0 where nothing was observed."""
        if self.weight is None:
            return self.seen(rows)
        return rows * self.weight.reshape(self.values.shape + (1,) * (rows.ndim - 2))

    def error(self, outputs: Array) -> Array:
        """``values - outputs``, (batch, m), weighted, for measured outputs; 0 where unobserved."""
        return self.restrict(self.values - outputs)

    def admit(self, slab: Slab) -> Slab:
        """``slab`` with an error counted in units of ``1 / weight``; nothing where unobserved."""
        slab = slab if self.weight is None else slab.spread(self.spread)
        return slab if self.mask is None else slab.where(self.mask)

    def also_masked(self, mask: Flags) -> Observation:
        """Only what ``mask``, (batch, m), leaves."""
        both = mask if self.mask is None else mask & self.mask
        weight = None if self.weight is None else np.where(both, self.weight, 0.0)
        return replace(self, values=np.where(both, self.values, 0.0), mask=both, weight=weight)

    def take(self, samples: Indices | slice) -> Observation:
        """Only these samples."""
        arrays = {n: getattr(self, n) for n in ("values", "noise", "mask", "weight", "rounding")}
        return replace(self, **{n: a[samples] for n, a in arrays.items() if a is not None})

    def __len__(self) -> int:
        return len(self.values)


def check_observation(
    generator: Network, values: ArrayLike, noise: ArrayLike, sensing: Any = None
) -> tuple[Observation, bool]:
    """Check ``values``, ``noise`` and ``sensing``, as ``preimage.invert`` takes them.

    Noise of shape (batch,) is one a sample also where m = batch; (1, m) is one an entry. The
    rounding of an observation is that of its data type: an output that a float32 network made is
    known to float32 precision only, and pixels of type uint8 to half a level.

    The observation that is returned always has a batch dimension; the flag says whether ``values``
    had none. Weights and values above 1e150, whose squares may be infinite, are refused.
    """
    _check_sizes(generator)
    mask, operator = as_sensing(generator, sensing)
    values, kind = _as_numpy(values)
    if mask is not None:
        values = _without_unobserved(values, mask)
    x = as_float64(values, "observation", "; hide missing entries by a mask, `sensing`")
    _check_size(x, "observation: values")
    m = generator.observation_size if operator is None else operator.shape[0]
    shape = x.shape
    if x.ndim not in (1, 2) or shape[-1] != m:
        size = "the generator's output size" if operator is None else "the rows of `sensing`"
        raise InputError(
            f"observation: expected shape ({m},) or (batch, {m}), {size}, got shape {shape}; "
            "flatten images to vectors first"
        )
    batch = 1 if x.ndim == 1 else len(x)
    x = np.atleast_2d(x)
    if mask is not None:
        mask = np.broadcast_to(mask, (batch, m))
    level = as_noise(noise, batch, m)
    level = np.broadcast_to(level, (batch, level.shape[1]))
    if kind == "uint8":
        if operator is None:
            _check_levels(generator, x)
        level = np.maximum(level, 0.5)
    unit, single = _ROUNDING_OF.get(kind, ROUNDING), len(shape) == 1
    seen = np.broadcast_to(True, x.shape) if mask is None else mask
    rounding = unit * _entry_scale(x, seen, _row_sizes(generator, operator))
    both = np.maximum(level, rounding)
    if both.shape[1] == 1 or (both == both[:, :1]).all():
        plain = Observation(x, level[:, 0], mask, operator, None, unit, rounding[:, :1])
        return plain, single
    # Entries of a sample have unequal tolerances.
    noise = _lower_quantile(np.broadcast_to(level, x.shape), 0.5, seen)
    rounding = np.broadcast_to(rounding, x.shape)
    plain = Observation(x, noise, mask, operator, seen.astype(np.float64), unit, rounding)
    return replace(plain, weight=np.where(seen, plain.tolerance[:, None] / both, 0.0)), single


def _check_sizes(generator: Network) -> None:
    chain = chain_of(generator)
    for index, layer in enumerate(() if chain is None else chain.layers):
        entries = layer.weight if isinstance(layer.weight, np.ndarray) else layer.weight.data
        for what, values in (("weights", entries), ("a bias", layer.bias)):
            _check_size(values, f"layers[{index}]: {what}")


def _check_size(values: Array, what: str) -> None:
    largest = max(values.max(initial=0.0), -values.min(initial=0.0))
    if largest > _LARGEST:
        raise InputError(
            f"{what} up to {largest:.0e}: the square of a number above {_LARGEST:.0e} may be "
            "infinite; scale the network and its observations"
        )


def _as_numpy(values: Any) -> tuple[Any, str]:
    """An array that NumPy can read, and the name of the data type that ``values`` came in."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    kind = str(getattr(values, "dtype", "")).rpartition(".")[2]
    if kind == "bfloat16":
        values = values.float().numpy() if hasattr(values, "float") else values.astype(np.float32)
    return values, kind or str(as_array(values, "observation").dtype)


def as_noise(noise: ArrayLike, batch: int, m: int) -> Array:
    """Levels as (batch or 1, m or 1); ``InputError`` for another shape, or below 0."""
    level = as_float64(noise, "noise")
    if level.shape == (batch,):
        level = level[:, None]
    elif level.shape not in ((), (m,), (1, 1), (1, m), (batch, m), (batch, 1)):
        raise InputError(
            f"noise: expected a number, shape ({batch},), one a sample, or shape ({m},) or "
            f"({batch}, {m}), one an entry, got shape {level.shape}"
        )
    if (level < 0).any():
        raise InputError(f"noise: expected a level of at least 0, got {level.min()}")
    return np.atleast_2d(level)


def _check_levels(generator: Network, x: Array) -> None:
    """Raise ``InputError`` for pixels in 0..255 where the head's range ends far below."""
    low, high = output_range(generator)
    largest = x.max(initial=0.0)
    if largest > 2 * high:
        raise InputError(
            f"observation: expected values in the network's range [{low:g}, {high:g}], got pixels "
            f"of type uint8 up to {largest:g}; pass {low:g} + pixels / 255 * {high - low:g}, or "
            "read the file by preimage.io.observations.load_observations(path, network=network)"
        )


def output_range(network: Network) -> tuple[float, float]:
    """Ends of the interval that holds every output, as far as the last layer tells; infinite else.

    >>> import preimage
    >>> output_range(preimage.from_arrays([[[1.0]]], head="tanh"))
    (-1.0, 1.0)
    """
    chain = chain_of(network)
    return (-np.inf, np.inf) if chain is None else chain.layers[-1].activation.range


def _row_sizes(generator: Network, operator: Weight | None) -> Array | None:
    """(m,) size of each entry's equation, its weights and bias; None where they are not known."""
    chain = chain_of(generator)
    weight, bias = operator, np.zeros(1)
    if operator is None and chain is not None:
        weight, bias = chain.layers[-1].weight, chain.layers[-1].bias
    if weight is None or not is_matrix(weight):
        return None
    norm = scipy.sparse.linalg.norm if scipy.sparse.issparse(weight) else np.linalg.norm
    return np.maximum(norm(weight, axis=1), np.abs(bias))


def _entry_scale(x: Array, seen: Flags, size: Array | None) -> Array:
    """(batch, m) or (batch, 1), the scale to which each entry's rounding is relative.

    An entry is a sum of products of its row of weights with values of the layer below, so that its
    rounding is relative to the size of its row times theirs, and never below that of the entry
    itself. In most samples entries are of one scale, the largest; where some are larger than a
    thousand times the median, they must not hide the errors of the others.
    """
    values, size = np.abs(x), np.ones(x.shape[1]) if size is None else size
    known = size > 0
    below = values / np.where(known, size, 1.0)
    typical = _lower_quantile(below, 0.9, seen & known & (values > 0))
    natural = np.maximum(values, size * typical[:, None])
    largest = np.max(natural, axis=1, initial=0.0, where=seen)
    largest = np.where(largest > 0, largest, 1.0)
    # The median is at least the smallest entry, which needs no sorting.
    smallest = np.min(natural, axis=1, initial=np.inf, where=seen & (natural > 0))
    scale = scale_of(x)[:, None]
    if (largest <= _ONE_SCALE * smallest).all():
        return scale
    median = _lower_quantile(natural, 0.5, seen & (natural > 0))[:, None]
    alike = (largest[:, None] <= _ONE_SCALE * median) | (median == 0)
    return scale if alike.all() else np.where(alike, scale, np.maximum(natural, median))


def _lower_quantile(values: Array, part: float, where: Flags) -> Array:
    """(batch,) the entry below which this part of the chosen entries lies; 0 where none is."""
    if not values.shape[1]:
        return np.zeros(len(values))
    ordered = np.sort(np.where(where, values, np.inf), axis=1)
    place = np.floor(part * np.maximum(where.sum(axis=1) - 1, 0)).astype(np.intp)
    found = np.take_along_axis(ordered, place[:, None], axis=1)[:, 0]
    return np.where(np.isfinite(found), found, 0.0)


def as_sensing(generator: Network, sensing: Any) -> tuple[Flags | None, Weight | None]:
    """The mask or the operator that ``sensing`` is; see ``check_observation``."""
    if sensing is None:
        return None, None
    n = generator.observation_size
    is_operator = isinstance(sensing, Operator) or hasattr(sensing, "tocsr")
    mask = None if is_operator else as_array(sensing, "sensing")
    if mask is not None and (mask.dtype == np.bool_ or mask.ndim == 1):
        if mask.dtype != np.bool_ or mask.ndim not in (1, 2) or mask.shape[-1] != n:
            raise InputError(
                f"sensing: expected a boolean mask of shape ({n},) or (batch, {n}), True where "
                f"observed, got shape {mask.shape} of dtype {mask.dtype}"
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
    if not is_matrix(operator):
        try:
            operator.rmatmat(np.zeros((operator.shape[0], 1)))
        except Exception as error:
            raise InputError(
                f"sensing: expected an operator with an adjoint, but its rmatmat raised {error!r}"
            ) from error
    return None, operator


def _without_unobserved(values: ArrayLike, mask: Flags) -> Any:
    """``values`` with 0 where the mask is False: what is there may be anything, NaN included."""
    array = as_array(values, "observation")
    if array.shape[-1:] != mask.shape[-1:] or (mask.ndim == 2 and array.shape != mask.shape):
        raise InputError(
            f"sensing: a mask of shape {mask.shape} does not fit an observation of shape "
            f"{array.shape}"
        )
    return np.where(mask, array, np.zeros((), dtype=array.dtype))
