"""Measure networks that torch runs: ``python benchmarks/decoders.py [PART ...] [--data DIR]``.

Prints one row a claim, with what was measured and the goal; exits with 1 if one is missed. The true
code is used only to score. DIR holds the four MNIST files in IDX form, on which the decoders are
trained first (or ``--weights`` has them already, from ``python -m training.decoders``); without it,
the hundred digits of the package serve. The peer is Adam in torch: float32, all samples and
restarts in one batch, those that have arrived left out; its learning rate is the best of three.
"""

from __future__ import annotations

import os

# One BLAS thread, before NumPy is imported: its products are small, and torch has threads too.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from joint import dcgan_module, errors
from rows import Row, finish, row
from scipy import ndimage, sparse
from torch import nn

import preimage
from preimage import TorchNetwork

sys.path.insert(0, str(Path(__file__).parent.parent))
from training import decoders

Array = np.ndarray

# Of the time that Adam takes.
SHARE = 0.2
RATES = (0.03, 0.1, 0.3)
# What Adam has reached but for the rounding of float32, it has reached.
NEAR = 1 + 1e-6
# Where Adam has arrived its last step may lie a little lower; that is no other answer.
EQUAL = 1.001
# Memory of a process, in a process of its own: what it grows by while one thing is done.
# Linux keeps the largest resident size of a process, and forgets it when 5 is written here.
MEMORY = """
import ctypes, re, sys
sys.path[:0] = {path!r}
import numpy as np, preimage, decoders
network = decoders.untrained_dcgan()
codes = np.random.default_rng(100).standard_normal(({batch}, 100))
x, draft = network(codes), network.draft
draft.vjp(codes[:1], x[:1])

def kilobytes(name):
    return int(re.search(name + r":\\s*(\\d+)", open("/proc/self/status").read())[1])

ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
{work}
print(kilobytes("VmHWM") - before)
"""


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        draws: Codes, and real images, of each kind.
        steps: Most steps of Adam.
        restarts: Of Adam on real images.
        weights: NAME.pt of each decoder.
        clock: What tells the time.
    """

    draws: int
    steps: int
    restarts: int
    weights: dict[str, dict[str, torch.Tensor]]
    clock: Callable[[], float] = time.perf_counter

    def decoder(self, name: str, label: int = 3) -> TorchNetwork:
        """A trained decoder; of the conditional one, that of a label."""
        fixed = {"label": [label]} if name == "conditional" else {}
        module = decoders.decoder(name, self.weights[name])
        return TorchNetwork(module, decoders.LATENT_SIZE, fixed)


def adam(
    network: TorchNetwork, starts: Array, x: Array, rate: float, steps: int, goal: Array,
    sensing: Array | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Adam in float32 from each start, (samples, restarts, k), on ``||x - A G(z)||^2``.

    Args:
        network: G.
        starts: As given.
        x: (samples, m).
        rate: The learning rate.
        steps: Most steps.
        goal: (samples,) residuals at which a sample's runs end.
        sensing: A, of shape (m, n) and dense; None for the identity.

    Returns:
        The lowest residual of each run, (samples, restarts), and the number of steps of each.
    """
    samples, restarts, k = starts.shape
    module, one = network.draft, torch.float32
    z = torch.tensor(starts.reshape(-1, k), dtype=one)
    values = torch.tensor(np.repeat(x, restarts, axis=0), dtype=one)
    matrix = None if sensing is None else torch.tensor(sensing, dtype=one)
    near = torch.tensor(np.repeat(goal, restarts))
    best, taken = torch.full((len(z),), torch.inf), torch.zeros(len(z), dtype=torch.int64)
    mean, square, open_ = torch.zeros_like(z), torch.zeros_like(z), torch.arange(len(z))
    for step in range(1, steps + 1):
        code = z[open_].requires_grad_()
        outputs = module.evaluate(code)
        error = values[open_] - (outputs if matrix is None else outputs @ matrix.T)
        loss = error.square().sum(dim=1)
        (slope,) = torch.autograd.grad(loss.sum(), code)
        best[open_] = torch.minimum(best[open_], loss.detach().sqrt())
        done = (best <= near).reshape(samples, restarts).any(dim=1).repeat_interleave(restarts)
        going = ~done[open_]
        open_, slope = open_[going], slope[going]
        if not len(open_):
            break
        taken[open_] += 1
        mean[open_] += 0.1 * (slope - mean[open_])
        square[open_] += 0.001 * (slope.square() - square[open_])
        correction = (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        z[open_] -= rate * correction * mean[open_] / (square[open_].sqrt() + 1e-8)
    shape = samples, restarts
    return best.reshape(shape).double().numpy(), taken.reshape(shape).numpy()


def best_rate(network: TorchNetwork, x: Array, steps: int, sensing: Array | None = None) -> float:
    """Of ``RATES`` the one with the lowest mean residual on two samples."""
    starts = np.random.default_rng(9).standard_normal((2, 2, network.latent_size))
    nothing = np.zeros(2)
    means = [adam(network, starts, x[:2], r, steps, nothing, sensing)[0].mean() for r in RATES]
    return RATES[int(np.argmin(means))]


@dataclass(frozen=True)
class Race:
    """``auto`` and Adam on the same observations.

    Attributes:
        found: By ``auto``.
        seconds: Of ``auto``.
        residual: Adam's, the best of its restarts, (samples,).
        ratio: The time of ``auto`` over Adam's.
    """

    found: preimage.Inversion
    seconds: float
    residual: Array
    ratio: float

    @property
    def text(self) -> str:
        """The times."""
        return f"{self.seconds:.1f} s, {self.ratio:.3f} of Adam's"


def race(
    network: TorchNetwork, x: Array, options: Options, *, noise: float = 0.0, restarts: int = 1,
    sensing: Array | None = None, to_goal: bool = True,
) -> Race:  # fmt: skip
    """Invert ``x`` by ``auto``, then by Adam until it has the same residual, or all its steps."""
    dense, given = sensing.toarray() if sparse.issparse(sensing) else sensing, x
    if sensing is not None and sensing.dtype == np.bool_:
        given = np.zeros((len(x), network.observation_size))
        given[:, sensing] = x
        dense = np.eye(network.observation_size)[sensing]
    preimage.invert(network, given[:1], noise=noise, sensing=sensing)  # what is made once is made
    start = options.clock()
    found = preimage.invert(network, given, noise=noise, sensing=sensing)
    seconds = options.clock() - start
    rate = best_rate(network, x, max(options.steps // 10, 2), dense)
    starts = np.random.default_rng(1).standard_normal((len(x), restarts, network.latent_size))
    goal = found.residual * NEAR if to_goal else np.zeros(len(x))
    start = options.clock()
    best, _ = adam(network, starts, x, rate, options.steps, goal, dense)
    ratio = seconds / (options.clock() - start)
    return Race(found, seconds, best.min(axis=1), ratio)


def untrained_dcgan() -> TorchNetwork:
    """100 to 3 x 64 x 64."""
    return TorchNetwork(dcgan_module(0), (100, 1, 1))


def dcgan(options: Options) -> list[Row]:
    """Own outputs of the generator of DCGAN."""
    network = untrained_dcgan()
    z = np.random.default_rng(100).standard_normal((options.draws, network.latent_size))
    run = race(network, network(z), options)
    worst = errors(run.found.latent, z).max()
    return [
        row(
            f"DCGAN, {len(z)} codes, own outputs", f"code error {worst:.1e}; {run.text}",
            f"1e-4 on all; <= {SHARE}", bool(worst <= 1e-4 and run.ratio <= SHARE),
        )
    ]  # fmt: skip


def trained(options: Options) -> list[Row]:
    """Own outputs of trained decoders, with and without noise."""
    held = []
    for name in decoders.NAMES:
        network = options.decoder(name)
        z = np.random.default_rng(102).standard_normal((options.draws, network.latent_size))
        clean = network(z)
        for noise in (0.0, 0.02):
            x = clean + noise * np.random.default_rng(3).standard_normal(clean.shape)
            run = race(network, x, options, noise=noise)
            # Without noise, the truth's residual is 0 up to rounding.
            truth = np.linalg.norm(x - clean, axis=1) + 1e-9 * np.linalg.norm(x, axis=1)
            share = float(np.mean(run.found.residual <= truth))
            held.append(
                row(
                    f"{name}, own outputs, noise {noise:g}, {len(z)} codes",
                    f"{share:.0%}; {run.text}", f"<= the truth's on 95%; <= {SHARE}",
                    share >= 0.95 and run.ratio <= SHARE,
                )
            )  # fmt: skip
    return held


def images(options: Options) -> list[Row]:
    """Real digits, which no decoder made, against the best of many restarts of Adam."""
    pixels, labels = preimage.zoo.digits()
    held = []
    for name in decoders.NAMES:
        of_label = labels == 3 if name == "conditional" else labels >= 0
        x = pixels[of_label][: options.draws]
        network = options.decoder(name)
        run = race(network, x, options, noise=0.02, restarts=options.restarts, to_goal=False)
        ratio = float(np.median(run.found.residual / run.residual))
        held.append(
            row(
                f"{name}, {len(x)} real digits, Adam {options.restarts} x {options.steps}",
                f"residual {ratio:.4f} of Adam's; {run.text}", f"<= 1.02 (median); <= {SHARE}",
                ratio <= 1.02 and run.ratio <= SHARE,
            )
        )  # fmt: skip
    return held


class Conditional(nn.Module):
    """An untrained conditional generator, 5 latents and a label to 3 x 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.label, self.linear = nn.Embedding(10, 10), nn.Linear(15, 256 * 16)
        blocks: list[nn.Module] = []
        for inputs, outputs in ((256, 128), (128, 64), (64, 3)):
            blocks += [nn.BatchNorm2d(inputs), nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2)]
            blocks += [nn.Conv2d(inputs, outputs, 3, padding=1)]
        self.body = nn.Sequential(*blocks, nn.Tanh())

    def forward(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Codes and labels to images."""
        start = self.linear(torch.cat([z, self.label(label)], dim=1))
        return self.body(start.unflatten(1, (256, 4, 4)))


def conditional(options: Options) -> list[Row]:
    """Twenty codes of a conditional generator, five seconds."""
    torch.manual_seed(0)
    module = Conditional()
    with torch.no_grad():  # running statistics, as training leaves them
        for _ in range(50):
            module(torch.randn(50, 5), torch.randint(10, (50,)))
    network = TorchNetwork(module.eval(), 5, {"label": [3]})
    z = np.random.default_rng(104).standard_normal((options.draws, 5))
    x = network(z)
    start = options.clock()
    found = preimage.invert(network, x)
    seconds, worst = options.clock() - start, errors(found.latent, z).max()
    return [
        row(
            f"conditional 5 to 3 x 32 x 32, {len(z)} codes",
            f"code error {worst:.1e}; {seconds:.1f} s", "1e-4 on all; 5 s",
            bool(worst <= 1e-4 and seconds <= 5),
        )
    ]  # fmt: skip


def maps() -> dict[str, Array | sparse.csr_array]:
    """Linear measurements of 28 x 28 pixels, or a mask of them, by name."""
    rng = np.random.default_rng(5)
    pixels = np.eye(784).reshape(784, 28, 28)
    blurred = np.stack([ndimage.gaussian_filter(p, 2.0, mode="nearest").ravel() for p in pixels])
    pooled = pixels.reshape(784, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(784, 49)
    return {
        "mask of half": rng.random(784) < 0.5,
        "100 Gaussian measurements": rng.standard_normal((100, 784)) / 10,
        "4 x average pooling": sparse.csr_array(pooled.T),
        "blur of 2 pixels": blurred.T.copy(),
    }


def sensing(options: Options) -> list[Row]:
    """A convolutional decoder seen through a linear map."""
    network = options.decoder("batch-norm")
    z = np.random.default_rng(106).standard_normal((options.draws, network.latent_size))
    held = []
    for name, matrix in maps().items():
        clean = network(z)
        x = clean[:, matrix] if matrix.dtype == np.bool_ else clean @ matrix.T
        x += 0.01 * np.random.default_rng(7).standard_normal(x.shape)
        run = race(network, x, options, noise=0.01, sensing=matrix)
        share = float(np.mean(run.found.residual <= run.residual * EQUAL))
        held.append(
            row(
                f"batch-norm, {name}, {len(z)} codes",
                f"{share:.0%}; {run.text}", f"<= {EQUAL} of Adam's on 95%; <= {SHARE}",
                share >= 0.95 and run.ratio <= SHARE,
            )
        )  # fmt: skip
    return held


def memory(options: Options) -> list[Row]:
    """Memory of an inversion beside that of one forward and backward pass."""

    def growth(work: str) -> int:
        code = MEMORY.format(path=[*sys.path[:2]], batch=options.draws, work=work)
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return int(found.stdout)

    one = growth("draft.vjp(codes, x)")
    whole = growth("preimage.invert(network, x)")
    return [
        row(
            f"DCGAN, memory at {options.draws} codes",
            f"{whole / 1024:.0f} MB, {whole / max(one, 1):.1f} of {one / 1024:.0f} MB",
            "<= 3 of a pass forward and back", whole <= 3 * one,
        )
    ]  # fmt: skip


def weights(
    folder: Path | None, data: Path | None, epochs: int
) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of each decoder, trained now unless there is a folder of them."""
    if folder is not None:
        return {n: torch.load(folder / f"{n}.pt", weights_only=True) for n in decoders.NAMES}
    if data is None:
        images, labels = preimage.zoo.digits()
        images = images.astype(np.float32)
    else:
        images, labels = decoders.read_digits(data, "train")
    images, labels = images[:10_000], labels[:10_000]
    return {
        n: decoders.train(n, images, labels, epochs=epochs).state_dict() for n in decoders.NAMES
    }


def main() -> int:
    """Measure and print everything that is asked for."""
    works: dict[str, Callable[[Options], list[Row]]] = {
        "dcgan": dcgan, "trained": trained, "images": images, "conditional": conditional,
        "sensing": sensing, "memory": memory,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*works, []], help="default: all")
    parser.add_argument("--data", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--weights", type=Path, help="folder with trained decoders")
    parser.add_argument(
        "--cpu", action="store_true", help="processor time, for a machine that is busy"
    )
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="two codes, few steps: it runs at all")
    parser.add_argument("--out", type=Path, help="folder to write decoders.md to")
    given = parser.parse_args()
    parts = given.parts or list(works)
    needed = {"trained", "images", "sensing"} & set(parts)
    made = weights(given.weights, given.data, 1 if given.tiny else 4) if needed else {}
    draws, steps, restarts = (2, 20, 2) if given.tiny else (given.draws, 2000, 10)
    clock = time.process_time if given.cpu else time.perf_counter
    options = Options(draws, steps, restarts, made, clock)
    held = [one for part in parts for one in works[part](options)]
    page = given.out / "decoders.md" if given.out else None
    return finish(held, "Decoders that torch runs", "python benchmarks/decoders.py", page)


if __name__ == "__main__":
    sys.exit(main())
