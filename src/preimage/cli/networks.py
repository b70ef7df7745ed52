"""Commands about networks: inspect and zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import typer

import preimage
from preimage.cli.options import Json, Network, StateDict
from preimage.cli.terminal import print_json, print_table


def inspect(
    network: Network,
    weights: StateDict = StateDict(),
    as_json: Json = False,
) -> None:
    """Show a network's layers if they are known, and which methods can invert it."""
    from preimage.inspection import inspect_generator
    from preimage.report.network import layers_table, methods_table

    generator = weights.load(network)
    found = asdict(inspect_generator(generator))
    if as_json:
        print_json({"network": network, **found})
        return
    typer.echo(f"{generator}\n")
    if found["layers"]:
        print_table("Layers", *layers_table(found))
        typer.echo(found["active_note"])
    typer.echo(f"{found['rank_note']}\n")
    print_table("Methods", *methods_table(found), words=True)


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
