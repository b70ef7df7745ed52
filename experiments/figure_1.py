"""Figure 1: relative latent error against noise, on random networks and on the trained one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.experiment import Experiment, Job
from experiments.problems import (
    TRAINED,
    Problem,
    Question,
    drawn,
    inverted,
    noise_of,
    random_generator,
    row,
)
from experiments.style import LOOKS, curve, dots, legend, panels
from experiments.table import Row, Table, medians, ratios_of_medians, slope
from preimage import Adam, Auto, Generator, GradientDescent, LayerwiseLP, zoo

METHODS = {
    "linf": LayerwiseLP("linf"),
    "l1": LayerwiseLP("l1", patience=0),  # as in the paper
    "relaxed": LayerwiseLP("relaxed", patience=0),
    "auto": Auto(),
    "adam": Adam(steps=500),
}
# The paper's settings of gradient descent (sections 5.1 and 5.2).
DESCENT = {
    "random": GradientDescent(rate=1.0, steps=1000),
    TRAINED: GradientDescent(rate=1e-3, steps=10_000),
}
SLOW = ("gradient", "adam")
# An error so many times the oracle's counts as a failure.
FAILURE = 10.0
CHUNK = 10  # draws of one job on the trained network; of a method that is not slow, 10 times these


@dataclass(frozen=True)
class Config:
    """Sizes, draws, seed, methods; the slow methods get the first ``slow_draws`` draws only."""

    draws: int
    slow_draws: int
    noise: str = "uniform"
    network: str = "random"
    sizes: tuple[int, ...] = (20, 100, 500)
    levels: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    methods: tuple[str, ...] = ("linf", "l1", "relaxed", "gradient", "auto")
    seed: int = 1

    def draws_of(self, method: str) -> int:
        """How many draws a method gets."""
        return min(self.slow_draws, self.draws) if method in SLOW else self.draws


def jobs(config: Config) -> Iterator[Job]:
    """A draw on random networks; several draws of one method on the trained one."""
    if config.network == "random":
        yield from ((draw,) for draw in range(config.draws))
        return
    for method in ("oracle", *config.methods):
        draws, chunk = config.draws_of(method), CHUNK if method in SLOW else 10 * CHUNK
        for level in range(len(config.levels)):
            for start in range(0, draws, chunk):
                yield method, level, start, min(start + chunk, draws)


def work(config: Config, job: Job) -> list[Row]:
    """Invert; on random networks all levels of a draw share its network."""
    if config.network == "random":
        (draw,) = job
        generator = random_generator(config.sizes, np.random.default_rng((config.seed, draw, 0)))
        pairs = [(draw, level) for level in range(len(config.levels))]
        names = tuple(n for n in ("oracle", *config.methods) if draw < config.draws_of(n))
    else:
        name, level, start, stop = job
        generator, names = zoo.load(config.network), (name,)
        pairs = [(draw, level) for draw in range(start, stop)]
    return [r for name in names for r in rows_of(config, generator, name, pairs)]


def posed(config: Config, generator: Generator, pairs: list[tuple[int, int]]) -> Problem:
    """Pairs of draw and level as one batch."""
    truth = np.array([drawn(generator, (config.seed, draw, 1)) for draw, _ in pairs])
    size = generator.observation_size
    error = np.array([
        noise_of(config.noise, config.levels[level], size, (config.seed, draw, 2 + level))
        for draw, level in pairs
    ])  # fmt: skip
    noise = np.array([config.levels[level] for _, level in pairs])
    return Problem(Question(generator, generator(truth) + error, noise), truth)


def rows_of(
    config: Config, generator: Generator, name: str, pairs: list[tuple[int, int]]
) -> list[Row]:
    """Rows of one method for pairs of draw and level, inverted in one call."""
    problem = posed(config, generator, pairs)
    latent, seconds = problem.oracle(), float("nan")
    least = problem.errors(latent)
    if name != "oracle":
        method = DESCENT[config.network] if name == "gradient" else METHODS[name]
        inversion, seconds = inverted(problem.question, method)
        latent = inversion.latent
    errors = problem.errors(latent)
    misfit = problem.question.observation - generator(np.nan_to_num(latent))
    residuals = np.linalg.norm(misfit, axis=1)
    return [
        row(name, draw, config.seed, e <= FAILURE * b, e, seconds, noise=config.levels[level],
            residual=r)
        for (draw, level), e, b, r in zip(pairs, errors, least, residuals.tolist(), strict=True)
    ]  # fmt: skip


def draw(config: Config, table: Table) -> Figure:
    """Dots and median lines, with the fitted slope and the failures in the legend."""
    figure, (axes,) = panels()
    for name in map(str, table.distinct("method")):
        part = table.where(method=name)
        x, y = medians(part, "noise", "error")
        failures = int((part.values("success") == 0).sum())
        note = f" (slope {slope(x, y):.2f}; {failures} of {len(part.rows)} failed)"
        if name == "auto":
            worst = ratios_of_medians(part, table.where(method="oracle"), "noise")[:, 1].max()
            note = f"{note[:-1]}; ≤ {worst:.2f} × oracle)"
        if name != "oracle":
            shift = 1.06 ** (list(LOOKS).index(name) - 3)
            dots(axes, name, part.values("noise") * shift, part.values("error"))
        curve(axes, name, x, y, note=note)
    axes.set(xscale="log", yscale="log", ylim=(1e-7, 1e1), ylabel="relative latent error")
    network = "random 20-100-500" if config.network == "random" else f"trained {config.network}"
    word = (
        "uniform noise on (−a, a)" if config.noise == "uniform" else "Gaussian noise, deviation a"
    )
    axes.set_xlabel(f"noise level a ({word})")
    slow = " and ".join(LOOKS[n].label.split(",")[0] for n in config.methods if n in SLOW)
    axes.set_title(f"{network}, {config.draws} draws a level "
                   f"({slow}: {config.draws_of(SLOW[0])})", fontsize=10)  # fmt: skip
    legend(axes)
    return figure


def _scales(**given: Any) -> dict[str, Config]:
    trained = given.get("network") == TRAINED
    tiny = {"levels": (1e-1, 1e-3, 1e-5), "methods": ("linf", "gradient", "auto")}
    return {
        "tiny": Config(draws=60 if trained else 20, slow_draws=2, **given | tiny),
        "quick": Config(draws=200 if trained else 100, slow_draws=10 if trained else 30, **given),
        "paper": Config(draws=200, slow_draws=200, **given),
    }


_ON_TRAINED = {
    "network": TRAINED,
    "sizes": (20, 60, 784),
    "methods": (*Config.methods, "adam"),
}
EXPERIMENTS = {
    "figure-1a": Experiment(_scales(noise="uniform"), jobs, work, draw),
    "figure-1b": Experiment(_scales(noise="gaussian"), jobs, work, draw),
    "figure-1c": Experiment(_scales(noise="uniform", **_ON_TRAINED), jobs, work, draw),
    "figure-1d": Experiment(_scales(noise="gaussian", **_ON_TRAINED), jobs, work, draw),
}
