"""When a layer stays an operator: ``python benchmarks/operators.py``.

For layers of growing size, then for the standard DCGAN generator, prints what the matrix takes and
how long a Jacobian (the layer applied to 100 columns) and a gradient (its adjoint to one) take by
convolution and by CSR matrix. This is where ``MAX_MATRIX_BYTES`` in ``preimage.io.segment`` comes
from: below it a matrix, which linear programs need, costs at most three times the convolution.
"""

from __future__ import annotations

import os

# One BLAS thread, so that a run says the same beside others. Set before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import functools
import operator
import time
from collections.abc import Callable

import numpy as np

from preimage.io.convolution import Convolution
from preimage.io.segment import MAX_MATRIX_BYTES

# Channels in, channels out, height and width of the input, of ConvTranspose(4, stride 2, pad 1).
SHAPES = [
    (4, 2, 7), (16, 8, 7), (32, 1, 14), (32, 16, 7), (64, 32, 7), (128, 64, 7),
    (512, 256, 4), (256, 128, 8), (128, 64, 16), (64, 3, 32),
]  # fmt: skip
COLUMNS = 100


def seconds(work: Callable[[], object]) -> float:
    """The best of three, after one to warm up."""
    work()
    found = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    print(
        f"ConvTranspose(4, 2, 1) on {COLUMNS} columns; a matrix up to {MAX_MATRIX_BYTES >> 20} MB"
    )
    print("                              Jacobian, ms                     gradient, ms")
    print("           layer    matrix      conv (GFLOP/s)     CSR  ratio     conv     CSR")
    for inputs, outputs, size in SHAPES:
        kernel = rng.standard_normal((inputs, outputs, 4, 4))
        layer = Convolution(
            kernel, (2 * size,) * 2, (2, 2), ((1, 1), (1, 1)), (1, 1), transposed=True
        )
        X = rng.standard_normal((layer.shape[1], COLUMNS))
        y = rng.standard_normal((layer.shape[0], 1))
        matrix = layer.to_csr()
        adjoint = matrix.T
        works: list[Callable[[], object]] = [
            functools.partial(layer.matmat, X),
            functools.partial(operator.matmul, matrix, X),
            functools.partial(layer.rmatmat, y),
            functools.partial(operator.matmul, adjoint, y),
        ]
        conv, csr, back, csr_back = (1e3 * seconds(work) for work in works)
        speed = 2 * inputs * outputs * 16 * size**2 * COLUMNS / conv / 1e6
        print(
            f"{inputs:>4} -> {outputs:>3} x {2 * size:>2} {12 * matrix.nnz / 2**20:>6.1f} MB"
            f" {conv:>9.1f} {speed:>11.1f} {csr:>7.1f} {csr / conv:>6.1f}"
            f" {back:>8.2f} {csr_back:>7.2f}"
        )


if __name__ == "__main__":
    main()
