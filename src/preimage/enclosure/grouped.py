"""Products with matrices, whose rows often have their nonzeros in the same columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.matrix import Indices

# Float32 or float64.
Floats = NDArray[Any]

# A group costs about as much as so many entries of a dense product.
_GROUP = 2000


@dataclass(frozen=True, eq=False)
class GroupedMatrix:
    """A matrix, and the dense blocks that its nonzeros form.

    Attributes:
        dense: (n, k) the matrix.
        groups: Rows, columns and block of each; none where a dense product is quicker.
        terms: Most nonzeros of a row.
    """

    dense: Floats
    groups: tuple[tuple[Indices, Indices, Floats], ...]
    terms: int

    @staticmethod
    def of(dense: Floats) -> GroupedMatrix:
        """Group the rows by where their nonzeros stand."""
        dense = np.ascontiguousarray(dense)
        nonzero = dense != 0
        counts = nonzero.sum(axis=1)
        groups: list[tuple[Indices, Indices, Floats]] = []
        if 2 * counts.sum() <= dense.size:
            patterns, group = np.unique(np.packbits(nonzero, axis=1), axis=0, return_inverse=True)
            if 2 * (counts.sum() + _GROUP * len(patterns)) <= dense.size:
                rows = np.split(np.argsort(group.ravel(), kind="stable"),
                                np.cumsum(np.bincount(group.ravel()))[:-1])  # fmt: skip
                for some in rows:
                    columns = np.flatnonzero(nonzero[some[0]])
                    groups.append((some, columns, dense[np.ix_(some, columns)]))
        return GroupedMatrix(dense, tuple(groups), int(counts.max(initial=0)))

    @cached_property
    def magnitude(self) -> GroupedMatrix:
        """The absolute values."""
        return GroupedMatrix.of(np.abs(self.dense))

    @cached_property
    def squares(self) -> GroupedMatrix:
        """The squares of the entries."""
        return GroupedMatrix.of(self.dense**2)

    @cached_property
    def transpose(self) -> GroupedMatrix:
        """(k, n)."""
        return GroupedMatrix.of(self.dense.T)

    def __matmul__(self, x: Floats) -> Floats:
        """The product with x, (k, ...)."""
        flat = x.reshape(len(x), -1)
        if self.groups:
            found = np.empty((len(self.dense), flat.shape[1]), x.dtype)
            for rows, columns, block in self.groups:
                found[rows] = block @ np.take(flat, columns, axis=0)
        else:
            found = self.dense @ flat
        return found.reshape(-1, *x.shape[1:])
