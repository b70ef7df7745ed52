"""One HTML file that shows what ``preimage invert`` wrote: ``preimage report DIR``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.notebook import number, table
from preimage.pixels import picture

Array = NDArray[np.float64]

SHOWN = 24  # samples drawn
BARS = 20  # of the histogram

# Ground, ink, soft ink: contrast above 4.5 : 1 in both schemes (a test computes it).
INK = {"light": ("#ffffff", "#1b1f24", "#57606a"), "dark": ("#14181d", "#e6e9ec", "#a3adb8")}

_STYLE = """
:root{color-scheme:light dark;--ground:%s;--ink:%s;--soft:%s;--bar:#2f6fb5;--line:#8884}
@media (prefers-color-scheme:dark){:root{--ground:%s;--ink:%s;--soft:%s;--bar:#6aa9ea}}
@media print{:root{--ground:#fff;--ink:#000;--soft:#444}.scroll{overflow:visible}}
body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;
max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}
.soft,figcaption{color:var(--soft);font-size:.875rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top}td:last-child{overflow-wrap:anywhere}
:focus-visible{outline:3px solid var(--bar);outline-offset:2px}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(18.5rem,1fr));gap:1rem}
figure{margin:0;break-inside:avoid}figure img{margin-right:.25rem;background:#8883}
svg{max-width:100%%;height:auto}
""" % (*INK["light"], *INK["dark"])  # noqa: UP031  (CSS is full of braces)


def report_html(folder: str | Path) -> str:
    """The report on an output folder of ``preimage invert``, as one page.

    Args:
        folder: Holds summary.json, observation.npy, reconstruction.npy and latent.npy.

    Returns:
        HTML without a script or a link to anything outside itself.

    Raises:
        FormatError: A file is missing, is damaged, or does not fit the others.
    """
    folder = Path(folder)
    summary, seen, found = _read(folder)
    residual = np.linalg.norm(seen - found, axis=1)
    title = f"{summary['settings']['network']}: {len(seen)} inversions"
    body = "".join([
        f"<h1>{escape(title)}</h1>",
        _section("How they ended", _statuses(summary)),
        _section("Residuals ‖x − G(z)‖₂", _histogram(residual)),
        _section("Samples, worst first", _samples(summary, seen, found, residual)),
        _section("Network", _network(summary)),
        _section("Settings and versions", _settings(summary)),
    ])  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _read(folder: Path) -> tuple[dict[str, Any], Array, Array]:
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        names = ("observation", "reconstruction")
        seen, found = (np.load(folder / f"{n}.npy", allow_pickle=False) for n in names)
        count = len(summary["sample_status"])
        fits = seen.ndim == 2 and seen.shape == found.shape and count == len(seen)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{folder}: expected the output folder of `preimage invert` "
            f"(summary.json, observation.npy, reconstruction.npy), got {error!r}"
        ) from error
    if not fits:
        raise FormatError(
            f"{folder}: expected observation.npy and reconstruction.npy of one shape with a "
            f"status a sample, got {seen.shape}, {found.shape} and {count} statuses"
        )
    return summary, seen, found


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _scrolling(label: str, content: str) -> str:
    """A wide table scrolls in a box of its own, which the keyboard reaches."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{content}</div>'


def _statuses(summary: Mapping[str, Any]) -> str:
    rows = [(name, entry["samples"], entry["message"]) for name, entry in summary["status"].items()]
    return _scrolling("How the inversions ended", table(("status", "samples", "meaning"), rows))


def _histogram(residual: Array) -> str:
    known = residual[np.isfinite(residual)]
    if not len(known):
        return "<p>No sample has a reconstruction.</p>"
    counts, edges = np.histogram(known, BARS)
    step, tall = 600 / BARS, 120
    bars = "".join(
        f'<rect x="{i * step + 1:.1f}" y="{tall - h:.1f}" width="{step - 2:.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(tall * counts / counts.max())
    )
    quantiles = np.quantile(known, (0.0, 0.5, 1.0))
    text = (
        f"{len(known)} residuals: smallest {number(quantiles[0])}, median {number(quantiles[1])}, "
        f"largest {number(quantiles[2])}"
    )
    return (
        f'<figure><svg role="img" aria-label="Histogram of {text}" viewBox="0 0 600 145" '
        f'width="600"><g fill="var(--bar)">{bars}</g><g fill="var(--ink)" font-size="14">'
        f'<text y="140">{number(edges[0])}</text><text x="600" y="140" text-anchor="end">'
        f"{number(edges[-1])}</text></g></svg><figcaption>{text}.</figcaption></figure>"
    )


def _samples(summary: Mapping[str, Any], seen: Array, found: Array, residual: Array) -> str:
    # A sample without a reconstruction is the worst of all.
    order = np.argsort(-np.where(np.isfinite(residual), residual, np.inf), kind="stable")[:SHOWN]
    cells = []
    for i in order:
        images = (
            picture(seen[i], f"observation {i}"),
            picture(found[i], f"reconstruction {i}"),
            picture(0.5 + 0.5 * (seen[i] - found[i]), f"difference {i}"),
        )
        status = escape(str(summary["sample_status"][i]))
        caption = f"sample {i}: {status}, residual {number(residual[i])}"
        cells.append(f"<figure>{''.join(images)}<figcaption>{caption}</figcaption></figure>")
    note = (
        f"{len(order)} of {len(seen)}. Each: observation, reconstruction, and their difference "
        "(gray is none; white is an observation that is brighter by one)."
    )
    return f'<p class="soft">{note}</p><div class="samples">{"".join(cells)}</div>'


def _network(summary: Mapping[str, Any]) -> str:
    sizes: Sequence[int] = summary["generator"]["sizes"]
    reports = summary["layers"] or [{}] * (len(sizes) - 1)
    rows = []
    for i, report in enumerate(reports):
        medians = [report.get(name) for name in ("slack", "active", "rank")]
        known = ["–" if value is None else number(float(value)) for value in medians]
        rows.append((i, sizes[i], sizes[i + 1], f"{sizes[i + 1] / sizes[i]:.2f}", *known))
    columns = ("layer", "inputs", "outputs", "expansion", "slack", "active rows", "rank")
    digest = escape(summary["generator"]["sha256"])
    return (
        _scrolling("Layers", table(columns, rows))
        + '<p class="soft">Slack, active rows and rank are medians over the samples; a layer '
        f"determines its input where the rank reaches its inputs. SHA-256: {digest[:16]}…</p>"
    )


def _settings(summary: Mapping[str, Any]) -> str:
    rows = [*summary["settings"].items(), ("ms per sample", number(summary["ms_per_sample"] or 0))]
    rows += [(f"version of {name}", found) for name, found in summary["versions"].items()]
    return _scrolling("Settings and versions", table(("setting", "value"), rows))
