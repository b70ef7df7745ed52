"""``python -m training NAME``: train a network of the zoo anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from preimage import InputError, PreimageError
from training import train as recipes


def main(
    name: Annotated[str, typer.Argument(help="A network of the zoo.")],
    data: Annotated[Path, typer.Option(help="Folder with the four MNIST files in IDX form.")],
    out: Annotated[
        Path | None, typer.Option(help="The .safetensors file; NAME.safetensors by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes every random draw.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
) -> None:
    """Train a network of the zoo anew; write it and, beside it, its card."""
    out = out or Path(f"{name}.safetensors")
    try:
        if out.suffix != ".safetensors":
            raise InputError(f"--out: expected a file name in .safetensors, got {out}")
        generator, card = recipes.train(name, data, seed=seed, epochs=epochs)
        out.parent.mkdir(parents=True, exist_ok=True)
        card = recipes.save_network(generator, card, out)
    except PreimageError as error:
        typer.echo(f"training: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(json.dumps(card, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    typer.run(main)
