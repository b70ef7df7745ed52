"""Samples of an inversion beside what was observed, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.inversion import outputs_of
from preimage.network import Measured, Network
from preimage.notebook import number
from preimage.observation import as_sensing
from preimage.plot import intervals_svg
from preimage.report.page import difference, drawn, note, samples

Array = NDArray[np.float64]


def compare(
    network: Network, sensing: Any, observation: Array, latent: Array
) -> tuple[Array, Array, Array]:
    """What was observed, beside what codes make.

    Args:
        network: The network.
        sensing: As in ``preimage.invert``.
        observation: (batch, m) as given there.
        latent: (batch, k).

    Returns:
        Observations, NaN where hidden; outputs of the codes, (batch, n); and what those would be
        observed as, (batch, m): the same array without a linear map.
    """
    mask, operator = as_sensing(network, sensing)
    outputs = outputs_of(network, latent)
    seen = observation if mask is None else np.where(mask, observation, np.nan)
    return seen, outputs, (
        outputs if operator is None else outputs_of(Measured(network, operator), latent)
    )  # fmt: skip


def errors_of(seen: Array, measured: Array) -> Array:
    """``seen - measured``: 0 where nothing was observed, NaN where there is no code."""
    return np.where(np.isnan(seen), 0.0, seen - measured)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of an inversion, for their pictures.

    Attributes:
        number: (m,) index of each in its batch.
        status: (m,).
        residual: (m,) ``||x - G(z)||_2`` over what was observed; NaN where unknown.
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

    def take(self, index: NDArray[np.intp]) -> Samples:
        """Some of them, in this order."""
        shown = self.observation
        outputs = self.reconstruction[index]
        return Samples(
            self.number[index], self.status[index], self.residual[index], self.latent[index],
            self.standard_error[index], outputs, None if shown is None else shown[index],
            outputs if self.measured is self.reconstruction else self.measured[index],
        )  # fmt: skip

    @property
    def error(self) -> Array:
        """What was observed minus what the codes make; see ``errors_of``."""
        assert self.observation is not None
        return errors_of(self.observation, self.measured)

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
            sensed = "" if self._of == "observation" else " of the measurements"
            text += (
                f"{self._of}, reconstruction, and difference{sensed} (gray is none; white is an "
                "observation that is brighter by one)."
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
