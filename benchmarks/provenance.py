"""Provenance of 8-bit files: ``python benchmarks/provenance.py --data DIR [--pictures N]``.

Five decoders of one recipe (784-200-20 variational autoencoders, decoders 20-60-784 with a sigmoid)
are trained on MNIST: two differ in their seed alone, the others also in data, width or weight of
the prior. Every picture is drawn from one of them and rounded to 8 bits; all five are judged. Every
``not made`` is proven again from its file. Prints what was measured and what was aimed at.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import preimage
from preimage.certify import boxes, checker
from preimage.io.observations import read_idx

# Seed, part of the data, hidden units, weight of the prior.
RECIPES = [(0, 1.0, 60, 1.0), (1, 1.0, 60, 1.0), (2, 0.5, 60, 1.0), (3, 1.0, 80, 1.0),
           (4, 1.0, 60, 2.0)]  # fmt: skip


def train(digits: np.ndarray, seed: int, part: float, width: int, prior: float, epochs: int):
    """A decoder; sums of floats depend on the machine, so that another one trains another."""
    torch.manual_seed(seed)
    data = torch.from_numpy(digits[: int(part * len(digits))])
    encoder = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 40))
    decoder = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 784), nn.Sigmoid())
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
    for _ in range(epochs):
        for some in torch.randperm(len(data)).split(128):
            x = data[some]
            mean, log = encoder(x).chunk(2, 1)
            shown = decoder(mean + torch.exp(log / 2) * torch.randn_like(mean))
            kl = 0.5 * (mean**2 + log.exp() - 1 - log).sum()
            loss = functional.binary_cross_entropy(shown, x, reduction="sum") + prior * kl
            optimizer.zero_grad()
            (loss / len(x)).backward()
            optimizer.step()
    return preimage.from_torch(decoder.eval())


def proven(certificate: preimage.Certificate, generator: preimage.Generator, x, seen) -> bool:
    """Whether the checker proves the file from network and picture."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("c.json", "n.safetensors", "x.npy")]
        certificate.save(paths[0])
        preimage.save(generator, paths[1])
        np.save(paths[2], np.where(seen, x, 0.0)[None])
        sensing = None
        if not seen.all():
            sensing = str(Path(folder) / "m.npy")
            np.save(sensing, seen[None])
        try:
            records = checker.check(*paths, sensing, None, boxes.remaining)
        except Exception:
            return False
        return records[0]["verdict"] == "infeasible"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=3)
    asked = parser.parse_args()
    digits = read_idx(asked.data / "train-images-idx3-ubyte").reshape(-1, 784)[:20000] / 255
    digits = digits.astype(np.float32)
    decoders = [train(digits, *recipe, asked.epochs) for recipe in RECIPES]
    counts = dict.fromkeys(("pairs", "made", "not made", "undecided"), 0)
    false_made = false_not = checked = negatives = 0
    seconds, times = [], []
    for number in range(asked.pictures):
        rng = np.random.default_rng(number)
        maker = number % len(decoders)
        x = decoders[maker](rng.normal(size=20))
        picture = np.round(255 * np.clip(x, 0, 1)).astype(np.uint8)
        for index, generator in enumerate(decoders):
            start, processor = time.perf_counter(), time.process_time()
            [found] = preimage.provenance(picture, [generator])
            seconds.append(time.perf_counter() - start)
            times.append(time.process_time() - processor)
            counts["pairs"] += 1
            counts[found.verdict] += 1
            false_made += found.verdict == "made" and index != maker
            false_not += found.verdict == "not made" and index == maker
            negatives += index != maker
            if found.verdict == "not made" and index != maker:
                seen = np.ones(784, dtype=bool)
                checked += proven(found.certificate, generator, picture / 255, seen)
        if number % 20 == 19 or number == asked.pictures - 1:
            print(f"{counts}, false made {false_made} (0), false not made {false_not} (0), "
                  f"negatives with a checked proof {checked}/{negatives} (95 %), median "
                  f"{np.median(seconds):.2f} s (1 s), {np.median(times):.2f} s of processor time",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
