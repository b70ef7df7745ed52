"""Small latents of deep networks: ``python benchmarks/small_latents.py [--draws N] [ROW ...]``.

Rows: ``certify`` (random and trained 4-256-256-256-256-128, two or four latents free, noise 1e-3
and 1e-2 of the output range), ``nearest`` (l2, two free latents), ``convolution`` (5 latents, 32 x
32), ``interval`` (1-128-128-128-1), ``phase`` (magnitudes of 20-60-784, noiseless). Each prints
what was measured and what was aimed at; times are wall times, with processor times beside them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from torch import nn

import preimage
from preimage.measurements import magnitudes

SIZES = (4, 256, 256, 256, 256, 128)


def random_network(seed: int, sizes: tuple[int, ...] = SIZES) -> preimage.Generator:
    """Weights N(0, 2/k), biases N(0, 0.09), identity head."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(n, k)) * (2 / k) ** 0.5 for k, n in itertools.pairwise(sizes)]
    biases = [0.3 * rng.normal(size=n) for n in sizes[1:]]
    return preimage.from_arrays(weights, biases, head="identity")


def blobs(z: torch.Tensor) -> torch.Tensor:
    """Pictures of 8 x 16 pixels: a soft disc by its place, size and brightness."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-2, 2, 16), indexing="ij")
    dx, dy = x - 1.2 * z[:, 0, None, None], y - 0.6 * z[:, 1, None, None]
    width = 0.5 + 0.25 * z[:, 2, None, None]
    bright = 0.7 + 0.3 * z[:, 3, None, None]
    return (bright * torch.exp(-(dx**2 + dy**2) / (2 * width**2))).flatten(1)


def trained_network(seed: int, steps: int = 1500) -> preimage.Generator:
    """A network of the same sizes that draws ``blobs``."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for k, n in itertools.pairwise(SIZES):
        layers += [nn.Linear(k, n), nn.ReLU()]
    module = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        z = 2 * torch.rand(256, 4) - 1
        loss = ((module(z) - blobs(z)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"trained: root mean square error {loss.sqrt().item():.4f}", flush=True)
    return preimage.from_torch(module.eval())


def fixed(generator: preimage.Generator, z: np.ndarray, free: int) -> preimage.Generator:
    """The conditional generator: all but the first latents have their true values."""
    first = generator.layers[0]
    bias = first.bias + first.weight[:, free:] @ z[free:]
    layer = preimage.Layer(first.weight[:, :free], bias, first.activation)
    return preimage.Generator((layer, *generator.layers[1:]))


def draws(generators: dict[str, preimage.Generator], count: int):
    """Name, network, code, observation and noise, over all settings in turn."""
    settings = list(itertools.product(generators, (2, 4), (1e-3, 1e-2)))
    for number in range(count):
        name, free, noise = settings[number % len(settings)]
        rng = np.random.default_rng(number)
        z = rng.uniform(-1, 1, size=4)
        network = fixed(generators[name], z, free) if free < 4 else generators[name]
        y = network(z[:free])
        level = noise * float(np.ptp(y))
        yield f"{name}, {free} free, {noise:g}", network, z[:free], y, level, rng


def timed(call: Callable[[], object]) -> tuple[object, float, float]:
    start, processor = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - start, time.process_time() - processor


def report(
    name: str, target: str, decided: list[bool], wall: list[float], cpu: list[float]
) -> None:
    print(f"{name:<34} {sum(decided)}/{len(decided)} decided, median {np.median(wall):.2f} s "
          f"({np.median(cpu):.2f} s of processor time), longest {max(wall):.1f} s   [{target}]",
          flush=True)  # fmt: skip


def certify(count: int, limit: float) -> None:
    generators = {"random": random_network(0), "trained": trained_network(0)}
    rows: dict[str, list[tuple[bool, float, float]]] = {}
    for name, network, z, y, level, rng in draws(generators, count):
        x = y + level * rng.uniform(-1, 1, size=y.shape)
        found, wall, cpu = timed(
            lambda n=network, x=x, e=level: preimage.certify(
                n, x, noise=e, box=1.0, time_limit=limit
            )
        )
        if found.verdict != "undecided":
            assert ((z >= found.lower) & (z <= found.upper)).all()
        rows.setdefault(name, []).append((found.verdict != "undecided", wall, cpu))
        print(f"  {name}: {found.verdict} {found.reason} {wall:.1f} s ({cpu:.1f})", flush=True)
    for name, found in [*rows.items(), ("all", [one for some in rows.values() for one in some])]:
        report(name, "95 %, 5 s", *map(list, zip(*found, strict=True)))


def nearest(count: int) -> None:
    generators = {"random": random_network(0), "trained": trained_network(0)}
    method = preimage.BranchAndBound(norm="l2", box=1.0, gap=1e-4, time_limit=10.0)
    decided, walls, cpus = [], [], []
    for _, network, z, y, level, rng in draws(generators, 4 * count):
        if len(z) > 2:
            continue
        x = y + level * rng.uniform(-1, 1, size=y.shape)
        found, wall, cpu = timed(
            lambda n=network, x=x, e=level: preimage.invert(n, x, method, noise=e)
        )
        decided.append(bool(found.gap <= 1e-4))
        walls.append(wall)
        cpus.append(cpu)
    report("nearest code, l2, two free", "gap 1e-4, 0.2 s", decided, walls, cpus)


def convolution_network(seed: int) -> preimage.Generator:
    """5 -> 4 x 4 x 32 -> 8 x 8 x 16 -> 16 x 16 x 8 -> 32 x 32, transposed convolutions as CSR."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Linear(5, 512), nn.ReLU(), nn.Unflatten(1, (32, 4, 4)),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Flatten(),
    )  # fmt: skip
    generator = preimage.from_torch(module.eval(), input_shape=(5,))
    assert any(sparse.issparse(layer.weight) for layer in generator.layers)
    return generator


def convolution(count: int, limit: float) -> None:
    network = convolution_network(0)
    decided, walls, cpus = [], [], []
    for number in range(count):
        rng = np.random.default_rng(number)
        z = rng.uniform(-1, 1, size=5)
        y = network(z)
        level = 1e-3 * float(np.ptp(y))
        x = y + level * rng.uniform(-1, 1, size=y.shape)
        found, wall, cpu = timed(
            lambda x=x, e=level: preimage.certify(network, x, noise=e, box=1.0, time_limit=limit)
        )
        decided.append(found.verdict != "undecided")
        walls.append(wall)
        cpus.append(cpu)
        print(f"  {found.verdict} {found.reason} {wall:.1f} s ({cpu:.1f})", flush=True)
    report("convolution, 5 latents", "90 %, 60 s", decided, walls, cpus)


def interval(count: int) -> None:
    decided, walls, cpus = [], [], []
    for number in range(count):
        network = random_network(number, (1, 128, 128, 128, 1))
        x = network(np.random.default_rng(number).uniform(-1, 1, size=1))
        found, wall, cpu = timed(
            lambda n=network, x=x: preimage.certify(n, x, noise=0.01, box=1.0, time_limit=10.0)
        )
        decided.append(found.verdict != "undecided")
        walls.append(wall)
        cpus.append(cpu)
    report("1-128-128-128-1", "all, 11 s", decided, walls, cpus)


def phase(count: int) -> None:
    generator = preimage.zoo.load("mnist-20-60-784")
    for m, target in ((60, "95 %"), (100, "99 %")):
        decided, walls, cpus = [], [], []
        for number in range(count):
            rng = np.random.default_rng(1000 * m + number)
            measured = generator.then(*magnitudes(rng.normal(size=(m, 784)) / 28))
            z = rng.normal(size=20)
            x = measured(z)
            found, wall, cpu = timed(lambda n=measured, x=x: preimage.invert(n, x))
            decided.append(bool(np.linalg.norm(found.latent - z) < 1e-4 * np.linalg.norm(z)))
            walls.append(wall)
            cpus.append(cpu)
        report(f"phase retrieval, m = {m} (recovered)", target, decided, walls, cpus)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "rows", nargs="*", default=["certify", "nearest", "convolution", "interval", "phase"]
    )
    parser.add_argument("--draws", type=int, default=0, help="0 for those of the targets")
    parser.add_argument("--time-limit", type=float, default=60.0)
    asked = parser.parse_args()
    for row in asked.rows:
        if row == "certify":
            certify(asked.draws or 50, asked.time_limit)
        elif row == "nearest":
            nearest(asked.draws or 50)
        elif row == "phase":
            phase(asked.draws or 100)
        elif row == "convolution":
            convolution(asked.draws or 20, asked.time_limit)
        else:
            interval(asked.draws or 20)


if __name__ == "__main__":
    main()
