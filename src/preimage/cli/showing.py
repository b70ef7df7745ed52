"""Commands that show: the page, the doctor, and what is known of networks."""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

import preimage
from preimage.cli.options import Levels, Network, Noise, Seen, StateDict
from preimage.cli.terminal import Answer, Table
from preimage.errors import FormatError
from preimage.inspection import inspect_generator
from preimage.io.observations import load_observations
from preimage.report.network import layers_table, methods_table


def app(
    network: Network = "mnist-20-60-784",
    port: Annotated[int | None, Option(help="By default the first free one from 7860.")] = None,
    browser: Annotated[bool, Option(help="Open the page in the browser.")] = True,
    weights: StateDict = StateDict(),
) -> None:
    """Invert pictures on a page that only this machine can reach (needs the web extra)."""
    from preimage.app import page

    generator = weights.load(network)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uploads are deleted then, too
    try:
        with page.served(generator, Path(network).name, port=port, browser=browser) as address:
            typer.echo(f"{address} until Ctrl-C")
            threading.Event().wait()
    except KeyboardInterrupt:
        pass


def doctor(
    network: Network,
    observations: Annotated[
        Path | None, Argument(help="As for invert; the first few are examined.")
    ] = None,
    noise: Noise = 0.0,
    levels: Levels = None,
    weights: StateDict = StateDict(),
) -> Answer:
    """Look for common mistakes: scale, layout, head, wrong network; say which method to use."""
    from preimage.doctor import examine

    generator, values = weights.load(network), None
    if observations is not None:
        try:
            values, _ = Seen(levels=levels).read(observations, generator)
        except FormatError:  # samples of another size are a finding
            values = load_observations(observations)
    found = examine(generator, values, noise=noise)
    text = [f"{'WRONG' if one.wrong else 'fine':<6}{one.topic:<8}{one.message}" for one in found]
    return Answer([asdict(one) for one in found], text, any(one.wrong for one in found))


def inspect(network: Network, weights: StateDict = StateDict()) -> Answer:
    """Show a network's layers if they are known, and which methods can invert it."""
    generator = weights.load(network)
    found = asdict(inspect_generator(generator))
    layers = [Table("Layers", *layers_table(found)), found["active_note"]]
    methods = Table("Methods", *methods_table(found), words=True)
    text = [f"{generator}\n", *(layers if found["layers"] else ()), f"{found['rank_note']}\n"]
    return Answer({"network": network, **found}, [*text, methods])


def zoo() -> Answer:
    """List the networks that ship with the package."""
    cards = [preimage.zoo.card(name) for name in preimage.zoo.names()]
    rows = []
    for card in cards:
        numbers = ((n, v) for n, v in card.quality.items() if isinstance(v, (int, float)))
        quality = ", ".join(f"{name} {value:.3g}" for name, value in numbers)
        rows.append((card.name, "-".join(map(str, card.sizes)), quality, card.license))
    table = Table("Networks", ("name", "sizes", "quality", "licence"), rows, words=True)
    return Answer([asdict(card) for card in cards], [table])
