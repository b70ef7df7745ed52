"""Pictures of observations and reconstructions. Needs matplotlib (``preimage[plot]``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preimage.errors import InputError, MissingExtraError
from preimage.pixels import image_shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from preimage.generator import Generator

_CELL = 0.62  # inches an image
_FONT = 9.0  # points


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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    return _draw(Figure(), arrays, count, shape, columns)


def _mosaic(array: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Put the samples (m, n) side by side, a blank gap between them; (height, width, 4) RGBA."""
    images = array.reshape(len(array), -1, *shape[-2:])
    colour = np.broadcast_to(images, (len(array), 3, *shape[-2:])).transpose(0, 2, 3, 1)
    opaque = np.isfinite(colour).all(axis=3, keepdims=True).astype(np.float64)
    tiles = np.concatenate([np.clip(np.nan_to_num(colour), 0.0, 1.0), opaque], axis=3)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, _gap(shape)), (0, 0)))
    return np.concatenate(list(tiles), axis=1)[:, : -_gap(shape)]


def _gap(shape: tuple[int, ...]) -> int:
    return max(1, shape[-1] // 14)


def _draw(
    figure: Figure,
    arrays: Mapping[str, NDArray[np.float64]],
    count: int,
    shape: tuple[int, ...],
    columns: Sequence[str],
) -> Figure:
    strip = shape[-2] == 1
    width = 3.0 * count if strip else (_CELL + 0.05) * count
    height = 0.28 if strip else _CELL * shape[-2] / shape[-1]
    left = 0.2 + 0.075 * max(map(len, arrays))
    top = 0.3 if any(columns) else 0.08
    total = (width + left + 0.08, top + (height + 0.05) * len(arrays) + 0.08)
    figure.set_size_inches(*total)
    pitch = shape[-1] + _gap(shape)
    for row, (label, array) in enumerate(arrays.items()):
        bottom = total[1] - top - (height + 0.05) * (row + 1)
        box = (left / total[0], bottom / total[1], width / total[0], height / total[1])
        axes = figure.add_axes(box)
        axes.imshow(_mosaic(array, shape), aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        axes.text(-0.1 / width, 0.5, label, transform=axes.transAxes, ha="right", va="center",
                  fontsize=_FONT)  # fmt: skip
        for column, title in enumerate(columns if row == 0 else ()):
            axes.text(column * pitch - 0.5, -0.5 - 0.08 * shape[-2], title, ha="left",
                      va="bottom", fontsize=_FONT)  # fmt: skip
    return figure


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
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    left, *pictures = figure.subplots(1, 4, width_ratios=(2.3, 1, 1, 1))
    index = np.arange(len(low))
    left.vlines(index, low, high, color="#4878a8", linewidth=4, label="every code")
    left.plot(index, code, "o", color="black", markersize=3, label="estimate")
    left.set_xlabel("latent coordinate", fontsize=_FONT)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_title(title, fontsize=_FONT)
    left.tick_params(labelsize=_FONT - 1)
    left.legend(fontsize=_FONT - 1, frameon=False, loc="upper left", ncols=2)
    span = float(np.nanmax(high) - np.nanmin(low)) or 1.0
    left.set_ylim(np.nanmin(low) - 0.05 * span, np.nanmax(high) + 0.22 * span)
    images = {"least": least, "largest": most, "width": most - least}
    for axes, (label, values) in zip(pictures, images.items(), strict=True):
        scale = {"vmin": 0.0, "vmax": 1.0, "cmap": "gray"} if label != "width" else {"vmin": 0.0}
        shown = axes.imshow(values.reshape(shape), interpolation="nearest", **scale)
        axes.set_title(label, fontsize=_FONT)
        axes.set_axis_off()
    figure.colorbar(shown, ax=pictures[-1], shrink=0.6).ax.tick_params(labelsize=_FONT - 1)
    return figure


def plane_figure(
    generator: Generator, observation: ArrayLike, codes: ArrayLike, *, half: float = 2.0
) -> Figure:
    """Draw the preimage of a network with two latent coordinates, such as Example 1.

    Args:
        generator: With latent size 2.
        observation: (n,).
        codes: (2, 2) two preimages; they and the middle between them are marked.
        half: The square drawn is ``[-half, half]^2``.

    Returns:
        A ``matplotlib.figure.Figure``: ``max |G(z) - x|`` as gray levels, its zeros dark.

    Raises:
        InputError: Another latent size, or not two codes.
        MissingExtraError: matplotlib is not installed.
    """
    x, pair = np.asarray(observation, dtype=np.float64), np.asarray(codes, dtype=np.float64)
    if generator.latent_size != 2 or pair.shape != (2, 2):
        raise InputError(
            "plane_figure: expected a generator of two latent coordinates and two codes, got "
            f"latent size {generator.latent_size} and codes of shape {pair.shape}"
        )
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    line = np.linspace(-half, half, 401)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    misfit = np.abs(generator(grid) - x).max(axis=1).reshape(len(line), -1)
    figure = Figure(figsize=(4.6, 3.4), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06))
    axes = figure.subplots()
    axes.set_aspect("equal")
    shown = axes.imshow(misfit, extent=(-half, half) * 2, origin="lower", cmap="cividis", vmin=0.0)
    axes.plot(*pair.T, "o--", color="white", markersize=5, linewidth=1, label="two preimages")
    axes.plot(*pair.mean(axis=0), "x", color="red", markersize=7, label="their midpoint")
    axes.legend(fontsize=_FONT - 1, loc="lower right", facecolor="0.25", labelcolor="white")
    axes.set_xlabel("$z_1$", fontsize=_FONT)
    axes.set_ylabel("$z_2$", fontsize=_FONT, labelpad=6)
    axes.tick_params(labelsize=_FONT - 1)
    bar = figure.colorbar(shown, ax=axes)
    bar.set_label(r"$\max |G(z) - x|$", fontsize=_FONT)
    bar.ax.tick_params(labelsize=_FONT - 1)
    return figure
