"""The report on certificates: verdicts, and the interval that every coordinate is proven to be in.

It shows what the file says. ``preimage check`` proves it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.batch.source import open_source, rows
from preimage.certify.certificate import FORMAT
from preimage.errors import FormatError, InputError
from preimage.generator import Generator
from preimage.io.guard import LIMITS, Limits, check_file, parse_json
from preimage.notebook import number
from preimage.report.network import inspection_of, network_card
from preimage.report.page import SHOWN, difference, drawn, note, page, wide_table

Array = NDArray[np.float64]

# Worst first.
_VERDICTS = {
    "undecided": "Nothing is proven but the intervals; the reason says what stood in the way.",
    "ambiguous": "Two codes explain the observation, and are the distance apart.",
    "infeasible": "No code explains the observation to within the noise.",
    "unique": "Every code that explains it is within the distance of the witness.",
}
_LIMITS = Limits(header_bytes=LIMITS.file_bytes)  # a certificate is all text


@dataclass(frozen=True, eq=False)
class _Sample:
    """What a certificate says of one sample; see ``preimage.certify.certificate.Claim``."""

    name: str
    index: int
    verdict: str
    reason: str
    lower: Array
    upper: Array
    witnesses: list[Array]
    distance: float
    resolution: float
    noise: float
    ray: bool
    branches: int

    @property
    def half_width(self) -> Array:
        """(k,) of each interval, where there is a code at all."""
        return (self.upper - self.lower) / 2

    @property
    def empty(self) -> bool:
        """Whether no code is left."""
        return self.verdict == "infeasible"

    @property
    def badness(self) -> tuple[int, float]:
        """Sorts undecided samples first, and in a verdict the widest intervals."""
        wide = 0.0 if self.empty else float(np.median(self.half_width))
        return list(_VERDICTS).index(self.verdict), -wide


def find_certificates(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The samples of a certificate file, or of each in a folder, by the file's name.

    Raises:
        FormatError: A certificate that was changed or is damaged.
    """
    paths = sorted(path.glob("*.json")) if path.is_dir() else [path] if path.is_file() else []
    found = {}
    for file in paths:
        samples_of = _read(file, only=not path.is_dir())
        if samples_of is not None:
            found[file.name] = samples_of
    return found


def _read(path: Path, *, only: bool) -> list[dict[str, Any]] | None:
    """The samples of a file; None if it is another JSON file of the folder."""
    from preimage.certify.checker import seal

    try:
        content = parse_json(check_file(path).read_bytes(), str(path), _LIMITS)
    except FormatError:
        if only:
            raise
        return None
    if content.get("format") != FORMAT:
        return None
    digest = content.pop("digest", None)
    if digest != seal(content):
        raise FormatError(f"{path}: it was changed after it was written")
    try:
        return [dict(sample) for sample in content["samples"]]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: expected a certificate, got {error!r}") from error


def certificates_page(
    files: Mapping[str, Sequence[Mapping[str, Any]]],
    generator: Generator | None = None,
    observations: Any = None,
) -> str:
    """One page: verdicts, samples with their intervals, network, how to check."""
    found = [
        _sample(name, index, record) for name, content in files.items()
        for index, record in enumerate(content)
    ]  # fmt: skip
    if observations is not None and (generator is None or len(files) > 1):
        raise InputError(
            "observations: expected them with the network and one certificate only, got "
            f"{len(files)} certificates"
        )
    for sample in found:
        if generator is not None and len(sample.lower) != generator.latent_size:
            raise InputError(
                f"network: expected latent size {len(sample.lower)}, got {generator.latent_size}"
            )
    seen = None
    if observations is not None and generator is not None:
        seen = _rows(observations, generator, *files.values())
    counts = Counter(sample.verdict for sample in found)
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
                f"{len(worst)} of {len(found)}. Bars: how far from the witness, a code that "
                "explains the observation, each coordinate of any other can lie. Dots: a second "
                "such code. Pictures, with the network and the observations: what was observed, "
                "outputs of these codes, and the difference from the first."
            )
            + "".join(_figure(sample, generator, seen) for sample in worst),
            "All samples": _table(found),
            "Network": network_card(inspection, sizes, generator.digest if generator else ""),
        },
    )


