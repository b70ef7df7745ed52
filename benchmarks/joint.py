"""Measure the joint method and ``auto``: ``python benchmarks/joint.py [PART ...] [--draws N]``.

Prints one row a claim, with what was measured and the goal; exits with 1 if one is missed. The true
code is used only to score.
"""

from __future__ import annotations

import os

# One BLAS thread: compiled code has threads of its own. Set before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import itertools
import math
import resource
import sys
import time
from pathlib import Path

import numpy as np
from claims import oracle
from rows import Row, finish, row
from scipy import stats

import preimage

NOISES = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.3]
# Latent size, hidden size, outputs; the share of codes to be found.
GAUSSIAN = [
    ((k, 250, 600), 0.99) for k in (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
] + [((50, 250, 160), 0.99), ((50, 250, 120), 0.9), ((20, 250, 60), 0.99),
     ((20, 200, 100), 0.95), ((80, 250, 300), 0.95)]  # fmt: skip
PHASE_LATENTS = [10, 20, 30, 40, 50, 60, 80, 100, 120]
PHASE_OUTPUTS = [20, 40, 60, 80, 100, 120, 160, 200, 300, 400, 600]


def errors(latent: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``||z - z*|| / ||z*||`` of each row; infinite where there is no code."""
    ratio = np.linalg.norm(latent - truth, axis=1) / np.linalg.norm(truth, axis=1)
    return np.where(np.isfinite(ratio), ratio, np.inf)


def codes(generator: preimage.Generator, draws: int) -> np.ndarray:
    """N(0, I), those whose layers have at least as many active units as the code has entries."""
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        while True:
            z = rng.normal(size=generator.latent_size)
            if all((a > 0).sum() >= len(z) for a in generator.preactivations(z[None])):
                break
        found.append(z)
    return np.array(found)


def trained(draws: int) -> list[Row]:
    """``auto`` beside the oracle, on the trained 20-60-784 decoder."""
    generator, held = preimage.zoo.load("mnist-20-60-784"), []
    z = codes(generator, draws)
    clean = generator(z)
    for kind, noise in itertools.product(("uniform", "Gaussian"), NOISES):
        rng = np.random.default_rng(1)
        drawn = (
            rng.uniform(-1, 1, clean.shape) if kind == "uniform" else rng.normal(size=clean.shape)
        )
        x = clean + noise * drawn
        found = preimage.invert(generator, x, "auto", noise=noise)
        best = np.array([oracle(generator, own, code) for own, code in zip(x, z, strict=True)])
        error, least = errors(found.latent, z), errors(best, z)
        ratio = float(np.median(error) / np.median(least))
        near = float(np.mean(error <= 3 * least))
        fits = float(np.mean(found.residual <= np.linalg.norm(x - clean, axis=1) * (1 + 1e-9)))
        goal = 1.05 if noise <= 0.1 else 1.2
        held.append(
            row(
                f"auto, trained 20-60-784, {kind} noise {noise:g}, {draws} draws",
                f"{ratio:.3f} x oracle; {near:.1%}; {fits:.1%}",
                f"median <= {goal} x; within 3 x 98%; residual <= truth's 99%",
                ratio <= goal and near >= 0.98 and fits >= 0.99,
            )
        )
    return held


def gaussian(sizes: tuple[int, ...], draws: int) -> tuple[float, float]:
    """Share of noiseless codes found on Gaussian nets, and of draws with enough active rows."""
    found, possible = [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        weights = [rng.normal(size=(n, k)) / math.sqrt(n) for k, n in itertools.pairwise(sizes)]
        generator = preimage.from_arrays(weights)
        z = rng.normal(size=(1, sizes[0]))
        inversion = preimage.invert(generator, generator(z), "auto")
        found.append(errors(inversion.latent, z)[0] <= 1e-6)
        active = [(a > 0).sum() for a in generator.preactivations(z)]
        possible.append(min(active) >= sizes[0])
    return float(np.mean(found)), float(np.mean(possible))


def limit(sizes: tuple[int, ...]) -> float:
    """P(every layer has at least k active rows), each active with chance one half."""
    return float(np.prod([stats.binom.sf(sizes[0] - 1, n, 0.5) for n in sizes[1:]]))


def random_nets(draws: int) -> list[Row]:
    """Success of ``auto`` on Gaussian nets, noiseless."""
    held, count = [], max(draws // 2, 1)
    for sizes, goal in GAUSSIAN:
        share, possible = gaussian(sizes, count)
        held.append(
            row(
                f"auto, Gaussian {'-'.join(map(str, sizes))}, noiseless, {count} draws",
                f"{share:.1%} found; {possible:.1%} have enough active rows",
                f"found {goal:.0%}",
                share >= goal,
            )
        )
    return held


def partial(draws: int) -> list[Row]:
    """Missing pixels and Gaussian measurements, trained decoder, noiseless."""
    generator = preimage.zoo.load("mnist-20-60-784")
    z = codes(generator, draws)
    x, rng = generator(z), np.random.default_rng(2)
    block = np.ones((28, 28), dtype=bool)
    block[7:21, 7:21] = False
    tall = rng.normal(size=(60, 784)) / math.sqrt(60)
    cases = {
        "half of the pixels": (x, rng.random(x.shape) < 0.5),
        "all but a 14 x 14 block": (x, block.ravel()),
        "60 Gaussian measurements": (x @ tall.T, tall),
    }
    held = []
    for name, (y, sensing) in cases.items():
        found = preimage.invert(generator, y, "auto", sensing=sensing)
        jacobian = generator.jacobian(z)
        if sensing.dtype == bool:
            jacobian = jacobian * np.broadcast_to(sensing, x.shape)[:, :, None]
        else:
            jacobian = sensing @ jacobian
        seen = np.linalg.matrix_rank(jacobian, rtol=1e-9) == 20
        share = float(np.mean(errors(found.latent, z)[seen] <= 1e-6))
        wrong = found.status[seen & (errors(found.latent, z) > 1e-6)]
        text = (
            f"{share:.1%} of {seen.sum()}; {(wrong == 'solved').sum()} other codes that fit as well"
        )
        held.append(row(f"auto sees {name}", text, "found 95%", share >= 0.95))
    return held


def peak_gigabytes() -> float:
    """Most memory that this process had resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def own_outputs(
    label: str, generator: preimage.Generator, z: np.ndarray, tolerance: float, share: float,
    seconds: float, gigabytes: float,
) -> Row:  # fmt: skip
    """``auto`` on a generator's own outputs: codes, time and memory."""
    start = time.perf_counter()
    found = preimage.invert(generator, generator(z), "auto")
    each = (time.perf_counter() - start) / len(z)
    good = float(np.mean(errors(found.latent, z) <= tolerance))
    return row(
        f"auto, {label}, own outputs, {len(z)} draws",
        f"{good:.0%} within {tolerance:g}; {each:.2f} s each; {peak_gigabytes():.1f} GB",
        f"{share:.0%}; {seconds:g} s; {gigabytes:g} GB",
        good >= share and each <= seconds and peak_gigabytes() <= gigabytes,
    )


def convolutional(draws: int) -> list[Row]:
    """The convolutional decoder of the zoo."""
    generator = preimage.zoo.load("mnist-conv-20")
    z = np.random.default_rng(3).normal(size=(max(draws // 2, 1), 20))
    return [own_outputs("mnist-conv-20", generator, z, 1e-4, 0.95, 2, 2)]


def skipping_module(kind: str, seed: int):  # type: ignore[no-untyped-def]
    """Eight hidden layers of 512 from 20 to 784, untrained; one skip, or none."""
    import torch
    from torch import nn

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            wide = [20] + 8 * [512]
            wide[4] += 20 * (kind == "concatenation")
            self.hidden = nn.ModuleList(nn.Linear(k, 512) for k in wide[:-1])
            self.last = nn.Linear(512, 784)
            for layer in [*self.hidden, self.last]:
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, 0.0, 0.1)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            value = kept = z
            for place, layer in enumerate(self.hidden):
                if kind == "concatenation" and place == 4:
                    value = torch.cat([value, z], dim=1)
                value = torch.relu(layer(value))
                if place == 2:
                    kept = value
                if kind == "sum" and place == 5:
                    value = value + kept
            return self.last(value)

    torch.manual_seed(seed)
    return Decoder().double().eval()


def skips(draws: int) -> list[Row]:
    """Networks with a skip, whose layers carry what skips them, beside one without."""
    held, count = [], max(draws // 2, 1)
    for kind in ("none", "sum", "concatenation"):
        generator = preimage.from_torch(skipping_module(kind, 0))
        assert isinstance(generator, preimage.Generator), "its layers are known"
        z = np.random.default_rng(3).normal(size=(count, 20))
        start = time.perf_counter()
        found = preimage.invert(generator, generator(z), "auto")
        each = (time.perf_counter() - start) / count
        share = float(np.mean(errors(found.latent, z) <= 1e-6))
        held.append(
            row(
                f"auto, 20 - 8 x 512 - 784, skip: {kind}, own outputs, {count} draws",
                f"{share:.1%} within 1e-6; {each:.2f} s each",
                "99%",
                share >= 0.99,
            )
        )
    return held


def dcgan_module(seed: int):  # type: ignore[no-untyped-def]
    """The generator of DCGAN (Radford, Metz and Chintala 2016), 100 to 3 x 64 x 64, untrained.

    Weights as the paper draws them, N(0, 0.02), and batch normalisation with the statistics of a
    thousand codes, as training would leave them.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    widths = [(100, 512, 1, 0), (512, 256, 2, 1), (256, 128, 2, 1), (128, 64, 2, 1)]
    for inputs, outputs, stride, padding in widths:
        layers += [
            nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU(),
        ]  # fmt: skip
    module = nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())
    for layer in module:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            layer.momentum = None
    with torch.no_grad():
        for _ in range(10):
            module(torch.randn(100, 100, 1, 1))
    return module.eval()


def images(draws: int) -> list[Row]:
    """Real digits, which the network never made, against Adam with ten restarts."""
    generator = preimage.zoo.load("mnist-20-60-784")
    x, _ = preimage.zoo.digits()
    methods = {"auto": "auto", "adam": preimage.Adam(restarts=10, steps=1000)}
    found, seconds = {}, {}
    for name, method in methods.items():
        start = time.perf_counter()
        found[name] = np.median(preimage.invert(generator, x, method, noise=0.05).residual)
        seconds[name] = time.perf_counter() - start
    ratio = seconds["auto"] / seconds["adam"]
    return [
        row(
            f"auto against Adam 10 x 1000, {len(x)} test digits",
            f"median residual {found['auto']:.4f} and {found['adam']:.4f}; {ratio:.3f} of its time",
            "residual <= Adam's; time <= 0.2",
            bool(found["auto"] <= found["adam"] and ratio <= 0.2),
        )
    ]


def phase(draws: int, folder: Path) -> list[Row]:
    """Success over (k, n) of k-250-n, beside its limit; a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = max(draws // 10, 1)
    cells = list(itertools.product(PHASE_LATENTS, PHASE_OUTPUTS))
    found = np.array([gaussian((k, 250, n), count)[0] for k, n in cells])
    bound = np.array([limit((k, 250, n)) for k, n in cells])
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    shape = len(PHASE_LATENTS), len(PHASE_OUTPUTS)
    for ax, values, title in zip(
        axes, (found, bound), (f"auto, {count} draws a cell", "P(enough active rows)"), strict=True
    ):
        picture = ax.imshow(values.reshape(shape), origin="lower", vmin=0, vmax=1, aspect="auto")
        ax.set(title=title, xlabel="outputs n", xticks=range(shape[1]), xticklabels=PHASE_OUTPUTS)
        ax.set(yticks=range(shape[0]), yticklabels=PHASE_LATENTS)
    axes[0].set_ylabel("latent size k")
    figure.colorbar(picture, ax=axes, label="share of codes")
    figure.suptitle("Noiseless inversion of Gaussian k-250-n")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "phase.png", dpi=150)
    gap = float(np.mean(np.maximum(bound - found, 0)))
    print(f"       phase map written; mean shortfall below the limit {gap:.3f}")
    return []


def main() -> int:
    """Measure and print everything that is asked for."""
    parts = ("trained", "random", "partial", "skips", "convolutional", "images", "phase")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    parser.add_argument("--draws", type=int, default=200, help="draws a noise level")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/benchmarks"), help="folder to write to"
    )
    arguments = parser.parse_args()
    works = {
        "trained": lambda: trained(arguments.draws),
        "random": lambda: random_nets(arguments.draws),
        "partial": lambda: partial(arguments.draws),
        "skips": lambda: skips(arguments.draws),
        "images": lambda: images(arguments.draws),
        "convolutional": lambda: convolutional(arguments.draws),
        "phase": lambda: phase(arguments.draws, arguments.out),
    }
    held = [ok for name in arguments.parts or works for ok in works[name]()]
    whole = arguments.out / "joint.md" if not arguments.parts else None
    return finish(held, "The joint method and auto: accuracy", "make claims", whole)


if __name__ == "__main__":
    sys.exit(main())
