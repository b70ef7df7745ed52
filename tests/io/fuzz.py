"""Fuzzing: ``python tests/io/fuzz.py --cases 100000`` (``make fuzz``).

Good files of every form are changed at random, on the level of bytes and of what they consist of
(JSON texts, members of archives, whose lengths and sums are then right again), and read. A case is
fine if the file is read, or refused with an error of ours, within its limits of time and memory.
Blocks of cases run in processes of their own; what a block dies of is looked for case by case.
A case is made from the seed and its number alone: ``--only NUMBER`` runs it again.

``test_fuzz.py`` runs a short version.
"""

from __future__ import annotations

import os

# Blocks are forked, and a fork of a process whose torch has threads waits for them for ever.
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import io
import json
import random
import shutil
import struct
import sys
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hostile
import numpy as np
from measure import apart, outcome, read

import preimage
from preimage.batch.store import FORM, METADATA, Job, open_store
from preimage.certify import checker

BLOCK = 100  # cases of one process
SECONDS, BYTES = 5.0, 500e6  # that a case may take at most, of CPU time and more than a good file

EDGES = [
    0,
    1,
    2,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63,
    2**64 - 1,
]
WORDS = [
    "null", "true", "-1", "1e999", "NaN", '""', "[]", "{}", "[[]]", "9" * 30, "1.5", "4294967296",
    '"F64"', '"sum"', '"operator"', '"csr"', '"prelu(0.1;3)"', '"leaky_relu(nan)"',
]  # fmt: skip
CERTIFIED = ("certificate", "network", "observation")


def seeds() -> dict[str, list[bytes]]:
    """Good files by suffix."""
    found = {kind: [hostile.whole(kind)] for kind in hostile.KINDS}
    dense = [{"activation": "relu", "storage": "dense", "shape": [6, 4]}]
    csr = [{"activation": "leaky_relu(0.2)", "storage": "csr", "shape": [2, 2]}]
    found["safetensors"] += [
        hostile.own(csr, **{
            "layers.0.weight.data": np.ones(2), "layers.0.weight.indices": np.arange(2),
            "layers.0.weight.indptr": np.arange(3), "layers.0.bias": np.ones(2),
        }),
    ]  # fmt: skip
    record = json.dumps({"format": "preimage", "version": "1", "layers": json.dumps(dense)})
    weight = np.ones((6, 4), "f4")
    found["npz"].append(hostile.npz(metadata=np.array(record), **{"layers.0.weight": weight}))
    found["onnx"] += [
        hostile.dense(
            ("Reshape", ["a", hostile.ints(0, 1, 2, 3)], "b", {}),
            ("Pad", ["b", hostile.ints(0, 0, 1, 1, 0, 0, 1, 1)], "c", {}),
            ("ConvTranspose", ["c", np.ones((1, 2, 2, 2), np.float32)], "d", {"strides": [2, 2]}),
            ("Resize", ["d", "", np.float32([1, 1, 2, 2])], "e", {}),
            ("AveragePool", ["e"], "y", {"kernel_shape": [2, 2]}),
        ).SerializeToString(),
        hostile.dense(
            ("ConstantOfShape", [hostile.ints(2, 3)], "b", {}),
            ("Reshape", ["b", hostile.ints(-1)], "c", {}), ("Add", ["a", "c"], "d", {}),
            ("Slice", ["d", hostile.ints(1), hostile.ints(5), hostile.ints(1)], "e", {}),
            ("LeakyRelu", ["e"], "f", {"alpha": 0.2}),
            ("Expand", ["f", hostile.ints(1, 4)], "y", {}),
        ).SerializeToString(),
    ]  # fmt: skip
    job = asdict(Job("a" * 64, "b" * 64, "Exact()", "c" * 64, 0.1, "everything", "d" * 64, 40, 20,
                     3, 8, "0.1.0"))  # fmt: skip
    attributes = {"preimage": {"form": FORM, "job": job}, "left_out": {"3": "why"}}
    found["store"] = [json.dumps({"attributes": attributes, "node_type": "group"}).encode()]
    return found | certified()


