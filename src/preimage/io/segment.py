"""Runs of linear maps: as one matrix where that is small enough, else as a chain.

A *part* is a dense array, a csr_array, a ``Convolution`` or a ``Sum`` of chains; parts stand first
applied first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from preimage.errors import InputError
from preimage.generator import Array, Weight, as_weight, multiply
from preimage.io.convolution import Convolution

Part = Any  # a float64 array, a csr_array, a Convolution or a Sum

# A Jacobian of 100 columns takes as long by CSR matrix as by convolution at 4 MB, twice as long at
# 16 to 32 MB, five times at 300 MB (``benchmarks/operators.py`` measures it). Only a matrix can
# stand in a linear program, but none with millions of entries ends in reasonable time: so a layer
# becomes a matrix up to 32 MB, and stays a convolution above.
MAX_MATRIX_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class Chain:
    """``part_d ... part_1``, applied one after the other; an ``Operator``.

    Args:
        parts: At least one; each takes as many inputs as the one before gives.

    Raises:
        InputError: No parts, or parts that do not chain.
    """

    parts: tuple[Part, ...]
    rounds_columns_alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        parts = tuple(as_weight(part, f"parts[{i}]") for i, part in enumerate(self.parts))
        if not parts:
            raise InputError("parts: expected at least one, got none")
        for index, (before, after) in enumerate(pairwise(parts), 1):
            if before.shape[0] != after.shape[1]:
                raise InputError(
                    f"parts[{index}]: expected {before.shape[0]} inputs, the outputs of the part "
                    f"before, got shape {after.shape}"
                )
        object.__setattr__(self, "parts", parts)

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.parts[-1].shape[0], self.parts[0].shape[1]

    def matmat(self, X: Array) -> Array:
        """Apply to each column, (inputs, columns) to (outputs, columns)."""
        for part in self.parts:
            X = apply(part, X)
        return X

    def rmatmat(self, X: Array) -> Array:
        """Apply the adjoint to each column, (outputs, columns) to (inputs, columns)."""
        for part in reversed(self.parts):
            X = apply_adjoint(part, X)
        return X

    def __matmul__(self, X: Array) -> Array:
        return self.matmat(X) if X.ndim == 2 else self.matmat(X[:, None])[:, 0]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return _digest("chain", self.parts)


@dataclass(frozen=True, eq=False)
class Sum:
    """The sum of chains with the same inputs: branches that meet again.

    Raises:
        InputError: Fewer than two chains, or of different shapes.
    """

    terms: tuple[Chain, ...]
    rounds_columns_alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        shapes = {term.shape for term in self.terms}
        if len(self.terms) < 2 or len(shapes) != 1:
            raise InputError(f"terms: expected two or more of the same shape, got {sorted(shapes)}")

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.terms[0].shape

    def matmat(self, X: Array) -> Array:
        """Apply to each column, (inputs, columns) to (outputs, columns)."""
        return sum((term.matmat(X) for term in self.terms[1:]), self.terms[0].matmat(X))

    def rmatmat(self, X: Array) -> Array:
        """Apply the adjoint to each column, (outputs, columns) to (inputs, columns)."""
        return sum((term.rmatmat(X) for term in self.terms[1:]), self.terms[0].rmatmat(X))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return _digest("sum", self.terms)


def _digest(kind: str, parts: Sequence[Part]) -> str:
    sha = hashlib.sha256(kind.encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(repr(part.shape).encode() + (part + 0).tobytes())
        elif sparse.issparse(part):
            sha.update(repr(part.shape).encode() + (part.data + 0).tobytes())
            sha.update(part.indices.astype("<i8").tobytes() + part.indptr.astype("<i8").tobytes())
        else:
            sha.update(part.digest.encode())
    return sha.hexdigest()


def apply(part: Part, X: Array) -> Array:
    """The part times each column; a column's last bit does not depend on the others."""
    if isinstance(part, np.ndarray):
        return multiply(part, X.T).T
    return part @ X if sparse.issparse(part) else part.matmat(X)


def apply_adjoint(part: Part, X: Array) -> Array:
    """The adjoint of the part times each column."""
    if isinstance(part, np.ndarray):
        return multiply(part.T, X.T).T
    return part.T @ X if sparse.issparse(part) else part.rmatmat(X)


# Fusing -----------------------------------------------------------------------------------------


def as_segment(parts: Sequence[Part], max_matrix_bytes: int = MAX_MATRIX_BYTES) -> Weight:
    """The product of parts as one matrix, dense or CSR, whichever is smaller; or as a ``Chain``.

    It is a matrix if that takes at most ``max_matrix_bytes``, or no more than the parts do.
    """
    fused = fuse(parts)
    matrix = to_matrix(fused, max(max_matrix_bytes, sum(map(_stored_bytes, fused))))
    return Chain(fused) if matrix is None else matrix


