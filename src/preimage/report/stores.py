"""The report on a store of ``preimage batch``: one shard in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.batch.source import open_source, rows
from preimage.batch.store import Store
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.inversion import outputs_of
from preimage.notebook import number, worst_first
from preimage.report.distribution import Distribution
from preimage.report.network import inspection_of, network_card
from preimage.report.page import (
    SHOWN,
    difference,
    drawn,
    note,
    page,
    plain,
    samples,
    wide_table,
)

Array = NDArray[np.float64]

_LISTED = 100  # samples left out that are named


class _Worst(NamedTuple):
    """The worst samples met so far, one entry a sample."""

    sample: NDArray[Any]
    residual: NDArray[Any]
    latent: NDArray[Any]
    status: NDArray[Any]

    def only_shown(self) -> _Worst:
        """Without those that are not shown."""
        order = worst_first(self.residual)[:SHOWN]
        return _Worst(*(part[order] for part in self))


def store_page(store: Store, generator: Generator | None = None, observations: Any = None) -> str:
    """One page: how far the job is, statuses, residuals, worst samples, network, settings."""
    job = store.job
    inspection = inspection_of(generator, job.network)
    done, shards = len(store.entries), job.shards
    lead = f"{job.method}, noise {job.noise:g}, preimage {job.version}; "
    lead += "all shards are finished." if store.complete else f"{done} of {shards} shards finished."
    sizes = (job.latent_size, job.observation_size) if generator is None else tuple(generator.sizes)
    return page(
        f"{store.path.name}: {len(store)} samples",
        lead,
        {
            "How they ended": _statuses(store),
            "Residuals ‖x − G(z)‖₂": Distribution.of(
                lambda: _column(store, "residual")
            ).histogram("residuals"),
            "Largest errors max |x − G(z)|": Distribution.of(
                lambda: _column(store, "residual_max"), job.noise
            ).histogram("largest errors", "noise"),
            "Worst samples": _worst_samples(store, generator, observations),
            "Left out": _left_out(store),
            "Network": network_card(inspection, sizes, job.network),
            "Job": wide_table("Job", ("setting", "value"), asdict(job).items()),
        },
    )  # fmt: skip


def _column(store: Store, name: str) -> Iterator[Array]:
    return (store.arrays(index)[name] for index in sorted(store.entries))


def _statuses(store: Store) -> str:
    counts = store.counts()
    found = [(str(status), count, plain(status.message)) for status, count in counts.items()]
    waiting = len(store) - sum(counts.values())
    if waiting:
        found.append(("waiting", waiting, "Not inverted yet: run the same command to go on."))
    return wide_table("How the inversions ended", ("status", "samples", "meaning"), found)


def _worst(store: Store) -> _Worst:
    found = _Worst(
        np.empty(0, np.int64), np.empty(0), np.empty((0, store.job.latent_size)),
        np.empty(0, object),
    )  # fmt: skip
    for index in sorted(store.entries):
        start, stop = store.job.span(index)
        arrays = store.arrays(index)
        here = (
            np.arange(start, stop), arrays["residual"], arrays["latent"], store.status[start:stop]
        )  # fmt: skip
        joined = _Worst(*(np.concatenate(pair) for pair in zip(found, here, strict=True)))
        found = joined.only_shown()
    return found


def _worst_samples(store: Store, generator: Generator | None, observations: Any) -> str:
    worst = _worst(store)
    order = range(len(worst.sample))
    if generator is None:
        found = [
            (worst.sample[i], worst.status[i], number(worst.residual[i]), _code(worst.latent[i]))
            for i in order
        ]
        hint = "Give the network (--network NET) and the source (--observations FILE) for pictures."
        columns = ("sample", "status", "residual", "largest entries of the code")
        return wide_table("Worst samples", columns, found) + note(hint)
    outputs = outputs_of(generator, worst.latent)
    seen = None if observations is None else _rows(observations, store, worst, outputs)
    figures = []
    for i in order:
        sample, images = worst.sample[i], {}
        if seen is not None:
            images[f"observation {sample}"] = seen[i]
        images[f"reconstruction {sample}"] = outputs[i]
        if seen is not None:
            images[f"difference {sample}"] = difference(seen[i], outputs[i])
        caption = f"sample {sample}: {worst.status[i]}, residual {number(worst.residual[i])}"
        figures.append(drawn(images, caption))
    return note(f"{len(worst.sample)} of {len(store)}, worst first.") + samples(figures)


def _code(latent: Array) -> str:
    """The three largest entries in words, such as ``z4 = -3.2``."""
    if not np.isfinite(latent).all():
        return "no code"
    largest = np.argsort(-np.abs(latent), kind="stable")[:3]
    return ", ".join(f"z{i} = {number(latent[i])}" for i in largest)


def _rows(observations: Any, store: Store, worst: _Worst, outputs: Array) -> Array:
    """The observations of the worst samples, if they are those that were inverted."""
    source = open_source(observations)
    if (source.shape[0], int(np.prod(source.shape[1:]))) != (
        len(store), store.job.observation_size
    ):  # fmt: skip
        raise InputError(
            f"observations: expected {len(store)} samples of {store.job.observation_size} "
            f"entries, got shape {source.shape}"
        )
    seen = np.concatenate([rows(source, i, i + 1) for i in map(int, worst.sample)])
    residual = np.linalg.norm(seen - outputs, axis=1)
    if not np.allclose(residual, worst.residual, rtol=1e-6, atol=1e-9, equal_nan=True):
        raise InputError("observations: expected those that were inverted; residuals differ")
    return seen


def _left_out(store: Store) -> str:
    left_out = store.quarantined
    if not left_out:
        return ""
    more = len(left_out) - _LISTED
    text = f"{more} more are named in the manifest." if more > 0 else ""
    listed = list(left_out.items())[:_LISTED]
    return wide_table("Samples left out", ("sample", "why"), listed) + (note(text) if text else "")
