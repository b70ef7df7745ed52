"""A run: the folder that ``preimage invert`` writes, its samples, and their pictures.

::

    summary.json        settings, versions, statuses, quantiles, what ``inspect`` says
    observation.npy     (batch, m) as given
    latent.npy          (batch, k)
    standard_error.npy  (batch, k) of the codes; NaN where unknown
    reconstruction.npy  (batch, n) G(latent)
    mask.npy            (batch, n), True where observed, if there was a mask
    measured.npy        (batch, m) A G(latent), if there was another linear map
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preimage.errors import FormatError
from preimage.inversion import Inversion, Status, count_statuses, outputs_of
from preimage.matrix import Array, Indices, Integers
from preimage.network import Measured, Network, chain_of
from preimage.notebook import number, versions
from preimage.observation import as_sensing, check_observation
from preimage.plot import intervals_svg
from preimage.report.network import inspection_of
from preimage.report.page import difference, drawn, note

SUMMARY = "summary.json"
_ALWAYS = ("observation", "reconstruction", "latent", "standard_error")
_MARKS = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


def compare(
    network: Network, sensing: Any, observation: Array | None, latent: Array
) -> tuple[Array, Array | None, Array, str]:
    """What codes make, beside what was observed: the last fields of ``Samples``.

    ``sensing`` is as in ``preimage.invert``.
    """
    mask, operator = as_sensing(network, sensing)
    seen, outputs = observation, outputs_of(network, latent)
    if mask is not None and observation is not None:
        seen = np.where(mask, observation, np.nan)
    if operator is None:
        return outputs, seen, outputs, "observation"
    return outputs, seen, outputs_of(Measured(network, operator), latent), "measurements"


class Samples(NamedTuple):
    """Samples of an inversion, for their pictures."""

    number: Integers  # (m,) index of each in its batch
    status: NDArray[Any]  # (m,)
    residual: Array  # (m,) ``||x - G(z)||_2`` over what was observed; NaN where unknown
    latent: Array  # (m, k)
    standard_error: Array  # (m, k) of the codes; NaN where unknown
    reconstruction: Array  # (m, n) outputs of the codes
    observation: Array | None  # (m, n) or measurements (m, l), NaN where hidden; None if not given
    expected: Array  # what the codes would be observed as
    kind: str  # what the observation is called: observation or measurements

    def take(self, index: Indices) -> Samples:
        """Some of them, in this order."""
        return Samples._make(p[index] if isinstance(p, np.ndarray) else p for p in self)

    @property
    def error(self) -> Array:
        """``observation - expected``: 0 where nothing was observed, NaN where there is no code."""
        assert self.observation is not None
        return np.where(np.isnan(self.observation), 0.0, self.observation - self.expected)

    def html(self, total: int) -> str:
        """What is shown of ``total`` samples, and a figure of each."""
        text = f"{len(self.number)} of {total}. Each: "
        if self.observation is None:
            text += "reconstruction."
        else:
            sensed = "" if self.kind == "observation" else " of the measurements"
            text += (
                f"{self.kind}, reconstruction, and difference{sensed} (gray is none; white is an "
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
            images = {f"{self.kind} {number_}": seen} | images
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


def write_run(
    folder: str | Path,
    generator: Network,
    observation: ArrayLike,
    inversion: Inversion,
    *,
    settings: Mapping[str, Any],
    sensing: Any = None,
    seconds: float = math.nan,
    picture: str | None = None,
) -> dict[str, Any]:
    """Write an inversion into a folder, for ``report_html`` and for other programs.

    Args:
        folder: Made if it is not there.
        generator: The network.
        observation: (m,) or (batch, m), as given to ``preimage.invert``.
        inversion: What it returned.
        settings: Shown as they are: the name of the network under ``"network"``, and the method
            and noise under ``"method"`` and ``"noise"``.
        sensing: As given to ``preimage.invert``.
        seconds: What the inversion took.
        picture: Path of a picture of it, for readers of the summary.

    Returns:
        The summary, as it stands in summary.json, but with NaN where that has null.

    Raises:
        InputError: Observations or sensing that do not fit the network.
    """
    check_observation(generator, observation, 0.0, sensing)
    columns = inversion.columns()
    arrays = {name: columns[name] for name in ("latent", "standard_error")}
    arrays["observation"] = np.atleast_2d(np.asarray(observation, dtype=np.float64))
    arrays["reconstruction"], seen, expected, kind = compare(
        generator, sensing, arrays["observation"], arrays["latent"]
    )
    if seen is not None and seen is not arrays["observation"]:
        arrays["mask"] = ~np.isnan(seen)
    if kind == "measurements":
        arrays["measured"] = expected
    chain, statuses = chain_of(generator), columns["status"]
    sizes = (generator.latent_size, generator.observation_size) if chain is None else chain.sizes
    summary = {
        "settings": dict(settings),
        "versions": versions(),
        "generator": {"sizes": sizes, "sha256": generator.digest},
        "samples": len(inversion),
        "status": described(count_statuses(statuses)),
        "sample_status": [str(status) for status in statuses],
        "residual": _quantiles(inversion.residual),
        "residual_max": _quantiles(inversion.residual_max),
        "layers": [
            {name: _quantiles(values)["median"] for name, values in report._asdict().items()}
            for report in inversion.layers
        ],
        "ms_per_sample": 1e3 * seconds / len(inversion) if len(inversion) else math.nan,
        "inspection": inspection_of(generator),
        "picture": picture,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    (folder / SUMMARY).write_text(to_json(summary) + "\n", encoding="utf-8")
    return summary


def described(counts: Mapping[Status, int]) -> dict[str, dict[str, Any]]:
    """Of every status how many samples have it, and what it means."""
    return {str(s): {"samples": count, "message": s.message} for s, count in counts.items()}


def _quantiles(values: Any) -> dict[str, float]:
    known = np.atleast_1d(values)
    known = known[np.isfinite(known)]
    return {k: float(np.quantile(known, q)) if len(known) else math.nan for k, q in _MARKS.items()}


def to_json(value: Any) -> str:
    """JSON that every reader takes: NaN and infinity become null."""
    return json.dumps(plain(value), indent=2, allow_nan=False)


def plain(value: Any) -> Any:
    """A value of JSON: arrays become lists, NaN and infinity None."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_run(folder: Path) -> tuple[dict[str, Any], Samples]:
    """The summary of a folder, as ``write_run`` returned it, and all samples."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        files = {name: folder / f"{name}.npy" for name in (*_ALWAYS, "mask", "measured")}
        arrays = {n: np.load(f, allow_pickle=False) for n, f in files.items() if f.exists()}
        seen, found, latent, error_of = (arrays[name] for name in _ALWAYS)
        count = len(summary["sample_status"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{folder}: expected the output folder of `preimage invert` (summary.json, "
            f"observation.npy, reconstruction.npy), got {error!r}"
        ) from error
    expected, mask = arrays.get("measured", found), arrays.get("mask", np.ones(seen.shape, bool))
    kind = "measurements" if "measured" in arrays else "observation"
    fits = seen.ndim == 2 and seen.shape == expected.shape == mask.shape
    fits &= latent.shape == error_of.shape and len(seen) == len(found) == len(latent) == count
    if not fits:
        shapes = {name: values.shape for name, values in arrays.items()}
        raise FormatError(
            f"{folder}: expected observation.npy and reconstruction.npy (or, with a linear map, "
            f"measured.npy) of one shape, with a code and a status a sample, got {shapes} and "
            f"{count} statuses"
        )
    status = np.array(summary["sample_status"], dtype=object)
    every = Samples(np.arange(count), status, np.empty(count), latent, error_of, found,
                    np.where(mask, seen, np.nan), expected, kind)  # fmt: skip
    return summary, every._replace(residual=np.linalg.norm(every.error, axis=1))
