"""What is proven of each sample, and the file that says so."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preimage.certify import checker
from preimage.certify.proof import plain
from preimage.errors import FormatError
from preimage.io.limits import write_bytes
from preimage.matrix import Array
from preimage.notebook import certificate_html

VERDICTS = tuple(checker.VERDICTS)


@dataclass(frozen=True, eq=False)
class Question:
    """What a sample was asked: about which network and observation, and within which limits."""

    network: str  # digest of its content
    sensing: str | None  # digest of the matrix; None without one
    observation: Array  # (n,) NaN where nothing was seen
    noise: float  # bound on the largest absolute noise entry
    box: tuple[Array, Array] | None  # both ends, (k,) each; None for none
    resolution: float  # distance up to which codes count as one

    @staticmethod
    def of(record: dict[str, Any]) -> Question:
        """Read what ``record`` wrote."""
        return Question(
            record["network"],
            record["sensing"],
            _vector([text or "nan" for text in record["observation"]]),
            float.fromhex(record["noise"]),
            _pair(record["box"]),
            float.fromhex(record["resolution"]),
        )


@dataclass(frozen=True, eq=False)
class Claim:
    """What is proven of one sample's ``S = { z : |A G(z) - x| <= noise } in the box``.

    Attributes:
        question: What the sample was asked.
        verdict: One of ``VERDICTS``.
        reason: Why it is undecided; else empty.
        lower: (k,) S lies above; NaN where S is empty.
        upper: (k,) and below.
        witnesses: Codes in S, verified exactly.
        distance: ``distance`` of the certificate.
        enclosed_noise: At least the noise; codes are only excluded where they are wrong by more,
            see ``certify``.
        head: For a tanh or sigmoid head, the pre-activations within ``enclosed_noise`` of x.
        proof: The proof tree as the checker reads it.
    """

    question: Question
    verdict: str
    reason: str
    lower: Array
    upper: Array
    witnesses: list[Array]
    distance: float
    enclosed_noise: float
    head: tuple[Array, Array] | None
    proof: dict[str, Any]

    @property
    def half_width(self) -> Array:
        """(k,) half the length of each interval; NaN where S is empty."""
        return (self.upper - self.lower) / 2

    @property
    def branches(self) -> int:
        """Leaves of the proof tree."""
        if "subdivision" in self.proof:
            return sum(token[0] in ("box", "empty") for token in self.proof["subdivision"])
        waiting, leaves = [self.proof], 0
        while waiting:
            children = waiting.pop().get("children", ())
            waiting.extend(children)
            leaves += not children
        return leaves

    def record(self) -> dict[str, Any]:
        """Plain JSON for the checker."""
        record = plain(self)
        return record | {"lower": None, "upper": None} if self.verdict == "infeasible" else record

    @staticmethod
    def of(record: dict[str, Any], size: int) -> Claim:
        """Read what ``record`` wrote, of a latent of this size.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: The record has another form.
        """
        if record["verdict"] not in VERDICTS:
            raise ValueError(f"expected one of {VERDICTS}, got {record['verdict']!r}")
        distance = record["distance"]
        lower, upper = (
            np.full(size, np.nan) if record[side] is None else _vector(record[side], size)
            for side in ("lower", "upper")
        )
        witnesses = [_vector(witness, size) for witness in record["witnesses"]]
        return Claim(
            Question.of(record["question"]), record["verdict"], str(record["reason"]), lower, upper,
            witnesses, np.nan if distance is None else float.fromhex(distance),
            float.fromhex(record["enclosed_noise"]), _pair(record["head"]), dict(record["proof"]),
        )  # fmt: skip


def _vector(texts: list[str], size: int | None = None) -> Array:
    values = np.array([float.fromhex(text) for text in texts])
    if size is not None and len(values) != size:
        raise ValueError(f"expected {size} numbers, got {len(values)}")
    return values


def _pair(ends: list[list[str]] | None) -> tuple[Array, Array] | None:
    if ends is None:
        return None
    low, high = map(_vector, ends)
    return low, high


@dataclass(frozen=True, eq=False)
class Certificate:
    """One verdict a sample, each with its proof. Without a batch, entries are scalars.

    Attributes:
        verdict: (batch,) strings: ``"unique"``, ``"ambiguous"``, ``"infeasible"`` or
            ``"undecided"``.
        reason: (batch,) why a sample is undecided; else empty.
        lower: (batch, k) every code that explains the observation lies above, whatever the verdict;
            NaN where none exists.
        upper: (batch, k) and below.
        witness: (batch, k) a code that explains the observation, verified exactly; NaN where none
            was found.
        other: (batch, k) where ambiguous, a second one; else NaN.
        distance: (batch,) where unique, no code is farther from the witness (l-infinity); where
            ambiguous, how far the two are apart; else NaN.
        resolution: (batch,) the largest distance that counts as unique.
        claims: One ``Claim`` a sample, with the proof.
    """

    verdict: Any
    reason: Any
    lower: Array
    upper: Array
    witness: Array
    other: Array
    distance: Any
    resolution: Any
    claims: tuple[Claim, ...]

    @staticmethod
    def of(claims: list[Claim], k: int, single: bool) -> Certificate:
        """Gather claims."""
        nothing = np.full(k, np.nan)
        rows: list[tuple[Any, ...]] = [
            (claim.verdict, claim.reason, claim.lower, claim.upper,
             *[*claim.witnesses, nothing, nothing][:2], claim.distance, claim.question.resolution)
            for claim in claims
        ]  # fmt: skip
        text, vector, number = (object, ()), (float, (k,)), (float, ())
        kinds = (text, text, vector, vector, vector, vector, number, number)
        columns = [
            np.array([row[i] for row in rows], dtype=dtype).reshape(len(rows), *shape)
            for i, (dtype, shape) in enumerate(kinds)
        ]
        shown: list[Any] = [*(rows[0] if single else columns), tuple(claims)]
        return Certificate(*shown)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON file, which ``preimage check`` and ``preimage.certify.checker`` read."""
        content = {"format": checker.FORMAT, "samples": [claim.record() for claim in self.claims]}
        write_bytes(Path(path), json.dumps(content | {"digest": checker.seal(content)}).encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Certificate:
        """Read what ``save`` wrote, always with a batch dimension.

        Nothing is proven by reading: ``preimage check`` does that.

        Raises:
            FormatError: The file is no certificate, or was changed.
        """
        try:
            records = checker.read_certificate(path)
            sizes = {len(r["lower"]) for r in records if r["lower"] is not None}
            sizes |= {len(z) for r in records for z in r["witnesses"]}
            k = sizes.pop() if sizes else 0
            return Certificate.of([Claim.of(record, k) for record in records], k, single=False)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FormatError(f"{os.fspath(path)}: expected a certificate, got {error}") from error

    def __len__(self) -> int:
        return len(self.claims)

    def __repr__(self) -> str:
        counts = Counter(claim.verdict for claim in self.claims)
        shown = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])
        return f"Certificate({len(self)} samples: {shown or 'none'})"

    def _repr_html_(self) -> str:
        return certificate_html(self)
