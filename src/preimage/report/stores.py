"""The report on a store of ``preimage batch``: codes are read for the samples that are shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.batch.store import Store
from preimage.errors import InputError
from preimage.inversion import outputs_of
from preimage.io.observations import open_observations
from preimage.network import Network
from preimage.notebook import number, worst_first
from preimage.report.network import inspection_of, network_card
from preimage.report.page import SHOWN, Shown, note, page, spread, statuses, wide_table

Array = NDArray[np.float64]

_LISTED = 100  # samples left out that are named


def store_page(store: Store, network: Network | None = None, observations: Any = None) -> str:
    """One page: how far the job is, statuses, residuals, worst samples, network, settings."""
    job = store.job
    inspection = inspection_of(network, job.network)
    lead = f"{job.method}, noise {job.noise:g}, preimage {job.version}; "
    lead += (
        "all shards are finished." if store.complete
        else f"{len(store.finished)} of {job.shards} shards finished."
    )  # fmt: skip
    sample, residual, largest = _finished(store)
    counts = [(str(status), n, status.message) for status, n in store.counts().items()]
    if len(sample) < len(store):
        text = "Not inverted yet: run the same command again to continue."
        counts.append(("waiting", len(store) - len(sample), text))
    worst = worst_first(residual)[:SHOWN]
    return page(
        f"{store.path.name}: {len(store)} samples",
        lead,
        {
            "How they ended": statuses(counts),
            "Residuals ‖x − G(z)‖₂": spread(residual, "residuals"),
            "Largest errors max |x − G(z)|": spread(largest, "largest errors", job.noise, "noise"),
            "Samples, worst first": _worst_samples(
                store, sample[worst], residual[worst], network, observations
            ),
            "Left out": _left_out(store),
            "Network": network_card(
                inspection, (job.latent_size, job.observation_size), job.network
            ),
            "Job": wide_table("Job", ("setting", "value"), asdict(job).items()),
        },
    )


def _finished(store: Store) -> tuple[NDArray[np.int64], Array, Array]:
    """Samples of finished shards, their residuals and largest errors: 24 bytes a sample."""
    parts: list[tuple[Any, ...]] = [(np.empty(0, int), np.empty(0), np.empty(0))]
    for shard in store.finished:
        span = np.arange(*store.job.span(shard))
        parts.append((span, store.read(shard, "residual"), store.read(shard, "residual_max")))
    sample, residual, largest = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sample, residual, largest


def _worst_samples(
    store: Store, sample: NDArray[np.int64], residual: Array, network: Network | None,
    observations: Any,
) -> str:  # fmt: skip
    latent, status = store.latent[sample], store.status[sample]
    if network is None:
        columns = ("sample", "status", "residual", "largest entries of the code")
        found = [
            (sample[i], status[i], number(residual[i]), _code(latent[i]))
            for i in range(len(sample))
        ]
        hint = "Give the network (--network NET) and the source (--observations FILE) for pictures."
        return wide_table("Worst samples", columns, found) + note(hint)
    outputs = outputs_of(network, latent)
    seen = None
    if observations is not None:
        seen = _rows(observations, store, sample, network)
        error = np.linalg.norm(seen - outputs, axis=1)
        if not np.allclose(error, residual, rtol=1e-6, atol=1e-9, equal_nan=True):
            raise InputError("observations: expected those that were inverted; residuals differ")
    error = store.standard_error[sample]
    shown = Shown(sample, status, residual, latent, error, outputs, seen, outputs)
    return shown.html(len(store))


def _code(latent: Array) -> str:
    """The three largest entries in words, such as ``z4 = -3.2``."""
    if not np.isfinite(latent).all():
        return "no code"
    largest = np.argsort(-np.abs(latent), kind="stable")[:3]
    return ", ".join(f"z{i} = {number(latent[i])}" for i in largest)


def _rows(
    observations: Any, store: Store, sample: NDArray[np.int64], network: Network
) -> Array:  # fmt: skip
    """The observations of some samples."""
    source = open_observations(observations, network, size=store.job.observation_size)
    if source.count != len(store):
        raise InputError(f"observations: expected {len(store)} samples, got {source.count}")
    return np.concatenate([source.read(i, i + 1) for i in map(int, sample)])


def _left_out(store: Store) -> str:
    left_out = store.quarantined
    if not left_out:
        return ""
    more = len(left_out) - _LISTED
    text = note(f"{more} more are named in zarr.json.") if more > 0 else ""
    return (
        wide_table("Samples left out", ("sample", "why"), list(left_out.items())[:_LISTED]) + text
    )
