"""Plant claims whose truth is known, certify, replay: ``python benchmarks/soundness.py``.

Each family makes networks and observations with something known of them for certain: codes that
explain the observation, or that none does. A verdict is false if it contradicts that, or if the
checker, which reads files alone, does not prove it. Then certificates are mutated, and none may
pass. Prints a table, and ends with 1 if one claim is false, one mutant passes, or fewer than 99 %
of the well-posed claims are decided.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from planted_claims import FAMILIES, PER_NETWORK, Plan

import preimage
from preimage.certify import boxes, checker


def falsehoods(plan: Plan, certificate: preimage.Certificate, sample: int) -> list[str]:
    """What a verdict says that is not so."""
    found = []
    verdict, codes = certificate.verdict[sample], plan.codes[sample]
    apart = float(np.abs(codes - codes[:1]).max()) if len(codes) else 0.0
    if len(codes) and verdict == "infeasible":
        found.append("infeasible, but a code is known")
    if not len(codes) and verdict in ("unique", "ambiguous"):
        found.append(f"{verdict}, but there is no code")
    if verdict == "unique" and apart > 2 * certificate.resolution[sample]:
        found.append("unique, but two codes are known")
    if verdict == "ambiguous" and plan.unique:
        found.append("ambiguous, but the code is the only one")
    low, high = certificate.lower[sample], certificate.upper[sample]
    if len(codes) and not ((low <= codes) & (codes <= high)).all():
        found.append("a known code lies outside the box")
    if verdict == "unique":
        far = np.abs(codes - certificate.witness[sample]).max(initial=0.0)
        if far > certificate.distance[sample] * (1 + 1e-12):
            found.append("a known code is farther than `distance`")
    return found


def run(name: str, seed: int) -> tuple[str, Counter[str], list[str]]:
    """One network of a family: certify, save, replay from the files."""
    rng = np.random.default_rng([seed, list(FAMILIES).index(name)])
    plan = FAMILIES[name](rng)
    certificate = certify(plan)
    counts: Counter[str] = Counter(certificate.verdict)
    counts["well-posed"] = len(plan.x) * plan.decidable
    counts["open"] = int((certificate.verdict == "undecided").sum()) * plan.decidable
    wrong = [
        f"{name}, seed {seed}, sample {sample}: {text}"
        for sample in range(len(plan.x))
        for text in falsehoods(plan, certificate, sample)
    ]
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), plan, certificate)
        try:
            records = checker.check(*paths, boxes=boxes.remaining)
            proven = [record["verdict"] for record in records]
        except Exception as error:
            proven = [f"{type(error).__name__}: {error}"]
    if list(proven) != list(certificate.verdict):
        wrong.append(f"{name}, seed {seed}: not proven by the checker: {proven}")
    return name, counts, wrong


def certify(plan: Plan) -> preimage.Certificate:
    """Of all observations of a plan."""
    return preimage.certify(
        plan.generator, plan.x, noise=plan.noise, box=plan.box, sensing=plan.sensing
    )


def write(folder: Path, plan: Plan, certificate: preimage.Certificate) -> list[str]:
    """The three files that the checker reads, or four with a mask or a matrix."""
    names = "certificate.json", "net.safetensors", "x.npy", "sensing.npy"
    paths = [str(folder / name) for name in names]
    certificate.save(paths[0])
    preimage.save(plan.generator, paths[1])
    np.save(paths[2], plan.x)
    if plan.sensing is None:
        return paths[:3]
    np.save(paths[3], plan.sensing)
    return paths


def _cuts(node: dict) -> list[list]:
    """All cuts of a tree."""
    found = [cut for step in node.get("steps", []) if step[0] == "cuts" for cut in step[1:]]
    return found + [cut for child in node.get("children", []) for cut in _cuts(child)]


def _turn(cut: list) -> None:
    """Change the sign of the multipliers of a cut's lowest layer."""
    cut[5][0][1] = [-value for value in cut[5][0][1]]


def _move(sample: dict, key: str, factor: float) -> None:
    sample[key] = (float.fromhex(sample[key]) * factor).hex()


