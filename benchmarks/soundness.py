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
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import preimage
from preimage.certify import checker

PER_NETWORK = 10


@dataclass
class Plan:
    """A network with observations, and what is known of each.

    Attributes:
        generator: The network.
        x: (samples, n).
        noise: Of all samples.
        codes: (samples, planted, k), codes that are known to explain x; none where it is certain
            that no code does.
        box: As for ``certify``.
        unique: Whether the code is known to be the only one, up to the resolution.
        decidable: Whether the problem is well posed, so that a verdict is expected.
        exact: Whether the codes explain x in exact arithmetic (else up to rounding, which the
            enclosures allow for).
    """

    generator: preimage.Generator
    x: np.ndarray
    noise: float
    codes: np.ndarray
    box: float | None = None
    unique: bool = False
    decidable: bool = True
    exact: bool = False


Family = Callable[[np.random.Generator], Plan]


def _network(
    rng: np.random.Generator, sizes: list[int], scale: float = 1.0, **kind: object
) -> preimage.Generator:
    pairs = itertools.pairwise(sizes)
    weights = [scale * rng.normal(size=(n, k)) / np.sqrt(k) for k, n in pairs]
    return preimage.from_arrays(weights, **kind)


def _noisy(
    rng: np.random.Generator, generator: preimage.Generator, noise: float, **more: object
) -> Plan:
    z = rng.normal(size=(PER_NETWORK, generator.latent_size))
    x = generator(z)
    x = x + rng.uniform(-noise, noise, size=x.shape)
    return Plan(generator, x, noise, z[:, None], **more)  # type: ignore[arg-type]


def unique_relu(rng: np.random.Generator) -> Plan:
    """Small noise, layers that expand."""
    k = int(rng.integers(2, 5))
    plan = _noisy(rng, _network(rng, [k, 6 * k, 30 * k]), 1e-5, box=6.0)
    # With fewer active units than unknowns, a code is not determined.
    plan.decidable = False
    return plan


def unique_leaky(rng: np.random.Generator) -> Plan:
    """LeakyReLU, no box."""
    k = int(rng.integers(2, 5))
    return _noisy(rng, _network(rng, [k, 3 * k, 6 * k], activation="leaky_relu(0.2)"), 1e-5)


def three_layers(rng: np.random.Generator) -> Plan:
    """Three layers with biases."""
    biases = [0.1 * rng.normal(size=n) for n in (12, 30, 60)]
    return _noisy(rng, _network(rng, [3, 12, 30, 60], biases=biases), 1e-5, box=6.0)


def mirrored(rng: np.random.Generator) -> Plan:
    """``G(z) = M |z|``: every sign pattern of z is a second preimage, far away."""
    k = int(rng.integers(2, 4))
    eye, mixing = np.eye(k), rng.normal(size=(4 * k, k))
    generator = preimage.from_arrays(
        [np.vstack([eye, -eye]), np.hstack([mixing, mixing])], head="identity"
    )
    noise = 1e-4
    z = rng.uniform(1.0, 2.0, size=(PER_NETWORK, k))
    x = generator(z)
    x = x + rng.uniform(-noise, noise, size=x.shape)
    return Plan(generator, x, noise, np.stack([z, -z], axis=1), 4.0)


def twin_columns(rng: np.random.Generator) -> Plan:
    """Two latent coordinates that do the same."""
    base = rng.integers(-3, 4, size=(12, 3)).astype(float)
    generator = preimage.from_arrays([np.hstack([base, base[:, :1]])], head="identity")
    z = rng.integers(-2, 3, size=(PER_NETWORK, 4)).astype(float)
    other = z + np.array([1.0, 0, 0, -1.0])
    return Plan(generator, generator(z), 0.0, np.stack([z, other], axis=1), 8.0, exact=True)


def out_of_range(factor: float) -> Family:
    """Twin outputs that are pulled apart by more than the noise can."""

    def family(rng: np.random.Generator) -> Plan:
        k = int(rng.integers(2, 5))
        weights = [rng.normal(size=(4 * k, k)), rng.normal(size=(8 * k, 4 * k))]
        weights[1][1] = weights[1][0]
        generator = preimage.from_arrays(weights, [None, np.full(8 * k, 3.0)])
        noise = 10.0 ** -int(rng.integers(1, 5))
        z = 0.3 * rng.normal(size=(PER_NETWORK, k))
        x = generator(z)
        x = x + rng.uniform(-noise, noise, size=x.shape) * 0.5
        # Both stay active: max(., 1) keeps them above any noise.
        centre = np.maximum(x[:, 0], 1.0 + 10 * factor * noise)
        x[:, 0], x[:, 1] = centre + factor * noise, centre - factor * noise
        return Plan(generator, x, noise, np.zeros((PER_NETWORK, 0, k)), 6.0)

    return family


