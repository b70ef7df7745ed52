"""Figures of images: digits that the trained network makes, observed in part or with noise.

The table keeps the codes (column ``latent``), so that the figure can be drawn from it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from preimage import Auto, Generator, GradientDescent, LayerwiseLP, ProjectedGradient, invert, zoo
from preimage.experiments.experiment import Job
from preimage.experiments.problems import TRAINED, Array, inverted, relative_error, row
from preimage.experiments.style import LOOKS
from preimage.experiments.table import Row, Table
from preimage.plot import image_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {
    "linf": LayerwiseLP("linf"),
    "gradient": GradientDescent(rate=1e-3, steps=10_000),
    "auto": Auto(),
}
# The paper's way to a partial observation: projected gradient, with Algorithm 1 in each step.
MASKED = {**METHODS, "linf": ProjectedGradient(projection=LayerwiseLP("linf", growth=2.0))}
SUCCESS = 0.1  # largest relative error of the image


@dataclass(frozen=True)
class Config:
    """Digits, noise, mask, methods; ``noise`` is a standard deviation, ``side`` a masked square."""

    digits: tuple[int, ...]
    noise: float = 0.0
    side: int = 0
    network: str = TRAINED
    methods: tuple[str, ...] = ("linf", "gradient", "auto")
    seed: int = 3


def digits_of(config: Config, generator: Generator) -> Array:
    """Codes of the network's own picture of each digit: the nearest it has to a real one."""
    images, labels = zoo.digits()
    first = [int(np.flatnonzero(labels == digit)[0]) for digit in config.digits]
    return invert(generator, images[first], "gauss_newton").latent


def observed(config: Config, images: Array) -> tuple[Array, Array]:
    """Noisy images, and a mask that is False on a square (nowhere without one)."""
    rng = np.random.default_rng(config.seed)
    noisy = images + config.noise * rng.standard_normal(images.shape)
    mask = np.ones((len(images), 28, 28), dtype=bool)
    start = (28 - config.side) // 2
    mask[:, start : start + config.side, start : start + config.side] = False
    return noisy, mask.reshape(len(images), -1)


def jobs(config: Config) -> Iterator[Job]:
    """All digits by one method."""
    yield from ((method,) for method in config.methods)


def work(config: Config, job: Job) -> list[Row]:
    """Invert what is seen of the digits."""
    (name,) = job
    generator = zoo.load(config.network)
    truth = digits_of(config, generator)
    images = generator(truth)
    noisy, mask = observed(config, images)
    given: dict[str, Any] = {"noise": config.noise}
    if config.side:
        given["sensing"] = mask
    method = (MASKED if config.side else METHODS)[name]
    inversion, seconds = inverted(generator, noisy, method, **given)
    latent = np.nan_to_num(inversion.latent)
    errors = relative_error(generator(latent), images)
    return [
        row(name, i, config.seed, e <= SUCCESS, e, seconds, digit=digit, noise=config.noise,
            latent=" ".join(f"{v:.6g}" for v in z), truth=" ".join(f"{v:.6g}" for v in t))
        for i, (digit, e, z, t) in enumerate(zip(config.digits, errors, latent, truth, strict=True))
    ]  # fmt: skip


def draw(config: Config, table: Table) -> Figure:
    """Observation (black where nothing is seen), ground truth, each method's picture."""
    generator = zoo.load(config.network)
    truth = _codes(table.where(method=config.methods[0]), "truth")
    images = generator(truth)
    noisy, mask = observed(config, images)
    rows = {"observation": np.where(mask, noisy, 0.0), "ground truth": images}
    for name in config.methods:
        part = table.where(method=name)
        label = "projected gradient, l∞ LP" if config.side and name == "linf" else LOOKS[name].label
        rows[f"{label} ({np.median(part.values('error')):.2f})"] = generator(_codes(part, "latent"))
    figure = image_grid(rows)
    for text in (t for axes in figure.axes for t in axes.texts):
        text.set_fontsize(8)
    return figure


def _codes(table: Table, column: str) -> Array:
    return np.array([np.array(str(r[column]).split(), dtype=np.float64) for r in table.rows])
