"""Real test digits as codes: k against what is lost, and the time that it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import dctn, idctn

from preimage import Adam, GaussNewton, GradientDescent, LayerwiseLP, zoo
from preimage.experiments.experiment import Experiment, Job
from preimage.experiments.problems import Array, inverted, row
from preimage.experiments.style import LOOKS, curve, legend, panels
from preimage.experiments.table import Row, Table, medians

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {
    "linf": LayerwiseLP("linf", growth=2.0),
    "gradient": GradientDescent(rate=1e-3, steps=2000),
    "adam": Adam(restarts=2, steps=300),
    # Auto would try many starts, since nothing explains a real digit.
    "joint l2": GaussNewton(restarts=1, hops=0, steps=50),
}
SUCCESS = 0.5  # largest relative error of the image


@dataclass(frozen=True)
class Config:
    """Digits, networks, methods; ``kept`` are the numbers of cosine coefficients."""

    draws: int
    networks: tuple[str, ...] = (
        "mnist-20-60-784", "mnist-20-60-784-vae", "mnist-20-200-500-784", "mnist-32-256-512-784",
    )  # fmt: skip
    kept: tuple[int, ...] = (10, 20, 32, 50, 100)
    methods: tuple[str, ...] = ("linf", "gradient", "adam", "joint l2")
    seed: int = 9


def jobs(config: Config) -> Iterator[Job]:
    """All digits by one method and network; the cosines need no network."""
    yield "DCT", ""
    yield from ((name, network) for network in config.networks for name in config.methods)


def work(config: Config, job: Job) -> list[Row]:
    """Digits are the only observation, and no code of theirs is known."""
    name, network = job
    images = zoo.digits()[0][: config.draws]
    if name == "DCT":
        return [r for k in config.kept for r in _cosines(config, images, k)]
    generator = zoo.load(network)
    inversion, seconds = inverted(generator, images, METHODS[name], noise=0.05)
    found = generator(np.nan_to_num(inversion.latent))
    return _scored(config, images, found, name, seconds, generator.latent_size, network)


def _cosines(config: Config, images: Array, k: int) -> list[Row]:
    start = time.perf_counter()
    pixels = images.reshape(-1, 28, 28)
    spectrum = dctn(pixels, axes=(1, 2), norm="ortho").reshape(len(images), -1)
    least = np.sort(np.abs(spectrum), axis=1)[:, -k, None]
    spectrum[np.abs(spectrum) < least] = 0.0
    found = idctn(spectrum.reshape(pixels.shape), axes=(1, 2), norm="ortho")
    seconds = (time.perf_counter() - start) / len(images)
    return _scored(config, images, found.reshape(images.shape), "DCT", seconds, k, "")


def _scored(
    config: Config, images: Array, found: Array, name: str, seconds: float, k: int, network: str
) -> list[Row]:
    errors = np.linalg.norm(found - images, axis=1) / np.linalg.norm(images, axis=1)
    return [row(name, i, config.seed, e <= SUCCESS, e, seconds, k=k, network=network)
            for i, e in enumerate(errors)]  # fmt: skip


def draw(config: Config, table: Table) -> Figure:
    """Error over networks beside the cosines, and error over seconds."""
    figure, (left, right) = panels(2, width=8.8, height=4.4)
    curve(left, "DCT", *medians(table.where(method="DCT"), "k", "error"))
    for place, network in enumerate(config.networks):
        for name in config.methods:
            part = table.where(method=name, network=network)
            error, seconds = np.median(part.values("error")), np.median(part.values("seconds"))
            label = {"label": LOOKS[name].label} if place == 0 else {}
            look = {"color": LOOKS[name].colour, "linestyle": "", "marker": LOOKS[name].marker}
            left.plot(part.values("k")[:1] + 0.9 * (place % 3 - 1), error, **look, **label)
            right.plot(seconds, error, **look)
            if name == "joint l2":
                right.annotate(network.removeprefix("mnist-"), (seconds, error), fontsize=7,
                               xytext=(4, -9), textcoords="offset points", ha="center")  # fmt: skip
    left.set(xscale="log", xlabel="numbers kept, k", ylabel="relative error of the image")
    right.set(xscale="log", xlabel="seconds per digit")
    left.set_xticks(config.kept, [str(k) for k in config.kept])
    left.minorticks_off()
    for panel in (left, right):
        panel.set_ylim(bottom=0, top=1.3)
    legend(left)
    return figure


EXPERIMENTS = {
    "compression": Experiment(
        {
            "tiny": Config(draws=3, networks=Config.networks[:1], methods=("linf", "joint l2")),
            "quick": Config(draws=4),
            "paper": Config(draws=100),
        }, jobs, work, draw),
}  # fmt: skip
