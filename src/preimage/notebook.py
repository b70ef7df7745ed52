"""What notebooks show of generators and inversions: tables and thumbnails in HTML."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from preimage.errors import MissingExtraError
from preimage.pixels import picture

SHOWN = 6  # thumbnails, rows of a table
PACKAGES = ("preimage", "numpy", "scipy", "numba", "highspy", "safetensors", "torch", "onnx",
            "piqp", "matplotlib", "pillow", "pandas", "scikit-learn", "dask", "zarr")  # fmt: skip


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """An HTML table; every cell is escaped."""
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number(value: float) -> str:
    """Three digits; a dash where unknown."""
    return f"{value:.3g}" if np.isfinite(value) else "–"


def generator_html(generator: Any) -> str:
    """A row a layer, and outputs of codes drawn from N(0, I)."""
    rows = [
        (i, layer.input_size, layer.output_size, repr(layer.activation), layer.storage)
        for i, layer in enumerate(generator.layers)
    ]
    found = table(("layer", "inputs", "outputs", "activation", "weight"), rows, repr(generator))
    codes = np.random.default_rng(0).standard_normal((SHOWN, generator.latent_size))
    images = [picture(x, f"output of random code {i}") for i, x in enumerate(generator(codes))]
    return f"<div>{found}<p>{' '.join(images)}</p></div>"


def inversion_html(inversion: Any) -> str:
    """A row a sample, the largest residuals first, each with its code as a strip of gray."""
    latent, status = np.atleast_2d(inversion.latent), np.atleast_1d(inversion.status)
    residual = np.atleast_1d(inversion.residual)
    # An unknown residual (NaN) is the worst of all.
    worst = np.argsort(-np.where(np.isfinite(residual), residual, np.inf), kind="stable")[:SHOWN]
    rows = [(i, status[i], number(residual[i])) for i in worst]
    caption = f"{inversion!r}" + (", worst first" if len(status) > SHOWN else "")
    found = table(("sample", "status", "residual"), rows, caption)
    strips = [
        picture(0.5 + codes[None].ravel() / 6, f"latent code of sample {i}")
        for i, codes in zip(worst, latent[worst], strict=True)
    ]
    return f"<div>{found}<p>{' '.join(strips)}</p></div>"


def inversion_frame(inversion: Any) -> Any:
    """A ``pandas.DataFrame``: one row a sample.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("pandas", "notebook") from error
    names = ("status", "residual", "residual_max", "rank", "bound", "gap")
    count = len(inversion)
    columns = {n: np.broadcast_to(np.atleast_1d(getattr(inversion, n)), count) for n in names}
    columns["status"] = columns["status"].astype(str)
    latent = np.atleast_2d(inversion.latent)
    columns |= {f"z{i}": latent[:, i] for i in range(latent.shape[1])}
    return pandas.DataFrame(columns).rename_axis("sample")


def show_versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that matter, for a bug report.

    Returns:
        Name to version; a package that is not installed is left out.

    >>> import preimage
    >>> preimage.show_versions()["preimage"] == preimage.__version__
    True
    """
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