def mutate(kind: str, content: dict, rng: np.random.Generator) -> bool:
    """Change one sample of a certificate in place; False where this kind does not apply."""
    sample = content["samples"][int(rng.integers(len(content["samples"])))]
    verdict, tree = sample["verdict"], sample["proof"]
    cuts = [cut for cut in _cuts(tree) if cut[5] and cut[5][0][1]]
    match kind:
        case "turned multipliers":
            if not cuts:
                return False
            _turn(cuts[int(rng.integers(len(cuts)))])
        case "truncated tree":
            # Without a cut of the code itself, the steps prove nothing that is claimed.
            told = len(tree.get("subdivision", [])) > 1 and verdict in ("unique", "infeasible")
            told |= verdict != "undecided" and any(cut[0] == 0 for cut in _cuts(tree))
            if not told:
                return False
            tree.clear()
            tree.update(steps=[], end="empty" if verdict == "infeasible" else "box")
        case "lost child":
            if "split" not in tree:
                return False
            tree["children"].pop()
        case "emptied part":
            tokens = tree.get("subdivision", [])
            places = [i for i, token in enumerate(tokens) if token == ["box"]]
            if len(places) != 1 or not sample["witnesses"]:
                return False
            tokens[places[0]] = ["empty", []]
        case "other noise":
            _move(sample["question"], "noise", 0.5)
            return sample["question"]["noise"] != "0x0.0p+0"
        case "other box":
            box = sample["question"]["box"]
            if box is None:
                return False
            box[1][0] = (float.fromhex(box[1][0]) / 2).hex()
        case "other verdict":
            others = {"unique", "ambiguous", "infeasible"} - {verdict}
            sample["verdict"] = sorted(others)[int(rng.integers(len(others)))]
        case "smaller box":
            if verdict == "infeasible":
                return False
            low, high = (float.fromhex(sample[end][0]) for end in ("lower", "upper"))
            if not low < high < np.inf or low == -np.inf:
                return False
            sample["lower"][0] = (low + 0.25 * (high - low)).hex()
        case "moved witness":
            if not sample["witnesses"]:
                return False
            place = sample["witnesses"][0]
            place[0] = (float.fromhex(place[0]) + 1e3).hex()
    return True


KINDS = ("bit flip", "swapped observation", "other sensing", "turned multipliers",
         "truncated tree", "lost child", "emptied part", "other noise", "other box",
         "other verdict", "smaller box", "moved witness")  # fmt: skip


def run_mutants(name: str, seed: int, count: int) -> tuple[str, Counter[str], list[str]]:
    """Mutants of one certificate; all but the bit flips carry a new, fitting seal."""
    rng = np.random.default_rng([seed, list(FAMILIES).index(name)])
    plan = FAMILIES[name](rng)
    plan.x, plan.codes = plan.x[:4], plan.codes[:4]
    certificate = certify(plan)
    tried: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), plan, certificate)
        data = Path(paths[0]).read_bytes()
        checker.check(*paths, boxes=boxes.remaining)
        while tried.total() < count:
            kind = KINDS[int(rng.integers(len(KINDS)))]
            mutant, x, sensing = bytearray(data), plan.x, plan.sensing
            if kind == "bit flip":
                mutant[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            elif kind == "swapped observation":
                x = np.roll(plan.x, 1, axis=0)
                if np.array_equal(x, plan.x):
                    continue
            elif kind == "other sensing":
                if sensing is None:
                    continue
                sensing = np.roll(sensing, 1, axis=-1)
            else:
                content = json.loads(data)
                del content["digest"]
                if not mutate(kind, content, rng):
                    continue
                mutant[:] = json.dumps(content | {"digest": checker.seal(content)}).encode()
            Path(paths[0]).write_bytes(mutant)
            np.save(paths[2], x)
            if sensing is not None:
                np.save(paths[3], sensing)
            tried[kind] += 1
            try:
                expected = {"noise": plan.noise, "box": plan.box}
                checker.check(*paths, expected=expected, boxes=boxes.remaining)
            except Exception:
                continue
            wrong.append(f"{name}, seed {seed}: a mutant passed: {kind}")
    return name, tried, wrong


def main() -> int:
    """Run all families."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, default=10_000)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--only", help="one family")
    parser.add_argument("--jobs", type=int, default=None)
    options = parser.parse_args()
    names = [options.only] if options.only else list(FAMILIES)
    each = -(-options.claims // (PER_NETWORK * len(names)))
    jobs = [(name, seed) for seed in range(each) for name in names]
    totals: dict[str, Counter[str]] = {name: Counter() for name in names}
    wrong: list[str] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for name, counts, found in pool.map(run, *zip(*jobs, strict=True)):
            totals[name] += counts
            wrong += found
            for text in found:
                print("FALSE ", text, flush=True)
    columns = ("unique", "ambiguous", "infeasible", "undecided", "well-posed", "open")
    print(f"{'family':<28}" + "".join(f"{column:>12}" for column in columns))
    for name, counts in totals.items():
        print(f"{name:<28}" + "".join(f"{counts[column]:>12}" for column in columns))
    posed, open_ = (sum(counts[c] for counts in totals.values()) for c in ("well-posed", "open"))
    claims = PER_NETWORK * len(jobs)
    tried: Counter[str] = Counter()
    passed: list[str] = []
    part = -(-options.mutants // len(names))
    with ProcessPoolExecutor(options.jobs) as pool:
        arguments = names, [1] * len(names), [part] * len(names)
        for _, counts, found in pool.map(run_mutants, *arguments):
            tried += counts
            passed += found
    for text in passed:
        print("PASSED", text, flush=True)
    for kind in KINDS:
        print(f"{kind:<28}{tried[kind]:>12} mutants")
    decided = 1 - open_ / max(posed, 1)
    print(f"{claims} claims, {len(wrong)} false; {decided:.2%} of {posed} well-posed ones decided")
    print(f"{tried.total()} mutants, {len(passed)} passed")
    return 0 if not wrong and not passed and decided >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
