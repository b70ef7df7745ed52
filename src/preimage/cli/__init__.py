"""The command ``preimage``: it alone prints, shows progress and sets the exit code.

Exit codes: 0 fine; 1 some samples have no code; 2 bad input, one line on stderr;
128 and the signal's number where one stopped a job.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer import Option

import preimage
from preimage.cli import inverting, proving, showing
from preimage.cli.options import with_options
from preimage.errors import InputError, PreimageError, StoppedError

# In the order in which --help lists them.
_COMMANDS = (
    showing.app,
    showing.doctor,
    showing.inspect,
    inverting.invert,
    inverting.report,
    inverting.batch,
    proving.certify,
    proving.check,
    proving.provenance,
    showing.zoo,
)


# Commands of version 0.1 that are programs of the repository now.
_MOVED = {"demo": "make demo", "experiment": "python -m experiments", "train": "python -m training"}


class _Commands(typer.core.TyperGroup):
    """Turns errors into one line on stderr and an exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _MOVED:
            raise InputError(f"{args[0]}: run `{_MOVED[args[0]]}` in a checkout of the repository")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (PreimageError, OSError) as error:
            typer.echo(f"preimage: {' '.join(str(error).split())}", err=True)
            code = 128 + error.signal if isinstance(error, StoppedError) else 2
            raise typer.Exit(code) from error


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def main() -> None:
    """Run the command."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        from preimage import engine

        typer.echo(f"preimage {preimage.__version__}")
        typer.echo(f"engine: {engine.description()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Invert deep generative models with ReLU-like activations."""


for _command in _COMMANDS:
    app.command()(with_options(_command))
