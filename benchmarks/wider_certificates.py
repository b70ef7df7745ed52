"""Certificates beyond the plain decoder: ``python benchmarks/wider_certificates.py [ROW ...]``.

Rows: ``masks`` (half of the pixels of 20-60-784), ``magnitudes`` (40 magnitudes of 5-20-60, each
verdict proven again from files), ``residual`` (5-20-20-60 with a skip, beside the same network
without), ``wider`` (the zoo's wider networks at two noises, with the limit that was given). Each
prints what was measured and what was aimed at; times are wall times of one sample.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from small_latents import random_network
from torch import nn

import preimage
from preimage.certify import boxes, checker
from preimage.measurements import magnitudes
from preimage.network import Network

Make = Callable[[int], tuple[Network, np.ndarray, dict]]


def certified(name: str, target: str, draws: int, make: Make, again: bool = False) -> None:
    """Certify ``draws`` samples, print their verdicts, whether the truth is inside, and times.

    Args:
        name: Of the row.
        target: What was aimed at.
        draws: Number of samples.
        make: From a number to the network, a true code and the arguments of ``certify``.
        again: Whether the checker proves each certificate from files.
    """
    verdicts: Counter[str] = Counter()
    seconds, inside, proven = [], 0, 0
    for number in range(draws):
        network, z, question = make(number)
        start = time.perf_counter()
        found = preimage.certify(network, **question)
        seconds.append(time.perf_counter() - start)
        verdicts[str(found.verdict)] += 1
        inside += bool(((found.lower <= z) & (z <= found.upper)).all())
        proven += again and proves(found, network, question["observation"])
    text = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    text += f"; truth inside {inside}/{draws}" + (f"; proven again {proven}" if again else "")
    times = f"median {np.median(seconds):.2f} s, worst {max(seconds):.1f} s"
    print(f"{name:<44} {text}; {times}   [{target}]", flush=True)


def proves(found: preimage.Certificate, network: Network, x: np.ndarray) -> bool:
    """Whether the checker proves from files what the certificate says."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("c.json", "n.safetensors", "x.npy")]
        found.save(paths[0])
        preimage.save(network, paths[1])
        np.save(paths[2], x[None])
        return checker.check(*paths, boxes=boxes.remaining)[0]["verdict"] == str(found.verdict)


def noisy(network: Network, z: np.ndarray, noise: float, rng: np.random.Generator):
    """An output with uniform noise, of which nothing is at its bound."""
    return network(z) + noise * rng.uniform(-0.999, 0.999, size=network.observation_size)


def masks(draws: int, limit: float) -> None:
    generator = preimage.zoo.load("mnist-20-60-784")

    def make(number: int):
        rng = np.random.default_rng(number)
        z = rng.normal(size=20).clip(-4.9, 4.9)
        x = noisy(generator, z, 1e-3, rng)
        mask = rng.random(784) < 0.5
        return generator, z, {
            "observation": x, "noise": 1e-3, "box": 5.0, "sensing": mask, "time_limit": limit
        }  # fmt: skip

    certified("half of the pixels, 20-60-784, noise 1e-3", "100 % inside, 90 % decided, 2 s",
              draws, make)  # fmt: skip


def few_magnitudes(draws: int, limit: float) -> None:
    def make(number: int):
        rng = np.random.default_rng(number)
        generator = random_network(number, (5, 20, 60))
        measured = generator.then(*magnitudes(rng.normal(size=(40, 60)) / 60**0.5))
        z = rng.normal(size=5).clip(-2.9, 2.9)
        x = noisy(measured, z, 1e-3, rng)
        return measured, z, {"observation": x, "noise": 1e-3, "box": 3.0, "time_limit": limit}

    certified("40 magnitudes of 5-20-60, noise 1e-3", ">= 90 % decided, 5 s", draws, make, True)


class Residual(nn.Module):
    """5-20-20-60, whose second layer may add its input."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 20), nn.Linear(20, 20), nn.Linear(20, 60)
        self.skip = skip

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """The outputs (batch, 60) of latents (batch, 5)."""
        a = self.first(z).relu()
        b = self.second(a).relu()
        return self.last(a + b if self.skip else b)


def residual(draws: int, limit: float) -> None:
    for skip in (False, True):

        def make(number: int, skip: bool = skip):
            torch.manual_seed(number)
            network = preimage.from_torch(Residual(skip).eval(), 5)
            rng = np.random.default_rng(number)
            z = rng.normal(size=5).clip(-2.9, 2.9)
            x = noisy(network, z, 1e-3, rng)
            return network, z, {"observation": x, "noise": 1e-3, "box": 3.0, "time_limit": limit}

        name = "residual 5-20-20-60" if skip else "plain 5-20-20-60"
        certified(f"{name}, noise 1e-3", "residual as plain", draws, make)


def wider(draws: int, limit: float) -> None:
    for name in ("mnist-20-200-500-784", "mnist-32-256-512-784", "mnist-conv-20"):
        generator = preimage.zoo.load(name)
        for noise in (1e-4, 1e-2):

            def make(number: int, generator=generator, noise: float = noise):
                rng = np.random.default_rng(number)
                z = rng.normal(size=generator.latent_size).clip(-4.9, 4.9)
                x = noisy(generator, z, noise, rng)
                return generator, z, {
                    "observation": x, "noise": noise, "box": 5.0, "time_limit": limit
                }  # fmt: skip

            certified(f"{name}, noise {noise:g}, limit {limit:g} s",
                      f"no run over {1.1 * limit + 1:g} s", draws, make)  # fmt: skip


def main() -> None:
    rows = {"masks": (masks, 50, 60.0), "magnitudes": (few_magnitudes, 50, 60.0),
            "residual": (residual, 50, 60.0), "wider": (wider, 3, 30.0)}  # fmt: skip
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", default=list(rows))
    parser.add_argument("--draws", type=int, default=0, help="0 for those of the targets")
    parser.add_argument("--time-limit", type=float, default=0.0, help="0 for those of the rows")
    asked = parser.parse_args()
    for name in asked.rows:
        measure, draws, limit = rows[name]
        measure(asked.draws or draws, asked.time_limit or limit)


if __name__ == "__main__":
    main()
