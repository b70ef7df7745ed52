"""What is proven of each sample, and the file that says so."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.certify.proof import Node, hexed, hexed_all
from preimage.enclosure.network import Array
from preimage.io.guard import write_bytes
from preimage.notebook import certificate_html

FORMAT = "preimage certificate 1"
VERDICTS = ("unique", "ambiguous", "infeasible", "undecided")


@dataclass(frozen=True, eq=False)
class Claim:
    """What is proven of one sample's ``S = { z : |G(z) - x| <= noise } in the box``.

    Attributes:
        verdict: One of ``VERDICTS``.
        reason: Why it is undecided; else empty.
        lower: (k,) S lies above; NaN where S is empty.
        upper: (k,).
        witnesses: Codes in S, verified exactly.
        distance: d (unique), D (ambiguous), else NaN.
        resolution: What d and D are compared with.
        ray: Direction of a ray in S as integers; None for none.
        noise: Of the sample.
        rounding: What is added to it where codes are excluded; see ``certify``.
        box: Both ends; None for none.
        head: For a tanh or sigmoid head, the pre-activations within noise of x.
        proof: The tree.
        bound_to: Digest of network, observation, noise and box.
    """

    verdict: str
    reason: str
    lower: Array
    upper: Array
    witnesses: list[Array]
    distance: float
    resolution: float
    ray: list[int] | None
    noise: float
    rounding: float
    box: tuple[Array, Array] | None
    head: tuple[Array, Array] | None
    proof: Node
    bound_to: str

    def record(self) -> dict[str, Any]:
        """Plain JSON for the checker."""
        empty = self.verdict == "infeasible"
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "lower": hexed_all(np.full_like(self.lower, np.inf) if empty else self.lower),
            "upper": hexed_all(np.full_like(self.upper, -np.inf) if empty else self.upper),
            "witnesses": [hexed_all(witness) for witness in self.witnesses],
            "distance": hexed(0.0 if np.isnan(self.distance) else self.distance),
            "resolution": hexed(self.resolution),
            "ray": None if self.ray is None else [str(entry) for entry in self.ray],
            "noise": hexed(self.noise),
            "rounding": hexed(self.rounding),
            "box": box_record(self.box),
            "head": box_record(self.head),
            "proof": self.proof.record(),
            "bound_to": self.bound_to,
        }


def box_record(box: tuple[Array, Array] | None) -> list[list[str]] | None:
    """Both ends, exactly."""
    return None if box is None else [hexed_all(end) for end in box]


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
            ambiguous, how far the two are apart, infinite for a ray; else NaN.
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

        def stack(rows: list[Array]) -> Array:
            return np.array(rows, dtype=np.float64).reshape(len(claims), k)

        nothing = np.full(k, np.nan)
        parts = [
            np.array([claim.verdict for claim in claims], dtype=object),
            np.array([claim.reason for claim in claims], dtype=object),
            stack([claim.lower for claim in claims]),
            stack([claim.upper for claim in claims]),
            stack([(*claim.witnesses, nothing)[0] for claim in claims]),
            stack([(*claim.witnesses, nothing, nothing)[1] for claim in claims]),
            np.array([claim.distance for claim in claims]),
            np.array([claim.resolution for claim in claims]),
        ]
        shown: list[Any] = [part[0] if single else part for part in parts]
        verdict, reason, lower, upper, witness, other, distance, resolution = shown
        return Certificate(
            verdict, reason, lower, upper, witness, other, distance, resolution, tuple(claims)
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON file, which ``preimage check`` and ``preimage.certify.checker`` read."""
        from preimage.certify.checker import seal

        content: dict[str, Any] = {
            "format": FORMAT,
            "samples": [claim.record() for claim in self.claims],
        }
        write_bytes(Path(path), json.dumps(content | {"digest": seal(content)}).encode())

    def __len__(self) -> int:
        return len(self.claims)

    def __repr__(self) -> str:
        counts = [f"{sum(c.verdict == name for c in self.claims)} {name}" for name in VERDICTS]
        shown = ", ".join(text for text in counts if not text.startswith("0 "))
        return f"Certificate({len(self)} samples: {shown or 'none'})"

    def _repr_html_(self) -> str:
        return certificate_html(self)


def verdict_counts(certificate: Certificate) -> dict[str, int]:
    """Samples with each verdict."""
    names: NDArray[Any] = np.atleast_1d(certificate.verdict)
    return {name: int((names == name).sum()) for name in VERDICTS}
