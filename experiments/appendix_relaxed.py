"""The relaxed program (equation 8) beside Algorithms 1 and 2: robustness and speed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from experiments import figure_1
from experiments.experiment import Experiment, Job
from experiments.figure_1 import Config
from experiments.problems import random_generator
from experiments.style import curve, dots, legend, panels
from experiments.table import Row, Table, medians


def work(config: Config, job: Job) -> list[Row]:
    """As figure 1, but each level in a call of its own, so that it has its own seconds."""
    (draw,) = job
    generator = random_generator(config.sizes, np.random.default_rng((config.seed, draw, 0)))
    return [
        row
        for level in range(len(config.levels))
        for name in config.methods
        for row in figure_1.rows_of(config, generator, name, [(draw, level)])
    ]


def draw(config: Config, table: Table) -> Figure:
    """Left the error, right the seconds, over the noise."""
    figure, axes = panels(2, width=8.5, height=3.8)
    for name in config.methods:
        part = table.where(method=name)
        for panel, column in zip(axes, ("error", "seconds"), strict=True):
            dots(panel, name, part.values("noise"), part.values(column))
            curve(panel, name, *medians(part, "noise", column))
    for panel, label in zip(axes, ("relative latent error", "seconds per inversion"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="noise level a (Gaussian, deviation a)",
                  ylabel=label)  # fmt: skip
    legend(axes[0])
    return figure


_LP = {"noise": "gaussian", "methods": ("linf", "l1", "relaxed"), "seed": 4}
EXPERIMENTS = {
    "appendix-relaxed": Experiment(
        {
            "tiny": Config(draws=3, slow_draws=0, levels=(1e-1, 1e-4), **_LP),  # type: ignore[arg-type]
            "quick": replace(Config(draws=30, slow_draws=0), **_LP),  # type: ignore[arg-type]
            "paper": replace(Config(draws=200, slow_draws=0), **_LP),  # type: ignore[arg-type]
        }, figure_1.jobs, work, draw),
}  # fmt: skip
