"""From a graph of affine operations and activations to a chain of layers.

Activations are sorted into levels: one that needs the result of another stands above it. All that
is affine between two levels becomes one weight and one bias, which is found by
evaluating that part of the graph. A value that is used above a level, but stems from below it (a
residual sum, a concatenation), is carried: its rows pass the level with slope 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy

from preimage.activation import Activation, Identity, LeakyReLU, PReLU, ReLU
from preimage.errors import FormatError
from preimage.generator import Generator, Layer
from preimage.matrix import Array, Indices

if TYPE_CHECKING:
    from preimage.io.torch_graph import AffineMap, TorchGraph


# A layer whose matrix, dense or CSR, would take more is not built. No program with millions of
# entries ends in reasonable time, and torch evaluates such a layer faster than a matrix product.
MAX_MATRIX_BYTES = 32 * 2**20
# Standard deviations of the latents at which an import is compared with its original.
SCALES = (0.0, 0.1, 1.0, 3.0, 30.0)
_DRAWS = 3


class NotKnownError(FormatError):
    """The network cannot be written as a chain of layers; the message says why."""


class Step(NamedTuple):
    """One operation on values that depend on the latent."""

    name: str  # of the result
    inputs: tuple[str, ...]  # those that depend on the latent
    activation: Activation | None  # None for an affine operation
    place: str  # in the network, for messages


def as_chain(graph: TorchGraph, max_matrix_bytes: int) -> Generator:
    """Write a graph as a chain of layers whose matrices, dense or CSR, are no larger.

    Raises:
        NotKnownError: A matrix would take more, or a value would have to pass a smooth activation.
    """
    level = {graph.latent: 0}
    for step in graph.steps:
        below = max(level[name] for name in step.inputs)
        level[step.name] = below + (step.activation is not None)
    state: list[str] = [graph.latent]
    maps: list[AffineMap] = []
    activations: list[Activation] = []
    for current in range(1, level[graph.output] + 1):
        closing = [s for s in graph.steps if s.activation and level[s.name] == current]
        crossing = {
            name: None
            for step in graph.steps
            if level[step.name] >= current and step not in closing
            for name in step.inputs
            if level[name] < current
        }
        activations.append(_activation(closing, [*crossing], graph.sizes))
        maps.append(graph.affine(state, [*(step.inputs[0] for step in closing), *crossing]))
        state = [*(step.name for step in closing), *crossing]
    maps.append(graph.affine(state, [graph.output]))
    # The largest first: if one is too large, it is that one.
    by_size = sorted(maps, key=lambda each: each.size, reverse=True)
    built = {id(each): each.matrix(max_matrix_bytes) for each in by_size}
    weights, biases = [built[id(each)] for each in maps], [each.bias for each in maps]
    taken = _entries(weights[-1])
    if activations and taken is not None and not biases[-1].any():
        slopes = activations[-1].slopes(len(biases[-2]))
        # They are moved before the activation.
        weights[-2], biases[-2] = weights[-2][taken], biases[-2][taken]
        if slopes is not None:
            activations[-1] = slope_activation(slopes[0][taken])
    else:
        activations.append(Identity())
    found = zip(weights, biases, activations, strict=False)  # the last may do nothing
    return Generator(tuple(Layer(w, b, a) for w, b, a in found))


def _entries(weight: Any) -> Indices | None:
    """Which inputs the outputs are, if each is one of them, and there are no more; else None."""
    csr = scipy.sparse.csr_array(weight)
    csr.eliminate_zeros()
    rows, columns = csr.shape
    if rows > columns or (np.diff(csr.indptr) != 1).any() or (csr.data != 1).any():
        return None
    return csr.indices.astype(np.intp)


def _activation(
    closing: Sequence[Step], carried: Sequence[str], sizes: Mapping[str, int]
) -> Activation:
    """The activations of a level as one; a smooth one has to stand alone."""
    kinds = [step.activation for step in closing if step.activation]
    below: list[Array] = []
    for step, kind in zip(closing, kinds, strict=True):
        slopes = kind.slopes(sizes[step.name])
        if slopes is None:
            others = [*carried, *(other.name for other in kinds if other != kind)]
            if not others:
                return kind
            raise NotKnownError(
                f"{step.place}: {others[0]} would have to pass beside the smooth {kind.name}, "
                "which a chain of layers cannot express"
            )
        below.append(slopes[0])
    return slope_activation(np.concatenate([*below, *(np.ones(sizes[name]) for name in carried)]))


def slope_activation(below: Array) -> Activation:
    """The simplest activation with these slopes of the negative part, one a unit, none below 0."""
    if (below == below[0]).all():
        slope = float(below[0])
        if slope == 0:
            return ReLU()
        if slope < 1:
            return LeakyReLU(slope)
        return Identity() if slope == 1 else PReLU((slope,), len(below))
    runs = [len(list(run)) for _, run in groupby(below.tolist())]
    repeat = reduce(math.gcd, runs)
    return PReLU(tuple(below[::repeat].tolist()), repeat)


# Comparison with the original -------------------------------------------------------------------


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


def largest_numbers(generator: Generator, z: Array) -> Array:
    """The largest pre-activation or output of each sample, (batch,)."""
    stages = generator.preactivations(z)
    return np.max([np.abs(a).max(axis=1, initial=0.0) for a in stages], axis=0)
