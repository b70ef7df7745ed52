"""Success over k and the last layer's expansion: what the domain z >= 0 and joint work buy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from experiments.experiment import Experiment, Job
from experiments.problems import (
    Array,
    Problem,
    Question,
    inverted,
    random_generator,
    row,
)
from experiments.style import LOOKS, panels
from experiments.table import Row, Table
from preimage import GaussNewton, Generator, LayerwiseLP

METHODS = {"linf": LayerwiseLP("linf"), "joint l2": GaussNewton(restarts=8)}
SUCCESS = 1e-3


@dataclass(frozen=True)
class Config:
    """Sizes, draws, seed, methods."""

    draws: int
    width: int
    latent: tuple[int, ...]
    ratios: tuple[float, ...]
    methods: tuple[str, ...] = ("free", "linf", "joint l2")
    seed: int = 6


def jobs(config: Config) -> Iterator[Job]:
    """All draws of one cell, by all methods."""
    yield from ((k, r) for k in config.latent for r in config.ratios)


def work(config: Config, job: Job) -> list[Row]:
    """Invert by every method."""
    k, ratio = job
    rows = []
    for draw in range(config.draws):
        problem = posed(config, k, ratio, draw)
        for name in config.methods:
            latent, seconds = _solve(problem.question, name)
            (error,) = problem.errors(latent)
            rows.append(row(name, draw, config.seed, error <= SUCCESS, error, seconds, k=k,
                            ratio=ratio))  # fmt: skip
    return rows


def posed(config: Config, k: int, ratio: float, draw: int) -> Problem:
    """A network and one output of it, without noise."""
    rng = np.random.default_rng((config.seed, k, round(100 * ratio), draw))
    generator = random_generator((k, config.width, round(ratio * config.width)), rng)
    truth = rng.standard_normal((1, k))
    return Problem(Question(generator, generator(truth)), truth)


def _solve(question: Question, name: str) -> tuple[Array, float]:
    if name != "free":
        inversion, seconds = inverted(question, METHODS[name])
        return inversion.latent, seconds
    # A layer that is a network of its own has codes of either sign.
    total, observation = 0.0, question.observation
    for layer in reversed(question.generator.layers):
        inversion, seconds = inverted(Question(Generator((layer,)), observation), METHODS["linf"])
        total += seconds
        observation = inversion.latent
        if not np.isfinite(observation).all():
            return np.full((1, question.generator.latent_size), np.nan), total
    return observation, total


def draw(config: Config, table: Table) -> Figure:
    """One map a method, the limits drawn: 2, 1.5, and as many active rows as columns."""
    figure, axes = panels(len(config.methods), width=9.0, height=3.6)
    latent, ratios = np.array(config.latent), np.array(config.ratios)
    for panel, name in zip(axes, config.methods, strict=True):
        part = table.where(method=name)
        rates = np.array([
            [part.where(k=int(k), ratio=float(r)).values("success").mean() for k in latent]
            for r in ratios
        ])  # fmt: skip
        image = panel.pcolormesh(latent, ratios, rates, cmap="cividis", vmin=0, vmax=1,
                                 shading="nearest")  # fmt: skip
        panel.grid(False)
        for ratio, line in ((2.0, "--"), (1.5, ":")):
            panel.axhline(ratio, color="#D55E00", linestyle=line, linewidth=1.4)
        # Half of the rows are active: each layer needs k of them.
        panel.axvline(config.width / 2, color="#D55E00", linewidth=1.0)
        panel.plot(latent, 2 * latent / config.width, color="#D55E00", linewidth=1.0)
        panel.set_ylim(ratios[0] - 0.1, ratios[-1] + 0.1)
        panel.set_title({"linf": "l∞ LP with z ≥ 0", "joint l2": "joint, 8 starts"}.get(
            name, LOOKS[name].label), fontsize=10)  # fmt: skip
        panel.set_xlabel("latent entries k")
    axes[0].set_ylabel(f"last layer's expansion (hidden {config.width})")
    figure.colorbar(image, ax=axes, label="success rate")
    return figure


EXPERIMENTS = {
    "phase": Experiment(
        {
            "tiny": Config(draws=4, width=24, latent=(5,), ratios=(0.8, 1.8, 2.6)),
            "quick": Config(draws=5, width=60, latent=(5, 15, 25, 35),
                            ratios=(0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4)),
            "paper": Config(draws=40, width=100, latent=(5, 10, 20, 30, 40, 45, 50, 55),
                            ratios=(0.6, 0.8, 1.0, 1.2, 1.4, 1.5, 1.6, 1.8, 2.0, 2.2, 2.5)),
        }, jobs, work, draw),
}  # fmt: skip
