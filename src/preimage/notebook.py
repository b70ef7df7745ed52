"""What notebooks show of generators, inversions and certificates: tables and thumbnails in HTML."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import Any

import numpy as np

from preimage import engine
from preimage.errors import MissingExtraError
from preimage.matrix import Array, Indices
from preimage.pixels import picture
from preimage.plot import intervals_svg

SHOWN = 6  # thumbnails, rows of a table
PACKAGES = ("preimage", "numpy", "scipy", "highspy", "safetensors", "torch", "onnx",
            "matplotlib", "pillow", "pandas", "scikit-learn", "dask", "zarr")  # fmt: skip


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """An HTML table; every cell is escaped."""
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number(value: float | np.floating[Any]) -> str:
    """Three digits; a dash where unknown."""
    if np.isfinite(value):
        return f"{value:.3g}"
    return "–" if np.isnan(value) else "∞" if value > 0 else "−∞"


def worst_first(residual: Array) -> Indices:
    """Indices from the largest to the smallest; an unknown residual (NaN) is the worst of all."""
    return np.argsort(-np.where(np.isfinite(residual), residual, np.inf), kind="stable")


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
    columns = inversion.columns()
    latent, status, residual = (columns[name] for name in ("latent", "status", "residual"))
    worst = worst_first(residual)[:SHOWN]
    rows = [(i, status[i], number(residual[i])) for i in worst]
    caption = f"{inversion!r}" + (", worst first" if len(status) > SHOWN else "")
    found = table(("sample", "status", "residual"), rows, caption)
    strips = [
        picture(0.5 + codes[None].ravel() / 6, f"latent code of sample {i}")
        for i, codes in zip(worst, latent[worst], strict=True)
    ]
    return f"<div>{found}<p>{' '.join(strips)}</p></div>"


def certificate_table(certificate: Any) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Columns, and a row a sample, as text."""
    columns = ("sample", "verdict", "distance", "half-width, median", "reason")
    return columns, [
        (str(i), claim.verdict, number(claim.distance), number(np.median(claim.half_width)),
         claim.reason) for i, claim in enumerate(certificate.claims)
    ]  # fmt: skip


def certificate_html(certificate: Any) -> str:
    """A row a sample, what is undecided first, each with the intervals that hold every code."""
    claims = certificate.claims
    columns, rows = certificate_table(certificate)
    shown = sorted(range(len(claims)), key=lambda i: claims[i].verdict != "undecided")[:SHOWN]
    caption = f"{certificate!r}" + (", undecided first" if len(claims) > SHOWN else "")
    found = table(columns, [rows[i] for i in shown], caption)
    return f"<div>{found}{''.join(_intervals(claims[i], i) for i in shown)}</div>"


def _intervals(claim: Any, sample: int) -> str:
    """The drawing; nothing where no code exists, or without matplotlib."""
    if claim.verdict == "infeasible":
        return ""
    codes = {"witness": claim.witnesses[0]} if claim.witnesses else {}
    try:
        shown = intervals_svg(claim.lower, claim.upper, codes, f"Intervals of sample {sample}")
    except MissingExtraError:
        return ""
    return (
        f'<figure style="display:inline-block;margin:0 1em 0 0">{shown}'
        f"<figcaption>sample {sample}</figcaption></figure>"
    )


def versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that matter; what is missing is left out."""
    from importlib.metadata import PackageNotFoundError, version  # 5 % of the package's import

    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found | {"engine": engine.description()}


def show_versions() -> None:
    """Print versions of Python, the system and the packages that matter, for a bug report."""
    found = versions()
    width = max(map(len, found))
    for name, number_ in found.items():
        print(f"{name:>{width}}: {number_}")  # noqa: T201  (it is asked to)
