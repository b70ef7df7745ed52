"""Commands that show what the methods do: the demo, and the figures of the paper."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import preimage
from preimage.cli.options import ActivationName, Head, Json, Layers, Network, load_network
from preimage.cli.terminal import (
    folder_at,
    number,
    print_json,
    print_table,
    progress_bar,
    write_picture,
)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for demo.png.")] = Path("demo-output"),
    as_json: Json = False,
) -> None:
    """Invert noisy outputs with known codes, and real digits, by every method."""
    import numpy as np

    from preimage import demo as work
    from preimage.cli.compilation import show_compilation

    generator = preimage.zoo.load(work.NETWORK)
    tasks = work.tasks(generator)
    tables: dict[str, list[work.Score]] = {}
    pictures = []
    with show_compilation(), progress_bar(len(tasks) * len(work.DEMO_METHODS), "inverting") as bar:
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
    picture = write_picture(rows, folder_at(out) / "demo.png", titles)
    if as_json:
        print_json({
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
        rows.append((method, *(number(n) for n in numbers), str(failures), time))
    print_table(title, columns, rows)
    typer.echo("error: ||z - z*|| / ||z*||; residual: ||x - G(z)||; ms: per sample\n")


def app(
    network: Network = "mnist-20-60-784",
    port: Annotated[int | None, typer.Option(help="By default a free one from 7860 on.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
) -> None:
    """Play with inversion on a page that only this machine can see (needs the web extra)."""
    from preimage.app import page
    from preimage.cli.compilation import show_compilation

    generator = load_network(network, layers, activation, head)
    shown = page.build(generator, Path(network).name)
    with show_compilation():
        page.warm_up(generator)
    page.serve(shown, port=port, browser=browser)
    typer.echo(f"{shown.local_url} until Ctrl-C")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        shown.close(verbose=False)


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
    start = time.perf_counter()
    for name, (one, config) in configs.items():
        table = _table_of(name, config, folder_at(out), workers)
        one.draw(config, table).savefig(out / f"{name}.png", dpi=130, bbox_inches="tight")
        typer.echo(f"{name}: {len(table.rows)} rows, {table.facts['seconds']} s: {out / name}.csv")
    if len(configs) > 1:
        typer.echo(f"all: {time.perf_counter() - start:.0f} s, with what was there already")


def _table_of(name: str, config: Any, folder: Path, workers: int) -> Any:
    from preimage import experiments

    path, journal = folder / f"{name}.csv", folder / f"{name}.partial"
    if path.exists():
        table = experiments.Table.read(path)
        if table.facts.get("fingerprint") == experiments.fingerprint(name, config):
            return table

    def progress(finished: Iterable[Any], total: int) -> Iterable[Any]:
        with progress_bar(total, name) as bar:
            for item in finished:
                yield item
                bar.update()

    table = experiments.run(name, config, workers=workers, journal=journal, progress=progress)
    table.write(path)
    journal.unlink(missing_ok=True)
    return table
