"""The report on certificates: verdicts, and the interval that every coordinate is proven to be in.

It shows what the file says. ``preimage check`` proves it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preimage.certify.certificate import Certificate, Claim
from preimage.certify.certify import network_digest
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.io.observations import open_observations
from preimage.notebook import number
from preimage.plot import intervals_svg
from preimage.report.network import inspection_of, network_card
from preimage.report.page import SHOWN, difference, drawn, note, page, wide_table
from preimage.report.run import compare

# Worst first.
_VERDICTS = {
    "undecided": "Only the intervals are proven; the reason says what was missing.",
    "ambiguous": "Two codes at this distance from one another explain the observation.",
    "infeasible": "No code explains the observation to within the noise.",
    "unique": "Every code that explains it is within this distance of the witness.",
}


def _badness(claim: Claim) -> tuple[int, float]:
    """Sorts undecided samples first, and in a verdict the widest intervals."""
    width = 0.0 if claim.verdict == "infeasible" else float(np.median(claim.half_width))
    return list(_VERDICTS).index(claim.verdict), -width


def find_certificates(path: Path) -> dict[str, Certificate]:
    """The certificate in a file, or in each file of a folder that holds one, by the file's name."""
    files = [path] if path.is_file() else [
        file for file in sorted(path.glob("*.json"))
        if b"preimage certificate" in file.read_bytes()[:100]
    ]  # fmt: skip
    return {file.name: Certificate.load(file) for file in files}


def certificates_page(
    files: Mapping[str, Certificate],
    generator: Generator | None = None,
    observations: Any = None,
    sensing: Any = None,
) -> str:
    """One page: verdicts, samples with their intervals, network, how to check."""
    found = [
        (name, place, claim)
        for name, certificate in files.items()
        for place, claim in enumerate(certificate.claims)
    ]
    found.sort(key=lambda sample: _badness(sample[2]))
    claims = [claim for _, _, claim in found]
    digest = None if generator is None else network_digest(generator)
    if digest is not None and any(claim.question.network != digest for claim in claims):
        raise InputError(
            "network: the certificate is about another network; pass the one that was certified"
        )
    if observations is not None and generator is not None:
        if len(files) != 1:
            raise InputError(f"observations: expected one certificate with them, got {len(files)}")
        _check_same(observations, generator, *files.values())
    counts = Counter(claim.verdict for claim in claims)
    verdicts = [(name, counts[name], text) for name, text in _VERDICTS.items() if counts[name]]
    worst = found[:SHOWN]
    return page(
        f"{', '.join(files)}: {len(found)} certified samples",
        "What the file says; preimage check CERTIFICATE NETWORK OBSERVATIONS proves it again.",
        {
            "Verdicts": wide_table("Verdicts", ("verdict", "samples", "meaning"), verdicts),
            "Samples, worst first": note(
                f"{len(worst)} of {len(found)}. The witness is a code that explains the "
                "observation. Bars: how far from it each coordinate of any other such code can "
                "lie. Dots: a second such code. Pictures: the observation; with the network also "
                "outputs of these codes, and the difference from the first."
            )
            + "".join(_figure(place, claim, generator, sensing) for _, place, claim in worst),
            "All samples": _table(found),
            "Network": network_card(
                inspection_of(generator), (), generator.digest if generator else ""
            ),
        },
    )


def _check_same(observations: Any, generator: Generator, certificate: Certificate) -> None:
    """Check that observations are those that a certificate is about."""
    asked = [claim.question.observation for claim in certificate.claims]
    source = open_observations(observations, generator, size=len(asked[0]) if asked else None)
    if source.count != len(asked):
        raise InputError(f"observations: expected {len(asked)} samples, got {source.count}")
    for place, seen in enumerate(asked):
        if not (np.isnan(seen) | (seen == source.read(place, place + 1)[0])).all():
            raise InputError(
                f"observations: sample {place} of the certificate is about another observation; "
                "pass those that were certified"
            )


def _table(found: Sequence[tuple[str, int, Claim]]) -> str:
    lines = [
        (name, place, c.verdict, number(c.distance), number(c.question.resolution),
         number(c.question.noise), number(np.median(c.half_width)), number(np.max(c.half_width)),
         c.branches, c.reason)
        for name, place, c in found
    ]  # fmt: skip
    columns = ("file", "sample", "verdict", "distance", "resolution", "noise",
               "half-width, median", "widest", "branches", "reason")  # fmt: skip
    return wide_table("All samples", columns, lines)


def _figure(place: int, claim: Claim, generator: Generator | None, sensing: Any) -> str:
    seen = claim.question.observation
    caption = f"sample {place}: {claim.verdict}"
    caption += "" if np.isnan(claim.distance) else f", distance {number(claim.distance)}"
    caption += f"; {claim.reason}" if claim.reason else ""
    images = {f"observation {place}": seen}
    if generator is not None:
        for name, code in zip(("witness", "second witness"), claim.witnesses, strict=False):
            images[f"output of the {name} of sample {place}"] = generator(code)
        if claim.witnesses and (claim.question.sensing is None or sensing is not None):
            _, _, expected, _ = compare(generator, sensing, None, claim.witnesses[0])
            images[f"difference {place}"] = difference(seen, expected)
    return drawn(images, caption, _intervals(place, claim))


def _intervals(place: int, claim: Claim) -> str:
    """The intervals, if any, as a drawing, relative to a witness if there is one, and a table."""
    if claim.verdict == "infeasible":
        return ""
    half, known = claim.half_width, claim.witnesses[:1]
    text = (
        f"Intervals of {len(half)} coordinates"
        f"{' around the witness' if known else ', no witness known'}: median half-width "
        f"{number(float(np.median(half)))}, widest {number(float(half.max()))}"
    )
    columns = ("coordinate", "lower", "upper", "width", *("witness" for _ in known))
    numbers = np.array([claim.lower, claim.upper, claim.upper - claim.lower, *known])
    lines = [(f"z{i}", *map(number, row)) for i, row in enumerate(numbers.T)]
    listed = wide_table(f"Intervals of sample {place}", columns, lines)
    centre = known[0] if known else np.zeros(len(half))
    second = {"second code": claim.witnesses[1] - centre} if len(claim.witnesses) > 1 else {}
    chart = intervals_svg(claim.lower - centre, claim.upper - centre, second, text)
    return f'{chart}<details><summary class="soft">{text}</summary>{listed}</details>'
