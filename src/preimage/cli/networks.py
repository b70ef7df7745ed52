"""Commands about networks: inspect, zoo, train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import preimage
from preimage.cli.options import ActivationName, Head, Json, Layers, Network, load_network
from preimage.cli.terminal import folder_at, print_json, print_table
from preimage.errors import InputError


def inspect(
    network: Network,
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
    as_json: Json = False,
) -> None:
    """Show a network's layers, and which methods can invert it."""
    from preimage.inspection import inspect_generator

    generator = load_network(network, layers, activation, head)
    found = inspect_generator(generator)
    if as_json:
        print_json({"network": network, **asdict(found)})
        return
    typer.echo(f"{generator}\n")
    print_table(
        "Layers", ("layer", "sizes", "expansion", "parameters", "activation", "active rows: median",
                   "worst", "needed"),
        [(str(row.index), f"{row.inputs} -> {row.outputs}", f"{row.expansion:.2f}",
          f"{row.parameters:,}", row.activation, f"{row.active_median:.0f}",
          str(row.active_worst), str(row.inputs)) for row in found.layers],
    )  # fmt: skip
    typer.echo(found.active_note)
    typer.echo(f"{found.rank_note}\n")
    rows = [(m.method, m.verdict, m.reason) for m in found.methods]
    print_table("Methods", ("method", "works", "why"), rows, words=True)


def zoo(as_json: Json = False) -> None:
    """List the networks that ship with the package."""
    cards = [preimage.zoo.card(name) for name in preimage.zoo.names()]
    if as_json:
        print_json([asdict(card) for card in cards])
        return
    rows = [
        (card.name, "-".join(map(str, card.sizes)), _quality(card.quality), card.license)
        for card in cards
    ]
    print_table("Networks", ("name", "sizes", "quality", "licence"), rows, words=True)


def _quality(quality: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in quality.items() if isinstance(value, (int, float))}
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())


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
    folder_at(out.parent)
    card = save_network(generator, card, out)
    if as_json:
        print_json(card)
    else:
        typer.echo(f"Written: {out}, {out.with_suffix('.json')}")
