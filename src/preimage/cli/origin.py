"""The command that says which networks made a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import preimage
from preimage.cli.options import Json, StateDict
from preimage.cli.terminal import print_json, print_table
from preimage.errors import InputError
from preimage.notebook import number


def provenance(
    file: Annotated[Path, typer.Argument(help="The picture: PNG, npy … of 8 bits.")],
    networks: Annotated[list[str], typer.Argument(metavar="NET…", help="Names or files.")],
    box: Annotated[float, typer.Option(help="Codes with |z_i| <= BOX.")] = 5.0,
    levels: Annotated[float, typer.Option(help="Gray levels that rounding took.")] = 0.5,
    time_limit: Annotated[float, typer.Option(help="Seconds for each network.")] = 10.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the certificates and reconstructions.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the code with which a network made a picture, or prove that it did not make it."""
    from preimage.io.limits import write_bytes
    from preimage.io.observations import load_observations
    from preimage.pixels import png

    values = load_observations(file)
    if len(values) != 1:
        raise InputError(f"FILE: expected one picture, got {len(values)}; pass one at a time")
    image: Any = values[0] if values.max(initial=0.0) <= 1.0 else values[0].astype(int)
    named = {name: StateDict().load_known(name, "provenance") for name in networks}
    found = preimage.provenance(image, named, box=box, levels=levels, time_limit=time_limit)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for index, one in enumerate(found):
            one.certificate.save(out / f"{index}.json")
            if one.latent.size and one.latent[0] == one.latent[0]:
                write_bytes(out / f"{index}.png", png(one.reconstruction))
    if as_json:
        names = ("name", "verdict", "error")
        print_json({"networks": [{n: getattr(one, n) for n in names} |
                                 {"latent": one.latent.tolist()} for one in found]})  # fmt: skip
    else:
        rows = [
            (one.name, one.verdict, number(one.error), str(one.certificate.reason)) for one in found
        ]
        columns = ("network", "verdict", "error, gray levels", "reason")
        print_table("Provenance", columns, rows, words=True)
    if any(one.verdict == "undecided" for one in found):
        raise typer.Exit(1)