def certified() -> dict[str, list[bytes]]:
    """A certificate of two samples, its network and observations, which all have a code."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((4, 2)), rng.standard_normal((6, 4))]
    generator = preimage.from_arrays(weights, [rng.standard_normal(4), None], "leaky_relu(0.1)")
    x = generator(rng.standard_normal((2, 2)))
    with tempfile.TemporaryDirectory() as name:
        network, certificate = Path(name) / "net.safetensors", Path(name) / "certificate"
        preimage.save(generator, network)
        preimage.certify(generator, x, noise=[0.0, 0.1], box=5.0).save(certificate)
        whole = certificate.read_bytes(), network.read_bytes(), hostile.npy(x)
    return dict(zip(CERTIFIED, ([data] for data in whole), strict=True))


# Changes ----------------------------------------------------------------------------------------


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    """Flip, overwrite, insert, delete, repeat or cut off."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = draw.randrange(len(changed) + 1)
        size = draw.choice((1, 2, 4, 8))
        match draw.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << draw.randrange(8)
            case 1 if at < len(changed):
                changed[at] = draw.randrange(256)
            case 2:
                number = draw.choice(EDGES) & (256**size - 1)
                changed[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))
            case 3:
                changed[at:at] = draw.randbytes(size)
            case 4:
                del changed[at : at + draw.choice((size, 50))]
            case 5:
                piece = changed[at : at + draw.choice((size, 50, 500))]
                changed[at:at] = piece * draw.choice((1, 3))
            case 6:
                del changed[at:]
    return bytes(changed)


def change_text(text: str, draw: random.Random) -> str:
    """Put a word in the place of a number or a text of JSON, or change its bytes."""
    if draw.random() < 0.3:
        return change_bytes(text.encode(), draw).decode("utf-8", "replace")
    ends = [i for i, c in enumerate(text) if c in ',:[]{}"']
    start, stop = sorted(draw.choices(ends, k=2)) if ends else (0, 0)
    if draw.random() < 0.7:
        later = [end for end in ends if end > start]
        stop = later[0] if later else len(text)
    word = draw.choice([*WORDS, str(draw.choice(EDGES)), text[start:stop] * 2])
    return text[: start + 1] + word + text[stop:]


def change_parts(kind: str, data: bytes, draw: random.Random) -> bytes:
    """Change what a file consists of, and put it together again as it has to be."""
    match kind:
        case "safetensors":
            length = struct.unpack("<Q", data[:8])[0]
            header, rest = data[8 : 8 + length].decode(), data[8 + length :]
            if draw.random() < 0.5 and "layers" in header:
                whole = json.loads(header)
                metadata = whole["__metadata__"]
                metadata["layers"] = change_text(metadata["layers"], draw)
                return hostile.st(whole, rest)
            return hostile.st(change_text(header, draw).encode(), rest)
        case "npz" | "pth":
            return _change_archive(data, draw)
        case "store":
            return change_text(data.decode(), draw).encode()
        case "certificate":
            return _change_certificate(change_text(data.decode(), draw))
        case "network":
            return change_parts("safetensors", data, draw)
    return change_bytes(data, draw)


def _change_certificate(text: str) -> bytes:
    """The changed text with its digest put right, if it still is one."""
    try:
        content = json.loads(text)
        content.pop("digest")
        return json.dumps(content | {"digest": checker.seal(content)}).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return text.encode()


