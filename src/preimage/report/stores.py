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
from preimage.report.inversions import Result
from preimage.report.network import inspection_of, network_card
from preimage.report.page import SHOWN, note, wide_table
from preimage.report.samples import Samples, compare, errors_of

Array = NDArray[np.float64]

_LISTED = 100  # samples left out that are named


def store_page(
    store: Store, network: Network | None = None, observations: Any = None, sensing: Any = None
) -> str:
    """One page: how far the job is, statuses, residuals, worst samples, network, settings."""
    job = store.job
    inspection = inspection_of(network, job.network)
    finished = (
        "all shards are finished." if store.complete
        else f"{len(store.finished)} of {job.shards} shards finished."
    )  # fmt: skip
    sample, residual, largest = _finished(store)
    counts = [(str(status), n, status.message) for status, n in store.counts().items()]
    if len(sample) < len(store):
        text = "Not inverted yet: run the same command again to continue."
        counts.append(("waiting", len(store) - len(sample), text))
    worst = worst_first(residual)[:SHOWN]
    where = sample[worst]
    if network is None:
        shown = _table(store, where, residual[worst])
    else:
        shown = _drawn(store, where, residual[worst], network, observations, sensing)
    return Result(
        f"{store.path.name}: {len(store)} samples",
        f"{job.method}, noise {job.noise:g}, preimage {job.version}; {finished}",
        counts,
        residual,
        largest,
        job.noise,
        shown,
        network_card(inspection, (job.latent_size, job.observation_size), job.network),
        asdict(job).items(),
        _left_out(store),
    ).html()


def _finished(store: Store) -> tuple[NDArray[np.int64], Array, Array]:
    """Samples of finished shards, their residuals and largest errors: 24 bytes a sample."""
    parts: list[tuple[Any, ...]] = [(np.empty(0, int), np.empty(0), np.empty(0))]
    for shard in store.finished:
        span = np.arange(*store.job.span(shard))
        parts.append((span, store.read(shard, "residual"), store.read(shard, "residual_max")))
    sample, residual, largest = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sample, residual, largest


def _table(store: Store, sample: NDArray[np.int64], residual: Array) -> str:
    """Without the network, samples are words."""
    latent, status = store.latent[sample], store.status[sample]
    columns = ("sample", "status", "residual", "largest entries of the code")
    found = [
        (sample[i], status[i], number(residual[i]), _largest(latent[i])) for i in range(len(sample))
    ]
    hint = "Give the network (--network NET) and the source (--observations FILE) for pictures."
    return wide_table("Worst samples", columns, found) + note(hint)


def _largest(latent: Array) -> str:
    """The three largest entries in words, such as ``z4 = -3.2``."""
    if not np.isfinite(latent).all():
        return "no code"
    largest = np.argsort(-np.abs(latent), kind="stable")[:3]
    return ", ".join(f"z{i} = {number(latent[i])}" for i in largest)


def _drawn(
    store: Store, sample: NDArray[np.int64], residual: Array, network: Network, observations: Any,
    sensing: Any,
) -> str:  # fmt: skip
    """The samples with pictures: of their outputs, and of the observations if there are any."""
    latent, seen = store.latent[sample], None
    if observations is None:
        outputs = measured = outputs_of(network, latent)
    else:
        if sensing is None and store.job.sensing != "everything":
            raise InputError(
                f"sensing: {store.path} is the result of observing {store.job.sensing}; give that, "
                "too (--mask FILE or --sensing FILE)"
            )
        source = open_observations(observations, network, size=store.job.observation_size)
        if source.count != len(store):
            raise InputError(f"observations: expected {len(store)} samples, got {source.count}")
        rows = [source.read(i, i + 1) for i in map(int, sample)]
        values = np.concatenate([np.empty((0, source.size)), *rows])
        if isinstance(sensing, np.ndarray) and sensing.dtype == bool and sensing.ndim == 2:
            sensing = sensing[sample] if len(sensing) == len(store) else sensing
        seen, outputs, measured = compare(network, sensing, values, latent)
        error = np.linalg.norm(errors_of(seen, measured), axis=1)
        if not np.allclose(error, residual, rtol=1e-6, atol=1e-9, equal_nan=True):
            raise InputError(
                "observations: expected those that were inverted, observed in the same way; their "
                "residuals differ from those of the store"
            )
    error = store.standard_error[sample]
    shown = Samples(sample, store.status[sample], residual, latent, error, outputs, seen, measured)
    return shown.html(len(store))


def _left_out(store: Store) -> str:
    left_out = list(store.quarantined.items())
    if not left_out:
        return ""
    more = len(left_out) - _LISTED
    text = note(f"{more} more are named in zarr.json.") if more > 0 else ""
    return wide_table("Samples left out", ("sample", "why"), left_out[:_LISTED]) + text
