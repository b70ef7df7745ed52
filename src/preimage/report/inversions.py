"""The report on a run of ``preimage invert``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from preimage.network import Network
from preimage.notebook import number, worst_first
from preimage.report.network import inspection_of, network_card
from preimage.report.page import SHOWN, Shown, page, spread, statuses, wide_table
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
    worst, sensed = worst_first(run.residual)[:SHOWN], run.measured is not run.reconstruction
    shown = Shown(
        worst, np.array(run.summary["sample_status"])[worst], run.residual[worst],
        run.latent[worst], run.standard_error[worst], run.reconstruction[worst],
        run.observation[worst], run.measured[worst], "measurements" if sensed else "observation",
    )  # fmt: skip
    return shown.html(len(run.residual))


def _settings(summary: Mapping[str, Any]) -> str:
    rows = list(summary["settings"].items())
    if summary["ms_per_sample"] is not None:
        rows.append(("ms per sample", number(summary["ms_per_sample"])))
    rows += [(f"version of {name}", found) for name, found in summary["versions"].items()]
    return wide_table("Settings and versions", ("setting", "value"), rows)