def _change_archive(data: bytes, draw: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        names = old.namelist()
        which = draw.choice(names)
        for name in names:
            content = old.read(name)
            if name == which:
                content = change_bytes(content, draw)
            packed = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            new.writestr(name, content, packed)
    return buffer.getvalue()


def case(number: int, seed: int, files: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """The suffix and the bytes of a case."""
    draw = random.Random(f"{seed} {number}")
    kind = draw.choice(sorted(files))
    data = draw.choice(files[kind])
    change = change_parts if draw.random() < 0.6 else lambda _, data, draw: change_bytes(data, draw)
    return kind, change(kind, data, draw)


# Running ----------------------------------------------------------------------------------------


def try_case(path: Path) -> str:
    """What came of a file."""
    if path.suffix == ".store":
        folder = path.with_suffix(".folder")
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder / METADATA)
        return outcome(lambda: open_store(folder))
    if path.suffix[1:] in CERTIFIED:
        return outcome(lambda: check_certified(path))
    return outcome(lambda: read(path))


def check_certified(path: Path) -> None:
    """Check a certificate; one of the three files is changed, the others stand beside it."""
    files = [path.with_name(f"good.{kind}") for kind in CERTIFIED]
    files[CERTIFIED.index(path.suffix[1:])] = path
    try:
        verdicts = checker.check(*files)
    except MemoryError:
        raise
    except Exception as error:  # as the checker's own ``main``: nothing is proven then
        raise preimage.FormatError(str(error)) from error
    if "infeasible" in verdicts:
        raise AssertionError("proven that there is no code, where there is one")


def run_block(
    numbers: range | list[int], seed: int, files: dict[str, list[bytes]], folder: Path
) -> dict[str, Any]:
    """Run cases in a process; its answer counts what came of them and lists what is wrong."""

    def work() -> dict[str, Any]:
        count = {"read": 0, "refused": 0}
        wrong = []
        for number in numbers:
            kind, data = case(number, seed, files)
            path = folder / f"case.{kind}"
            path.write_bytes(data)
            answer = try_case(path)
            word = answer.partition(":")[0]
            if word in count:
                count[word] += 1
            else:
                wrong.append([number, kind, answer])
        return {"count": count, "wrong": wrong}

    return apart(work)


def fuzz(cases: int, seed: int, folder: Path, start: int = 0) -> dict[str, Any]:
    """Run cases; what came of them, what is wrong, and the most that one process took."""
    files = seeds()
    for kind, good in files.items():
        (folder / f"good.{kind}").write_bytes(good[0])
    for kind, good in files.items():  # warm: what is imported late counts for no case
        for data in good:
            path = folder / f"good.{kind}"
            path.write_bytes(data)
            assert try_case(path) == "read", (kind, try_case(path))
    total: dict[str, Any] = {"read": 0, "refused": 0, "wrong": [], "bytes": 0, "seconds": 0.0}
    for first in range(start, start + cases, BLOCK):
        numbers = range(first, min(first + BLOCK, start + cases))
        blocks = [run_block(numbers, seed, files, folder)]
        slow = blocks[0]["seconds"] > SECONDS or blocks[0]["bytes"] > BYTES
        if slow or not isinstance(blocks[0]["answer"], dict):
            blocks = [run_block([number], seed, files, folder) for number in numbers]
        for number, block in zip(numbers, blocks, strict=False):
            total["bytes"] = max(total["bytes"], block["bytes"])
            total["seconds"] = max(total["seconds"], block["seconds"])
            if not isinstance(block["answer"], dict):
                total["wrong"].append([number, "", block["answer"]])
                continue
            if len(blocks) > 1 and (block["seconds"] > SECONDS or block["bytes"] > BYTES):
                spent = f"{block['seconds']:.1f} s, {block['bytes'] / 1e6:.0f} MB"
                total["wrong"].append([number, "", spent])
            for word, count in block["answer"]["count"].items():
                total[word] += count
            total["wrong"] += block["answer"]["wrong"]
    return total


def main() -> int:
    """Fuzz, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only is not None:
            kind, data = case(options.only, options.seed, seeds())
            path = Path(f"case-{options.only}.{kind}")
            path.write_bytes(data)
            for name, (good, *_) in certified().items():
                path.with_name(f"good.{name}").write_bytes(good)
            print(f"{path}: {try_case(path)}")
            return 0
        total = fuzz(options.cases, options.seed, folder, options.start)
    print(
        f"{options.cases} cases: {total['read']} read, {total['refused']} refused, "
        f"{len(total['wrong'])} wrong; a block of {BLOCK} took at most {total['seconds']:.1f} s "
        f"and {total['bytes'] / 1e6:.0f} MB"
    )
    for number, kind, answer in total["wrong"][:50]:
        print(f"case {number} ({kind}): {answer}")
    return bool(total["wrong"])


if __name__ == "__main__":
    sys.exit(main())
