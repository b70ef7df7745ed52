"""Arguments and options that several commands share, and groups of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from typer import Argument, Option

import preimage
from preimage.cli.terminal import Answer
from preimage.errors import InputError
from preimage.io.observations import Observations as Opened
from preimage.io.observations import load_observations, open_observations
from preimage.network import Network as AnyNetwork

Json = Annotated[bool, Option("--json", help="Print JSON instead of tables.")]
Network = Annotated[str, Argument(metavar="NET", help="A name of the zoo, or a file.")]
Observations = Annotated[
    Path, Argument(help="A file: npy, npz, safetensors, IDX, Zarr, PNG, JPEG; or a folder.")
]
Levels = Annotated[
    str | None,
    Option(
        metavar="BLACK,WHITE",
        help="Values of black and white in the file, scaled to the head's range: 0,1 or 0,255.",
    ),
]
Method = Annotated[str, Option(help=f"One of {', '.join(preimage.METHODS)}.")]
Noise = Annotated[float, Option(help="Bound on the largest noise entry.")]


@dataclass(frozen=True)
class StateDict:
    """Options that complete a file with weights only, and fix coordinates of the latent."""

    layers: Annotated[
        str | None, Option(help="For a bare state dict: layer names in forward order, fc3,fc4")
    ] = None
    activation: Annotated[
        str | None, Option(help="For a bare state dict: relu, leaky_relu(0.1) …")
    ] = None
    head: Annotated[str | None, Option(help="Activation of the last layer: sigmoid, tanh …")] = None
    fix: Annotated[
        str | None,
        Option(
            metavar="INDEX=VALUE,…",
            help="Latent coordinates with known values, such as a label: 20=0,21=1.",
        ),
    ] = None

    def load(self, network: str) -> AnyNetwork:
        """The network of that name or file."""
        names, listed = preimage.zoo.names(), self.layers.split(",") if self.layers else None
        if network not in names and not Path(network).exists():
            raise InputError(
                f"NET: {network!r} is not a file, and the zoo has only {', '.join(names)}"
            )
        if network not in names:
            found = preimage.load(
                network, layers=listed, activation=self.activation, head=self.head
            )
        elif any(value is not None for value in (listed, self.activation, self.head)):
            raise InputError(
                f"--layers, --activation, --head: {network} of the zoo has its own; leave them out"
            )
        else:
            found = preimage.zoo.load(network)
        if self.fix is None:
            return found
        try:
            pairs = [part.split("=") for part in self.fix.split(",")]
            fixed = {int(index): float(value) for index, value in pairs}
        except ValueError as error:
            raise InputError(
                f"--fix: expected INDEX=VALUE,…, such as 20=0,21=1, got {self.fix!r}"
            ) from error
        return known(found, network, "--fix").fix(fixed)


@dataclass(frozen=True)
class Seen:
    """Options that say what was observed of each output, and in which units."""

    mask: Annotated[
        Path | None,
        Option(help="What was observed, 0 or 1: npy or a picture, for all samples or each."),
    ] = None
    sensing: Annotated[
        Path | None, Option(help="Matrix A of the measurements A G(z): npy, of shape (m, n).")
    ] = None
    levels: Levels = None

    def read(
        self, observations: Path, network: AnyNetwork
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """The observations, and the mask or matrix to pass as ``sensing``."""
        rows, sensing = self.open(observations, network)
        return rows.read(0, rows.count), sensing

    def open(self, observations: Path, network: AnyNetwork) -> tuple[Opened, NDArray[Any] | None]:
        """As ``read``, without reading the observations; conversions are told on stderr."""
        sensing, levels = self._map(network), None
        size = None if sensing is None or sensing.dtype == bool else len(sensing)
        if self.levels is not None:
            try:
                black, white = map(float, self.levels.split(","))
            except ValueError as error:
                raise InputError(f"--levels: expected BLACK,WHITE, got {self.levels!r}") from error
            levels = black, white
        found = open_observations(observations, network, size=size, levels=levels)
        for note in found.notes:
            typer.echo(f"preimage: {observations}: {note}", err=True)
        return found, sensing

    def _map(self, network: AnyNetwork) -> NDArray[Any] | None:
        """A boolean mask (n,) or (samples, n), a matrix (m, n), or None for everything."""
        if self.mask is None:
            return None if self.sensing is None else load_observations(self.sensing)
        if self.sensing is not None:
            raise InputError(
                "--mask, --sensing: expected one of them, got both; leave out rows of the matrix"
            )
        values, size = load_observations(self.mask), network.observation_size
        if values.size % size or not np.isin(values, (0, 1)).all():
            raise InputError(
                f"--mask {self.mask}: expected 0 and 1 (or False and True), {size} entries a "
                f"sample, got shape {values.shape}"
            )
        values = values.reshape(-1, size).astype(bool)
        return values[0] if len(values) == 1 else values


def known(network: AnyNetwork, name: str, asked: str) -> preimage.Generator:
    """The network of that name, for what needs its layers; ``InputError`` if it is only run."""
    if isinstance(network, preimage.Generator):
        return network
    raise InputError(
        f"{asked}: expected a network whose layers are known, and {name} is run by torch; "
        f"preimage inspect {name} says why"
    )


def with_options(command: Callable[..., Answer | None]) -> Callable[..., None]:
    """A command whose parameters of a group's type are replaced by the group's options.

    One that returns an ``Answer`` gets ``--json``, too, and its answer is printed.
    """
    options: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    signature = inspect.signature(command, eval_str=True)
    for parameter in signature.parameters.values():
        if is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            options += inspect.signature(groups[parameter.name], eval_str=True).parameters.values()
        else:
            options.append(parameter)
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [option.replace(kind=kind) for option in options]
    if signature.return_annotation is Answer:
        options.append(inspect.Parameter("as_json", kind, default=False, annotation=Json))

    @wraps(command)
    def run(*, as_json: bool = False, **given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        found = command(**given)
        if found is not None:
            found.finish(as_json)

    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run
