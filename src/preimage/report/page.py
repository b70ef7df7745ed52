"""What all reports share: the page, its style, tables, distributions, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.notebook import number, table
from preimage.pixels import picture
from preimage.plot import BAR, histogram_svg

Array = NDArray[np.float64]

SHOWN = 24  # samples drawn

# Ground, text, soft text, bars. Text has a contrast of at least 4.5 : 1 on the ground, bars of
# 3 : 1, in both schemes (a test computes them).
INK = {
    "light": ("#ffffff", "#1b1f24", "#57606a", BAR),
    "dark": ("#14181d", "#e6e9ec", "#a3adb8", BAR),
}

_COLOURS = {
    scheme: ";".join(
        f"--{name}:{colour}"
        for name, colour in zip(("ground", "ink", "soft", "bar"), colours, strict=True)
    )
    for scheme, colours in INK.items()
}
_STYLE = (
    ":root{color-scheme:light dark;--line:#8884;" + _COLOURS["light"] + "}"
    "@media screen and (prefers-color-scheme:dark){:root{" + _COLOURS["dark"] + "}}"
    """
body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;
max-width:60rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0}
h2{font-size:1.2rem;margin:2rem 0 .5rem}
.soft,figcaption{color:var(--soft);font-size:.875rem}
.scroll{overflow-x:auto;overflow-wrap:normal}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top;white-space:nowrap}td:last-child{white-space:normal;overflow-wrap:anywhere;min-width:9rem}
summary{cursor:pointer}:focus-visible{outline:3px solid var(--bar);outline-offset:2px}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr));gap:1rem}
figure{margin:0 0 1rem;break-inside:avoid}.samples figure{margin:0}
figure img{margin-right:.25rem;outline:1px solid var(--line);print-color-adjust:exact;
background:repeating-linear-gradient(45deg,#b36b00 0 2px,#ffd591 2px 6px)}
svg{max-width:100%;height:auto;display:block}
@media (max-width:40rem){td,th{padding-right:.6rem;font-size:.875rem}}
@media print{body{max-width:none;padding:0}.scroll{overflow:visible}h2,p{break-after:avoid}
svg{print-color-adjust:exact}table{font-size:.8rem}}
"""
)


def page(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """The whole file: a heading, a line below it, sections by their headings; empty ones go."""
    body = "".join(
        f"<section><h2>{escape(name)}</h2>{content}</section>"
        for name, content in sections.items()
        if content
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
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


def spread(values: Array, of: str, mark: float = 0.0, mark_name: str = "") -> str:
    """Quantiles of numbers in words, below their histogram.

    Args:
        values: (m,) at least 0; NaN or infinite where unknown.
        of: What they are, in plural.
        mark: A number that is drawn as a line; 0 for none.
        mark_name: What it is.
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
    text += f"; the line is the {mark_name}, {number(mark)}" if mark > 0 else ""
    shown = histogram_svg(known, f"Histogram of {text}", mark, mark_name)
    return f"<figure>{shown}<figcaption>{text}.</figcaption></figure>"


def difference(seen: Array, found: Array) -> Array:
    """``seen - found`` as gray levels: gray is none, white is one more in what was seen."""
    return 0.5 + 0.5 * (seen - found)


def drawn(images: Mapping[str, Array], caption: str, below: str = "") -> str:
    """Pictures side by side; each name is the picture's alternative text."""
    shown = "".join(picture(vector, escape(name)) for name, vector in images.items())
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption>{below}</figure>"


def samples(figures: Iterable[str]) -> str:
    """Figures in as many columns as fit."""
    return f'<div class="samples">{"".join(figures)}</div>'
