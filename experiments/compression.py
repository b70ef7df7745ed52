"""Real test digits as codes: k against what is lost, and the time that it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.fft import dctn, idctn

from experiments.experiment import Experiment, Job
from experiments.problems import Array, Problem, Question, inverted, row
from experiments.style import LOOKS, curve, legend, panels
from experiments.table import Row, Table, medians
from preimage import Adam, GaussNewton, GradientDescent, LayerwiseLP, zoo

METHODS = {
    "linf": LayerwiseLP("linf", growth=2.0),
    "gradient": GradientDescent(rate=1e-3, steps=2000),
    "adam": Adam(restarts=2, steps=300),
    # Auto would try many starts, since nothing explains a real digit.
    "joint l2": GaussNewton(restarts=1, flip_rounds=0, steps=50),
}
SUCCESS = 0.5  # largest relative error of the image
NOISE = 0.05


@dataclass(frozen=True)
class Config:
    """Digits, networks, methods.

    ``family`` has one recipe and several k, ``others`` are networks of other kinds; ``kept`` are
    the numbers of cosine coefficients.
    """

    draws: int
    family: tuple[str, ...] = (
        "mnist-5-60-784-vae", "mnist-10-60-784-vae", "mnist-20-60-784-vae", "mnist-40-60-784-vae",
    )  # fmt: skip
    others: tuple[str, ...] = ("mnist-20-60-784",)
    kept: tuple[int, ...] = (5, 10, 20, 40, 80)
    methods: tuple[str, ...] = ("linf", "gradient", "adam", "joint l2")
    seed: int = 9


def jobs(config: Config) -> Iterator[Job]:
    """All digits by one method and network; the cosines need no network."""
    yield "DCT", ""
    networks = (*config.family, *config.others)
    yield from ((name, network) for network in networks for name in config.methods)


def work(config: Config, job: Job) -> list[Row]:
    """Digits are the only observation, and no code of theirs is known."""
    name, network = job
    images = zoo.digits()[0][: config.draws]
    if name == "DCT":
        return [r for k in config.kept for r in _cosines(config, images, k)]
    problem = Problem(Question(zoo.load(network), images, NOISE), images)
    generator = problem.question.generator
    inversion, seconds = inverted(problem.question, METHODS[name])
    errors = problem.errors(generator(np.nan_to_num(inversion.latent)))
    return _rows(config, errors, name, seconds, generator.latent_size, network)


def _cosines(config: Config, images: Array, k: int) -> list[Row]:
    start = time.perf_counter()
    pixels = images.reshape(-1, 28, 28)
    spectrum = dctn(pixels, axes=(1, 2), norm="ortho").reshape(len(images), -1)
    least = np.sort(np.abs(spectrum), axis=1)[:, -k, None]
    spectrum[np.abs(spectrum) < least] = 0.0
    found = idctn(spectrum.reshape(pixels.shape), axes=(1, 2), norm="ortho")
    seconds = (time.perf_counter() - start) / len(images)
    errors = np.linalg.norm(found.reshape(images.shape) - images, axis=1)
    return _rows(config, errors / np.linalg.norm(images, axis=1), "DCT", seconds, k, "")


def _rows(
    config: Config, errors: Array, name: str, seconds: float, k: int, network: str
) -> list[Row]:
    return [row(name, i, config.seed, e <= SUCCESS, e, seconds, k=k, network=network)
            for i, e in enumerate(errors)]  # fmt: skip


def draw(config: Config, table: Table) -> Figure:
    """Error over k beside the cosines, and error over seconds."""
    figure, (left, right) = panels(2, width=8.8, height=4.6)
    curve(left, "DCT", *medians(table.where(method="DCT"), "k", "error"))
    used = np.concatenate([table.where(method=name).values("seconds") for name in config.methods])
    for name in config.methods:
        look = LOOKS[name]
        line = []
        for network in (*config.family, *config.others):
            part = table.where(method=name, network=network)
            k = part.values("k")[0]
            place = k, *(np.median(part.values(column)) for column in ("error", "seconds"))
            if network in config.family:
                line.append(place)
            else:
                look_here = {"color": look.colour, "marker": look.marker, "fillstyle": "none"}
                left.plot(place[0], place[1], linestyle="", markersize=8, **look_here)
                right.plot(place[2], place[1], linestyle="", markersize=8, **look_here)
        k, error, seconds = np.array(line).T
        curve(left, name, k, error)
        curve(right, name, seconds, error)
        right.annotate(f"k = {k[0]:g}", (seconds[0], error[0]), fontsize=7, xytext=(6, 4),
                       textcoords="offset points")  # fmt: skip
    left.set(xscale="log", xlabel="numbers kept, k", ylabel="relative error of the image")
    right.set(xscale="log", xlabel="seconds per digit", xlim=_decades(used))
    left.set_xticks(config.kept, [str(k) for k in config.kept])
    left.minorticks_off()
    for panel in (left, right):
        panel.set_ylim(bottom=0)
    hollow = ", ".join(name.removeprefix("mnist-") for name in config.others)
    figure.suptitle(f"{config.draws} test digits; k-60-784 decoders (filled), {hollow} (hollow)",
                    fontsize=10)  # fmt: skip
    legend(left)
    return figure


def _decades(values: Array) -> tuple[float, float]:
    """Whole decades that hold the values: only these have labels on a log axis."""
    ends = np.log10([values.min(), values.max()])
    return 10.0 ** np.floor(ends[0]), 10.0 ** np.ceil(ends[1])


EXPERIMENTS = {
    "compression": Experiment(
        {
            "tiny": Config(draws=3, family=Config.family[1:3], others=(),
                           methods=("linf", "joint l2")),
            "quick": Config(draws=20),
            # On the wide networks a run takes minutes.
            "paper": Config(draws=100, others=("mnist-20-60-784", "mnist-20-200-500-784",
                                               "mnist-32-256-512-784")),
        }, jobs, work, draw),
}  # fmt: skip
