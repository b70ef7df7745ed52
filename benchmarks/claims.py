"""Measure what the README claims of accuracy: ``python benchmarks/claims.py [--draws N]``.

Prints one row a claim, with the number measured and the number claimed; exits with 1 if one is
missed. The truth is used only to score.
"""

from __future__ import annotations

import os

# One BLAS thread a process: the processes are the parallelism. Set before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import functools
import itertools
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from rows import finish, row
from tqdm import tqdm

import preimage

SHAPES = [(20, 100, 500), (20, 100, 200, 500)]
ACTIVATIONS = ["relu", "leaky_relu(0.1)", "leaky_relu(0.01)"]
NOISES = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]


def draw_network(
    sizes: tuple[int, ...], activation: str, bias: bool, seed: int
) -> tuple[preimage.Generator, np.ndarray, np.random.Generator]:
    """Weights N(0, 1/n_i), biases N(0, 0.01), a code N(0, I), and the random stream after them."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(n, k)) / np.sqrt(n) for k, n in itertools.pairwise(sizes)]
    biases = [0.1 * rng.normal(size=n) for n in sizes[1:]] if bias else None
    return preimage.from_arrays(weights, biases, activation), rng.normal(size=sizes[0]), rng


def relative_error(latent: np.ndarray, truth: np.ndarray) -> float:
    """``||z - z*|| / ||z*||``."""
    return float(np.linalg.norm(latent - truth) / np.linalg.norm(truth))


def exact_error(case: tuple[tuple[int, ...], str, bool], seed: int) -> float:
    """Error of ``exact`` on one noiseless draw."""
    generator, z, _ = draw_network(*case, seed)
    return relative_error(preimage.invert(generator, generator(z), "exact").latent, z)


def noisy_error(noise: float, seed: int) -> float:
    """Error of ``linf`` on one draw of 20-100-500 with uniform noise, told its level."""
    generator, z, rng = draw_network((20, 100, 500), "relu", False, seed)
    x = generator(z) + rng.uniform(-noise, noise, size=500)
    return relative_error(preimage.invert(generator, x, "linf", noise=noise).latent, z)


def oracle(generator: preimage.Generator, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Least squares on the linear piece of the true code: no method can be told more."""
    jacobian = generator.jacobian(z)
    offset = generator(z) - jacobian @ z
    return np.linalg.lstsq(jacobian, x - offset, rcond=None)[0]


def import_seconds(runs: int = 5) -> float:
    """Median seconds of ``import preimage`` in a fresh interpreter, NumPy and SciPy included."""
    code = "import time; t = time.perf_counter(); import preimage; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(runs)
    ]
    return float(np.median(times))


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200, help="draws a noise level (exact: half)")
    draws = parser.parse_args().draws
    held = [row("import preimage, median", f"{(t := import_seconds()):.2f} s", "0.5 s", t <= 0.5)]
    with ProcessPoolExecutor() as pool:

        def run(function: functools.partial, count: int, label: str) -> np.ndarray:
            jobs = pool.map(function, range(count), chunksize=4)
            return np.array(list(tqdm(jobs, total=count, desc=label, leave=False)))

        for case in itertools.product(SHAPES, ACTIVATIONS, [False, True]):
            sizes, activation, bias = case
            label = f"exact {'-'.join(map(str, sizes))} {activation}{' bias' if bias else ''}"
            count = max(draws // 2, 1)
            errors = run(functools.partial(exact_error, case), count, label)
            good = int((errors <= 1e-9).sum())
            text = f"{good}/{count}, worst {errors.max():.1e}"
            held.append(row(label, text, "all at most 1e-9", good == count))
        medians = []
        for noise in NOISES:
            errors = run(functools.partial(noisy_error, noise), draws, f"linf at {noise:g}")
            medians.append(np.median(errors))
            text = f"median {medians[-1] / noise:.2f} a, worst {errors.max() / noise:.1f} a"
            claim = f"linf 20-100-500, uniform noise a = {noise:g}, {draws} draws"
            held.append(row(claim, text, "median at most 4 a", medians[-1] <= 4 * noise))
        slope = float(np.polyfit(np.log(NOISES[:5]), np.log(medians[:5]), 1)[0])
        held.append(
            row("linf, log-log slope up to 1e-2", f"{slope:.3f}", "1.0 +- 0.1", 0.9 < slope < 1.1)
        )
    return finish(held, "Accuracy, layer by layer", "make claims", None)


if __name__ == "__main__":
    sys.exit(main())
