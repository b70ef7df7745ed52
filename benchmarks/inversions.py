"""Time whole inversions beside their peers: ``python benchmarks/inversions.py [--data FOLDER]``.

Everything runs in one process on the same inputs, answers first, times in turns. Prints one row a
claim and exits with 1 if one is missed. ``--data`` is a folder with the MNIST test images in IDX
form, for the row about all of them.
"""

from __future__ import annotations

import os

# One BLAS thread: the kernel has threads of its own. Set before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from cases import NOISE
from joint import errors, peak_gigabytes
from rows import Row, finish, row

import preimage
from preimage.layer_program import layer_program
from preimage.observation import Observation

BATCH = 256
# How many times the throughput of cvxopt a whole ``invert`` of one layer is asked for.
LAYERS = {(100, 20): 80, (784, 60): 25, (500, 100): 20, (600, 250): 15}
GROWTH = 1.2


def networks() -> dict[str, preimage.Generator]:
    """The two shapes of the paper's figure 1."""
    rng = np.random.default_rng(0)
    sizes = (20, 100, 500)
    weights = [rng.normal(size=(n, k)) / math.sqrt(n) for k, n in itertools.pairwise(sizes)]
    return {
        "trained 20-60-784": preimage.zoo.load("mnist-20-60-784"),
        "Gaussian 20-100-500": preimage.from_arrays(weights),
    }


def seconds(work: Callable[[], object], repeats: int = 5) -> np.ndarray:
    """(repeats,) of each run."""
    found = np.empty(repeats)
    for turn in range(repeats):
        start = time.perf_counter()
        work()
        found[turn] = time.perf_counter() - start
    return found


def spread(values: np.ndarray) -> str:
    """Median and range."""
    low, middle, high = np.percentile(values, [0, 50, 100])
    return f"{middle:.3g} x ({low:.3g}-{high:.3g})"


def authors(generator: preimage.Generator, x: np.ndarray, noise: float) -> np.ndarray:
    """Algorithm 1 by cvxopt: rows stacked, eps grows by 1.2 until the program is feasible."""
    from cvxopt import matrix, solvers

    eps = noise
    for index in reversed(range(len(generator.layers))):
        layer = generator.layers[index]
        n, k = layer.weight.shape
        while True:
            above = x > eps
            delta = np.ones((n, 1))
            left = [np.hstack([layer.weight, -delta]), np.hstack([-layer.weight, -delta])[above]]
            right = [x - layer.bias, -(x - layer.bias)[above]]
            cap = np.zeros((2, k + 1))
            cap[:, k] = 1, -1
            left, right = [*left, cap], [*right, np.array([eps, 0.0])]
            if index:
                left.append(-np.eye(k, k + 1))
                right.append(np.zeros(k))
            cost = np.zeros(k + 1)
            cost[k] = 1
            found = solvers.lp(
                matrix(cost), matrix(np.vstack(left)), matrix(np.concatenate(right)),
                options={"show_progress": False},
            )  # fmt: skip
            if found["status"] == "optimal":
                break
            eps *= GROWTH
        x = np.array(found["x"]).ravel()[:k]
    return x


