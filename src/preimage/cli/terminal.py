"""What the commands write: tables, JSON, pictures; progress goes to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import typer

from preimage.errors import MissingExtraError
from preimage.io.limits import write_bytes
from preimage.report.run import to_json


def write_figure(path: Path, draw: Callable[[], Any]) -> str | None:
    """Write the figure that ``draw`` makes; None, and a word on stderr, without matplotlib.

    Raises:
        OSError: The file cannot be written; nothing is left of it then.
    """
    drawn = BytesIO()
    try:
        draw().savefig(drawn, dpi=120, format=path.suffix[1:] or None)
    except MissingExtraError:
        typer.echo(f"No {path.name}: it needs matplotlib, pip install 'preimage[plot]'", err=True)
        return None
    write_bytes(path, drawn.getvalue())
    return str(path)


def print_statuses(statuses: Mapping[str, Mapping[str, Any]]) -> None:
    """A line a status, as ``report.run.described`` makes them."""
    for status, entry in statuses.items():
        typer.echo(f"{entry['samples']:>8} {status}: {entry['message']}")


def print_table(
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


def print_json(value: Any) -> None:
    """The value as JSON on stdout."""
    typer.echo(to_json(value))
