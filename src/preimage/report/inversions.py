"""The report on inversions, of a folder or of a store: statuses, residuals, worst samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.network import Network
from preimage.notebook import number, worst_first
from preimage.plot import intervals_svg
from preimage.report.network import inspection_of, network_card
from preimage.report.page import (
    SHOWN,
    difference,
    drawn,
    note,
    page,
    samples,
    spread,
    wide_table,
)
from preimage.report.run import Run

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


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that are drawn, worst first.

    Attributes:
        number: (m,) index of each in its batch.
        status: (m,).
        residual: (m,); NaN where unknown.
        latent: (m, k) codes.
        standard_error: (m, k) of the codes; NaN where unknown.
        reconstruction: (m, n) outputs of the codes.
        observation: (m, n), or measurements (m, l), NaN where hidden; None if not given.
        measured: Of the shape of ``observation``: what the codes would be observed as.
    """

    number: NDArray[np.int64]
    status: NDArray[Any]
    residual: Array
    latent: Array
    standard_error: Array
    reconstruction: Array
    observation: Array | None
    measured: Array

    @property
    def _of(self) -> str:
        """What the observation is called."""
        return "observation" if self.measured is self.reconstruction else "measurements"

    def html(self, total: int) -> str:
        """What is shown of ``total`` samples, and a figure of each."""
        text = f"{len(self.number)} of {total}. Each: "
        if self.observation is None:
            text += "reconstruction."
        else:
            text += (
                f"{self._of}, reconstruction, and difference of the {self._of} (gray is none; "
                "white is an observation that is brighter by one)."
            )
            text += " Hatched: not observed." if np.isnan(self.observation).any() else ""
        if np.isfinite(self.standard_error).any():
            text += (
                " Standard errors take the noise as the standard deviation of independent errors."
            )
        return note(text) + samples(map(self._figure, range(len(self.number))))

    def _figure(self, i: int) -> str:
        number_ = self.number[i]
        images = {f"reconstruction {number_}": self.reconstruction[i]}
        if self.observation is not None:
            seen = self.observation[i]
            images = {f"{self._of} {number_}": seen} | images
            images[f"difference {number_}"] = difference(seen, self.measured[i])
        caption = f"sample {number_}: {self.status[i]}, residual {number(self.residual[i])}"
        return drawn(images, caption, self._code(i))

    def _code(self, i: int) -> str:
        """The code with twice its standard errors, folded away; nothing where they are unknown."""
        code, error = self.latent[i], self.standard_error[i]
        if not np.isfinite(code).all() or not np.isfinite(error).all():
            return ""
        text = f"Code, standard error {number(float(np.median(error)))} (median)"
        name = "± 2 standard errors"
        shown = intervals_svg(code - 2 * error, code + 2 * error, {"code": code}, text, name)
        return f'<details><summary class="soft">{text}</summary>{shown}</details>'


def run_page(run: Run, network: Network | None = None) -> str:
    """The page of a folder that ``write_run`` wrote."""
    summary, settings = run.summary, run.summary["settings"]
    described, noise = summary["generator"], settings.get("noise")
    inspection = inspection_of(network, described["sha256"]) or summary.get("inspection")
    worst = worst_first(run.residual)[:SHOWN]
    reconstruction = run.reconstruction[worst]
    same = run.measured is run.reconstruction
    shown = Samples(
        worst, np.array(summary["sample_status"])[worst], run.residual[worst], run.latent[worst],
        run.standard_error[worst], reconstruction, run.observation[worst],
        reconstruction if same else run.measured[worst],
    )  # fmt: skip
    took = summary["ms_per_sample"]
    more = {} if took is None else {"ms per sample": number(took)}
    more |= {f"version of {name}": found for name, found in summary["versions"].items()}
    return Result(
        f"{settings.get('network', 'Network')}: {len(run.residual)} inversions",
        f"Method {settings.get('method', 'unknown')}, noise {noise}, preimage "
        f"{summary['versions'].get('preimage', 'unknown')}.",
        [(name, one["samples"], one["message"]) for name, one in summary["status"].items()],
        run.residual,
        run.residual_max,
        float(noise) if isinstance(noise, (int, float)) else 0.0,
        shown.html(len(run.residual)),
        network_card(inspection, described["sizes"], described["sha256"], summary["layers"]),
        [*settings.items(), *more.items()],
    ).html()
