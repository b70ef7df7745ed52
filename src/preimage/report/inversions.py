"""The report on a run of ``preimage invert``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from preimage.generator import Generator
from preimage.notebook import number, worst_first
from preimage.report.distribution import Distribution
from preimage.report.network import inspection_of, network_card
from preimage.report.page import (
    SHOWN,
    difference,
    drawn,
    note,
    page,
    plain,
    samples,
    wide_table,
)
from preimage.report.run import Run


def inversions_page(run: Run, generator: Generator | None = None) -> str:
    """One page: how the samples ended, residuals, samples, network, settings."""
    summary, settings = run.summary, run.summary["settings"]
    network, noise = summary["generator"], settings.get("noise")
    mark = float(noise) if isinstance(noise, (int, float)) else 0.0
    inspection = inspection_of(generator, network["sha256"]) or summary.get("inspection")
    residual, largest = run.residual, run.residual_max
    return page(
        f"{settings.get('network', 'Network')}: {len(residual)} inversions",
        f"Method {settings.get('method', 'unknown')}, noise {noise}, preimage "
        f"{summary['versions'].get('preimage', 'unknown')}.",
        {
            "How they ended": _statuses(summary),
            "Residuals ‖x − G(z)‖₂": Distribution.of(lambda: [residual]).histogram("residuals"),
            "Largest errors max |x − G(z)|": Distribution.of(lambda: [largest], mark).histogram(
                "largest errors", "noise"
            ),
            "Samples, worst first": _samples(run),
            "Network": network_card(
                inspection, network["sizes"], network["sha256"], summary["layers"]
            ),
            "Settings and versions": _settings(summary),
        },
    )


def _statuses(summary: Mapping[str, Any]) -> str:
    rows = [
        (name, entry["samples"], plain(entry["message"]))
        for name, entry in summary["status"].items()
    ]
    return wide_table("How the inversions ended", ("status", "samples", "meaning"), rows)


def _samples(run: Run) -> str:
    residual, sensed = run.residual, run.measured is not run.reconstruction
    order = worst_first(residual)[:SHOWN]
    figures = []
    for i in order:
        images = {f"{'measurements' if sensed else 'observation'} {i}": run.observation[i]}
        images[f"reconstruction {i}"] = run.reconstruction[i]
        images[f"difference {i}"] = difference(run.observation[i], run.measured[i])
        status = run.summary["sample_status"][i]
        figures.append(drawn(images, f"sample {i}: {status}, residual {number(residual[i])}"))
    text = (
        f"{len(order)} of {len(residual)}. Each: {'measurements' if sensed else 'observation'}, "
        f"reconstruction, and difference{' of the measurements' if sensed else ''} (gray is none; "
        "white is an observation that is brighter by one)."
    )
    if np.isnan(run.observation).any():
        text += " Hatched: not observed."
    return note(text) + samples(figures)


def _settings(summary: Mapping[str, Any]) -> str:
    rows = list(summary["settings"].items())
    if summary["ms_per_sample"] is not None:
        rows.append(("ms per sample", number(summary["ms_per_sample"])))
    rows += [(f"version of {name}", found) for name, found in summary["versions"].items()]
    return wide_table("Settings and versions", ("setting", "value"), rows)
