"""Rows of claims: printed as they are measured, then written as a page."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One claim, what was measured, what was aimed at, and whether it holds."""

    claim: str
    measured: str
    target: str
    held: bool


def row(claim: str, measured: str, target: str, holds: bool) -> Row:
    """Print one row and return it."""
    print(f"{'ok    ' if holds else 'MISSED'} {claim:<66} {measured:<34} {target}", flush=True)
    return Row(claim, measured, target, holds)


def commit() -> str:
    """The commit that is checked out, with a plus sign if files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return found.stdout.strip() or "unknown"


def finish(rows: Sequence[Row], title: str, command: str, path: Path | None) -> int:
    """Write the rows as a page in Markdown; the exit code, 1 if a claim is missed."""
    if path is not None:
        packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
        lines = [
            f"# {title}\n",
            f"Written by `{command}` at commit {commit()} on {platform.machine()}, "
            f"{os.cpu_count()} processors, Python {platform.python_version()}, {packages}.\n",
            "| claim | target | measured | met |",
            "|---|---|---|---|",
            *(f"| {r.claim} | {r.target} | {r.measured} | {'yes' if r.held else '**no**'} |"
              for r in rows),
        ]  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return 0 if all(r.held for r in rows) else 1
