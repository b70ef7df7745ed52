"""The report on a run of ``preimage invert``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from preimage.network import Network
from preimage.notebook import number, worst_first
from preimage.plot import intervals_svg
from preimage.report.network import inspection_of, network_card
from preimage.report.page import (
    SHOWN,
    compared,
    drawn,
    note,
    page,
    samples,
    spread,
    statuses,
    wide_table,
)
from preimage.report.run import Run


def inversions_page(run: Run, network: Network | None = None) -> str:
    """One page: how the samples ended, residuals, samples, network, settings."""
    summary, settings = run.summary, run.summary["settings"]
    described, noise = summary["generator"], settings.get("noise")
    mark = float(noise) if isinstance(noise, (int, float)) else 0.0
    inspection = inspection_of(network, described["sha256"]) or summary.get("inspection")
    return page(
        f"{settings.get('network', 'Network')}: {len(run.residual)} inversions",
        f"Method {settings.get('method', 'unknown')}, noise {noise}, preimage "
        f"{summary['versions'].get('preimage', 'unknown')}.",
        {
            "How they ended": statuses(
                (name, entry["samples"], entry["message"])
                for name, entry in summary["status"].items()
            ),
            "Residuals ‖x − G(z)‖₂": spread(run.residual, "residuals"),
            "Largest errors max |x − G(z)|": spread(
                run.residual_max, "largest errors", mark, "noise"
            ),
            "Samples, worst first": _samples(run),
            "Network": network_card(
                inspection, described["sizes"], described["sha256"], summary["layers"]
            ),
            "Settings and versions": _settings(summary),
        },
    )


def _samples(run: Run) -> str:
    residual, sensed = run.residual, run.measured is not run.reconstruction
    order = worst_first(residual)[:SHOWN]
    name = "measurements" if sensed else "observation"
    figures = []
    for i in order:
        images = compared(run.observation[i], run.reconstruction[i], run.measured[i], i, name)
        status = run.summary["sample_status"][i]
        caption = f"sample {i}: {status}, residual {number(residual[i])}"
        figures.append(drawn(images, caption, _codes(run, i)))
    text = (
        f"{len(order)} of {len(residual)}. Each: {name}, reconstruction, and "
        f"difference{' of the measurements' if sensed else ''} (gray is none; white is an "
        "observation that is brighter by one)."
    )
    if np.isnan(run.observation).any():
        text += " Hatched: not observed."
    if np.isfinite(run.standard_error).any():
        text += " Standard errors take the noise as the standard deviation of independent errors."
    return note(text) + samples(figures)


def _codes(run: Run, i: int) -> str:
    """The code with twice its standard errors, folded away; nothing where they are unknown."""
    code, error = run.latent[i], run.standard_error[i]
    if not np.isfinite(code).all() or not np.isfinite(error).all():
        return ""
    text = f"Code, standard error {number(float(np.median(error)))} (median)"
    shown = intervals_svg(code - 2 * error, code + 2 * error, {"code": code}, text, "± 2 errors")
    return f'<details><summary class="soft">{text}</summary>{shown}</details>'


def _settings(summary: Mapping[str, Any]) -> str:
    rows = list(summary["settings"].items())
    if summary["ms_per_sample"] is not None:
        rows.append(("ms per sample", number(summary["ms_per_sample"])))
    rows += [(f"version of {name}", found) for name, found in summary["versions"].items()]
    return wide_table("Settings and versions", ("setting", "value"), rows)
