"""Figures of samples, intervals and residuals, and their SVG. Needs matplotlib (extra ``plot``)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from preimage.errors import InputError, extra
from preimage.matrix import Array
from preimage.pixels import image_shape, rgba

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BAR = "#3d7fc4"  # at least 3 : 1 on a light and on a dark ground
_CELL = 0.62  # inches an image
_FONT = 9.0  # points
_BINS = 24
_RANGE = 1e-16  # of the largest number; what is smaller counts as this


def image_grid(
    rows: Mapping[str, ArrayLike],
    shape: tuple[int, ...] | None = None,
    *,
    columns: Sequence[str] = (),
) -> Figure:
    """Draw samples as images: one row a label, one column a sample, all on the gray scale 0..1.

    Args:
        rows: Label to (m, n) array, the same m and n in each; NaN is left blank.
        shape: (height, width) or (3, height, width) of a sample; ``image_shape(n)`` if None.
        columns: Titles over the first columns, left-aligned; an empty title lets the one before
            it run on.

    Returns:
        A ``matplotlib.figure.Figure`` with one axes a row; the caller saves it.

    Raises:
        InputError: No rows, or arrays that differ in shape or do not fit ``shape``.
        MissingExtraError: matplotlib is not installed.
    """
    arrays = {label: np.asarray(values, dtype=np.float64) for label, values in rows.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(found := shapes.pop()) != 2 or 0 in found:
        raise InputError(
            "rows: expected one or more non-empty arrays of one shape (samples, entries), "
            f"got { ({label: array.shape for label, array in arrays.items()}) }"
        )
    count, size = found
    shape = image_shape(size) if shape is None else tuple(shape)
    if math.prod(shape) != size or not (len(shape) == 2 or (len(shape) == 3 and shape[0] == 3)):
        raise InputError(
            f"shape: expected (height, width) or (3, height, width) of {size} entries, got {shape}"
        )
    strip, gap = shape[-2] == 1, max(1, shape[-1] // 14)
    width = 3.0 * count if strip else (_CELL + 0.05) * count
    height = 0.28 if strip else _CELL * shape[-2] / shape[-1]
    left = 0.2 + 0.075 * max(map(len, arrays))
    top = 0.3 if any(columns) else 0.08
    total = (width + left + 0.08, top + (height + 0.05) * len(arrays) + 0.08)
    figure = _figure(figsize=total)
    for row, (label, array) in enumerate(arrays.items()):
        bottom = total[1] - top - (height + 0.05) * (row + 1)
        box = (left / total[0], bottom / total[1], width / total[0], height / total[1])
        axes = figure.add_axes(box)
        # The samples side by side, a blank gap between them.
        tiles = np.pad(rgba(array, shape), ((0, 0), (0, 0), (0, gap), (0, 0)))
        mosaic = np.concatenate(list(tiles), axis=1)[:, :-gap]
        axes.imshow(mosaic, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        axes.text(-0.1 / width, 0.5, label, transform=axes.transAxes, ha="right", va="center",
                  fontsize=_FONT)  # fmt: skip
        for column, title in enumerate(columns if row == 0 else ()):
            axes.text(column * (shape[-1] + gap) - 0.5, -0.5 - 0.08 * shape[-2], title, ha="left",
                      va="bottom", fontsize=_FONT)  # fmt: skip
    return figure


def _figure(**given: Any) -> Figure:
    with extra("plot", "matplotlib"):
        from matplotlib.figure import Figure
    return Figure(**given)


def draw_intervals(
    axes: Axes,
    lower: ArrayLike,
    upper: ArrayLike,
    codes: Mapping[str, ArrayLike],
    name: str = "every code",
) -> None:
    """Draw the interval of every coordinate, and codes as dots.

    Args:
        axes: Where to draw.
        lower: (k,) ends; an infinite interval ends at the edge of the drawing.
        upper: (k,).
        codes: Label to (k,) code, drawn over the intervals.
        name: What the intervals are.
    """
    low, high = (np.asarray(end, dtype=np.float64) for end in (lower, upper))
    index, ends = np.arange(len(low)), np.concatenate([low, high, *codes.values()])
    ends = ends[np.isfinite(ends)]
    least, most = (ends.min(), ends.max()) if ends.size else (-1.0, 1.0)
    span = (most - least) or 2.0
    edges = least - 0.05 * span, most + 0.3 * span  # the legend stands above
    shown = np.clip([np.nan_to_num(low, nan=0.0), np.nan_to_num(high, nan=0.0)], *edges)
    axes.vlines(index, *shown, color=BAR, linewidth=min(4.0, 120 / len(low)), label=name,
                capstyle="round")  # fmt: skip
    for (label, code), fill in zip(codes.items(), ("black", "none", "none"), strict=False):
        axes.plot(index, code, "o", color="black", markerfacecolor=fill, markersize=3, label=label)
    axes.set_ylim(*edges)
    axes.locator_params("x", integer=True)
    axes.set_xlabel("latent coordinate", fontsize=_FONT)
    axes.tick_params(labelsize=_FONT - 1)
    axes.legend(fontsize=_FONT - 1, frameon=False, loc="upper left", ncols=3)


def intervals_svg(
    lower: ArrayLike,
    upper: ArrayLike,
    codes: Mapping[str, ArrayLike],
    label: str,
    name: str = "every code",
) -> str:
    """``draw_intervals`` as an inline SVG for a web page, with ``label`` as its description."""
    figure = _figure(figsize=(4.4, 1.9), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    draw_intervals(axes, lower, upper, codes, name)
    return svg(figure, label)


def histogram_svg(values: Array, label: str, noise: float = 0.0) -> str:
    """A histogram on a logarithmic axis as an inline SVG; nothing where all values are equal.

    Args:
        values: (m,) finite and at least 0.
        label: Description of the figure.
        noise: Drawn as a line; 0 for none.
    """
    positive = np.append(values[values > 0], noise if noise > 0 else np.empty(0))
    if not positive.size or positive.min() == max(values.max(), noise) == values.min():
        return ""
    high = positive.max()
    low = max(positive.min(), _RANGE * high)
    figure = _figure(figsize=(4.4, 1.7), layout="constrained")
    axes = figure.subplots()
    bins = np.geomspace(low, high * (1 + 1e-9), _BINS + 1).tolist()
    axes.hist(np.maximum(values, low), bins, color=BAR)
    axes.set_xscale("log")
    if noise > 0:
        axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # the word at the line stands above the bars
        axes.axvline(noise, color="black", linestyle="--")
        side = "left" if noise < math.sqrt(low * high) else "right"
        axes.annotate(
            "noise", (noise, axes.get_ylim()[1]), xytext=(4 if side == "left" else -4, 0),
            textcoords="offset points", va="top", ha=side, fontsize=_FONT,
        )  # fmt: skip
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.yaxis.set_visible(False)
    axes.set_xticks([low, high], [f"{low:.3g}", f"{high:.3g}"])
    axes.minorticks_off()
    axes.tick_params(labelsize=_FONT - 1)
    return svg(figure, label)


def svg(figure: Figure, label: str) -> str:
    """A figure as SVG inside HTML: black takes the colour of the text around it.

    Args:
        figure: A ``matplotlib.figure.Figure``.
        label: Read aloud in place of it.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace("#000000", "currentColor")
    drawn = re.sub(r' xmlns(:xlink)?="[^"]*"| version="[^"]*"', "", drawn, count=3)
    return drawn.replace(
        "<svg", f'<svg role="img" aria-label="{escape(label)}" fill="currentColor"', 1
    )


