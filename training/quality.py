"""How good the samples of a trained network are. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from preimage import Generator, InputError

Array = NDArray[np.float64]

_SAMPLES = 10_000


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
    head = generator.layers[-1].activation
    parts, counts = [], []
    for part in np.split(codes, _SAMPLES // 500):  # not to hold every unit of every sample at once
        preactivations = generator.preactivations(part)
        parts.append(np.clip(head(preactivations[-1]), 0, 1).astype(np.float32))
        counts.append(np.stack([(a > 0).sum(axis=1) for a in preactivations], axis=1))
    samples, active = np.concatenate(parts), np.concatenate(counts)
    reference = features(test_images)
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
        "latent_influence": latent_influence(generator, codes[:200]),
        "latent_influence_meaning": (
            "root mean square change of the image per unit change of one latent coordinate, for "
            "the weakest and for the strongest coordinate; a coordinate that training left unused "
            "cannot be recovered under noise"
        ),
    }


def latent_influence(generator: Generator, codes: Array) -> list[float]:
    """``(E |dG/dz_i|^2)^(1/2)`` of the weakest and of the strongest coordinate i.

    Args:
        generator: With outputs (batch, n).
        codes: (batch, k) that the mean is taken over.
    """
    influence = np.sqrt(np.square(generator.jacobian(codes)).sum(axis=1).mean(axis=0))
    return [round(float(influence.min()), 4), round(float(influence.max()), 4)]


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


def _judge(
    images: NDArray[np.float32], labels: NDArray[np.int64]
) -> Callable[[NDArray[np.float32]], Array]:
    """Train the judge (three epochs, always the same seed); returns images -> features."""
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
        for batch in batches(indices, 128, 3, False, "judge"):
            loss = cross_entropy(head(body(data[batch])), target[batch])
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()

    def features(of: NDArray[np.float32]) -> Array:
        with torch.inference_mode():
            parts = [body(part) for part in torch.from_numpy(of).split(1000)]
        return torch.cat(parts).numpy().astype(np.float64)

    return features


def batches(
    images: torch.Tensor, size: int, epochs: int, progress: bool, name: str
) -> Iterator[torch.Tensor]:
    """Shuffled batches of every epoch, with a progress bar."""
    size = min(size, len(images))
    steps = len(images) // size
    with tqdm(total=epochs * steps, desc=name, disable=not progress) as bar:
        for _ in range(epochs):
            order = torch.randperm(len(images))
            for step in range(steps):
                yield images[order[step * size : (step + 1) * size]]
                bar.update()
