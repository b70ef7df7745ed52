"""The report on inversions, of a folder or of a store: statuses, residuals, worst samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.network import Network
from preimage.notebook import number, worst_first
from preimage.report.network import inspection_of, network_card
from preimage.report.page import SHOWN, page, spread, wide_table
from preimage.report.run import read_run

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Result:
    """What the page of any result of inversions shows.

    Attributes:
        title: Of the page.
        lead: The line below it.
        statuses: Name of a status, number of samples, meaning.
        residual: (m,) of all samples; NaN where unknown.
        residual_max: (m,) largest error of each.
        noise: Drawn as a line among the largest errors; 0 for none.
        samples: The worst samples, as HTML.
        network: Its card, as HTML.
        settings: Names and values.
        left_out: Samples that were left out, as HTML.
    """

    title: str
    lead: str
    statuses: Iterable[tuple[str, int, str]]
    residual: Array
    residual_max: Array
    noise: float
    samples: str
    network: str
    settings: Iterable[Sequence[Any]]
    left_out: str = ""

    def html(self) -> str:
        """The page."""
        rows = [(name, count, meaning.replace("`", "")) for name, count, meaning in self.statuses]
        errors = spread(self.residual_max, "largest errors", self.noise, "noise")
        return page(
            self.title,
            self.lead,
            {
                "How they ended": wide_table(
                    "How the inversions ended", ("status", "samples", "meaning"), rows
                ),
                "Residuals ‖x − G(z)‖₂": spread(self.residual, "residuals"),
                "Largest errors max |x − G(z)|": errors,
                "Samples, worst first": self.samples,
                "Left out": self.left_out,
                "Network": self.network,
                "Settings": wide_table("Settings", ("setting", "value"), self.settings),
            },
        )


def run_page(folder: Path, network: Network | None = None) -> str:
    """The page of a folder that ``write_run`` wrote."""
    summary, found = read_run(folder)
    settings, described, took = summary["settings"], summary["generator"], summary["ms_per_sample"]
    noise = settings.get("noise")
    inspection = inspection_of(network, described["sha256"]) or summary.get("inspection")
    more = {} if took is None else {"ms per sample": number(took)}
    more |= {f"version of {name}": version for name, version in summary["versions"].items()}
    return Result(
        f"{settings.get('network', 'Network')}: {len(found.number)} inversions",
        f"Method {settings.get('method', 'unknown')}, noise {noise}, preimage "
        f"{summary['versions'].get('preimage', 'unknown')}.",
        [(name, one["samples"], one["message"]) for name, one in summary["status"].items()],
        found.residual,
        np.max(np.abs(found.error), axis=1, initial=0.0),
        float(noise) if isinstance(noise, (int, float)) else 0.0,
        found.take(worst_first(found.residual)[:SHOWN]).html(len(found.number)),
        network_card(inspection, described["sizes"], described["sha256"], summary["layers"]),
        [*settings.items(), *more.items()],
    ).html()
