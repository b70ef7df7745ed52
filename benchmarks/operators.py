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
    print(f"{'layer':>16} {'matrix':>9} | {'Jacobian, ms: conv':>18} {'(GFLOP/s)':>9} {'CSR':>7} "
          f"{'ratio':>5} | {'gradient, ms: conv':>18} {'CSR':>6}")  # fmt: skip
    for inputs, outputs, size in SHAPES:
        kernel = rng.standard_normal((inputs, outputs, 4, 4))
        layer = Convolution(
            kernel, (2 * size,) * 2, (2, 2), ((1, 1), (1, 1)), (1, 1), transposed=True
        )
        X = rng.standard_normal((layer.shape[1], COLUMNS))
        y = rng.standard_normal((layer.shape[0], 1))
        matrix = layer.to_csr()
        adjoint = matrix.T
        times = [
            seconds(work)
            for work in (
                lambda layer=layer, X=X: layer.matmat(X),
                lambda matrix=matrix, X=X: matrix @ X,
                lambda layer=layer, y=y: layer.rmatmat(y),
                lambda adjoint=adjoint, y=y: adjoint @ y,
            )
        ]
        speed = 2 * inputs * outputs * 16 * size**2 * COLUMNS / times[0] / 1e9
        print(f"{inputs:>4} -> {outputs:>3} x {2 * size:>2} {12 * matrix.nnz / 2**20:>6.1f} MB | "
              f"{1e3 * times[0]:>18.1f} {speed:>9.1f} {1e3 * times[1]:>7.1f} "
              f"{times[1] / times[0]:>5.1f} | {1e3 * times[2]:>18.2f} {1e3 * times[3]:>6.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
