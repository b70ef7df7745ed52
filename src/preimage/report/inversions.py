"""The report on inversions, of a folder or of a store: statuses, residuals, worst samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from preimage.batch.store import Store
from preimage.errors import InputError
from preimage.io.observations import open_observations
from preimage.matrix import Array, Integers
from preimage.network import Network
from preimage.notebook import number, worst_first
from preimage.report.network import inspection_of, network_card
from preimage.report.page import SHOWN, note, page, spread, wide_table
from preimage.report.run import Samples, compare, described, read_run

_LISTED = 100  # samples left out that are named
_SETTING = ("setting", "value")


def run_page(folder: Path, network: Network | None = None) -> str:
    """The page of a folder that ``write_run`` wrote."""
    summary, found = read_run(folder)
    settings, generator, took = summary["settings"], summary["generator"], summary["ms_per_sample"]
    noise = settings.get("noise")
    inspection = inspection_of(network, generator["sha256"]) or summary.get("inspection")
    more = {} if took is None else {"ms per sample": number(took)}
    more |= {f"version of {name}": version for name, version in summary["versions"].items()}
    shown = found.take(worst_first(found.residual)[:SHOWN])
    return page(
        f"{settings.get('network', 'Network')}: {len(found.number)} inversions",
        f"Method {settings.get('method', 'unknown')}, noise {noise}, preimage "
        f"{summary['versions'].get('preimage', 'unknown')}.",
        {
            **_all_samples(
                summary["status"],
                found.residual,
                np.max(np.abs(found.error), axis=1, initial=0.0),
                float(noise) if isinstance(noise, (int, float)) else 0.0,
            ),
            "Samples, worst first": shown.html(len(found.number)),
            "Network": network_card(
                inspection, generator["sizes"], generator["sha256"], summary["layers"]
            ),
            "Settings": wide_table("Settings", _SETTING, (settings | more).items()),
        },
    )


def store_page(
    store: Store, network: Network | None = None, observations: Any = None, sensing: Any = None
) -> str:
    """The page of a store; codes are read for the samples that are shown."""
    job = store.job
    inspection = inspection_of(network, job.network)
    finished = f"{len(store.finished)} of {job.shards} shards finished."
    sample = store.inverted
    residual, largest = store.residual[sample], store.residual_max[sample]
    statuses = described(store.counts())
    if len(sample) < len(store):
        text = "Not inverted yet: run the same command again to continue."
        statuses["waiting"] = {"samples": len(store) - len(sample), "message": text}
    worst = worst_first(residual)[:SHOWN]
    samples = _samples(store, sample[worst], residual[worst], network, observations, sensing)
    sizes = job.latent_size, job.observation_size
    return page(
        f"{store.path.name}: {len(store)} samples",
        f"{job.method}, noise {job.noise:g}, preimage {job.version}; {finished}",
        {
            **_all_samples(statuses, residual, largest, job.noise),
            "Samples, worst first": samples,
            "Left out": _left_out(store),
            "Network": network_card(inspection, sizes, job.network),
            "Settings": wide_table("Settings", _SETTING, asdict(job).items()),
        },
    )


def _all_samples(
    statuses: Mapping[str, Mapping[str, Any]], residual: Array, largest: Array, noise: float
) -> dict[str, str]:
    """Sections on how all samples ended, with their residuals and largest errors, (m,) each."""
    ended = [
        (name, one["samples"], one["message"].replace("`", "")) for name, one in statuses.items()
    ]
    columns = ("status", "samples", "meaning")
    return {
        "How they ended": wide_table("How the inversions ended", columns, ended),
        "Residuals ‖x − G(z)‖₂": spread(residual, "residuals"),
        "Largest errors max |x − G(z)|": spread(largest, "largest errors", noise),
    }


def _samples(
    store: Store, sample: Integers, residual: Array, network: Network | None,
    observations: Any, sensing: Any,
) -> str:  # fmt: skip
    """The samples with pictures of their outputs and observations; in words without a network."""
    status = store.status[sample]
    if network is None:
        rows = zip(sample, status, map(number, residual), strict=True)
        hint = "Give the network (--network NET) and the source (--observations FILE) for pictures."
        return wide_table("Worst samples", ("sample", "status", "residual"), rows) + note(hint)
    values = None
    if observations is not None:
        if sensing is None and store.job.sensing != "everything":
            raise InputError(
                f"sensing: {store.path} is the result of observing {store.job.sensing}; give that, "
                "too (--mask FILE or --sensing FILE)"
            )
        source = open_observations(observations, network, size=store.job.observation_size)
        if source.count != len(store):
            raise InputError(f"observations: expected {len(store)} samples, got {source.count}")
        read = [source.read(i, i + 1) for i in map(int, sample)]
        values = np.concatenate([np.empty((0, source.size)), *read])
        if isinstance(sensing, np.ndarray) and sensing.dtype == bool and sensing.ndim == 2:
            sensing = sensing[sample] if len(sensing) == len(store) else sensing
    latent, error = store.latent[sample], store.standard_error[sample]
    compared = compare(network, sensing, values, latent)
    shown = Samples(sample, status, residual, latent, error, *compared)
    recomputed = residual if values is None else np.linalg.norm(shown.error, axis=1)
    if not np.allclose(recomputed, residual, rtol=1e-6, atol=1e-9, equal_nan=True):
        raise InputError(
            "observations: expected those that were inverted, observed in the same way; their "
            "residuals differ from those of the store"
        )
    return shown.html(len(store))


def _left_out(store: Store) -> str:
    left_out = list(store.quarantined.items())
    if not left_out:
        return ""
    more = len(left_out) - _LISTED
    text = note(f"{more} more are named in zarr.json.") if more > 0 else ""
    return wide_table("Samples left out", ("sample", "why"), left_out[:_LISTED]) + text
