"""Forge certificates, and judge what the checker accepts: ``python benchmarks/forgeries.py``.

Networks of one latent are small enough for an exact oracle: between two breakpoints the output is
affine, so that ``S = { z : |G(z) - x| <= noise }`` is a list of intervals, found with fractions.
``certify`` answers such problems; its certificates are then changed, in one place or in several
that belong together, sealed anew, and given to the checker. One that is accepted must be true for
the question that it states. Honest certificates must all be accepted. Prints counts by kind, and
ends with 1 if one forgery is false and accepted, or an honest certificate is refused.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from exact_oracle import exact_pieces, falsehood

import preimage
from preimage.certify import checker

SAMPLES = 8  # in a certificate
MUTANTS = 400  # of each certificate
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.0, -2.0, 5e-324, 1e300, -1e300, math.inf, -math.inf]
FOREIGN = [True, False, None, -1, -2, 0, 1, 2, 3, 10**17, "", "0", "nan", "inf", "-inf", "0x1p0",
           "0x1.0000000000000p+2000", [], {}, [[]], 1.5, "unique", "infeasible"]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Problem:
    """A network of one latent with observations, and what certify says of them.

    Attributes:
        generator: The network.
        x: (SAMPLES, n).
        mask: (SAMPLES, n); None for all.
        certificate: From ``certify``.
        pieces: ``(low, high, [(slope, offset) of each output])``: the network, exactly.
    """

    generator: preimage.Generator
    x: np.ndarray
    mask: np.ndarray | None
    certificate: preimage.Certificate
    pieces: list[tuple[Any, Any, list[tuple[Fraction, Fraction]]]]


def draw(seed: int) -> Problem:
    """A random network with small dyadic numbers, and observations on or near its range."""
    rng = np.random.default_rng(seed)
    sizes = [1, *rng.integers(1, 4, size=rng.integers(1, 4)).tolist()]
    weights = [rng.integers(-3, 4, size=(n, k)) / 2.0 for k, n in itertools.pairwise(sizes)]
    biases = [rng.integers(-2, 3, size=n) / 2.0 for n in sizes[1:]]
    body = ["relu", "leaky_relu(0.5)", "leaky_relu(0.1)", "identity"][rng.integers(4)]
    head = ["relu", "leaky_relu(0.5)", "identity"][rng.integers(3)]
    generator = preimage.from_arrays(weights, biases, activation=body, head=head)
    z = rng.integers(-8, 9, size=(SAMPLES, 1)) / 4.0
    noise = float([0.0, 2.0**-10, 0.125, 0.5, 1.0, 0.1][rng.integers(6)])
    x = generator(z) + noise * rng.integers(-2, 3, size=(SAMPLES, sizes[-1])) / 2.0
    box = [None, 4.0, 5.0, (-1.0, 3.0)][rng.integers(4)]
    mask = rng.random(x.shape) < 0.8 if sizes[-1] > 1 and rng.random() < 0.3 else None
    if mask is not None:
        mask[:, 0] = True
    resolution = None if rng.random() < 0.5 else float(rng.choice([0.25, 1.0]))
    certificate = preimage.certify(
        generator, x, noise=noise, box=box, sensing=mask, resolution=resolution, nodes=50
    )
    return Problem(generator, x, mask, certificate, exact_pieces(generator))


class Forger:
    """Changes records in place; which places is random."""

    def __init__(self, rng: np.random.Generator, others: list[dict[str, Any]]) -> None:
        self.rng, self.others = rng, others

    def pick(self, values: Any) -> Any:
        """One of a list."""
        return values[int(self.rng.integers(len(values)))]

    def number(self, text: Any = None) -> Any:
        """Another number, or text that is like one."""
        try:
            value = float.fromhex(text)
        except (TypeError, ValueError, OverflowError):
            value = 1.0
        near = [-value, 2 * value, value / 2, value + 1, value - 1, 1e-3 * value, 0.9 * value]
        near += [math.nextafter(value, math.inf), math.nextafter(value, -math.inf)]
        return float(self.pick([*near, *near, *SPECIAL])).hex()

    def cuts(self, record: dict[str, Any]) -> list[list[Any]]:
        """All claims of cuts in a proof."""
        found, waiting = [], [record["proof"]]
        while waiting:
            node = waiting.pop()
            waiting += node.get("children", [])
            found += [c for step in node.get("steps", []) if step[0] == "cuts" for c in step[1:]]
        return found

    def anywhere(self, record: dict[str, Any]) -> None:
        """Any leaf or container, by something like it or of another kind."""
        parent: Any = record
        while True:
            key = self.pick(list(parent)) if isinstance(parent, dict) else int(
                self.rng.integers(len(parent)))  # fmt: skip
            child = parent[key]
            if isinstance(child, (dict, list)) and child and self.rng.random() < 0.93:
                parent = child
                continue
            break
        action = self.rng.random()
        if isinstance(child, str) and action < 0.6:
            parent[key] = self.number(child)
        elif isinstance(child, int) and action < 0.6:
            parent[key] = child + int(self.pick([-3, -2, -1, 1, 2]))
        elif action < 0.8:
            parent[key] = self.pick(FOREIGN)
        elif isinstance(parent, dict):
            parent[key + self.pick(["", "", "x"])] = parent.pop(key)
        elif action < 0.87:
            del parent[key]
        elif action < 0.94:
            parent.append(parent[key])
        else:
            other = int(self.rng.integers(len(parent)))
            parent[key], parent[other] = parent[other], parent[key]

    def side(self, record: dict[str, Any]) -> None:
        """A cut's side, layer or unit, negative or beyond the end (as in Python's indices)."""
        cuts = self.cuts(record)
        if cuts:
            self.pick(cuts)[self.pick([0, 1, 2, 4])] = self.pick([-3, -2, -1, 0, 1, 2, True, False])

    def two_ends(self, record: dict[str, Any]) -> None:
        """Two cuts that leave what is wanted, with the multipliers of other ones."""
        cuts = self.cuts(record)
        steps = record["proof"].get("steps")
        if not cuts or steps is None:
            return
        at = float(self.rng.integers(-20, 21)) / 4
        pair = []
        for upper, value in ((self.pick([0, -2]), at + 0.5), (self.pick([1, -1]), at)):
            cut = json.loads(json.dumps(self.pick(cuts)))
            pair.append([0, 0, upper, value.hex(), *cut[4:]])
        steps.append(["cuts", *pair] if self.rng.random() < 0.5 else ["cuts", pair[0]])
        if len(steps[-1]) == 2:
            steps.append(["cuts", pair[1]])
        if self.rng.random() < 0.5:
            record["lower"], record["upper"] = [at.hex()], [(at + 0.5).hex()]

    def multipliers(self, record: dict[str, Any]) -> None:
        """Signs of one layer's multipliers, with the other end or another value."""
        cuts = [cut for cut in self.cuts(record) if cut[5] and cut[5][-1][1]]
        if cuts:
            cut = self.pick(cuts)
            part = self.pick(cut[5])
            part[1] = [-v for v in part[1]]
            if self.rng.random() < 0.5:
                cut[2] = 1 - cut[2] if isinstance(cut[2], int) else 0
            if self.rng.random() < 0.5:
                cut[3] = self.number(cut[3])

    def question(self, record: dict[str, Any]) -> None:
        """Another box, noise, resolution or observation in the question."""
        question, kind = record["question"], self.rng.integers(5)
        if kind == 0:
            low = float(self.rng.integers(-5, 4))
            high = low + float(self.rng.integers(0, 5))
            question["box"] = self.pick([None, [[low.hex()], [high.hex()]]])
        elif kind == 1:
            question["noise"] = self.number(question["noise"])
            if self.rng.random() < 0.5:
                record["enclosed_noise"] = question["noise"]
        elif kind == 2:
            question["resolution"] = self.pick([self.number(question["resolution"]), "inf"])
            if self.rng.random() < 0.5:
                record["distance"] = question["resolution"]
        elif kind == 3:
            record["enclosed_noise"] = self.number(record["enclosed_noise"])
        else:
            record["question"] = json.loads(json.dumps(self.pick(self.others)["question"]))

    def swapped(self, record: dict[str, Any]) -> None:
        """Parts of another sample's record."""
        other = json.loads(json.dumps(self.pick(self.others)))
        names = self.pick(
            ["proof", "proof lower upper", "witnesses", "verdict", "enclosed_noise question",
             "verdict distance lower upper witnesses", "proof enclosed_noise"]
        )  # fmt: skip
        record.update({name: other[name] for name in names.split()})

    def verdict(self, record: dict[str, Any]) -> None:
        """Another verdict with all that belongs to it."""
        record["verdict"] = verdict = self.pick(list(checker.VERDICTS))
        resolution = record["question"]["resolution"]
        known = record["witnesses"] or [[self.number()]]
        moved = (float.fromhex(known[0][0]) + float(self.rng.normal())).hex()
        record["witnesses"] = {
            "unique": known[:1], "infeasible": [], "undecided": known[:1],
            "ambiguous": [known[0], self.pick([known[0], known[-1], [moved], [known[0][0]] * 2])],
        }[verdict]  # fmt: skip
        apart = verdict in ("unique", "ambiguous")
        record["distance"] = self.pick([resolution, self.number(resolution)]) if apart else None
        if verdict == "infeasible":
            record["lower"] = record["upper"] = None
            if "end" in record["proof"]:
                record["proof"]["end"] = "empty"
        elif record["lower"] is None:
            record["lower"], record["upper"] = [self.number()], [self.number()]

    def bounds(self, record: dict[str, Any]) -> None:
        """Narrower intervals, and a distance that fits."""
        if record["lower"] is not None:
            end = self.pick(["lower", "upper"])
            record[end] = [self.number(record[end][0])]
            if record["distance"] is not None and self.rng.random() < 0.5:
                record["distance"] = self.number(record["distance"])

    def tree(self, record: dict[str, Any]) -> None:
        """Ends of branches, splits, and lost steps."""
        node = record["proof"]
        while node.get("children") and self.rng.random() < 0.7:
            node = self.pick(node["children"])
        action = self.rng.integers(5)
        if action == 0 and "end" in node:
            node["end"] = "empty" if node["end"] == "box" else "box"
        elif action == 1 and node.get("steps"):
            node["steps"].pop(int(self.rng.integers(len(node["steps"]))))
        elif action == 2 and "split" in node:
            node["children"].append(node["children"].pop(0))
        elif action == 3 and "split" in node:
            node["split"] = [node["split"][0], node["split"][1], self.number(node["split"][2])]
        elif "end" in node:
            value = self.number()
            children = [{"steps": [], "end": self.pick(["box", "empty"])} for _ in range(2)]
            node.pop("end")
            node.update(split=[0, 0, value], children=children)


