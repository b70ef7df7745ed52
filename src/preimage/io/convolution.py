"""Convolutions as linear operators: one matrix product, then strided additions, or the reverse.

With ``unfold`` the map that copies the window under every output position into a column, and K the
kernel as a matrix of (output channels, input channels x window), a convolution and its adjoint are

    y = K unfold(x)          x = unfold'(K' y)

and a transposed convolution is the second of the two. ``unfold`` is one strided copy for each entry
of the window, its adjoint one strided addition, so that the two are adjoint term by term.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from preimage.errors import InputError
from preimage.generator import Array, as_float64
from preimage.io.guard import MAX_ENTRIES

Sizes = tuple[int, ...]

# Matrix products are cut so that their larger side stays in the processor's cache: about 2 MB.
_CACHED = 2**18
# A product with fewer columns than this runs at half the speed or less of a wide one.
_WIDE = 64
# Wider than any tile in which BLAS works: then all columns of a block are rounded alike.
_TILE = 16
# The most entries that the windows of one column may have together: 2 GB.
_MOST = 2**28
# Blocks, channels and columns of a block are never cut.
_WHOLE = ([slice(None)],) * 3


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution in any number of dimensions, without bias; or its adjoint.

    Vectors are flattened (channels, *space), last fastest.

    Args:
        kernel: (output channels, input channels / groups, *window).
        size: Space of the input.
        stride: Step of the window, an entry a dimension.
        padding: Zeros before and after each dimension.
        dilation: Step between the entries of the window.
        groups: Channels are split into so many groups, each with a kernel of its own.
        transposed: The operator is the adjoint, a transposed convolution; ``size`` is then the
            space of its output, and all else describes the convolution of which it is the adjoint.

    Raises:
        InputError: Sizes that do not fit together, or that are too large to work with.
    """

    kernel: Array
    size: Sizes
    stride: Sizes
    padding: tuple[tuple[int, int], ...]
    dilation: Sizes
    groups: int = 1
    transposed: bool = False
    rounds_columns_alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        kernel = as_float64(self.kernel, "kernel")
        object.__setattr__(self, "kernel", kernel)
        window = kernel.shape[2:]
        if not window or 0 in kernel.shape:
            raise InputError(
                "kernel: expected shape (output channels, input channels, *window), all positive, "
                f"got {kernel.shape}"
            )
        whole = (*self.size, *self.stride, *self.dilation, self.groups)
        lengths = {len(self.size), len(self.stride), len(self.dilation), len(self.padding)}
        edges = tuple(itertools.chain.from_iterable(self.padding))
        if (
            lengths != {len(window)}
            or any(len(pair) != 2 for pair in self.padding)
            or not all(0 < n <= MAX_ENTRIES for n in whole)
            or not all(0 <= n <= MAX_ENTRIES for n in edges)
            or kernel.shape[0] % self.groups
        ):
            raise InputError(
                f"convolution: sizes do not fit a kernel of shape {kernel.shape}: size "
                f"{self.size}, stride {self.stride}, padding {self.padding}, dilation "
                f"{self.dilation}, groups {self.groups}"
            )
        if min(self._positions) < 1:
            raise InputError(
                f"convolution: a window of {window} with dilation {self.dilation} does not fit "
                f"into {self.size} with padding {self.padding}"
            )
        columns = math.prod(kernel.shape[1:]) * self.groups
        largest = max(columns, kernel.shape[0]) * math.prod(self._positions)
        if max(largest, kernel.shape[1] * self.groups * math.prod(self._padded)) > _MOST:
            raise InputError(
                f"convolution: {largest} entries between kernel and windows, more than {_MOST}"
            )

    @cached_property
    def _padded(self) -> Sizes:
        return tuple(n + sum(p) for n, p in zip(self.size, self.padding, strict=True))

    @cached_property
    def _positions(self) -> Sizes:
        """Space of the convolution's output: where its window stands."""
        reach = ((w - 1) * d for w, d in zip(self.kernel.shape[2:], self.dilation, strict=True))
        return tuple(
            (n - r - 1) // s + 1 for n, r, s in zip(self._padded, reach, self.stride, strict=True)
        )

    @property
    def output_space(self) -> Sizes:
        """Channels, then the space of the result."""
        if self.transposed:
            return (self.kernel.shape[1] * self.groups, *self.size)
        return (self.kernel.shape[0], *self._positions)

    @property
    def input_space(self) -> Sizes:
        """Channels, then the space of what it is applied to."""
        if self.transposed:
            return (self.kernel.shape[0], *self._positions)
        return (self.kernel.shape[1] * self.groups, *self.size)

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return math.prod(self.output_space), math.prod(self.input_space)

    def matmat(self, X: Array) -> Array:
        """Apply to each column, (inputs, columns) to (outputs, columns)."""
        return self._run(X, self.transposed)

    def rmatmat(self, X: Array) -> Array:
        """Apply the adjoint to each column, (outputs, columns) to (inputs, columns)."""
        return self._run(X, not self.transposed)

    @property
    def _block(self) -> int:
        """Columns that one matrix product handles together.

        A column's last bit must not depend on the others, so a block is always full (of zeros if
        need be), and holds more than one only if each fills whole tiles of the product.
        """
        positions = math.prod(self._positions)
        return max(1, _WIDE // positions) if positions % _TILE == 0 else 1

    def _run(self, X: Array, adjoint: bool) -> Array:
        block, columns = self._block, X.shape[1]
        blocks = -(-columns // block)
        space, target = self.input_space, self.output_space
        if adjoint != self.transposed:
            space, target = target, space
        values = np.zeros((blocks * block, len(X)))
        values[:columns] = X.T
        values = values.reshape(blocks, block, *space).swapaxes(1, 2)
        found = np.empty((blocks, block, *target))
        product = math.prod(self.kernel.shape[1:]) * self.groups * math.prod(self._positions)
        step = max(1, _CACHED // (block * product))
        apply = self._pull if adjoint else self._push
        for start in range(0, blocks, step):
            part = apply(np.ascontiguousarray(values[start : start + step]))
            found[start : start + step] = part.swapaxes(1, 2)
        return found.reshape(blocks * block, math.prod(target))[:columns].T

    @cached_property
    def _matrix(self) -> Array:
        """(groups, output channels / groups, input channels / groups x window)."""
        return self.kernel.reshape(self.groups, self.kernel.shape[0] // self.groups, -1)

    def _windows(self) -> Iterator[tuple[slice, ...]]:
        """For each entry of the window, what it sees of (blocks, channels, block, *padded)."""
        axes = (
            [slice(t * d, t * d + s * (p - 1) + 1, s) for t in range(w)]
            for w, d, s, p in zip(
                self.kernel.shape[2:], self.dilation, self.stride, self._positions, strict=True
            )
        )
        return itertools.product(*_WHOLE, *axes)

    @property
    def _inside(self) -> tuple[slice, ...]:
        """The padded space without its padding."""
        pairs = zip(self.size, self.padding, strict=True)
        return (slice(None),) * 3 + tuple(slice(low, low + n) for n, (low, _) in pairs)

    def _push(self, x: Array) -> Array:
        """``K unfold(x)``, from (blocks, channels, block, *size)."""
        count, channels, block = x.shape[:3]
        padded = x
        if any(map(any, self.padding)):
            padded = np.zeros((count, channels, block, *self._padded))
            padded[self._inside] = x
        taps = math.prod(self.kernel.shape[2:])
        patches = np.empty((count, channels, taps, block, *self._positions))
        for tap, window in enumerate(self._windows()):
            patches[:, :, tap] = padded[window]
        rows = self._matrix.shape[2]
        product = np.matmul(self._matrix, patches.reshape(count, self.groups, rows, -1))
        return product.reshape(count, self.kernel.shape[0], block, *self._positions)

    def _pull(self, y: Array) -> Array:
        """``unfold'(K' y)``, from (blocks, channels, block, *positions)."""
        count, channels, block = y.shape[:3]
        matrix = self._matrix.swapaxes(1, 2)
        product = np.matmul(
            matrix, y.reshape(count, self.groups, channels // self.groups, -1)
        ).reshape(count, self.kernel.shape[1] * self.groups, -1, block, *self._positions)
        padded = np.zeros((*product.shape[:2], block, *self._padded))
        for tap, window in enumerate(self._windows()):
            padded[window] += product[:, :, tap]
        return padded[self._inside]

    def _seen(self) -> list[NDArray[np.int64]]:
        """For each dimension, (positions, window) where in the input each entry looks, or -1."""
        found = []
        for size, p, s, (before, _), d, w in zip(
            self.size, self._positions, self.stride, self.padding, self.dilation,
            self.kernel.shape[2:], strict=True,
        ):  # fmt: skip
            at = np.arange(p)[:, None] * s - before + np.arange(w) * d
            found.append(np.where((at >= 0) & (at < size), at, -1))
        return found

    @cached_property
    def nonzeros(self) -> int:
        """Entries of the matrix, counted without it: windows less what they see of the padding."""
        seen = math.prod(int((at >= 0).sum()) for at in self._seen())
        return seen * self.kernel.shape[0] * self.kernel.shape[1]

    def _pairs(self) -> NDArray[np.int64]:
        """(positions, window) where in the flattened input each entry looks, or -1."""
        place = np.zeros((1, 1), dtype=np.int64)
        for size, at in zip(self.size, self._seen(), strict=True):
            before, at = place[:, None, :, None], at[None, :, None, :]
            both = np.where((before < 0) | (at < 0), -1, before * size + at)
            place = both.reshape(place.shape[0] * at.shape[1], -1)
        return place

    def to_csr(self) -> sparse.csr_array:
        """The matrix; check ``nonzeros`` first."""
        place = self._pairs()
        counts = (place >= 0).sum(axis=1)
        positions, taps = np.nonzero(place >= 0)
        seen = place[positions, taps]
        outputs, inputs = self.kernel.shape[:2]
        kernel = self.kernel.reshape(outputs, inputs, -1)
        # Rows are (output channel, position); within one, entries are (window, input channel).
        data = kernel.transpose(0, 2, 1)[:, taps].reshape(-1)
        first = np.arange(outputs) // (outputs // self.groups) * inputs
        channel = first[:, None, None] + np.arange(inputs)
        size = math.prod(self.size)
        kind = np.int32 if self.nonzeros < 2**31 else np.int64
        indices = (channel * size).astype(kind) + seen.astype(kind)[:, None]
        ends = np.cumsum(np.tile(counts * inputs, outputs))
        shape = outputs * math.prod(self._positions), inputs * self.groups * size
        matrix = sparse.csr_array(
            (data, indices.reshape(-1), np.concatenate([[0], ends]).astype(kind)), shape=shape
        )
        return matrix.T.tocsr() if self.transposed else matrix

    def scaled(self, outputs: Array | None = None, inputs: Array | None = None) -> Convolution:
        """With a factor for each channel of the result, and of the input, taken into the kernel."""
        if self.transposed:
            outputs, inputs = inputs, outputs
        kernel = self.kernel
        if outputs is not None:
            kernel = kernel * outputs.reshape(-1, *[1] * (kernel.ndim - 1))
        if inputs is not None:
            split = (self.groups, kernel.shape[0] // self.groups, *kernel.shape[1:])
            factors = inputs.reshape(self.groups, 1, -1, *[1] * (kernel.ndim - 2))
            kernel = (kernel.reshape(split) * factors).reshape(kernel.shape)
        return Convolution(
            kernel, self.size, self.stride, self.padding, self.dilation, self.groups,
            self.transposed,
        )  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        sha = hashlib.sha256(
            repr(
                (self.kernel.shape, self.size, self.stride, self.padding, self.dilation,
                 self.groups, self.transposed)
            ).encode()
        )  # fmt: skip
        sha.update((self.kernel + 0).tobytes())
        return sha.hexdigest()
