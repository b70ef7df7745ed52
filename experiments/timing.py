"""Seconds per inversion against k, on the networks of figure 2, in one process on one thread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from experiments import figure_2
from experiments.experiment import Experiment, Job
from experiments.figure_2 import METHODS, SUCCESS
from experiments.problems import inverted, row
from experiments.style import LOOKS, curve, legend, panels
from experiments.table import Row, Table


@dataclass(frozen=True)
class Config(figure_2.Config):
    """As figure 2; each inversion is made ``repeats`` times, and the median time is kept."""

    repeats: int = 5


def work(config: Config, job: Job) -> list[Row]:
    """Time every method on one network."""
    k, draw = job
    problem, rows = figure_2.posed(config, k, draw), []
    for name in config.methods:
        repeats = 1 if name == "gradient" else config.repeats
        times = []
        for _ in range(repeats):
            inversion, seconds = inverted(problem.question, METHODS[name])
            times.append(seconds)
        (error,) = problem.errors(inversion.latent)
        seconds = float(np.median(times))
        rows.append(row(name, draw, config.seed, error <= SUCCESS, error, seconds, k=k,
                        repeats=repeats))  # fmt: skip
    return rows


def draw(config: Config, table: Table) -> Figure:
    """Medians and quartiles; failures are counted in the legend, because failing can be quick."""
    figure, (axes,) = panels()
    for name in config.methods:
        part = table.where(method=name)
        failed = int((part.values("success") == 0).sum())
        k = np.unique(part.values("k"))
        low, mid, high = np.array(
            [np.quantile(part.where(k=int(i)).values("seconds"), (0.25, 0.5, 0.75)) for i in k]
        ).T
        axes.fill_between(k, low, high, color=LOOKS[name].colour, alpha=0.2, linewidth=0)
        curve(axes, name, k, mid, note=f" ({failed} of {len(part.rows)} failed)")
    axes.set(yscale="log", xlabel="latent entries k",
             ylabel="seconds per inversion, median and quartiles")  # fmt: skip
    hidden = "-".join(map(str, config.hidden))
    axes.set_title(f"k-{hidden}, ReLU, noiseless, one thread, {config.draws} draws a width",
                   fontsize=10)  # fmt: skip
    legend(axes)
    return figure


_WIDTHS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
EXPERIMENTS = {
    "timing": Experiment(
        {
            "tiny": Config(draws=2, slow_draws=2, widths=(4, 8), hidden=(30, 72), seed=5,
                           repeats=2),
            "quick": Config(draws=5, slow_draws=5, widths=_WIDTHS[::3], seed=5),
            "paper": Config(draws=20, slow_draws=20, widths=_WIDTHS, seed=5),
        }, figure_2.jobs, work, draw, alone=True),
}  # fmt: skip
