"""Seconds per inversion against k, on the networks of figure 2 and on one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from preimage.experiments import figure_2
from preimage.experiments.experiment import Experiment
from preimage.experiments.figure_2 import Config
from preimage.experiments.style import curve, dots, legend, panels
from preimage.experiments.table import Table, medians

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(config: Config, table: Table) -> Figure:
    """Medians; what failed is counted in the legend, because failing can be quick."""
    figure, (axes,) = panels()
    for name in config.methods:
        part = table.where(method=name)
        failed = int((part.values("success") == 0).sum())
        dots(axes, name, part.values("k"), part.values("seconds"))
        x, y = medians(part, "k", "seconds")
        curve(axes, name, x, y, note=f" ({failed} of {len(part.rows)} failed)")
    axes.set(yscale="log", xlabel="latent entries k", ylabel="seconds per inversion")
    axes.set_title("k-" + "-".join(map(str, config.hidden)) + ", ReLU, noiseless", fontsize=10)
    legend(axes)
    return figure


_WIDTHS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
EXPERIMENTS = {
    "timing": Experiment(
        {
            "tiny": Config(draws=2, widths=(4, 8), hidden=(30, 72), seed=5),
            "quick": Config(draws=3, widths=_WIDTHS[::3], seed=5),
            "paper": Config(draws=20, widths=_WIDTHS, seed=5),
        }, figure_2.jobs, figure_2.work, draw),
}  # fmt: skip
