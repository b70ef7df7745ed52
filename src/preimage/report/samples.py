"""Samples of an inversion beside what was observed, and their pictures."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.inversion import outputs_of
from preimage.matrix import Array
from preimage.network import Measured, Network
from preimage.notebook import number
from preimage.observation import as_sensing
from preimage.plot import intervals_svg
from preimage.report.page import difference, drawn, note


def compare(
    network: Network, sensing: Any, observation: Array | None, latent: Array
) -> tuple[Array, Array | None, Array | None]:
    """What was observed, beside what codes make.

    Args:
        network: The network.
        sensing: As in ``preimage.invert``.
        observation: (batch, m) as given there, or None.
        latent: (batch, k).

    Returns:
        Outputs of the codes, (batch, n); observations, NaN where hidden; and what the outputs would
        be measured as, (batch, m), None without a linear map.
    """
    mask, operator = as_sensing(network, sensing)
    seen = observation
    if mask is not None and observation is not None:
        seen = np.where(mask, observation, np.nan)
    measured = None if operator is None else outputs_of(Measured(network, operator), latent)
    return outputs_of(network, latent), seen, measured


class Samples(NamedTuple):
    """Samples of an inversion, for their pictures.

    Attributes:
        number: (m,) index of each in its batch.
        status: (m,).
        residual: (m,) ``||x - G(z)||_2`` over what was observed; NaN where unknown.
        latent: (m, k) codes.
        standard_error: (m, k) of the codes; NaN where unknown.
        reconstruction: (m, n) outputs of the codes.
        observation: (m, n), or measurements (m, l), NaN where hidden; None if not given.
        measured: (m, l) what the outputs would be measured as; None without a linear map.
    """

    number: NDArray[np.int64]
    status: NDArray[Any]
    residual: Array
    latent: Array
    standard_error: Array
    reconstruction: Array
    observation: Array | None
    measured: Array | None

    def take(self, index: NDArray[np.intp]) -> Samples:
        """Some of them, in this order."""
        return Samples._make(None if part is None else part[index] for part in self)

    @property
    def expected(self) -> Array:
        """What the codes would be observed as."""
        return self.reconstruction if self.measured is None else self.measured

    @property
    def error(self) -> Array:
        """``observation - expected``: 0 where nothing was observed, NaN where there is no code."""
        assert self.observation is not None
        return np.where(np.isnan(self.observation), 0.0, self.observation - self.expected)

    @property
    def _of(self) -> str:
        """What the observation is called."""
        return "observation" if self.measured is None else "measurements"

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
        figures = "".join(map(self._figure, range(len(self.number))))
        return f'{note(text)}<div class="samples">{figures}</div>'

    def _figure(self, i: int) -> str:
        number_ = self.number[i]
        images = {f"reconstruction {number_}": self.reconstruction[i]}
        if self.observation is not None:
            seen = self.observation[i]
            images = {f"{self._of} {number_}": seen} | images
            images[f"difference {number_}"] = difference(seen, self.expected[i])
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