def certificate_figure(
    lower: ArrayLike,
    upper: ArrayLike,
    estimate: ArrayLike,
    band: tuple[ArrayLike, ArrayLike],
    *,
    title: str = "",
    shape: tuple[int, ...] | None = None,
) -> Figure:
    """Draw what a certificate says of one sample: the interval of each coordinate, and the picture.

    Args:
        lower: (k,) ``certificate.lower`` of the sample.
        upper: (k,) ``certificate.upper``.
        estimate: (k,) the code to set in between, such as ``inversion.latent``.
        band: Least and largest value of every output, (n,) each (``reconstruction_band``).
        title: Above the intervals.
        shape: (height, width) of the picture; ``image_shape(n)`` if None.

    Returns:
        A ``matplotlib.figure.Figure``: left the intervals, right the least and the largest
        picture, and the width of the band in between.

    Raises:
        InputError: Shapes that do not fit.
        MissingExtraError: matplotlib is not installed.
    """
    low, high, code = (np.asarray(part, dtype=np.float64) for part in (lower, upper, estimate))
    least, most = (np.asarray(end, dtype=np.float64) for end in band)
    if not (low.shape == high.shape == code.shape and low.ndim == 1 and least.shape == most.shape):
        raise InputError(
            "lower, upper, estimate: expected three vectors of one shape, and band two of one "
            f"shape, got {low.shape}, {high.shape}, {code.shape}; {least.shape}, {most.shape}"
        )
    shape = image_shape(least.size) if shape is None else tuple(shape)
    if math.prod(shape) != least.size or len(shape) != 2:
        raise InputError(f"shape: expected (height, width) of {least.size} entries, got {shape}")
    figure = _figure(figsize=(8.4, 2.9), layout="constrained")
    left, *pictures = figure.subplots(1, 4, width_ratios=(2.3, 1, 1, 1))
    draw_intervals(left, low, high, {"estimate": code})
    left.set_title(title, fontsize=_FONT)
    images = {"least": least, "largest": most, "width": most - least}
    for axes, (label, values) in zip(pictures, images.items(), strict=True):
        scale = {"vmin": 0.0, "vmax": 1.0, "cmap": "gray"} if label != "width" else {"vmin": 0.0}
        shown = axes.imshow(values.reshape(shape), interpolation="nearest", **scale)
        axes.set_title(label, fontsize=_FONT)
        axes.set_axis_off()
    figure.colorbar(shown, ax=pictures[-1], shrink=0.6).ax.tick_params(labelsize=_FONT - 1)
    return figure
