"""Error against the fraction of grossly corrupted pixels: l1, l2 and l-infinity fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from experiments.experiment import Experiment, Job
from experiments.problems import TRAINED, Problem, Question, drawn, inverted, row
from experiments.style import curve, dots, legend, panels
from experiments.table import Row, Table, medians
from preimage import GaussNewton, LayerwiseLP, zoo

METHODS = {
    "linf": LayerwiseLP("linf"),
    "l1": LayerwiseLP("l1"),
    "joint l2": GaussNewton(),
    "joint l1": GaussNewton(norm="l1", restarts=4, flip_rounds=1),
    "joint linf": GaussNewton(norm="linf", restarts=2, flip_rounds=0),
}
SUCCESS = 1e-2


@dataclass(frozen=True)
class Config:
    """Sizes, draws, seed, methods; ``noise`` is on every pixel, corrupted pixels are in [0, 1]."""

    draws: int
    fractions: tuple[float, ...]
    noise: float = 1e-3
    network: str = TRAINED
    methods: tuple[str, ...] = ("linf", "l1", "joint linf", "joint l2", "joint l1")
    seed: int = 8


def jobs(config: Config) -> Iterator[Job]:
    """All draws of one method at one fraction."""
    yield from ((name, i) for name in config.methods for i in range(len(config.fractions)))


def work(config: Config, job: Job) -> list[Row]:
    """Invert; the methods are told the noise, not the corruption."""
    name, index = job
    problem = posed(config, index)
    inversion, seconds = inverted(problem.question, METHODS[name])
    return [row(name, i, config.seed, e <= SUCCESS, e, seconds, fraction=config.fractions[index])
            for i, e in enumerate(problem.errors(inversion.latent))]  # fmt: skip


def posed(config: Config, index: int) -> Problem:
    """Outputs with a fraction of their pixels replaced."""
    fraction = config.fractions[index]
    generator = zoo.load(config.network)
    truth = np.array([drawn(generator, (config.seed, i)) for i in range(config.draws)])
    observation = generator(truth)
    for i, x in enumerate(observation):
        rng = np.random.default_rng((config.seed, i, index))
        x += rng.uniform(-config.noise, config.noise, len(x))
        hit = rng.permutation(len(x))[: round(fraction * len(x))]
        x[hit] = rng.uniform(0, 1, len(hit))
    return Problem(Question(generator, observation, config.noise), truth)


def draw(config: Config, table: Table) -> Figure:
    """Dots and medians."""
    figure, (axes,) = panels()
    for name in config.methods:
        part = table.where(method=name)
        dots(axes, name, part.values("fraction"), part.values("error"))
        curve(axes, name, *medians(part, "fraction", "error"))
    axes.set(yscale="log", xlabel="fraction of pixels replaced by U(0, 1)",
             ylabel="relative latent error")  # fmt: skip
    legend(axes)
    return figure


EXPERIMENTS = {
    "corruption": Experiment(
        {
            "tiny": Config(draws=3, fractions=(0.0, 0.1), methods=("joint l2", "joint l1")),
            "quick": Config(draws=10, fractions=(0.0, 0.01, 0.1, 0.3)),
            "paper": Config(draws=50, fractions=(0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2,
                                                 0.3, 0.4)),
        }, jobs, work, draw),
}  # fmt: skip
