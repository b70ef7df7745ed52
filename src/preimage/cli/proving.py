"""Commands that prove: certify, and check, which proves it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import preimage
from preimage.cli.options import Json, Network, Noise, Observations, Seen, StateDict
from preimage.cli.terminal import print_json, print_table
from preimage.errors import InputError, MissingExtraError
from preimage.notebook import certificate_table


def certify(
    network: Network,
    observations: Observations,
    noise: Noise,
    out: Annotated[Path, typer.Option(help="The certificate, a .json file.")],
    box: Annotated[float | None, typer.Option(help="Only codes with |z_i| <= BOX.")] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds that a sample may take.")] = 10.0,
    picture: Annotated[Path | None, typer.Option(help="Draw the first sample (.png).")] = None,
    seen: Seen = Seen(),
    weights: StateDict = StateDict(),
    as_json: Json = False,
) -> None:
    """Prove for each observation that one code explains it, or several, or none, and where."""
    generator = weights.load_known(network, "certify")
    values, sensing = seen.read(observations, generator)
    found = preimage.certify(
        generator, values, noise=noise, sensing=sensing, box=box, time_limit=time_limit
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    found.save(out)
    if picture is not None:
        _picture_of(generator, found, values, picture)
    if as_json:
        names = ("verdict", "reason", "distance", "resolution", "lower", "upper", "witness")
        samples = [{n: getattr(found, n)[i] for n in names} for i in range(len(found))]
        print_json({"certificate": str(out), "samples": samples})
    else:
        print_table("Certificate", *certificate_table(found), words=True)
        typer.echo(f"Written: {out}; prove it again with: preimage check")
        if "undecided" in found.verdict:
            typer.echo("For undecided samples raise --time-limit, or give a smaller --box.")
    if "undecided" in found.verdict:
        raise typer.Exit(1)


def _picture_of(
    generator: preimage.Generator, found: preimage.Certificate, values: Any, path: Path
) -> None:
    from preimage.plot import certificate_figure

    if found.verdict[0] not in ("unique", "ambiguous"):
        typer.echo(f"No picture: the first sample is {found.verdict[0]}", err=True)
        return
    band = preimage.reconstruction_band(generator, found)
    estimate = found.witness[0]
    title = f"{found.verdict[0]}, noise {found.claims[0].question.noise:g}"
    try:
        figure = certificate_figure(found.lower[0], found.upper[0], estimate, band, title=title)
    except MissingExtraError:
        typer.echo("No picture: it needs matplotlib, pip install 'preimage[plot]'", err=True)
        return
    figure.savefig(path, dpi=120)


def check(
    certificate: Annotated[Path, typer.Argument(metavar="CERT", help="From preimage certify.")],
    network: Network,
    observations: Observations,
    noise: Annotated[float | None, typer.Option(help="The noise it has to be about.")] = None,
    box: Annotated[
        float | None, typer.Option(help="The box it has to be about, |z_i| <= BOX.")
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="The resolution it has to be about.")
    ] = None,
    seen: Seen = Seen(),
    weights: StateDict = StateDict(),
    as_json: Json = False,
) -> None:
    """Prove a certificate again, in exact arithmetic, by a program that trusts nothing in it.

    The questions that it answers are printed. Compare them with yours, or pass --noise, --box and
    --resolution, which then have to match.
    """
    import tempfile

    import numpy as np

    from preimage.certify import boxes, checker
    from preimage.io.limits import check_file

    generator = weights.load_known(network, "check")
    dense = [preimage.Layer(a.dense_weight, a.bias, a.activation) for a in generator.layers]
    values, sensing = seen.read(observations, generator)
    with tempfile.TemporaryDirectory() as folder:
        plain = [str(Path(folder) / name) for name in ("net.safetensors", "x.npy", "sensing.npy")]
        preimage.save(preimage.Generator(tuple(dense)), plain[0])
        np.save(plain[1], values.astype(np.float64))
        if sensing is not None:
            np.save(plain[2], sensing)
        try:
            records, reason = checker.check(
                str(check_file(certificate)), plain[0], plain[1],
                plain[2] if sensing is not None else None,
                {"noise": noise, "box": box, "resolution": resolution}, boxes.remaining,
            ), ""  # fmt: skip
        except InputError:
            raise
        except Exception as error:  # whatever goes wrong, nothing is proven
            records, reason = [], f"{type(error).__name__}: {error}"
    verdicts = [record["verdict"] for record in records]
    proven = bool(verdicts) and "undecided" not in verdicts
    if as_json:
        questions = [record["question"] for record in records]
        print_json({"proven": proven, "verdicts": verdicts, "questions": questions,
                    "reason": reason})  # fmt: skip
    else:
        for index, record in enumerate(records):
            typer.echo(f"sample {index}: " + "\n".join(checker.describe(record)))
        if verdicts and not proven:
            reason = "the certificate itself says undecided"
        typer.echo("proven" if proven else f"not proven{': ' if reason else ''}{reason}")
    if not proven:
        raise typer.Exit(1)
