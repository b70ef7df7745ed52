"""``J^T J`` and ``J^T e`` of many runs at once, from active units only. Imports numba.

A ReLU network's Jacobian at z is a product of the weights' active rows and columns,

    J = D_d W_d[R_d, R_{d-1}] ... D_2 W_2[R_2, R_1] D_1 W_1[R_1, :]

with R_i the active rows of layer i, a small part of the weights: of 784 outputs of a digit
decoder, some 190. The rows of J that are missing are 0 and add nothing to ``J^T J``.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from preimage.lp.compiled import compiled, entry
from preimage.lp.kernel import _processors

Array = NDArray[np.float64]

# Below, handing runs to another thread costs more than it saves.
_RUNS_A_THREAD = 64


def normal_equations(
    weights: Array, sizes: NDArray[np.int64], derivatives: Array, error: Array
) -> tuple[Array, Array]:
    """``J^T J``, (runs, k, k), and ``J^T error``, (runs, k).

    Each run is on its own, so that its company does not matter.

    Args:
        weights: All matrices, row by row, one after the other.
        sizes: Latent size, then the outputs of each layer.
        derivatives: (runs, sum of the outputs) of each layer's activation; 0 where a unit is
            inactive or an output not observed.
        error: (runs, m).
    """
    runs, k = len(error), int(sizes[0])
    gram, slope = np.empty((runs, k, k)), np.empty((runs, k))
    threads = min(_processors(), runs // _RUNS_A_THREAD)
    if threads < 2:
        _runs(weights, sizes, derivatives, error, gram, slope)
        return gram, slope
    with ThreadPoolExecutor(threads) as pool:
        ends = [runs * i // threads for i in range(threads + 1)]
        parts = [slice(*pair) for pair in itertools.pairwise(ends)]
        done = [
            pool.submit(_runs, weights, sizes, derivatives[p], error[p], gram[p], slope[p])
            for p in parts
        ]
        for job in done:
            job.result()
    return gram, slope


@compiled
def _one(weights, sizes, derivative, error, gram, slope):  # type: ignore[no-untyped-def]
    """One run."""
    k = sizes[0]
    before, unit, used = np.arange(k), 0, 0
    product = np.eye(k)
    for layer in range(1, len(sizes)):
        n, m = sizes[layer], sizes[layer - 1]
        scale = derivative[unit : unit + n]
        rows = np.flatnonzero(scale)
        part = np.empty((len(rows), len(before)))
        for i in range(len(rows)):
            row = weights[used + rows[i] * m : used + (rows[i] + 1) * m]
            if len(before) == m:
                part[i] = scale[rows[i]] * row
            else:
                for j in range(len(before)):
                    part[i, j] = scale[rows[i]] * row[before[j]]
        product = part if layer == 1 else np.dot(part, product)
        before, unit, used = rows, unit + n, used + n * m
    gram[:] = np.dot(product.T, product)
    slope[:] = np.dot(error[before], product)


@entry
def _runs(weights, sizes, derivatives, error, gram, slope):  # type: ignore[no-untyped-def]
    for run in range(len(error)):
        _one(weights, sizes, derivatives[run], error[run], gram[run], slope[run])
