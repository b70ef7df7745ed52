"""What the commands write: tables, JSON, pictures; progress goes to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import typer

from preimage.errors import MissingExtraError
from preimage.io.limits import write_bytes
from preimage.report.run import to_json


class Table(NamedTuple):
    """Numbers are set to the right, ``words`` to the left; the first column always is words."""

    title: str
    columns: Iterable[str]
    rows: Iterable[Sequence[str]]
    words: bool = False


class Answer(NamedTuple):
    """What a command found: for ``--json``, for people, and whether the exit code is 1."""

    value: Any
    text: Iterable[str | Table]
    failed: bool = False

    def finish(self, as_json: bool) -> None:
        """Print it, and end the command."""
        for part in (to_json(self.value),) if as_json else self.text:
            if isinstance(part, Table):
                _print_table(part)
            else:
                typer.echo(part)
        if self.failed:
            raise typer.Exit(1)


def status_lines(statuses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line a status, as ``report.run.described`` makes them."""
    return [f"{one['samples']:>8} {status}: {one['message']}" for status, one in statuses.items()]


def _print_table(shown: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(title=Text(shown.title), title_justify="left")
    for index, column in enumerate(shown.columns):
        table.add_column(column, justify="left" if shown.words or index == 0 else "right")
    for row in shown.rows:
        table.add_row(*map(Text, row))
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def write_figure(path: Path, draw: Callable[[], Any]) -> str | None:
    """Write the figure that ``draw`` makes; None, and a word on stderr, without matplotlib."""
    drawn = BytesIO()
    try:
        draw().savefig(drawn, dpi=120, format=path.suffix[1:] or None)
    except MissingExtraError:
        typer.echo(f"No {path.name}: it needs matplotlib, pip install 'preimage[plot]'", err=True)
        return None
    write_bytes(path, drawn.getvalue())
    return str(path)
