"""Reads files, each in a process of its own: what came of it, how long, how much memory.

A process that has everything imported forks one child a file, so that a child starts with what the
first good file took, and a crash is the child's alone. ``python tests/io/measure.py FOLDER``
writes the files of ``hostile.py`` into folders below FOLDER and prints a JSON object; with one
more argument, those only that try to run code.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY = 1024 * 2**20  # bytes more than at the start; what asks for more gets a MemoryError
SECONDS = 10


def peak() -> int:
    """Largest resident size up to now, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM")


def apart(work: Callable[[], Any]) -> dict[str, Any]:
    """Run something in a child; its answer, CPU seconds and bytes, or the signal that ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            virtual = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
            resource.setrlimit(resource.RLIMIT_AS, (virtual + MEMORY, virtual + MEMORY))
            signal.alarm(SECONDS)
            before, start = peak(), time.process_time()
            answer = work()
            found = {
                "answer": answer,
                "seconds": time.process_time() - start,
                "bytes": peak() - before,
            }
            os.write(writing, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or not text:
        return {"answer": f"died of {status}", "seconds": SECONDS, "bytes": 0}
    return json.loads(text)


def outcome(work: Callable[[], Any]) -> str:
    """The kind of error that reading a file raises, and what it says."""
    from preimage.errors import PreimageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except PreimageError as error:
        return f"refused: {str(error)[:300]}"
    except BaseException as error:
        return f"raised {type(error).__name__}: {str(error)[:300]}"
    return "read"


def read(path: Path, *, external: bool = False) -> None:
    """Read a file of any form as whatever it may be: all that is refused has to be refused."""
    import preimage
    from preimage.io.observations import load_observations, open_observations

    match path.suffix:
        case ".npy" | ".png" | ".idx":
            load_observations(path)
        case ".onnx":
            preimage.load(path, allow_external=external)
        case _:
            try:
                preimage.load(path, layers=["a"], activation="relu")
            except preimage.FormatError as error:
                if "says itself" not in str(error):
                    raise
                preimage.load(path)  # the form of ``preimage.save``
    if path.suffix in (".npy", ".idx"):
        open_observations(path).digests(16)


def main() -> None:
    """Measure every hostile file."""
    import hostile

    folder = Path(sys.argv[1])
    for kind in hostile.KINDS:  # warm: what is imported late counts for no file
        path = folder / f"good.{kind}"
        path.write_bytes(hostile.whole(kind))
        forced = os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
        read(path)
        if forced:  # with which torch's files are refused
            os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = forced
    found: dict[str, Any] = {}
    # Files that are cut off are read in one child a form, and have its time and memory together.
    groups: dict[str, list[str]] = {}
    for name in hostile.FILES:
        if len(sys.argv) > 2 and not any(f"-{kind}" in name for kind in hostile.CANARIES):
            continue
        groups.setdefault(name.partition("-cut-")[0], []).append(name)
    for names in groups.values():
        files = []
        for name in names:
            (folder / name).mkdir()
            external = name.startswith("onnx-external") and not name.endswith("by-default")
            files.append((hostile.FILES[name](folder / name), external))
        child = apart(lambda f=files: [outcome(lambda p=p, e=e: read(p, external=e)) for p, e in f])
        canary = any(folder.rglob("canary"))
        answers = child["answer"] if isinstance(child["answer"], list) else [child["answer"]]
        for name, answer in zip(names, answers * len(names), strict=False):
            found[name] = {**child, "answer": answer, "canary": canary}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
