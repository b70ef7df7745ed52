"""Arrays and matrices as the package keeps them: checked, read-only, float64."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from preimage.errors import InputError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]
Integers = NDArray[np.int64]
Weight = Any  # a read-only float64 array, a canonical scipy.sparse.csr_array, or an Operator

# Rows of a batch that one matrix product handles: few enough that a BLAS with threads does not use
# them for a small weight. On a busy machine each such product would wait 20 ms for its threads.
_ROWS = 16
# Numbers of a batch that are worked on at a time, so that memory does not grow with it.
_ENTRIES = 2**22


@runtime_checkable
class Operator(Protocol):
    """A linear map without a matrix, as ``scipy.sparse.linalg.LinearOperator`` is one."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""

    def matmat(self, X: Array) -> Array:
        """Apply to each column, (inputs, columns) to (outputs, columns)."""

    def rmatmat(self, X: Array) -> Array:
        """Apply the adjoint to each column, (outputs, columns) to (inputs, columns)."""


def as_array(values: ArrayLike, argument: str) -> NDArray[Any]:
    """``values`` as an array of any kind.

    Raises:
        InputError: They are ragged, or entries of a masked array are masked: they may be anything.
    """
    if np.ma.is_masked(values):
        raise InputError(
            f"{argument}: expected an array without masked entries; of an observation x pass "
            "numpy.ma.getdata(x), and sensing=~numpy.ma.getmaskarray(x)"
        )
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{argument}: expected an array of real numbers, got {error}") from error


def as_float64(
    values: ArrayLike, argument: str, remedy: str = "", *, infinite: bool = False
) -> Array:
    """Copy ``values`` into a read-only, C-contiguous float64 array; every array passes here.

    Integers and floats up to float64 are promoted exactly. Infinity is refused unless ``infinite``.

    Raises:
        InputError: ``values`` is complex, an object or ragged array, text, wider than float64,
            or holds NaN or infinity (the message gives the first index, and the remedy).
    """
    array = as_array(values, argument)
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise InputError(
            f"{argument}: expected real numbers of at most 64 bits, got {type(values).__name__} "
            f"of dtype {array.dtype}"
        )
    array = np.array(array, dtype=np.float64, order="C")
    finite = ~np.isnan(array) if infinite else np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InputError(
            f"{argument}: expected finite numbers, got {array[index]} at index {index} "
            f"({int((~finite).sum())} in all){remedy}"
        )
    array.setflags(write=False)
    return array


def as_rows(
    values: ArrayLike, size: int, argument: str, count: int | None = None
) -> tuple[Array, bool]:
    """Check latents or other vectors, of shape (size,) or (batch, size); ``argument`` names them.

    Returns:
        Shape (batch, size), where the batch is ``count`` if that is given; and whether ``values``
        was a single vector.

    Raises:
        InputError: Another shape, or entries that ``as_float64`` refuses.
    """
    rows = as_float64(values, argument)
    fits = rows.ndim in (1, 2) and rows.shape[-1] == size
    if not fits or count not in (None, len(np.atleast_2d(rows))):
        batch = "batch" if count is None else count
        raise InputError(
            f"{argument}: expected shape ({size},) or ({batch}, {size}), got shape {rows.shape}"
        )
    return np.atleast_2d(rows), rows.ndim == 1


def as_weight(weight: Any, argument: str = "weight") -> Weight:
    """Check an array, ``scipy.sparse`` or ``Operator`` of shape (outputs, inputs).

    Matrices are copied to read-only float64. ``argument`` names it in the error.

    Raises:
        InputError: Not of two dimensions, or entries that ``as_float64`` refuses.
    """
    if scipy.sparse.issparse(weight):
        as_float64(weight.tocoo().data, f"{argument}.data")
        matrix = scipy.sparse.csr_array(weight, dtype=np.float64, copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        for part in (matrix.data, matrix.indices, matrix.indptr):
            part.setflags(write=False)
    elif isinstance(weight, Operator):
        if np.issubdtype(getattr(weight, "dtype", None) or np.float64, np.complexfloating):
            raise InputError(f"{argument}: expected a real operator, got dtype {weight.dtype}")  # type: ignore[attr-defined]
        matrix = weight
    else:
        matrix = as_float64(weight, argument)
    if len(matrix.shape) != 2:
        raise InputError(f"{argument}: expected shape (outputs, inputs), got shape {matrix.shape}")
    return matrix


def is_matrix(weight: Weight) -> bool:
    """Whether this is an array or CSR, and not an ``Operator``."""
    return isinstance(weight, np.ndarray) or bool(scipy.sparse.issparse(weight))


def weight_parts(weight: Weight) -> tuple[Any, ...]:
    """What a matrix is, for a digest; an operator without ``digest`` equals itself alone."""
    if isinstance(weight, np.ndarray):
        return repr((weight.shape, "dense")), weight
    if scipy.sparse.issparse(weight):
        places = weight.indices.astype("<i8"), weight.indptr.astype("<i8")
        return repr((weight.shape, "csr")), weight.data, *places
    return repr((weight.shape, "operator")), str(getattr(weight, "digest", id(weight)))


def digest_of(*parts: Any) -> str:
    """SHA-256 of texts, bytes and arrays; -0.0 and 0.0 are equal numbers, so they hash alike."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            part = part + 0
            part = part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes()
        sha.update(part.encode() if isinstance(part, str) else part)
    return sha.hexdigest()


def slices(count: int, entries: int, most: int = _ENTRIES) -> list[slice]:
    """Slices of ``count`` things of so many entries each, of which ``most`` are held at a time."""
    size = max(most // max(entries, 1), 1)
    return [slice(i, i + size) for i in range(0, count, size)]


def multiply(weight: Weight, z: Array) -> Array:
    """``z @ weight.T``, (batch, inputs) to (batch, outputs)."""
    if scipy.sparse.issparse(weight):
        return np.ascontiguousarray((weight @ z.T).T)
    if not isinstance(weight, np.ndarray):
        return _columns(weight.matmat, z, weight.shape[0])
    product = np.empty((len(z), weight.shape[0]))
    for first in range(0, len(z), _ROWS):
        part = slice(first, first + _ROWS)
        np.matmul(z[part], weight.T, out=product[part])
    return product


def multiply_adjoint(weight: Weight, v: Array) -> Array:
    """``v @ weight``, (batch, outputs) to (batch, inputs)."""
    if is_matrix(weight):
        return multiply(weight.T, v)
    return _columns(weight.rmatmat, v, weight.shape[1])


def _columns(product: Any, rows: Array, size: int) -> Array:
    """An operator's ``product`` of each row, (batch, size)."""
    if not len(rows):  # which SciPy's operators do not take
        return np.zeros((0, size))
    return np.ascontiguousarray(np.asarray(product(rows.T), dtype=np.float64).T)


def dot(matrices: NDArray[Any], vectors: NDArray[Any]) -> NDArray[Any]:
    """Each matrix times its vector, (batch, rows, n) and (batch, n) to (batch, rows)."""
    return np.matmul(matrices, vectors[:, :, None])[:, :, 0]


def multiply_columns(weight: Weight, columns: Array) -> Array:
    """``weight @ columns``, (batch, inputs, width) to (batch, outputs, width)."""
    if isinstance(weight, np.ndarray):
        return np.matmul(weight, columns)
    batch, inputs, width = columns.shape
    rows = np.swapaxes(columns, 1, 2).reshape(batch * width, inputs)
    return np.swapaxes(multiply(weight, rows).reshape(batch, width, weight.shape[0]), 1, 2)
