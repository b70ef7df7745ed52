"""The command ``preimage``: it alone prints, shows progress and sets the exit code.

Exit codes: 0 fine; 1 some samples have no code; 2 bad input, one line on stderr;
128 and the signal's number where one stopped a job.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import preimage
from preimage.errors import InputError, MissingExtraError, PreimageError, StoppedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from preimage.generator import Generator
    from preimage.inversion import Inversion

CHUNK = 16  # samples between two steps of the progress bar
SHOWN = 16  # samples in a picture


class _Commands(typer.core.TyperGroup):
    """Where bad input becomes one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (PreimageError, OSError) as error:
            typer.echo(f"preimage: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Network = Annotated[str, typer.Argument(metavar="NET", help="A name of the zoo, or a file.")]
Layers = Annotated[
    str | None, typer.Option(help="For a bare state dict: layer names, first first: fc3,fc4")
]
ActivationName = Annotated[
    str | None, typer.Option("--activation", help="For a bare state dict: relu, leaky_relu(0.1) …")
]
Head = Annotated[str | None, typer.Option(help="Activation of the last layer: sigmoid, tanh …")]


def main() -> None:
    """Run the command."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"preimage {preimage.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Invert deep generative models with ReLU-like activations."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for demo.png.")] = Path("demo-output"),
    as_json: Json = False,
) -> None:
    """Invert noisy outputs with known codes, and real digits, by every method."""
    import numpy as np

    from preimage import demo as work

    generator = preimage.zoo.load(work.NETWORK)
    tasks = work.tasks(generator)
    tables: dict[str, list[work.Score]] = {}
    pictures = []
    with _progress(len(tasks) * len(work.DEMO_METHODS), "inverting") as bar:
        for task in tasks:
            known = [] if task.latent is None else [work.truth_score(generator, task)]
            tables[task.title] = known
            inversions = {}
            for name, inversion, seconds in work.run(generator, task):
                inversions[name] = inversion
                known.append(work.score(task, name, inversion, seconds))
                bar.update()
            pictures.append(work.picture_rows(generator, task, inversions))
    count, entries = tasks[0].observation.shape
    gap = np.full((1, entries), np.nan)
    left, right = pictures
    rows = {label: np.concatenate([left[label], gap, right[label]]) for label in left}
    titles = [tasks[0].title, *[""] * count, tasks[1].title]
    picture = _write_picture(rows, _folder(out) / "demo.png", titles)
    if as_json:
        _print_json({
            "network": work.NETWORK,
            "noise": work.NOISE,
            "tables": {title: [asdict(score) for score in t] for title, t in tables.items()},
            "picture": picture,
        })  # fmt: skip
        return
    for title, scores in tables.items():
        _print_scores(f"{work.NETWORK}: {count} {title}; noise={work.NOISE}", scores)
    if picture:
        typer.echo(f"Picture: {picture}")


def _print_scores(title: str, scores: Sequence[Any]) -> None:
    columns = ("method", "error, median", "worst", "residual, median", "worst", "failures", "ms")
    rows = []
    for score in scores:
        method, *numbers, failures, milliseconds = asdict(score).values()
        time = "" if math.isnan(milliseconds) else f"{milliseconds:.1f}"
        rows.append((method, *(_number(n) for n in numbers), str(failures), time))
    _print_table(title, columns, rows)
    typer.echo("error: ||z - z*|| / ||z*||; residual: ||x - G(z)||; ms: per sample\n")


@app.command()
def inspect(
    network: Network,
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
    as_json: Json = False,
) -> None:
    """Show a network's layers, and which methods can invert it."""
    from preimage.inspection import inspect_generator

    generator = _load(network, layers, activation, head)
    found = inspect_generator(generator)
    if as_json:
        _print_json({"network": network, **asdict(found)})
        return
    typer.echo(f"{generator}\n")
    _print_table(
        "Layers", ("layer", "sizes", "expansion", "parameters", "activation", "active rows: median",
                   "worst", "needed"),
        [(str(row.index), f"{row.inputs} -> {row.outputs}", f"{row.expansion:.2f}",
          f"{row.parameters:,}", row.activation, f"{row.active_median:.0f}",
          str(row.active_worst), str(row.inputs)) for row in found.layers],
    )  # fmt: skip
    typer.echo(found.active_note)
    typer.echo(f"{found.rank_note}\n")
    rows = [(m.method, m.verdict, m.reason) for m in found.methods]
    _print_table("Methods", ("method", "works", "why"), rows, words=True)


@app.command()
def invert(
    network: Network,
    observations: Annotated[
        Path, typer.Argument(help="npy, npz, safetensors, IDX, PNG, or a folder of PNG.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(preimage.METHODS)}.")] = "auto",
    noise: Annotated[float, typer.Option(help="Bound on the largest noise entry.")] = 0.0,
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
    as_json: Json = False,
) -> None:
    """Find the latent codes of observations; write codes, reconstructions, summary, picture."""
    import numpy as np

    from preimage.io.observations import load_observations

    generator = _load(network, layers, activation, head)
    values = np.atleast_2d(load_observations(observations))
    start = time.perf_counter()
    inversion = _invert_in_chunks(generator, values, method, noise)
    seconds = time.perf_counter() - start
    settings = {"network": network, "observations": str(observations), "method": method,
                "noise": noise, "method_settings": repr(preimage.METHODS[method])}  # fmt: skip
    summary = _summary(generator, inversion, seconds) | {"settings": settings}
    summary["sample_status"] = [str(status) for status in inversion.status]
    images = inversion.reconstruct(generator)
    folder = _folder(out)
    np.save(folder / "observation.npy", values)
    np.save(folder / "latent.npy", inversion.latent)
    np.save(folder / "reconstruction.npy", images)
    rows = {"observation": values[:SHOWN], method: images[:SHOWN]}
    summary["picture"] = _write_picture(rows, folder / "grid.png") if len(values) else None
    (folder / "summary.json").write_text(_json(summary) + "\n")
    if as_json:
        _print_json(summary)
    else:
        _print_summary(summary, folder)
    if not all(status.has_latent for status in inversion.status):
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `preimage invert` wrote.")],
    out: Annotated[Path | None, typer.Option(help="The file; by default DIR/report.html.")] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML file that shows a run: it holds its pictures and asks no network."""
    from preimage.report import report_html

    target = out or folder / "report.html"
    target.write_text(report_html(folder), encoding="utf-8")
    _print_json({"report": str(target)}) if as_json else typer.echo(f"Written: {target}")


@app.command()
def batch(
    network: Network,
    source: Annotated[
        Path,
        typer.Argument(help="npy, npz, safetensors, IDX, a folder of PNG, or a Zarr array."),
    ],
    store: Annotated[Path, typer.Argument(help="Folder of the results; resumed if it is there.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(preimage.METHODS)}.")] = "auto",
    noise: Annotated[float, typer.Option(help="Bound on the largest noise entry.")] = 0.0,
    shard_size: Annotated[int, typer.Option(help="Samples that a worker inverts at once.")] = 256,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one a core.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Run on this Dask cluster instead: tcp://HOST:PORT.")
    ] = None,
    retries: Annotated[int, typer.Option(help="Tries more of what failed.")] = 2,
    stall: Annotated[float, typer.Option(help="Seconds that a shard may take.")] = 3600.0,
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
    as_json: Json = False,
) -> None:
    """Invert a whole dataset into a folder; run it again to go on after an interruption."""
    generator = _load(network, layers, activation, head)
    try:
        found = preimage.invert_dataset(
            generator, source, store, method, noise=noise, shard_size=shard_size, workers=workers,
            scheduler=scheduler, retries=retries, stall=stall, progress=True,
        )  # fmt: skip
    except StoppedError as error:
        typer.echo(f"preimage: {error}", err=True)
        raise typer.Exit(128 + error.signal) from error
    counts, left_out = found.counts(), found.quarantined
    if as_json:
        found_status = {str(s): {"samples": n, "message": s.message} for s, n in counts.items()}
        _print_json({"store": str(store), "samples": len(found), "status": found_status,
                     "left_out": left_out, "job": asdict(found.job)})  # fmt: skip
    else:
        typer.echo(f"{len(found)} samples in {found.job.shards} shards: {store}")
        for status, count in counts.items():
            typer.echo(f"{count:>8} {status}: {status.message}")
        for sample, reason in list(left_out.items())[:SHOWN]:
            typer.echo(f"sample {sample} was left out: {reason}")
        if len(left_out) > SHOWN:
            typer.echo(f"... and {len(left_out) - SHOWN} more, all named in the manifest")
    if not all(status.has_latent for status in counts):
        raise typer.Exit(1)


def _invert_in_chunks(
    generator: Generator, values: NDArray[np.float64], method: str, noise: float
) -> Inversion:
    starts = range(0, max(len(values), 1), CHUNK)
    parts = []
    with _progress(len(values), "inverting") as bar:
        for start in starts:
            chunk = values[start : start + CHUNK]
            parts.append(preimage.invert(generator, chunk, method, noise=noise))
            bar.update(len(chunk))
    return preimage.Inversion.concatenate(parts)


def _summary(generator: Generator, inversion: Inversion, seconds: float) -> dict[str, Any]:
    counts = {
        str(status): {"samples": count, "message": status.message}
        for status in preimage.Status
        if (count := sum(found == status for found in inversion.status))
    }
    versions = {name: version(name) for name in ("preimage", "numpy", "scipy", "highspy")}
    return {
        "versions": versions | {"python": platform.python_version()},
        "generator": {"sizes": generator.sizes, "sha256": generator.digest},
        "samples": len(inversion),
        "status": counts,
        "residual": _quantiles(inversion.residual),
        "residual_max": _quantiles(inversion.residual_max),
        "layers": [
            {name: _quantiles(values)["median"] for name, values in report._asdict().items()}
            for report in inversion.layers
        ],
        "ms_per_sample": 1e3 * seconds / len(inversion) if len(inversion) else math.nan,
    }


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    import numpy as np

    known = values[np.isfinite(values)]
    marks = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    return {k: float(np.quantile(known, q)) if len(known) else math.nan for k, q in marks.items()}


def _print_summary(summary: Mapping[str, Any], folder: Path) -> None:
    typer.echo(f"{summary['samples']} samples, {_number(summary['ms_per_sample'])} ms each")
    for status, entry in summary["status"].items():
        typer.echo(f"{entry['samples']:>6} {status}: {entry['message']}")
    residuals = [
        (label, *(_number(value) for value in summary[name].values()))
        for label, name in (("||x - G(z)||_2", "residual"), ("||x - G(z)||_inf", "residual_max"))
    ]
    _print_table("Residuals", ("", *summary["residual"]), residuals)
    typer.echo(f"Written to {folder}: " + ", ".join(sorted(p.name for p in folder.iterdir())))


@app.command()
def certify(
    network: Network,
    observations: Annotated[
        Path, typer.Argument(help="npy, npz, safetensors, IDX, PNG, or a folder of PNG.")
    ],
    noise: Annotated[float, typer.Option(help="Bound on the largest noise entry.")],
    out: Annotated[Path, typer.Option(help="The certificate, a .json file.")],
    box: Annotated[float | None, typer.Option(help="Only codes with |z_i| <= BOX.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the first sample (.png).")] = None,
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
    as_json: Json = False,
) -> None:
    """Prove of each observation: one code, several, none, or undecided; with boxes around codes."""
    import numpy as np

    from preimage.io.observations import load_observations

    generator = _load(network, layers, activation, head)
    values = np.atleast_2d(load_observations(observations))
    found = preimage.certify(generator, values, noise=noise, box=box)
    _folder(out.parent)
    found.save(out)
    half = np.median(found.upper - found.lower, axis=1) / 2
    if picture is not None:
        _picture_of(generator, found, values, picture)
    if as_json:
        names = ("verdict", "reason", "distance", "resolution", "lower", "upper", "witness")
        samples = [{n: np.asarray(getattr(found, n)[i]).tolist() for n in names}
                   for i in range(len(found))]  # fmt: skip
        _print_json({"certificate": str(out), "samples": samples})
    else:
        rows = [
            (str(i), found.verdict[i], _number(found.distance[i]), _number(half[i]),
             found.reason[i]) for i in range(len(found))
        ]  # fmt: skip
        columns = ("sample", "verdict", "distance", "half-width, median", "reason")
        _print_table("Certificate", columns, rows, words=True)
        typer.echo(f"Written: {out}; prove it again with: preimage check")
    if "undecided" in found.verdict:
        raise typer.Exit(1)


def _picture_of(generator: Generator, found: preimage.Certificate, values: Any, path: Path) -> None:
    from preimage.plot import certificate_figure

    if found.verdict[0] == "infeasible":
        typer.echo("No picture: no code explains the first sample", err=True)
        return
    band = preimage.reconstruction_band(generator, found)
    estimate = preimage.invert(generator, values[0], noise=found.claims[0].noise).latent
    title = f"{found.verdict[0]}, noise {found.claims[0].noise:g}"
    try:
        figure = certificate_figure(found.lower[0], found.upper[0], estimate, band, title=title)
    except MissingExtraError:
        typer.echo("No picture: it needs matplotlib, pip install 'preimage[plot]'", err=True)
        return
    figure.savefig(path, dpi=120)


@app.command()
def check(
    certificate: Annotated[Path, typer.Argument(metavar="CERT", help="From preimage certify.")],
    network: Network,
    observations: Annotated[Path, typer.Argument(help="As for certify.")],
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
    as_json: Json = False,
) -> None:
    """Prove a certificate again, in exact arithmetic, by a program that trusts nothing in it."""
    import tempfile

    import numpy as np

    from preimage.certify import checker
    from preimage.io.guard import check_file
    from preimage.io.observations import load_observations

    generator = _load(network, layers, activation, head)
    dense = [preimage.Layer(a.dense_weight, a.bias, a.activation) for a in generator.layers]
    with tempfile.TemporaryDirectory() as folder:
        plain = [str(Path(folder) / name) for name in ("net.safetensors", "x.npy")]
        preimage.save(preimage.Generator(tuple(dense)), plain[0])
        np.save(plain[1], np.atleast_2d(load_observations(observations)))
        try:
            verdicts, reason = checker.check(str(check_file(certificate)), *plain), ""
        except InputError:
            raise
        except Exception as error:  # whatever goes wrong, nothing is proven
            verdicts, reason = [], f"{type(error).__name__}: {error}"
    proven = bool(verdicts) and "undecided" not in verdicts
    if as_json:
        _print_json({"proven": proven, "verdicts": verdicts, "reason": reason})
    else:
        for index, verdict in enumerate(verdicts):
            typer.echo(f"{index}: {verdict}")
        typer.echo("proven" if proven else f"not proven{': ' if reason else ''}{reason}")
    if not proven:
        raise typer.Exit(1)


def experiment(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="A figure such as figure-1a, or all.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for NAME.csv and NAME.png.")],
    scale: Annotated[str, typer.Option(help="tiny, quick or paper.")] = "quick",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Rerun figures of the paper; one that was interrupted goes on where it ended."""
    from preimage import experiments

    wanted = list(experiments.MODULES) if names == ["all"] else names
    configs = {name: experiments.find(name, scale) for name in wanted}
    for name, (one, config) in configs.items():
        table = _table_of(name, config, _folder(out), workers)
        one.draw(config, table).savefig(out / f"{name}.png", dpi=130, bbox_inches="tight")
        typer.echo(f"{name}: {len(table.rows)} rows, {table.facts['seconds']} s: {out / name}.csv")


def _table_of(name: str, config: Any, folder: Path, workers: int) -> Any:
    from preimage import experiments

    path, journal = folder / f"{name}.csv", folder / f"{name}.partial"
    if path.exists():
        table = experiments.Table.read(path)
        if table.facts.get("fingerprint") == experiments.fingerprint(name, config):
            return table

    def progress(finished: Iterable[Any], total: int) -> Iterable[Any]:
        with _progress(total, name) as bar:
            for item in finished:
                yield item
                bar.update()

    table = experiments.run(name, config, workers=workers, journal=journal, progress=progress)
    table.write(path)
    journal.unlink(missing_ok=True)
    return table


@app.command()
def zoo(as_json: Json = False) -> None:
    """List the networks that ship with the package."""
    cards = [preimage.zoo.card(name) for name in preimage.zoo.names()]
    if as_json:
        _print_json([asdict(card) for card in cards])
        return
    rows = [
        (card.name, "-".join(map(str, card.sizes)), _quality(card.quality), card.license)
        for card in cards
    ]
    _print_table("Networks", ("name", "sizes", "quality", "licence"), rows, words=True)


def _quality(quality: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in quality.items() if isinstance(value, (int, float))}
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="A network of the zoo.")],
    data: Annotated[Path, typer.Option(help="Folder with the four MNIST files in IDX form.")],
    out: Annotated[
        Path | None, typer.Option(help="The .safetensors file to write; by default NAME's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes every random draw.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    as_json: Json = False,
) -> None:
    """Train a network of the zoo anew (needs the torch extra)."""
    from preimage.train import save_network
    from preimage.train import train as fit

    out = out or Path(f"{name}.safetensors")
    if out.suffix != ".safetensors":
        raise InputError(f"--out: expected a file name in .safetensors, got {out}")
    generator, card = fit(name, data, seed=seed, epochs=epochs, progress=True)
    _folder(out.parent)
    card = save_network(generator, card, out)
    if as_json:
        _print_json(card)
    else:
        typer.echo(f"Written: {out}, {out.with_suffix('.json')}")


def _load(network: str, layers: str | None, activation: str | None, head: str | None) -> Generator:
    bare = {"layers": layers.split(",") if layers else None, "activation": activation, "head": head}
    names = preimage.zoo.names()
    if network in names:
        if any(value is not None for value in bare.values()):
            raise InputError(f"--layers, --activation, --head: {network} of the zoo has its own")
        return preimage.zoo.load(network)
    if not Path(network).exists():
        raise InputError(f"NET: {network!r} is no file, and the zoo has only {', '.join(names)}")
    return preimage.load(network, **bare)  # type: ignore[arg-type]  # three named arguments


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _write_picture(rows: Mapping[str, Any], path: Path, columns: Sequence[str] = ()) -> str | None:
    from preimage.plot import image_grid

    try:
        image_grid(rows, columns=columns).savefig(path, dpi=120)
    except MissingExtraError:
        typer.echo(f"No {path.name}: it needs matplotlib, pip install 'preimage[plot]'", err=True)
        return None
    return str(path)


def _progress(total: int, label: str) -> Any:
    from tqdm import tqdm

    # The bar shows only where a terminal is there to see it, and only after a second.
    return tqdm(total=total, desc=label, delay=1.0, disable=None, leave=False, file=sys.stderr)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _print_table(
    title: str, columns: Iterable[str], rows: Iterable[Sequence[str]], *, words: bool = False
) -> None:
    """Numbers are set to the right, ``words`` to the left; the first column always is words."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if words or index == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def _plain(value: Any) -> Any:
    """Without what JSON lacks: NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Any) -> str:
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _print_json(value: Any) -> None:
    typer.echo(_json(value))
