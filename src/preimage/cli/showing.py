"""The command that serves the page."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from preimage.cli.options import ActivationName, Head, Layers, Network, load_network


def app(
    network: Network = "mnist-20-60-784",
    port: Annotated[
        int | None, typer.Option(help="By default the first free one from 7860.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
) -> None:
    """Invert pictures on a page that only this machine can reach (needs the web extra)."""
    from preimage.app import page

    generator = load_network(network, layers, activation, head)
    page.import_gradio()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uploads are deleted then, too
    try:
        with page.served(generator, Path(network).name, port=port, browser=browser) as address:
            typer.echo(f"{address} until Ctrl-C")
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