def one_layer(n: int, k: int, repeats: int) -> Row:
    """``invert`` of one ReLU layer by ``linf``, as a user calls it, against the authors' procedure.

    Both solve the same program, the peer a few samples a turn. Minimisers need not be unique, so
    the slack is compared.
    """
    rng, few = np.random.default_rng(0), max(2, 4_000_000 // (n * k * k))
    generator = preimage.from_arrays([rng.normal(size=(n, k)) / math.sqrt(n)])
    clean = generator(np.maximum(rng.normal(size=(BATCH, k)), 0))
    x = clean + rng.uniform(-NOISE, NOISE, clean.shape)
    found = preimage.invert(generator, x, "linf", noise=NOISE)
    ratio, theirs = np.empty(repeats), np.empty((few, k))
    for turn in range(repeats):
        start = time.perf_counter()
        for sample in range(few):
            theirs[sample] = authors(generator, x[sample], NOISE)
        peer = (time.perf_counter() - start) / few
        mine = seconds(lambda: preimage.invert(generator, x, "linf", noise=NOISE), 1)
        ratio[turn] = peer / (mine[0] / BATCH)
    seen = Observation(x[:few], np.full(few, NOISE))
    program = layer_program(generator.layers[0], seen, seen.noise, "linf", (-np.inf, np.inf))
    apart = np.abs(program.slack_at(found.latent[:few]) / program.slack_at(theirs) - 1).max()
    return row(
        f"invert of one layer {n} x {k}, linf, batch {BATCH}, against cvxopt",
        f"{spread(ratio)}; slacks within {apart:.0e}",
        f">= {LAYERS[n, k]} x",
        bool(apart <= 1e-5 and np.median(ratio) >= LAYERS[n, k]),
    )


def layerwise(name: str, generator: preimage.Generator, repeats: int) -> Row:
    """``linf`` at noise 1e-3 against the authors' procedure, which gets a few samples a turn."""
    noise, few = 1e-3, 4
    rng = np.random.default_rng(1)
    z = rng.normal(size=(BATCH, 20))
    clean = generator(z)
    x = clean + rng.uniform(-noise, noise, clean.shape)
    mine = preimage.invert(generator, x, "linf", noise=noise).latent
    ratio, theirs = np.empty(repeats), []
    for turn in range(repeats):
        own = [x[i % BATCH] for i in range(turn * few, turn * few + few)]
        peer = seconds(lambda own=own: theirs.extend(authors(generator, y, noise) for y in own), 1)
        ours = seconds(lambda: preimage.invert(generator, x, "linf", noise=noise), 1)
        ratio[turn] = peer[0] / few / (ours[0] / BATCH)
    some = len(theirs)
    error, other = errors(mine[:some], z[:some]), errors(np.array(theirs), z[:some])
    worse = float(np.median(error) / np.median(other))
    return row(
        f"linf, {name}, noise {noise:g}, batch {BATCH}, against cvxopt scanning eps",
        f"{spread(ratio)}; error {worse:.3f} x theirs",
        ">= 40 x; error <= 1 x",
        bool(np.median(ratio) >= 40 and worse <= 1 + 1e-4),
    )


def _floor(rows: np.ndarray, counts: np.ndarray) -> float:
    """One Gram GEMM and one Cholesky factorisation a sample, and nothing else."""
    total = 0.0
    for sample in range(len(counts)):
        part = rows[sample, : counts[sample]]
        total += float(np.linalg.cholesky(np.dot(part.T, part))[0, 0])
    return total


def floor(generator: preimage.Generator, z: np.ndarray) -> Callable[[], None]:
    """The least that exact inversion has to do, with its rows gathered beforehand, in 2 threads."""
    jobs = []
    for layer, a in zip(generator.layers, generator.preactivations(z), strict=True):
        counts = (a > 0).sum(axis=1)
        rows = np.zeros((len(z), counts.max(), layer.input_size))
        for sample, active in enumerate(a > 0):
            rows[sample, : counts[sample]] = layer.weight[active]
        half = len(z) // 2
        jobs += [(rows[part], counts[part]) for part in (slice(half), slice(half, None))]

    def work() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda job: _floor(*job), jobs))

    return work


def exact(name: str, generator: preimage.Generator, repeats: int) -> Row:
    """Noiseless exact inversion against the floor."""
    z = np.random.default_rng(2).normal(size=(BATCH, 20))
    x = generator(z)
    right = float(np.mean(errors(preimage.invert(generator, x, "exact").latent, z) <= 1e-9))
    least = floor(generator, z)
    least()
    ratio = np.empty(4 * repeats)
    for turn in range(len(ratio)):
        mine = seconds(lambda: preimage.invert(generator, x, "exact"), 1)
        ratio[turn] = mine[0] / seconds(least, 1)[0]
    return row(
        f"exact, {name}, batch {BATCH}, against one Gram and one Cholesky a layer",
        f"{spread(ratio)}; {right:.1%} found",
        "<= 1.8 x",
        bool(np.median(ratio) <= 1.8),
    )