def dead_layer(rng: np.random.Generator) -> Plan:
    """No hidden unit is active anywhere near: G is constant there."""
    generator = preimage.from_arrays(
        [rng.normal(size=(6, 3)), rng.normal(size=(9, 6))], [np.full(6, -50.0), np.ones(9)]
    )
    z = rng.uniform(-2.5, 2.5, size=(PER_NETWORK, 3))
    codes = np.stack([z, -z + 1.0], axis=1)
    return Plan(generator, generator(z), 0.0, codes, 4.0, exact=True)


def opposite_signs(rng: np.random.Generator) -> Plan:
    """``W = [D; -D]``, x = 0: one-sided rows alone determine z = 0."""
    k = int(rng.integers(1, 7))
    scale = np.diag(2.0 ** rng.integers(-20, 20, size=k))
    generator = preimage.from_arrays([np.vstack([scale, -scale])])
    zero = np.zeros((PER_NETWORK, 2 * k))
    box = None if rng.random() < 0.5 else 4.0
    return Plan(generator, zero, 0.0, zero[:, None, :k], box, unique=True, exact=True)


def rank_deficient(rng: np.random.Generator) -> Plan:
    """A first layer of rank k - 1; codes differ along its null vector."""
    k = int(rng.integers(3, 6))
    left, right = rng.integers(-2, 3, size=(3 * k, k - 1)), rng.integers(-2, 3, size=(k - 1, k))
    right[:, 0] = right[:, 1]  # null vector (1, -1, 0, ...)
    first = (left @ right).astype(float)
    second = rng.integers(-2, 3, size=(5 * k, 3 * k)).astype(float)
    generator = preimage.from_arrays([first, second])
    z = rng.integers(-2, 3, size=(PER_NETWORK, k)).astype(float)
    shift = np.zeros(k)
    shift[:2] = 1.0, -1.0
    return Plan(generator, generator(z), 0.0, np.stack([z, z + shift], axis=1), 8.0, exact=True)


def duplicate_rows(rng: np.random.Generator) -> Plan:
    """Every output twice, each with noise of its own."""
    base = rng.normal(size=(20, 4))
    return _noisy(rng, preimage.from_arrays([np.repeat(base, 2, axis=0)], head="identity"), 1e-6)


def scales(exponent: int) -> Family:
    """Weights of an extreme size."""

    def family(rng: np.random.Generator) -> Plan:
        size = 10.0**exponent
        generator = preimage.from_arrays(
            [size * rng.normal(size=(9, 3)), rng.normal(size=(30, 9))], activation="leaky_relu(0.5)"
        )
        return _noisy(rng, generator, 1e-6 * size)

    return family


def fewer_outputs(rng: np.random.Generator) -> Plan:
    """More unknowns than outputs."""
    generator = preimage.from_arrays([rng.integers(-3, 4, size=(2, 5)).astype(float)])
    z = rng.integers(-3, 4, size=(PER_NETWORK, 5)).astype(float)
    codes = z[:, None]
    box = None if rng.random() < 0.5 else 8.0
    return Plan(generator, generator(z), 0.0, codes, box, exact=True, decidable=False)


def dyadic(rng: np.random.Generator) -> Plan:
    """Integers over a power of two and an invertible block: exact, and one code only."""
    k = int(rng.integers(2, 6))
    upper = np.triu(rng.integers(-3, 4, size=(k, k)), 1) + np.eye(k)
    rest = rng.integers(-3, 4, size=(2 * k, k))
    weight = np.vstack([upper, rest]) * 2.0 ** -int(rng.integers(0, 4))
    generator = preimage.from_arrays([weight], head="identity")
    z = rng.integers(-4, 5, size=(PER_NETWORK, k)) / 4.0
    box = None if rng.random() < 0.5 else 8.0
    return Plan(generator, generator(z), 0.0, z[:, None], box, unique=True, exact=True)


