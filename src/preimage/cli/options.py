"""Arguments and options that several commands take, each declared here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import preimage
from preimage.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Network = Annotated[str, typer.Argument(metavar="NET", help="A name of the zoo, or a file.")]
Layers = Annotated[
    str | None, typer.Option(help="For a bare state dict: layer names, first first: fc3,fc4")
]
ActivationName = Annotated[
    str | None, typer.Option("--activation", help="For a bare state dict: relu, leaky_relu(0.1) …")
]
Head = Annotated[str | None, typer.Option(help="Activation of the last layer: sigmoid, tanh …")]
Observations = Annotated[
    Path, typer.Argument(help="npy, npz, safetensors, IDX, PNG, or a folder of PNG.")
]
Method = Annotated[str, typer.Option(help=f"One of {', '.join(preimage.METHODS)}.")]
Noise = Annotated[float, typer.Option(help="Bound on the largest noise entry.")]


def load_network(
    network: str, layers: str | None, activation: str | None, head: str | None
) -> preimage.Generator:
    """The network that these options name.

    Raises:
        InputError: No such network, or options that it has no use for.
    """
    bare = {"layers": layers.split(",") if layers else None, "activation": activation, "head": head}
    names = preimage.zoo.names()
    if network in names:
        if any(value is not None for value in bare.values()):
            raise InputError(f"--layers, --activation, --head: {network} of the zoo has its own")
        return preimage.zoo.load(network)
    if not Path(network).exists():
        raise InputError(f"NET: {network!r} is no file, and the zoo has only {', '.join(names)}")
    return preimage.load(network, **bare)  # type: ignore[arg-type]  # three named arguments