def torch_adam(
    generator: preimage.Generator, x: np.ndarray, goal: np.ndarray, steps: int
) -> tuple[float, np.ndarray]:
    """Batched Adam in torch, from N(0, I), until each sample's residual is at most its goal.

    Returns:
        Seconds, and which samples came there within the steps.
    """
    import torch

    layers = [(torch.tensor(np.array(layer.weight), dtype=torch.float32),
               torch.tensor(np.array(layer.bias), dtype=torch.float32))
              for layer in generator.layers]  # fmt: skip
    target, aim = torch.tensor(x, dtype=torch.float32), torch.tensor(goal, dtype=torch.float32)
    torch.manual_seed(0)
    z = torch.randn(len(x), generator.latent_size, requires_grad=True)
    optimiser = torch.optim.Adam([z], lr=0.1)
    there = torch.zeros(len(x), dtype=torch.bool)
    start = time.perf_counter()
    for _ in range(steps):
        values = z
        for weight, bias in layers:
            values = torch.relu(values @ weight.T + bias)
        squares = ((values - target) ** 2).sum(dim=1)
        there |= squares.detach().sqrt() <= aim
        if there.all():
            break
        optimiser.zero_grad()
        squares.sum().backward()
        optimiser.step()
    return time.perf_counter() - start, there.numpy()


def joint(steps: int) -> list[Row]:
    """``auto`` against Adam until it is as good (up to 0.1 %), on noisy outputs."""
    generator, noise = preimage.zoo.load("mnist-20-60-784"), 0.05
    rng = np.random.default_rng(3)
    clean = generator(rng.normal(size=(BATCH, 20)))
    x = clean + rng.uniform(-noise, noise, clean.shape)
    found = preimage.invert(generator, x, "auto", noise=noise)
    mine = seconds(lambda: preimage.invert(generator, x, "auto", noise=noise))
    spent, there = torch_adam(generator, x, 1.001 * found.residual, steps)
    return [
        row(
            f"auto, trained 20-60-784, noise {noise:g}, batch {BATCH}, against Adam in torch",
            f"{spread(spent / mine)}; Adam gives up on {(~there).sum()} of {BATCH}",
            ">= 20 x",
            bool(np.median(spent / mine) >= 20),
        )
    ]


def all_digits(folder: Path) -> list[Row]:
    """All 10,000 test digits of MNIST by ``auto``."""
    from preimage.io.observations import load_observations

    generator = preimage.zoo.load("mnist-20-60-784")
    images = load_observations(folder / "t10k-images-idx3-ubyte")
    start = time.perf_counter()
    found = preimage.invert(generator, images, "auto", noise=0.05)
    spent = time.perf_counter() - start
    return [
        row(
            f"auto, {len(images)} test digits",
            f"{spent:.0f} s; median residual {np.median(found.residual):.3f}; "
            f"{peak_gigabytes():.2f} GB",
            "<= 120 s; <= 1 GB",
            spent <= 120 and peak_gigabytes() <= 1,
        )
    ]


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10_000, help="most steps of Adam")
    parser.add_argument("--data", type=Path, help="folder with the MNIST test images")
    parser.add_argument("--out", type=Path, help="page to write")
    options = parser.parse_args()
    held = [*all_digits(options.data)] if options.data else []
    held += [one_layer(*shape, options.repeats) for shape in LAYERS]
    for name, generator in networks().items():
        held.append(exact(name, generator, options.repeats))
        held.append(layerwise(name, generator, options.repeats))
    held += joint(options.steps)
    return finish(held, "Whole inversions and their peers", "make bench", options.out)


if __name__ == "__main__":
    sys.exit(main())
