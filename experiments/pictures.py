"""Figures of images: digits that the trained network makes, observed in part or with noise.

The table keeps the codes (column ``latent``), so that the figure can be drawn from it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from experiments.experiment import Job
from experiments.problems import TRAINED, Array, Problem, Question, inverted, row
from experiments.style import LOOKS
from experiments.table import Row, Table
from preimage import Auto, GaussNewton, Generator, GradientDescent, LayerwiseLP, ProjectedGradient
from preimage import zoo as networks
from preimage.plot import image_grid

METHODS = {
    "linf": LayerwiseLP("linf"),
    "projected": ProjectedGradient(projection=LayerwiseLP("linf", growth=2.0)),
    "gradient": GradientDescent(rate=1e-3, steps=10_000),
    "auto": Auto(),
}
SUCCESS = 0.1  # largest relative error of the image


@dataclass(frozen=True)
class Config:
    """Digits, noises, mask, methods; a noise is a standard deviation, ``side`` a masked square."""

    digits: tuple[int, ...]
    noises: tuple[float, ...] = (0.0,)
    side: int = 0
    network: str = TRAINED
    methods: tuple[str, ...] = ("linf", "gradient", "auto")
    seed: int = 3


def digits_of(config: Config, generator: Generator) -> Array:
    """Codes of the network's own picture of each digit: the nearest it has to a real one."""
    images, labels = networks.digits()
    first = [int(np.flatnonzero(labels == digit)[0]) for digit in config.digits]
    return inverted(Question(generator, images[first]), GaussNewton())[0].latent


def posed(config: Config, noise: float) -> Problem:
    """Noisy images, a square of them unseen."""
    generator = networks.load(config.network)
    images = generator(digits_of(config, generator))
    noisy, mask = observed(config, images, noise)
    return Problem(Question(generator, noisy, noise, mask if config.side else None), images)


def observed(config: Config, images: Array, noise: float) -> tuple[Array, Array]:
    """Noisy images, and a mask that is False on a square (nowhere without one)."""
    rng = np.random.default_rng(config.seed)
    noisy = images + noise * rng.standard_normal(images.shape)
    mask = np.ones((len(images), 28, 28), dtype=bool)
    start = (28 - config.side) // 2
    mask[:, start : start + config.side, start : start + config.side] = False
    return noisy, mask.reshape(len(images), -1)


def jobs(config: Config) -> Iterator[Job]:
    """All digits by one method at one noise."""
    yield from ((method, noise) for method in config.methods for noise in config.noises)


def work(config: Config, job: Job) -> list[Row]:
    """Invert what is seen of the digits."""
    name, noise = job
    problem = posed(config, noise)
    inversion, seconds = inverted(problem.question, METHODS[name])
    latent = np.nan_to_num(inversion.latent)
    errors = problem.errors(problem.question.generator(latent))
    return [
        row(name, i, config.seed, e <= SUCCESS, e, seconds, digit=digit, noise=noise,
            latent=" ".join(f"{v:.6g}" for v in z))
        for i, (digit, e, z) in enumerate(zip(config.digits, errors, latent, strict=True))
    ]  # fmt: skip


def draw(config: Config, table: Table) -> Figure:
    """Observation (black where nothing is seen), ground truth, each method's picture.

    Of several noises the first and the last; the table has all.
    """
    generator = networks.load(config.network)
    images = generator(digits_of(config, generator))
    rows = {"ground truth": images}
    for noise in dict.fromkeys((config.noises[0], config.noises[-1])):
        word = f", a = {noise:.2g}" if noise else ""
        noisy, mask = observed(config, images, noise)
        rows["observation" + word] = np.where(mask, noisy, 0.0)
        for name in config.methods:
            part = table.where(method=name, noise=float(noise))
            label = LOOKS[name].label
            if config.side and name == "linf":
                label += ", seen rows only"
            rows[f"{label}{word} (error {np.median(part.values('error')):.2f})"] = generator(
                _codes(part)
            )
    return image_grid(rows)


def _codes(table: Table) -> Array:
    return np.array([np.array(str(r["latent"]).split(), dtype=np.float64) for r in table.rows])
