"""What all reports share: the page, its style, tables, distributions, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from preimage.matrix import Array
from preimage.notebook import number, table
from preimage.pixels import picture
from preimage.plot import histogram_svg

SHOWN = 24  # samples drawn


def page(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """The whole file: a heading, a line below it, sections by their headings; empty ones go."""
    body = "".join(
        f"<section><h2>{escape(name)}</h2>{content}</section>"
        for name, content in sections.items()
        if content
    )
    style = (files("preimage.report") / "style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(lead)}</p>{body}</main></body></html>\n'
    )


def wide_table(label: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table that scrolls in a box of its own, which the keyboard reaches."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"{table(columns, rows)}</div>"
    )


def note(text: str) -> str:
    """A paragraph in soft ink."""
    return f'<p class="soft">{escape(text)}</p>'


def spread(values: Array, of: str, noise: float = 0.0) -> str:
    """Quantiles in words, below a histogram, with the noise as a line if it is not 0.

    ``values`` are (m,) numbers of at least 0, NaN or infinite where unknown; ``of`` says what they
    are, in plural.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return f"<p>No {of} are known.</p>"
    marks = (0.0, 0.5, 0.95, 1.0)
    least, median, high, most = map(number, np.quantile(known, marks, method="inverted_cdf"))
    text = (
        f"{known.size} {of}: smallest {least}, median {median}, 95 % at most {high}, largest {most}"
    )
    text += f"; {values.size - known.size} unknown" if known.size < values.size else ""
    zeros = int((known == 0).sum())  # a logarithmic axis has no place for them
    text += f"; the first bar holds {zeros} that are 0" if 0 < zeros < known.size else ""
    text += f"; the line is the noise, {number(noise)}" if noise > 0 else ""
    shown = histogram_svg(known, f"Histogram of {text}", noise)
    return f"<figure>{shown}<figcaption>{text}.</figcaption></figure>"


def difference(seen: Array, found: Array) -> Array:
    """``seen - found`` as gray levels: gray is none, white is one more in what was seen."""
    return 0.5 + 0.5 * (seen - found)


def drawn(images: Mapping[str, Array], caption: str, below: str = "") -> str:
    """Pictures side by side; each name is the picture's alternative text."""
    shown = "".join(picture(vector, escape(name)) for name, vector in images.items())
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption>{below}</figure>"
