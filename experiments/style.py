"""One look for all figures: a method has one colour and one marker everywhere.

The colours are those of Okabe and Ito, which the colour-blind can tell apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.figure import Figure


class Look(NamedTuple):
    """How a method is drawn."""

    label: str
    colour: str
    marker: str
    line: str = "-"
    size: float = 5.0  # of the marker; unequal, so that curves that coincide can both be seen


LOOKS = {
    "linf": Look("l∞ LP", "#0072B2", "o", size=9),
    "l1": Look("l1 LP", "#E69F00", "s", size=7),
    "relaxed": Look("relaxed LP", "#009E73", "^"),
    "gradient": Look("gradient descent", "#D55E00", "v"),
    "adam": Look("Adam, restarts", "#CC79A7", "D"),
    "projected": Look("projected gradient, l∞ LP", "#56B4E9", "X"),
    "auto": Look("auto", "#000000", "P", size=4),
    "exact": Look("exact", "#56B4E9", "X"),
    "oracle": Look("oracle", "#808080", "", "--"),
    "limit": Look("limit", "#808080", "", "--"),
    "joint l2": Look("joint l2", "#000000", "P"),
    "joint l1": Look("joint l1", "#E69F00", "s", ":"),
    "joint linf": Look("joint l∞", "#0072B2", "o", ":"),
    "free": Look("l∞ LP without z ≥ 0", "#56B4E9", "X"),
    "lasso pixels": Look("Lasso, pixels", "#E69F00", "s"),
    "lasso DCT": Look("Lasso, DCT", "#009E73", "^"),
    "DCT": Look("DCT, k largest", "#009E73", "^"),
}


def panels(count: int = 1, *, width: float = 7.0, height: float = 4.8) -> tuple[Figure, list[Any]]:
    """A figure with ``count`` panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, count, index + 1) for index in range(count)]
    for panel in axes:
        panel.grid(True, color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure, axes


def curve(axes: Any, method: str, x: Any, y: Any, *, note: str = "", **more: Any) -> None:
    """A line with the method's look."""
    look = LOOKS[method]
    axes.plot(x, y, color=look.colour, marker=look.marker or None, linestyle=look.line,
              markersize=look.size, linewidth=1 + (look.size - 4) / 2.5,
              label=look.label + note, **more)  # fmt: skip


def dots(axes: Any, method: str, x: Any, y: Any) -> None:
    """One faint dot a draw."""
    axes.plot(x, y, ".", color=LOOKS[method].colour, alpha=0.25, markersize=3, zorder=1)


def legend(axes: Any) -> None:
    """A legend under the axes, where it hides nothing."""
    figure = axes.get_figure()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
