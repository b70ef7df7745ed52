"""The commands as Markdown, from their own help."""

from __future__ import annotations

from typing import Any

import typer


def commands_markdown() -> str:
    """A section a command: what it does, its arguments, its options."""
    from preimage.cli import app

    root: Any = typer.main.get_command(app)
    return "\n".join(_section(name, command) for name, command in root.commands.items())


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["preimage", name, *map(_metavar, arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", command.help, "", f"```text\n{usage}\n```", ""]
    rows = [(f"`{_metavar(p)}`", p.help or "", "") for p in arguments]
    rows += [(_names(p), p.help or "", _default(p)) for p in options]
    lines += ["| | | Default |", "|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([*lines, ""])


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
