"""The command that serves the page."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from preimage.cli.options import ActivationName, Head, Layers, Network, load_network


def app(
    network: Network = "mnist-20-60-784",
    port: Annotated[int | None, typer.Option(help="By default a free one from 7860 on.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    layers: Layers = None,
    activation: ActivationName = None,
    head: Head = None,
) -> None:
    """Play with inversion on a page that only this machine can see (needs the web extra)."""
    from preimage.app import page
    from preimage.cli.compilation import show_compilation

    generator = load_network(network, layers, activation, head)
    shown = page.build(generator, Path(network).name)
    with show_compilation():
        page.warm_up(generator)
    page.serve(shown, port=port, browser=browser)
    typer.echo(f"{shown.local_url} until Ctrl-C")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        shown.close(verbose=False)