KINDS = ("anywhere", "side", "two_ends", "multipliers", "question", "swapped", "verdict", "bounds",
         "tree")  # fmt: skip


def forge(forger: Forger, record: dict[str, Any]) -> str:
    """Change a record by one to three steps; the name of what was done."""
    count = int(forger.rng.choice([1, 1, 2, 2, 2, 3]))
    done = [forger.pick(KINDS) for _ in range(count)]
    for kind in done:
        try:
            getattr(forger, kind)(record)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError):
            pass  # an earlier step has left nothing of what this one changes
    return "+".join(sorted(set(done)))


def run(seed: int, mutants: int) -> tuple[Counter[str], list[str]]:
    """One certificate, honest, and forged so many times."""
    problem, counts = draw(seed), Counter[str]()
    wrong = [
        f"seed {seed}, sample {i}: refused: {reason}"
        for i, reason in enumerate(problem.certificate.reason)
        if "checker" in reason
    ]
    rng = np.random.default_rng([seed, 1])
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        paths = [
            str(Path(folder) / name) for name in ("c.json", "net.safetensors", "x.npy", "m.npy")
        ]
        preimage.save(problem.generator, paths[1])
        np.save(paths[2], problem.x)
        if problem.mask is None:
            paths.pop()
        else:
            np.save(paths[3], problem.mask)
        problem.certificate.save(paths[0])
        records = accepted(paths)
        counts["honest"] += SAMPLES
        if records is None:
            return counts, [*wrong, f"seed {seed}: the honest certificate is refused"]
        for i, record in enumerate(records):
            text = falsehood(problem.pieces, record)
            wrong += [f"seed {seed}, sample {i}: honest and false: {text}"] if text else []
        for number in range(mutants):
            sample = number * SAMPLES // mutants
            if number == 0 or sample != (number - 1) * SAMPLES // mutants:
                np.save(paths[2], problem.x[sample : sample + 1])
                if problem.mask is not None:
                    np.save(paths[3], problem.mask[sample : sample + 1])
            record = json.loads(json.dumps(records[sample]))
            kind = forge(Forger(rng, records), record)
            if record == records[sample]:
                continue
            content = {"format": checker.FORMAT, "samples": [record]}
            Path(paths[0]).write_text(json.dumps(content | {"digest": checker.seal(content)}))
            found = accepted(paths)
            counts["forged"] += 1
            counts["pairs"] += "+" in kind
            text = falsehood(problem.pieces, found[0]) if found else ""
            counts["accepted, true"] += found is not None and not text
            wrong += [f"seed {seed}, mutant {number}, {kind}: {text}: {record}"] if text else []
    return counts, wrong


def accepted(paths: list[str]) -> list[dict[str, Any]] | None:
    """What the checker accepts, as it would be printed; None where it refuses."""
    try:
        records = checker.check(*paths)
        for record in records:
            list(checker.describe(record))
    except Exception:  # whatever goes wrong, nothing is proven
        return None
    return records


def main() -> int:
    """Forge until the numbers are reached, or the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forged", type=int, default=2000)
    parser.add_argument("--honest", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    options = parser.parse_args()
    totals, wrong, seed, start = Counter[str](), [], options.seed, time.time()
    while totals["forged"] < options.forged or totals["honest"] < options.honest:
        if time.time() - start > options.seconds:
            break
        left = options.forged - totals["forged"]
        counts, found = run(seed, min(MUTANTS, max(left, 0)))
        totals, wrong, seed = totals + counts, wrong + found, seed + 1
        for text in found:
            print("FALSE ", text, flush=True)
        if seed % 100 == 0:
            print(f"{time.time() - start:.0f} s: {dict(totals)}, {len(wrong)} wrong", flush=True)
    print(
        f"{totals['forged']} forged ({totals['pairs']} in several places), of which "
        f"{totals['accepted, true']} accepted and true; {totals['honest']} honest; "
        f"{len(wrong)} wrong"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
