"""Tensors that are affine in what the layer before gives: linear parts, one by one, and a bias.

Every tensor has the shape of one sample, the batch of one in front.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preimage.errors import InputError
from preimage.generator import Array
from preimage.io.convolution import Convolution
from preimage.io.graph import Sizes
from preimage.io.guard import check_entries
from preimage.io.segment import Chain, Part, Sum, apply


@dataclass(frozen=True, eq=False)
class Affine:
    """``part_d ... part_1 v + bias`` with v the outputs of a layer.

    Attributes:
        shape: Of the tensor, (1, ...).
        source: Where v comes from, in words; there is one such place a layer.
        parts: First applied first; none is the identity.
        bias: Flattened; None is zero.
    """

    shape: Sizes
    source: str
    parts: tuple[Part, ...] = ()
    bias: Array | None = None

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def offset(self) -> Array:
        """The bias, zeros written out."""
        return np.zeros(self.size) if self.bias is None else self.bias

    def reshaped(self, shape: Sequence[int]) -> Affine:
        """The same entries in another shape."""
        return replace(self, shape=_one_sample(tuple(shape)))

    def then(self, part: Part, shape: Sequence[int]) -> Affine:
        """A linear part applied to it."""
        bias = None if self.bias is None else apply(part, self.bias[:, None])[:, 0]
        shape = _one_sample(tuple(shape))
        return Affine(shape, self.source, (*self.parts, part), bias)

    @property
    def index(self) -> NDArray[np.int64]:
        """The places of the entries, in their shape."""
        return np.arange(self.size).reshape(self.shape)

    def moved(self, move: Callable[[NDArray[np.int64]], Any], fill: float = 0.0) -> Affine:
        """Entries moved, repeated or left out, as ``move`` does to an array of their places."""
        return self.picked(np.asarray(move(self.index)), fill)

    def picked(self, index: NDArray[np.int64], fill: float = 0.0) -> Affine:
        """The entries at these places, in the shape of ``index``; at -1, the number ``fill``."""
        shape, index = index.shape, index.reshape(-1)
        if len(index) == self.size and (index == np.arange(self.size)).all():
            return self.reshaped(shape)
        moved = self.then(_selection(index, self.size), shape)
        if not fill:
            return moved
        return replace(moved, bias=np.where(index < 0, fill, moved.offset))

    def broadcast(self, shape: Sizes) -> Affine:
        """Repeated to the shape that it has together with another."""
        shape = check_entries(np.broadcast_shapes(self.shape, shape))
        return self.moved(lambda index: np.broadcast_to(index, shape))

    def plus(self, constant: Array) -> Affine:
        """A constant added."""
        value = self.broadcast(constant.shape)
        bias = value.offset + np.broadcast_to(constant, value.shape).reshape(-1)
        return replace(value, bias=bias)

    def times(self, constant: Array) -> Affine:
        """Entries multiplied by constants."""
        value = self.broadcast(constant.shape)
        factors = np.broadcast_to(constant, value.shape).reshape(-1)
        if (factors == 1).all():
            return value
        return value.then(sparse.diags_array(factors, format="csr"), value.shape)

    def on_axis(self, matrix: Array, axis: int) -> Affine:
        """A matrix (outputs, inputs) applied along one axis."""
        axis %= len(self.shape)
        if matrix.ndim != 2 or matrix.shape[1] != self.shape[axis]:
            raise InputError(
                f"expected {self.shape[axis]} inputs, as axis {axis} of a tensor of shape "
                f"{self.shape}, got a weight of shape {matrix.shape}"
            )
        shape = (*self.shape[:axis], len(matrix), *self.shape[axis + 1 :])
        check_entries(shape)
        if self.size == self.shape[axis]:
            return self.then(matrix, shape)
        # A matrix on every position is a convolution with a window of one.
        first = self.moved(lambda index: np.moveaxis(index, axis, 0)[None])
        space = first.shape[2:]
        ones = (1,) * len(space)
        convolution = Convolution(
            matrix.reshape(*matrix.shape, *ones), space, ones, ((0, 0),) * len(space), ones
        )
        return first.then(convolution, (1, len(matrix), *space)).moved(
            lambda index: np.moveaxis(index[0], 0, axis)
        )


def _one_sample(shape: Sizes) -> Sizes:
    """A shape that keeps the batch of one in front."""
    shape = check_entries(shape)
    if len(shape) < 1 or shape[0] != 1 or 0 in shape:
        raise InputError(
            f"the first dimension is the batch and has to stay; one sample would have shape {shape}"
        )
    return shape


def _selection(index: NDArray[np.int64], size: int) -> sparse.csr_array:
    """The matrix whose row i picks the entry ``index[i]``, or nothing if that is -1."""
    taken = index >= 0
    ends = np.concatenate([[0], np.cumsum(taken)])
    return sparse.csr_array((np.ones(int(ends[-1])), index[taken], ends), shape=(len(index), size))


def add(first: Affine, second: Affine) -> Affine:
    """The sum of two tensors that are affine in the same."""
    _check_source(first, second)
    first, second = first.broadcast(second.shape), second.broadcast(first.shape)
    shared = 0
    for one, other in zip(first.parts, second.parts, strict=False):
        if one is not other:
            break
        shared += 1
    common = first.parts[:shared]
    terms: list[Chain] = []
    for value in (first, second):
        rest = value.parts[shared:]
        if len(rest) == 1 and isinstance(rest[0], Sum):
            terms.extend(rest[0].terms)
        else:
            terms.append(Chain(rest or (sparse.eye_array(value.size, format="csr"),)))
    total = Sum(tuple(terms))
    bias = None
    if first.bias is not None or second.bias is not None:
        bias = first.offset + second.offset
    return Affine(first.shape, first.source, (*common, total), bias)


def _check_source(first: Affine, second: Affine) -> None:
    if first.source != second.source:
        raise InputError(
            f"it joins what comes from {first.source} with what comes from {second.source}; a "
            "branch around an activation is not supported, only branches without one"
        )


def concatenate(values: Sequence[Affine | Array], axis: int) -> Affine:
    """Tensors side by side, affine or constant; at least one is affine."""
    shapes = [value.shape for value in values]
    axis %= len(shapes[0])
    total = sum(shape[axis] for shape in shapes)
    whole = check_entries((*shapes[0][:axis], total, *shapes[0][axis + 1 :]))
    index = np.full(whole, -1)
    summands: list[Affine] = []
    constant, start = np.zeros(whole), 0
    for value in values:
        place = (slice(None),) * axis + (slice(start, start + value.shape[axis]),)
        start += value.shape[axis]
        if isinstance(value, Affine):
            spread = index.copy()
            spread[place] = value.index
            summands.append(value.picked(spread))
        else:
            constant[place] = value
    summed = reduce(add, summands)
    return summed.plus(constant) if constant.any() else summed
