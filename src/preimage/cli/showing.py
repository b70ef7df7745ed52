"""Commands that show: the page, and the doctor."""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from preimage.cli.options import Json, Levels, Network, Noise, Seen, StateDict
from preimage.cli.terminal import print_json
from preimage.errors import FormatError


def app(
    network: Network = "mnist-20-60-784",
    port: Annotated[
        int | None, typer.Option(help="By default the first free one from 7860.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
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
        Path | None, typer.Argument(help="As for invert; the first few are examined.")
    ] = None,
    noise: Noise = 0.0,
    levels: Levels = None,
    weights: StateDict = StateDict(),
    as_json: Json = False,
) -> None:
    """Look for common mistakes: scale, layout, head, wrong network; say which method to use."""
    from preimage.doctor import examine
    from preimage.io.observations import load_observations

    generator, values = weights.load(network), None
    if observations is not None:
        try:
            values, _ = Seen(levels=levels).read(observations, generator)
        except FormatError:  # samples of another size are a finding
            values = load_observations(observations)
    found = examine(generator, values, noise=noise)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            typer.echo(f"{'WRONG' if one.wrong else 'fine':<6}{one.topic:<8}{one.message}")
    if any(one.wrong for one in found):
        raise typer.Exit(1)
