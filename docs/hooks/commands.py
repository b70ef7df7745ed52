"""The commands as Markdown, from their own help."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import typer


def commands_markdown() -> str:
    """A section a command: what it does, arguments, options; at the end, options of many."""
    from preimage.cli import app
    from preimage.cli.options import Seen, StateDict

    root: Any = typer.main.get_command(app)
    shared = {
        "Options of partial observations": {field.name for field in fields(Seen)},
        "Options of networks": {field.name for field in fields(StateDict)},
    }
    parts = [_section(name, command, shared) for name, command in root.commands.items()]
    known = {p.name: p for p in root.commands["invert"].params}  # it has all of them
    for title, names in shared.items():
        rows = [(_names(p), p.help or "", "") for name, p in known.items() if name in names]
        parts.append("\n".join([f"## {title}", "", *_table(rows), ""]))
    return "\n".join(parts)


def _section(name: str, command: Any, shared: dict[str, set[str]]) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    more = [title for title, names in shared.items() if names <= {p.name for p in options}]
    options = [p for p in options if all(p.name not in shared[title] for title in more)]
    usage = " ".join(["preimage", name, *map(_metavar, arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", command.help, "", f"```text\n{usage}\n```", ""]
    rows = [(f"`{_metavar(p)}`", p.help or "", "") for p in arguments]
    rows += [(_names(p), p.help or "", _default(p)) for p in options]
    lines += _table(rows)
    if more:
        links = (f"[{title.lower()}](#{title.lower().replace(' ', '-')})" for title in more)
        lines += ["", f"Also the {' and the '.join(links)}."]
    return "\n".join([*lines, ""])


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    return ["| | | Default |", "|---|---|---|"] + [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows
    ]


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(parameter: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    # What is off, absent, or counted from the machine has no default worth printing.
    if value is None or value is False or callable(value) or parameter.name == "workers":
        return ""
    return f"`{value}`"
