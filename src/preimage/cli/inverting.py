"""Commands that invert: invert, batch, and the report of what they wrote."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import preimage
from preimage.cli.options import Method, Network, Noise, Observations, Seen, StateDict
from preimage.cli.terminal import Answer, Table, status_lines, write_figure
from preimage.errors import InputError
from preimage.inversion import outputs_of
from preimage.notebook import number
from preimage.plot import image_grid
from preimage.report import report_html, write_run
from preimage.report.run import described

SHOWN = 16  # samples in a picture


def invert(
    network: Network,
    observations: Observations,
    out: Annotated[Path, Option(help="Folder for the results.")],
    method: Method = "auto",
    noise: Noise = 0.0,
    time_limit: Annotated[
        float | None, Option(help="Seconds after which the best codes so far are written.")
    ] = None,
    seen: Seen = Seen(),
    weights: StateDict = StateDict(),
) -> Answer:
    """Find the latent codes of observations; write codes, reconstructions, summary, picture."""
    generator = weights.load(network)
    values, sensing = seen.read(observations, generator)
    start = time.perf_counter()
    inversion = preimage.invert(
        generator, values, method, noise=noise, sensing=sensing, time_limit=time_limit
    )
    seconds = time.perf_counter() - start
    settings = {"network": network, "observations": str(observations), "method": method,
                "noise": noise, "method_settings": repr(preimage.METHODS[method])}  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    rows = {method: outputs_of(generator, inversion.latent[:SHOWN])}
    if values.shape[1] == generator.observation_size:
        rows = {"observation": values[:SHOWN], **rows}
    picture = write_figure(out / "grid.png", lambda: image_grid(rows)) if len(values) else None
    summary = write_run(
        out, generator, values, inversion, settings=settings, sensing=sensing, seconds=seconds,
        picture=picture,
    )  # fmt: skip
    residuals = [
        (label, *(number(value) for value in summary[name].values()))
        for label, name in (("||x - G(z)||_2", "residual"), ("||x - G(z)||_inf", "residual_max"))
    ]
    text: list[str | Table] = [
        f"{summary['samples']} samples, {number(summary['ms_per_sample'])} ms each",
        *status_lines(summary["status"]),
        Table("Residuals", ("", *summary["residual"]), residuals),
        f"Written to {out}: " + ", ".join(sorted(path.name for path in out.iterdir())),
    ]
    return Answer(summary, text, not all(status.has_latent for status in inversion.status))


def report(
    path: Annotated[
        Path, Argument(metavar="DIR", help="What invert or batch wrote, or a certificate's file.")
    ],
    out: Annotated[Path | None, Option(help="The file; by default DIR/report.html.")] = None,
    network: Annotated[
        str | None, Option(metavar="NET", help="For its card, and for reconstructions.")
    ] = None,
    observations: Annotated[
        Path | None, Option(help="Of a store, for their pictures; of a certificate, to compare.")
    ] = None,
    seen: Seen = Seen(),
    weights: StateDict = StateDict(),
) -> Answer:
    """Write one HTML file that shows a result; it contains its pictures and loads nothing."""
    generator = None if network is None else weights.load(network)
    rows, sensing = None, None
    if observations is not None:
        if generator is None:
            raise InputError("--observations: expected --network NET with it, for comparison")
        rows, sensing = seen.open(observations, generator)
    target = out or (path if path.is_dir() else path.parent) / "report.html"
    page = report_html(path, generator=generator, observations=rows, sensing=sensing)
    target.write_text(page, encoding="utf-8")
    return Answer({"report": str(target)}, [f"Written: {target}"])


def batch(
    network: Network,
    observations: Observations,
    store: Annotated[Path, Argument(help="Zarr folder of the results; resumed if it exists.")],
    method: Method = "auto",
    noise: Noise = 0.0,
    shard_size: Annotated[int, Option(help="Samples that are inverted at once.")] = 256,
    workers: Annotated[
        int | None, Option(help="Processes (Dask); by default this one alone.")
    ] = None,
    scheduler: Annotated[
        str | None, Option(help="Run on this Dask cluster instead: tcp://HOST:PORT.")
    ] = None,
    retries: Annotated[int, Option(help="Workers that a shard may kill before it is split.")] = 2,
    shard_timeout: Annotated[
        float,
        Option("--shard-timeout", "--stall", help="Seconds that a worker may take for a shard."),
    ] = 3600.0,
    seen: Seen = Seen(),
    weights: StateDict = StateDict(),
) -> Answer:
    """Invert a whole dataset into a folder; run it again to go on after an interruption."""
    generator = weights.load(network)
    rows, sensing = seen.open(observations, generator)
    found = preimage.invert_dataset(
        generator, rows, store, method, noise=noise, sensing=sensing, shard_size=shard_size,
        workers=workers, scheduler=scheduler, retries=retries, shard_timeout=shard_timeout,
        progress=True,
    )  # fmt: skip
    counts, left_out = found.counts(), found.quarantined
    statuses = described(counts)
    value = {"store": str(store), "samples": len(found), "status": statuses, "left_out": left_out,
             "job": asdict(found.job)}  # fmt: skip
    text = [f"{len(found)} samples in {found.job.shards} shards: {store}", *status_lines(statuses)]
    text += [f"sample {i} was left out: {why}" for i, why in list(left_out.items())[:SHOWN]]
    if len(left_out) > SHOWN:
        text.append(f"... and {len(left_out) - SHOWN} more, all named in zarr.json")
    return Answer(value, text, not all(status.has_latent for status in counts))
