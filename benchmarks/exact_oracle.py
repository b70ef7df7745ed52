"""Networks of one latent, exactly: their pieces, the codes that explain an observation, claims."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import preimage


def exact_pieces(generator: preimage.Generator) -> list[Any]:
    """The affine pieces of a piecewise-linear network of one latent."""
    pieces: list[Any] = [(-math.inf, math.inf, [(Fraction(1), Fraction(0))])]
    for layer in generator.layers:
        slopes = layer.activation.slopes(layer.output_size)[0].tolist()
        rows = list(zip(layer.dense_weight.tolist(), layer.bias.tolist(), slopes, strict=True))
        after = []
        for low, high, lines in pieces:
            affine = []
            for row, bias, _ in rows:
                pairs = list(zip(map(Fraction, row), lines, strict=True))
                offset = sum((w * t for w, (_, t) in pairs), Fraction(bias))
                affine.append((sum((w * s for w, (s, _) in pairs), Fraction(0)), offset))
            roots = {-t / s for s, t in affine if s and low < -t / s < high}
            ends = [low, *sorted(roots), high]
            for a, b in itertools.pairwise(ends):
                middle = inner_point(a, b)
                shares = [
                    Fraction(1 if s * middle + t >= 0 else c)
                    for (s, t), (_, _, c) in zip(affine, rows, strict=True)
                ]
                lines_here = [(s * c, t * c) for (s, t), c in zip(affine, shares, strict=True)]
                after.append((a, b, lines_here))
        pieces = after
    return pieces


def inner_point(low: Any, high: Any) -> Fraction:
    """A point of an interval that may be infinite."""
    if low == -math.inf:
        return Fraction(0) if high == math.inf else high - 1
    return low + 1 if high == math.inf else (low + high) / 2


def explaining(pieces: list[Any], x: list[Any], noise: Fraction, box: tuple[Any, Any]) -> list[Any]:
    """S as a list of closed intervals; None in x was not seen."""
    found = []
    for low, high, lines in pieces:
        low, high = max(low, box[0]), min(high, box[1])
        for (s, t), v in zip(lines, x, strict=True):
            if v is None:
                continue
            if s == 0:
                low, high = (low, high) if abs(t - v) <= noise else (1, 0)
                continue
            ends = sorted(((v - noise - t) / s, (v + noise - t) / s))
            low, high = max(low, ends[0]), min(high, ends[1])
        if low <= high:
            found.append((low, high))
    return found


def rational(text: str) -> Any:
    """A number of a certificate."""
    value = float.fromhex(text)
    return value if math.isinf(value) else Fraction(value)


def falsehood(pieces: list[Any], record: dict[str, Any]) -> str:
    """What is not true of a record for the question that it states; empty if all is."""
    question, verdict = record["question"], record["verdict"]
    x = [None if text is None else rational(text) for text in question["observation"]]
    noise, resolution = rational(question["noise"]), rational(question["resolution"])
    box = question["box"] or [["-inf"], ["inf"]]
    held = explaining(pieces, x, noise, (rational(box[0][0]), rational(box[1][0])))
    low, high = min((p[0] for p in held), default=None), max((p[1] for p in held), default=None)
    codes = [rational(z[0]) for z in record["witnesses"]]
    if not all(any(a <= z <= b for a, b in held) for z in codes):
        return "a witness explains nothing"
    if verdict == "infeasible":
        return "infeasible, but S is not empty" if held else ""
    if held and not rational(record["lower"][0]) <= low <= high <= rational(record["upper"][0]):
        return "S is not in the intervals"
    if verdict == "unique":
        distance = rational(record["distance"])
        far = max(abs(codes[0] - low), abs(high - codes[0]))
        return "" if far <= distance <= resolution else "not unique, or farther than it says"
    if verdict == "ambiguous":
        near = abs(codes[0] - codes[1]) < rational(record["distance"])
        return "not as far apart" if near or rational(record["distance"]) <= resolution else ""
    return "" if verdict == "undecided" else "an unknown verdict"