def fuse(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Merge neighbours where the product is no larger than its factors."""
    fused: list[Part] = []
    for part in parts:
        fused.append(part)
        while len(fused) > 1 and (merged := _merged(*fused[-2:])) is not None:
            fused[-2:] = [merged]
    return tuple(fused)


def _merged(first: Part, second: Part) -> Part | None:
    """``second @ first`` as one part, if that is no larger than the two."""
    before, after = _diagonal(first), _diagonal(second)
    if isinstance(first, Convolution) and after is not None:
        channels = _per_channel(after, first.output_space[0])
        return None if channels is None else first.scaled(outputs=channels)
    if isinstance(second, Convolution) and before is not None:
        channels = _per_channel(before, second.input_space[0])
        return None if channels is None else second.scaled(inputs=channels)
    dense = isinstance(first, np.ndarray), isinstance(second, np.ndarray)
    csr = sparse.issparse(first), sparse.issparse(second)
    if dense[0] and csr[1] and second.shape[0] <= first.shape[0]:
        return second @ first
    if csr[0] and dense[1] and first.shape[1] <= second.shape[1]:
        return (first.T @ second.T).T
    if all(csr) and _row_bounds(second, first).sum() <= max(first.nnz, second.nnz):
        return second @ first
    return None


def _diagonal(part: Part) -> Array | None:
    """The diagonal of a CSR matrix that has nothing else."""
    if not sparse.issparse(part) or part.shape[0] != part.shape[1] or part.nnz > part.shape[0]:
        return None
    rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
    return part.diagonal() if np.array_equal(rows, part.indices) else None


def _per_channel(factors: Array, channels: int) -> Array | None:
    split = factors.reshape(channels, -1)
    return split[:, 0] if (split == split[:, :1]).all() else None


# Matrices ---------------------------------------------------------------------------------------


def _dense_bytes(shape: tuple[int, int]) -> int:
    return 8 * shape[0] * shape[1]


def _csr_bytes(nonzeros: int, rows: int) -> int:
    """8 of the value and 4 of the index; more than 2^31 entries would be beyond any budget."""
    return 12 * nonzeros + 4 * (rows + 1)


def _stored_bytes(part: Part) -> int:
    if isinstance(part, np.ndarray):
        return part.nbytes
    if sparse.issparse(part):
        return _csr_bytes(part.nnz, part.shape[0])
    if isinstance(part, Convolution):
        return part.kernel.nbytes
    return sum(_stored_bytes(p) for term in part.terms for p in term.parts)


def smaller(matrix: Weight) -> Weight:
    """The matrix dense or CSR, whichever takes fewer bytes."""
    dense = _dense_bytes(matrix.shape)
    if sparse.issparse(matrix):
        return matrix.toarray() if dense <= _csr_bytes(matrix.nnz, matrix.shape[0]) else matrix
    nonzeros = int(np.count_nonzero(matrix))
    return matrix if dense <= _csr_bytes(nonzeros, len(matrix)) else sparse.csr_array(matrix)


def to_matrix(parts: Sequence[Part], max_bytes: int) -> Weight | None:
    """The product of parts as a matrix; None if it would take more than ``max_bytes``.

    Sizes are predicted: neither the matrix nor an intermediate product is allocated that would
    take more than about the budget.
    """
    matrix: Weight | None = None
    for part in parts:
        if matrix is None:
            matrix = _part_matrix(part, max_bytes)
        elif isinstance(matrix, np.ndarray):
            fits = _dense_bytes((part.shape[0], matrix.shape[1])) <= max_bytes
            matrix = apply(part, matrix) if fits else None
        else:
            after = _part_matrix(part, max_bytes)
            matrix = None if after is None else _product(after, matrix, max_bytes)
        if matrix is None:
            return None
        matrix = smaller(matrix)
    return matrix if matrix is not None and _stored_bytes(matrix) <= max_bytes else None


def _part_matrix(part: Part, max_bytes: int) -> Weight | None:
    if isinstance(part, Convolution):
        size = min(_csr_bytes(part.nonzeros, part.shape[0]), _dense_bytes(part.shape))
        return part.to_csr() if size <= max_bytes else None
    if isinstance(part, Sum):
        total: Any = 0
        for term in part.terms:
            matrix = to_matrix(term.parts, max_bytes)
            if matrix is None:
                return None
            total = total + sparse.csr_array(matrix)
        return total
    return part


def _row_bounds(left: sparse.csr_array, right: sparse.csr_array) -> Any:
    """For each row of ``left @ right``, as many entries as it has at most: its products."""
    sizes = np.diff(right.indptr)[left.indices].astype(np.int64)
    return np.diff(np.concatenate([[0], np.cumsum(sizes)])[left.indptr])


def _product(left: Weight, right: sparse.csr_array, max_bytes: int) -> Weight | None:
    shape = left.shape[0], right.shape[1]
    if isinstance(left, np.ndarray):
        return (right.T @ left.T).T if _dense_bytes(shape) <= max_bytes else None
    bounds = _row_bounds(left, right)
    if min(_csr_bytes(int(bounds.sum()), shape[0]), _dense_bytes(shape)) <= max_bytes:
        return left @ right
    # The bound counts entries that coincide several times. Multiply some rows at a time, each lot
    # within the budget, and give up when their sum is not.
    lots, start, entries = [], 0, 0
    ends = np.cumsum(bounds)
    while start < shape[0]:
        allowed = (ends[start - 1] if start else 0) + max_bytes // 12
        stop = max(start + 1, int(np.searchsorted(ends, allowed, side="right")))
        lots.append(left[start:stop] @ right)
        start, entries = stop, entries + lots[-1].nnz
        if _csr_bytes(entries, start) > max_bytes:
            return None
    return sparse.vstack(lots, format="csr")