def _sample(name: str, index: int, record: Mapping[str, Any]) -> _Sample:
    def numbers(texts: Sequence[str]) -> Array:
        return np.array([float.fromhex(text) for text in texts])

    try:
        lower, upper = numbers(record["lower"]), numbers(record["upper"])
        sample = _Sample(
            name, index, record["verdict"], str(record["reason"]), lower, upper,
            [numbers(code) for code in record["witnesses"]], float.fromhex(record["distance"]),
            float.fromhex(record["resolution"]), float.fromhex(record["noise"]),
            record["ray"] is not None, _branches(record["proof"]),
        )  # fmt: skip
        fits = {len(part) for part in (lower, upper, *sample.witnesses)} == {len(lower)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{name}: sample {index}: expected a claim, got {error!r}") from error
    if sample.verdict not in _VERDICTS or not fits:
        raise FormatError(f"{name}: sample {index}: expected a verdict and vectors of one length")
    return sample


def _branches(proof: Mapping[str, Any]) -> int:
    """Leaves of a proof's tree; a loop, since a file may nest deeply."""
    waiting, leaves = [proof], 0
    while waiting:
        children = waiting.pop().get("children", ())
        waiting.extend(children)
        leaves += not children
    return leaves


def _rows(observations: Any, generator: Generator, records: Sequence[Mapping[str, Any]]) -> Array:
    """The observations, if the claims are about them and this network."""
    from preimage.certify.prove import binding, exact_layers

    source = open_source(observations)
    if source.shape[0] != len(records):
        raise InputError(f"observations: expected {len(records)} samples, got {source.shape[0]}")
    seen = rows(source, 0, len(records))
    digest = exact_layers(generator)[1]
    for index, (x, record) in enumerate(zip(seen, records, strict=True)):
        if record.get("bound_to") != binding(digest, x, record["noise"], record["box"]):
            raise InputError(
                f"observations: sample {index} of the certificate is about another network, "
                "observation, noise or box"
            )
    return seen


def _end(value: float) -> str:
    return number(value) if np.isfinite(value) else "∞" if value > 0 else "−∞"


def _distance(sample: _Sample) -> str:
    if sample.ray:
        return "a ray"
    return number(sample.distance) if sample.verdict in ("unique", "ambiguous") else "–"


def _table(found: Sequence[_Sample]) -> str:
    lines = [
        (s.name, s.index, s.verdict, _distance(s), number(s.resolution),
         number(s.noise), *(("–", "–") if s.empty else
         (_end(float(np.median(s.half_width))), _end(float(np.max(s.half_width))))),
         s.branches, s.reason)
        for s in sorted(found, key=lambda sample: sample.badness)
    ]  # fmt: skip
    columns = ("file", "sample", "verdict", "distance", "resolution", "noise",
               "half-width, median", "widest", "branches", "reason")  # fmt: skip
    return wide_table("All samples", columns, lines)


def _figure(sample: _Sample, generator: Generator | None, seen: Array | None) -> str:
    caption = f"sample {sample.index}: {sample.verdict}"
    caption += f", distance {_distance(sample)}" if sample.distance else ""
    caption += f"; {sample.reason}" if sample.reason else ""
    images = {}
    if seen is not None:
        images[f"observation {sample.index}"] = seen[sample.index]
    if generator is not None:
        outputs = [generator(code[None])[0] for code in sample.witnesses[:2]]
        for name, output in zip(("witness", "second witness"), outputs, strict=False):
            images[f"output of the {name} of sample {sample.index}"] = output
        if seen is not None and outputs:
            images[f"difference {sample.index}"] = difference(seen[sample.index], outputs[0])
    return drawn(images, caption, "" if sample.empty else _intervals(sample))


def _intervals(sample: _Sample) -> str:
    """The intervals as a drawing, and below it as a table."""
    half, known = sample.half_width, sample.witnesses[:1]
    text = (
        f"Intervals of {len(half)} coordinates"
        f"{' around the witness' if known else ', no witness known'}: median half-width "
        f"{_end(float(np.median(half)))}, widest {_end(float(half.max()))}"
    )
    lines = [
        (f"z{i}", _end(float(low)), _end(float(high)), _end(float(high - low)),
         *(number(float(code[i])) for code in known))
        for i, (low, high) in enumerate(zip(sample.lower, sample.upper, strict=True))
    ]  # fmt: skip
    columns = ("coordinate", "lower", "upper", "width", *("witness" for _ in known))
    listed = wide_table(f"Intervals of sample {sample.index}", columns, lines)
    return (
        f'{_chart(sample, text)}<details><summary class="soft">{text}</summary>{listed}</details>'
    )


def _chart(sample: _Sample, text: str) -> str:
    """Bars from ``lower`` to ``upper``, around the witness if there is one."""
    centre = sample.witnesses[0] if sample.witnesses else np.zeros(len(sample.lower))
    below, above, *others = (
        end - centre for end in (sample.lower, sample.upper, *sample.witnesses[1:2])
    )
    ends = np.concatenate([below, above, *others, [0.0]])
    low, high = ends[np.isfinite(ends)].min(), ends[np.isfinite(ends)].max()
    low, high = (low, high) if low < high else (low - 1.0, high + 1.0)
    tall, left = 130, 90
    step = (600 - left) / len(centre)

    def y(value: float) -> float:
        # An interval without an end goes to the edge.
        return float(10 + tall * (1 - (np.clip(value, low, high) - low) / (high - low)))

    bars, dots = "", ""
    for i in range(len(centre)):
        x, top = left + (i + 0.5) * step, y(above[i])
        bars += (
            f'<rect x="{x - 0.3 * step:.1f}" y="{top - 1:.1f}" width="{0.6 * step:.1f}" '
            f'height="{y(below[i]) - top + 2:.1f}"/>'
        )
        for other in others:
            radius = min(3.5, 0.25 * step)
            dots += f'<circle cx="{x:.1f}" cy="{y(other[i]):.1f}" r="{radius:.1f}"/>'
    highest = number(high) if np.isfinite(above).all() else "∞"
    lowest = number(low) if np.isfinite(below).all() else "−∞"
    return (
        f'<svg role="img" aria-label="{text}" viewBox="0 0 600 150" width="600">'
        f'<path d="M{left} {y(0.0):.1f}H600" stroke="var(--soft)"/>'
        f'<g fill="var(--bar)">{bars}</g>'
        f'<g fill="var(--ground)" stroke="var(--ink)" stroke-width="1.5">{dots}</g>'
        f'<text x="{left - 8}" y="20" text-anchor="end">{highest}</text>'
        f'<text x="{left - 8}" y="{tall + 12}" text-anchor="end">{lowest}</text></svg>'
    )
