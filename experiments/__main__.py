"""``python -m experiments NAME...``: rerun figures of the paper."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from experiments import MODULES, Table, find, fingerprint, run
from preimage import PreimageError


def main(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="A figure such as figure-1a, or all.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for NAME.csv and NAME.png.")],
    scale: Annotated[str, typer.Option(help="tiny, quick or paper.")] = "quick",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Rerun figures of the paper; an interrupted run continues where it stopped."""
    try:
        configs = {n: find(n, scale) for n in (list(MODULES) if names == ["all"] else names)}
    except PreimageError as error:
        typer.echo(f"experiments: {error}", err=True)
        raise typer.Exit(2) from error
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for name, (experiment, config) in configs.items():
        table = _table_of(name, config, out, workers)
        experiment.draw(config, table).savefig(out / f"{name}.png", dpi=130, bbox_inches="tight")
        typer.echo(f"{name}: {len(table.rows)} rows, {table.facts['seconds']} s: {out / name}.csv")
    if len(configs) > 1:
        typer.echo(f"all: {time.perf_counter() - start:.0f} s, including what was there already")


def _table_of(name: str, config: Any, folder: Path, workers: int) -> Table:
    path, cache = folder / f"{name}.csv", folder / f"{name}.cache"
    if path.exists():
        table = Table.read(path)
        if table.facts.get("fingerprint") == fingerprint(name, config):
            return table

    def progress(finished: Iterable[Any], total: int) -> Iterable[Any]:
        return tqdm(finished, name, total, delay=1.0, disable=None, leave=False)

    table = run(name, config, workers=workers, folder=cache, progress=progress)
    table.write(path)
    shutil.rmtree(cache)
    return table


if __name__ == "__main__":
    typer.run(main)
