"""The report on certificates: verdicts, and the interval that every coordinate is proven to be in.

It shows what the file says. ``preimage check`` proves it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.certify.certificate import Certificate, Claim
from preimage.errors import InputError
from preimage.generator import Generator
from preimage.io.observations import open_observations
from preimage.notebook import number
from preimage.plot import intervals_svg
from preimage.report.network import inspection_of, network_card
from preimage.report.page import SHOWN, difference, drawn, note, page, wide_table

Array = NDArray[np.float64]

# Worst first.
_VERDICTS = {
    "undecided": "Only the intervals are proven; the reason says what was missing.",
    "ambiguous": "Two codes at this distance from one another explain the observation.",
    "infeasible": "No code explains the observation to within the noise.",
    "unique": "Every code that explains it is within this distance of the witness.",
}


class _Sample(NamedTuple):
    """A claim, the file that it stands in, and its place there."""

    name: str
    place: int
    claim: Claim

    @property
    def empty(self) -> bool:
        """Whether no code is left."""
        return self.claim.verdict == "infeasible"

    @property
    def badness(self) -> tuple[int, float]:
        """Sorts undecided samples first, and in a verdict the widest intervals."""
        wide = 0.0 if self.empty else float(np.median(self.claim.half_width))
        return list(_VERDICTS).index(self.claim.verdict), -wide


def find_certificates(path: Path) -> dict[str, Certificate]:
    """The certificate in a file, or in each file of a folder that holds one, by the file's name.

    Raises:
        FormatError: A certificate that was changed or is damaged.
    """
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.json")) if _is_certificate(file)]
    else:
        files = [path] if path.is_file() else []
    return {file.name: Certificate.load(file) for file in files}


def _is_certificate(path: Path) -> bool:
    with path.open("rb") as file:
        return b"preimage certificate" in file.read(100)


def certificates_page(
    files: Mapping[str, Certificate],
    generator: Generator | None = None,
    observations: Any = None,
) -> str:
    """One page: verdicts, samples with their intervals, network, how to check."""
    found = [
        _Sample(name, index, claim)
        for name, certificate in files.items()
        for index, claim in enumerate(certificate.claims)
    ]
    if observations is not None and (generator is None or len(files) > 1):
        raise InputError(
            "observations: expected them with the network and one certificate only, got "
            f"{len(files)} certificates"
        )
    for sample in found:
        size = len(sample.claim.lower)
        if generator is not None and size != generator.latent_size:
            raise InputError(f"network: expected latent size {size}, got {generator.latent_size}")
    seen = None
    if observations is not None and generator is not None:
        seen = _rows(observations, generator, *files.values())
    counts = Counter(sample.claim.verdict for sample in found)
    verdicts = [(name, counts[name], text) for name, text in _VERDICTS.items() if counts[name]]
    worst = sorted(found, key=lambda sample: sample.badness)[:SHOWN]
    inspection = inspection_of(generator)
    sizes = () if generator is None else generator.sizes
    return page(
        f"{', '.join(files)}: {len(found)} certified samples",
        "What the file says; preimage check CERTIFICATE NETWORK OBSERVATIONS proves it again.",
        {
            "Verdicts": wide_table("Verdicts", ("verdict", "samples", "meaning"), verdicts),
            "Samples, worst first": note(
                f"{len(worst)} of {len(found)}. The witness is a code that explains the "
                "observation. Bars: how far from it each coordinate of any other such code can "
                "lie. Dots: a second such code. Pictures, if the network and the observations are "
                "given: the observation, outputs of these codes, and the difference from the "
                "first."
            )
            + "".join(_figure(sample, generator, seen) for sample in worst),
            "All samples": _table(found),
            "Network": network_card(inspection, sizes, generator.digest if generator else ""),
        },
    )


def _rows(observations: Any, generator: Generator, certificate: Certificate) -> Array:
    """The observations, if the claims are about them and this network."""
    from preimage.certify.prove import network_digest

    claims = certificate.claims
    size = len(claims[0].question.observation) if claims else None
    source = open_observations(observations, generator, size=size)
    if source.count != len(claims):
        raise InputError(f"observations: expected {len(claims)} samples, got {source.count}")
    seen = source.read(0, len(claims))
    digest = network_digest(generator)
    for index, (x, claim) in enumerate(zip(seen, claims, strict=True)):
        question = claim.question
        if question.network != digest or not _same(question.observation, x):
            raise InputError(
                f"observations: sample {index} of the certificate is about another network or "
                "observation"
            )
    return seen


def _same(observation: Array, x: Array) -> bool:
    """Whether they agree wherever something was seen."""
    seen = ~np.isnan(observation)
    return observation.shape == x.shape and bool((observation == x)[seen].all())


def _end(value: float) -> str:
    return number(value) if np.isfinite(value) else "∞" if value > 0 else "−∞"


def _distance(sample: _Sample) -> str:
    distance = sample.claim.distance
    return "–" if np.isnan(distance) else number(distance)


def _table(found: Sequence[_Sample]) -> str:
    lines = [
        (s.name, s.place, s.claim.verdict, _distance(s), number(s.claim.question.resolution),
         number(s.claim.question.noise), *(("–", "–") if s.empty else
         (_end(float(np.median(s.claim.half_width))), _end(float(np.max(s.claim.half_width))))),
         s.claim.branches, s.claim.reason)
        for s in sorted(found, key=lambda sample: sample.badness)
    ]  # fmt: skip
    columns = ("file", "sample", "verdict", "distance", "resolution", "noise",
               "half-width, median", "widest", "branches", "reason")  # fmt: skip
    return wide_table("All samples", columns, lines)


def _figure(sample: _Sample, generator: Generator | None, seen: Array | None) -> str:
    claim = sample.claim
    caption = f"sample {sample.place}: {claim.verdict}"
    caption += "" if np.isnan(claim.distance) else f", distance {_distance(sample)}"
    caption += f"; {claim.reason}" if claim.reason else ""
    images = {}
    if seen is not None:
        images[f"observation {sample.place}"] = seen[sample.place]
    if generator is not None:
        outputs = [generator(code[None])[0] for code in claim.witnesses[:2]]
        for name, output in zip(("witness", "second witness"), outputs, strict=False):
            images[f"output of the {name} of sample {sample.place}"] = output
        if seen is not None and outputs:
            images[f"difference {sample.place}"] = difference(seen[sample.place], outputs[0])
    return drawn(images, caption, "" if sample.empty else _intervals(sample))


def _intervals(sample: _Sample) -> str:
    """The intervals as a drawing, and below it as a table."""
    claim = sample.claim
    half, known = claim.half_width, claim.witnesses[:1]
    text = (
        f"Intervals of {len(half)} coordinates"
        f"{' around the witness' if known else ', no witness known'}: median half-width "
        f"{_end(float(np.median(half)))}, widest {_end(float(half.max()))}"
    )
    lines = [
        (f"z{i}", _end(float(low)), _end(float(high)), _end(float(high - low)),
         *(number(float(code[i])) for code in known))
        for i, (low, high) in enumerate(zip(claim.lower, claim.upper, strict=True))
    ]  # fmt: skip
    columns = ("coordinate", "lower", "upper", "width", *("witness" for _ in known))
    listed = wide_table(f"Intervals of sample {sample.place}", columns, lines)
    return f'{_chart(claim, text)}<details><summary class="soft">{text}</summary>{listed}</details>'


def _chart(claim: Claim, text: str) -> str:
    """The intervals relative to the witness if there is one, and a second witness as dots."""
    centre = claim.witnesses[0] if claim.witnesses else np.zeros(len(claim.lower))
    others = {} if len(claim.witnesses) < 2 else {"second code": claim.witnesses[1] - centre}
    return intervals_svg(claim.lower - centre, claim.upper - centre, others, text)