def at_the_bound(rng: np.random.Generator) -> Plan:
    """Every entry is off by exactly the noise, so that the code is at a corner of the set."""
    generator, noise = _network(rng, [3, 12, 40]), 1e-3
    z = rng.normal(size=(PER_NETWORK, 3))
    x = generator(z)
    x = x + noise * rng.choice([-1.0, 1.0], size=x.shape)
    return Plan(generator, x, noise, z[:, None], 6.0, decidable=False)


def smooth_head(name: str) -> Family:
    """A head that is inverted by intervals."""

    def family(rng: np.random.Generator) -> Plan:
        generator = _network(rng, [3, 9, 30], activation="leaky_relu(0.3)", head=name)
        return _noisy(rng, generator, 1e-4, box=6.0)

    return family


FAMILIES: dict[str, Family] = {
    "unique, ReLU": unique_relu,
    "unique, LeakyReLU, no box": unique_leaky,
    "three layers": three_layers,
    "second preimages, |z|": mirrored,
    "twin columns": twin_columns,
    "out of range, 10 noise": out_of_range(10.0),
    "out of range, 1.1 noise": out_of_range(1.1),
    "out of range, 1.001 noise": out_of_range(1.001),
    "dead layer": dead_layer,
    "W = [D; -D], x = 0": opposite_signs,
    "rank-deficient": rank_deficient,
    "duplicate rows": duplicate_rows,
    "scale 1e12": scales(12),
    "scale 1e-12": scales(-12),
    "k > n": fewer_outputs,
    "dyadic, noise 0": dyadic,
    "noise at its bound": at_the_bound,
    "sigmoid head": smooth_head("sigmoid"),
    "tanh head": smooth_head("tanh"),
}


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
    certificate = preimage.certify(plan.generator, plan.x, noise=plan.noise, box=plan.box)
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
            proven = [record["verdict"] for record in checker.check(*paths)]
        except Exception as error:
            proven = [f"{type(error).__name__}: {error}"]
    if list(proven) != list(certificate.verdict):
        wrong.append(f"{name}, seed {seed}: not proven by the checker: {proven}")
    return name, counts, wrong


def write(folder: Path, plan: Plan, certificate: preimage.Certificate) -> list[str]:
    """The three files that the checker reads."""
    paths = [folder / name for name in ("certificate.json", "net.safetensors", "x.npy")]
    certificate.save(paths[0])
    preimage.save(plan.generator, paths[1])
    np.save(paths[2], plan.x)
    return [str(path) for path in paths]


def _cuts(node: dict) -> list[list]:
    """All cuts of a tree."""
    found = [cut for step in node["steps"] if step[0] == "cuts" for cut in step[1:]]
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
            if verdict == "undecided" or not any(cut[0] == 0 for cut in _cuts(tree)):
                return False
            tree.clear()
            tree.update(steps=[], end="empty" if verdict == "infeasible" else "box")
        case "lost child":
            if "split" not in tree:
                return False
            tree["children"].pop()
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


KINDS = ("bit flip", "swapped observation", "turned multipliers", "truncated tree", "lost child",
         "other noise", "other box", "other verdict", "smaller box", "moved witness")  # fmt: skip


def run_mutants(name: str, seed: int, count: int) -> tuple[str, Counter[str], list[str]]:
    """Mutants of one certificate; all but the bit flips carry a new, fitting seal."""
    rng = np.random.default_rng([seed, list(FAMILIES).index(name)])
    plan = FAMILIES[name](rng)
    plan.x, plan.codes = plan.x[:4], plan.codes[:4]
    certificate = preimage.certify(plan.generator, plan.x, noise=plan.noise, box=plan.box)
    tried: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), plan, certificate)
        data = Path(paths[0]).read_bytes()
        checker.check(*paths)
        while tried.total() < count:
            kind = KINDS[int(rng.integers(len(KINDS)))]
            mutant, x = bytearray(data), plan.x
            if kind == "bit flip":
                mutant[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            elif kind == "swapped observation":
                x = np.roll(plan.x, 1, axis=0)
                if np.array_equal(x, plan.x):
                    continue
            else:
                content = json.loads(data)
                del content["digest"]
                if not mutate(kind, content, rng):
                    continue
                mutant[:] = json.dumps(content | {"digest": checker.seal(content)}).encode()
            Path(paths[0]).write_bytes(mutant)
            np.save(paths[2], x)
            tried[kind] += 1
            try:
                checker.check(*paths, expected={"noise": plan.noise, "box": plan.box})
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
