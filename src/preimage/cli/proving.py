"""Commands that prove: certify, check, which proves it again, and provenance."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from typer import Argument, Option

import preimage
from preimage.certify import boxes, checker
from preimage.cli.options import Network, Noise, Observations, Seen, StateDict, known
from preimage.cli.terminal import Answer, Table, write_figure
from preimage.errors import InputError
from preimage.io.limits import check_file, write_bytes
from preimage.io.observations import load_observations
from preimage.notebook import certificate_table, number
from preimage.pixels import png
from preimage.plot import certificate_figure


def certify(
    network: Network,
    observations: Observations,
    noise: Noise,
    out: Annotated[Path, Option(help="The certificate, a .json file.")],
    box: Annotated[float | None, Option(help="Only codes with |z_i| <= BOX.")] = None,
    time_limit: Annotated[float, Option(help="Seconds that a sample may take.")] = 10.0,
    picture: Annotated[Path | None, Option(help="Draw the first sample (.png).")] = None,
    seen: Seen = Seen(),
    weights: StateDict = StateDict(),
) -> Answer:
    """Prove for each observation that one code explains it, or several, or none, and where."""
    generator = known(weights.load(network), network, "certify")
    values, sensing = seen.read(observations, generator)
    found = preimage.certify(
        generator, values, noise=noise, sensing=sensing, box=box, time_limit=time_limit
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    found.save(out)
    if picture is not None:
        _picture_of(generator, found, picture)
    names = ("verdict", "reason", "distance", "resolution", "lower", "upper", "witness")
    samples = [{n: getattr(found, n)[i] for n in names} for i in range(len(found))]
    table = Table("Certificate", *certificate_table(found), words=True)
    text: list[str | Table] = [table, f"Written: {out}; prove it again with: preimage check"]
    if undecided := "undecided" in found.verdict:
        text.append("For undecided samples raise --time-limit, or give a smaller --box.")
    return Answer({"certificate": str(out), "samples": samples}, text, undecided)


def _picture_of(generator: preimage.Generator, found: preimage.Certificate, path: Path) -> None:
    if found.verdict[0] not in ("unique", "ambiguous"):
        typer.echo(f"No picture: the first sample is {found.verdict[0]}", err=True)
        return
    band = preimage.reconstruction_band(generator, found)
    title = f"{found.verdict[0]}, noise {found.claims[0].question.noise:g}"
    ends, code = (found.lower[0], found.upper[0]), found.witness[0]
    write_figure(path, lambda: certificate_figure(*ends, code, band, title=title))


def check(
    certificate: Annotated[Path, Argument(metavar="CERT", help="From preimage certify.")],
    network: Network,
    observations: Observations,
    noise: Annotated[float | None, Option(help="The noise it has to be about.")] = None,
    box: Annotated[float | None, Option(help="The box it has to be about, |z_i| <= BOX.")] = None,
    resolution: Annotated[float | None, Option(help="The resolution it has to be about.")] = None,
    seen: Seen = Seen(),
    weights: StateDict = StateDict(),
) -> Answer:
    """Prove a certificate again, in exact arithmetic, by a program that trusts nothing in it.

    The questions that it answers are printed. Compare them with yours, or pass --noise, --box and
    --resolution, which then have to match.
    """
    generator = known(weights.load(network), network, "check")
    dense = [preimage.Layer(a.dense_weight, a.bias, a.activation) for a in generator.layers]
    values, sensing = seen.read(observations, generator)
    with TemporaryDirectory() as folder:
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
    found = {"proven": proven, "verdicts": verdicts,
             "questions": [record["question"] for record in records], "reason": reason}  # fmt: skip
    text = [f"sample {i}: " + "\n".join(checker.describe(one)) for i, one in enumerate(records)]
    if verdicts and not proven:
        reason = "the certificate itself says undecided"
    text.append("proven" if proven else f"not proven{': ' if reason else ''}{reason}")
    return Answer(found, text, not proven)


def provenance(
    file: Annotated[Path, Argument(help="The picture: PNG, npy … of 8 bits.")],
    networks: Annotated[list[str], Argument(metavar="NET…", help="Names or files.")],
    box: Annotated[float, Option(help="Codes with |z_i| <= BOX.")] = 5.0,
    levels: Annotated[float, Option(help="Gray levels that rounding took.")] = 0.5,
    time_limit: Annotated[float, Option(help="Seconds for each network.")] = 10.0,
    out: Annotated[
        Path | None, Option(help="Folder for the certificates and reconstructions.")
    ] = None,
) -> Answer:
    """Find the code with which a network made a picture, or prove that it did not make it."""
    values = load_observations(file)
    if len(values) != 1:
        raise InputError(f"FILE: expected one picture, got {len(values)}; pass one at a time")
    image: Any = values[0] if values.max(initial=0.0) <= 1.0 else values[0].astype(int)
    named = {name: known(StateDict().load(name), name, "provenance") for name in networks}
    found = preimage.provenance(image, named, box=box, levels=levels, time_limit=time_limit)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for index, one in enumerate(found):
            one.certificate.save(out / f"{index}.json")
            if one.error == one.error:  # there is a code
                write_bytes(out / f"{index}.png", png(one.reconstruction))
    names = ("name", "verdict", "error", "latent")
    value = {"networks": [{n: getattr(one, n) for n in names} for one in found]}
    rows = [(one.name, one.verdict, number(one.error), str(one.certificate.reason))
            for one in found]  # fmt: skip
    columns = ("network", "verdict", "error, gray levels", "reason")
    table = Table("Provenance", columns, rows, words=True)
    return Answer(value, [table], any(one.verdict == "undecided" for one in found))
