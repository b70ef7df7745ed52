"""Small decoders of the kinds that people train: ``python -m training.decoders --data DIR``.

Variational autoencoders (Kingma and Welling 2014) of MNIST digits, from IDX files as in ``train``.
Each takes about a minute on two cores. A seed fixes what is random; sums of floats still depend on
the processor and on the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from training.train import draw_codes, read_digits

_BATCH = 128


class Residual(nn.Module):
    """``z + f(z)``, twice as high and wide."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels),
        )  # fmt: skip
        self.up = nn.ConvTranspose2d(channels, outputs, 4, 2, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(batch, channels, h, w) to (batch, outputs, 2 h, 2 w)."""
        return self.up(functional.relu(z + self.body(z)))


class Conditional(nn.Module):
    """Of a code and a label."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.label = nn.Embedding(10, 10)
        self.body = nn.Sequential(
            nn.Linear(latent + 10, 48 * 49), nn.Unflatten(1, (48, 7, 7)),
            nn.BatchNorm2d(48), nn.LeakyReLU(0.2), nn.ConvTranspose2d(48, 24, 4, 2, 1),
            nn.BatchNorm2d(24), nn.LeakyReLU(0.2), nn.ConvTranspose2d(24, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Codes (batch, latent) and labels (batch,) to logits (batch, 1, 28, 28)."""
        return self.body(torch.cat([z, self.label(label)], dim=1))


def _batch_norm(latent: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(latent, 64 * 49), nn.Unflatten(1, (64, 7, 7)),
        nn.BatchNorm2d(64), nn.ReLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1),
    )  # fmt: skip


def _dilated(latent: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(latent, 32 * 16), nn.Unflatten(1, (32, 4, 4)),
        nn.Upsample(size=9), nn.Conv2d(32, 32, 3, padding=2, dilation=2),
        nn.BatchNorm2d(32), nn.LeakyReLU(0.2),
        nn.Upsample(size=14), nn.Conv2d(32, 16, 3, padding=2, dilation=2),
        nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
        nn.Upsample(size=28), nn.Conv2d(16, 1, 5, padding=4, dilation=2),
    )  # fmt: skip


def _residual(latent: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(latent, 32 * 49), nn.Unflatten(1, (32, 7, 7)), Residual(32, 16), Residual(16, 1)
    )


def _group_norm(latent: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(latent, 48 * 49), nn.Unflatten(1, (48, 7, 7)),
        nn.GroupNorm(8, 48), nn.SiLU(), nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(48, 24, 3, padding=1),
        nn.GroupNorm(8, 24), nn.SiLU(), nn.ConvTranspose2d(24, 1, 4, 2, 1),
    )  # fmt: skip


_BODIES = {
    "batch-norm": _batch_norm,
    "dilated": _dilated,
    "residual": _residual,
    "conditional": Conditional,
    "group-norm": _group_norm,
}
NAMES = tuple(_BODIES)
LATENT_SIZE = 20


class Decoder(nn.Module):
    """A body of one of the kinds in ``NAMES``, then a sigmoid."""

    def __init__(self, name: str, latent: int = LATENT_SIZE) -> None:
        super().__init__()
        self.body = _BODIES[name](latent)

    def forward(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """Codes, and labels where the body takes them, to images (batch, 1, 28, 28)."""
        return torch.sigmoid(self.body(z) if label is None else self.body(z, label))


def decoder(name: str, weights: Mapping[str, torch.Tensor] | None = None) -> Decoder:
    """A decoder of a kind, with the weights that ``train`` found, in eval mode."""
    made = Decoder(name)
    if weights is not None:
        made.load_state_dict(weights)
    return made.eval()


def train(
    name: str,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    epochs: int = 4,
    seed: int = 0,
) -> Decoder:
    """Fit an autoencoder and keep its decoder.

    The evidence lower bound with a Bernoulli likelihood, one draw a sample.

    Args:
        name: One of ``NAMES``.
        images: (count, 784) in [0, 1].
        labels: (count,), which the conditional decoder takes.
        epochs: Passes over the images.
        seed: Of all draws.

    Returns:
        The decoder in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = decoder(name).train()
        encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 49, 2 * LATENT_SIZE),
        )  # fmt: skip
        step = torch.optim.Adam([*encoder.parameters(), *made.parameters()], lr=2e-3)
        x, y = torch.from_numpy(images).reshape(-1, 1, 28, 28), torch.from_numpy(labels)
        for _ in range(epochs):
            for part in torch.randperm(len(x)).split(_BATCH):
                z, divergence = draw_codes(encoder(x[part]))
                logits = made.body(z, y[part]) if name == "conditional" else made.body(z)
                misfit = functional.binary_cross_entropy_with_logits(
                    logits, x[part], reduction="sum"
                )
                loss = (misfit + divergence) / len(part)
                step.zero_grad(set_to_none=True)
                loss.backward()
                step.step()
    return made.eval()


def main(
    data: Annotated[Path, typer.Option(help="Folder with the four MNIST files in IDX form.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.pt.")] = Path("decoders"),
    images: Annotated[int, typer.Option(help="How many digits to train on.")] = 10_000,
    epochs: Annotated[int, typer.Option(help="Passes over them.")] = 4,
    seed: Annotated[int, typer.Option(help="Fixes every random draw.")] = 0,
) -> None:
    """Train one decoder of each kind."""
    pixels, labels = read_digits(data, "train")
    out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        made = train(name, pixels[:images], labels[:images], epochs=epochs, seed=seed)
        torch.save(made.state_dict(), out / f"{name}.pt")
        typer.echo(out / f"{name}.pt")


if __name__ == "__main__":
    typer.run(main)
