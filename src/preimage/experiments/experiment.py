"""What an experiment is, and how one runs: in processes, resumed after an interruption."""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preimage import InputError, __version__
from preimage.experiments.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Job = tuple[Any, ...]  # plain numbers and words: what a process needs to know besides the config
_PACKAGES = ("preimage", "numpy", "scipy", "numba", "scikit-learn")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

# Rooms and modules of the library that no row depends on.
_NO_ROWS = {
    "adapters",
    "app",
    "batch",
    "cli",
    "demo",
    "notebook",
    "plot",
    "report",
    "train",
    "__main__",
}

# Name to module; a module has ``EXPERIMENTS``, a dict of name to ``Experiment``.
MODULES = {
    **dict.fromkeys(("figure-1a", "figure-1b", "figure-1c", "figure-1d"), "figure_1"),
    **dict.fromkeys(("figure-2a", "figure-2b"), "figure_2"),
    "figure-3": "figure_3",
    "figure-4": "figure_4",
    "layer-errors": "layer_errors",
    "appendix-relaxed": "appendix_relaxed",
    "timing": "timing",
    "phase": "phase",
    "sensing": "sensing",
    "corruption": "corruption",
    "compression": "compression",
    "certified": "certified",
}


@dataclass(frozen=True)
class Experiment:
    """One figure.

    Attributes:
        scales: ``tiny``, ``quick`` and ``paper``, each a frozen dataclass with a ``seed``.
        jobs: Pieces of work of a configuration, small enough that losing one is no loss.
        work: Rows of one job. They depend on the configuration and the job alone.
        draw: The figure of a table.
        alone: Whether its jobs run one after the other, in a process with one thread: seconds that
            are the result want no company.
    """

    scales: Mapping[str, Any]
    jobs: Callable[[Any], Iterable[Job]]
    work: Callable[[Any, Job], list[Row]]
    draw: Callable[[Any, Table], Figure]
    alone: bool = False


def find(name: str, scale: str = "quick") -> tuple[Experiment, Any]:
    """The experiment of a name, and its configuration at a scale.

    Raises:
        InputError: There is no such name or scale.
    """
    if name not in MODULES:
        raise InputError(f"NAME: expected one of {', '.join(MODULES)}, got {name!r}")
    module = import_module(f"preimage.experiments.{MODULES[name]}")
    experiment: Experiment = module.EXPERIMENTS[name]
    if scale not in experiment.scales:
        raise InputError(f"--scale: expected one of {', '.join(experiment.scales)}, got {scale!r}")
    return experiment, experiment.scales[scale]


def run(
    name: str,
    config: Any,
    *,
    workers: int = 1,
    journal: Path | None = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] | None = None,
) -> Table:
    """Do all jobs of an experiment.

    Args:
        name: As in ``MODULES``.
        config: Of its kind; ``find`` has three.
        workers: Processes; with 1 everything happens in this one. The rows do not depend on it,
            but for the seconds.
        journal: File that keeps finished jobs, so that a run that was interrupted goes on where it
            ended; removed by nobody here.
        progress: Wraps the iterable of finished jobs, of which it is told the number.
    """
    experiment, _ = find(name)
    workers = 1 if experiment.alone else workers
    jobs = list(experiment.jobs(config))
    done = _resume(journal, fingerprint(name, config))
    missing = [job for job in jobs if json.dumps(job) not in done]
    start = time.perf_counter()
    spawn = experiment.alone or min(workers, len(missing)) > 1
    finished = _work(name, config, missing, workers, spawn)
    for job, rows in progress(finished, len(missing)) if progress else finished:
        done[json.dumps(job)] = rows
        if journal is not None:
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps([job, rows]) + "\n")
    rows = tuple(row for job in jobs for row in done[json.dumps(job)])
    return Table(_facts(name, config, time.perf_counter() - start, workers, spawn), rows)


def fingerprint(name: str, config: Any) -> str:
    """Changes with all that rows depend on, as far as this package knows: see ``sources``."""
    text = f"{name} {config!r} {__version__} {sources(MODULES[name])}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def sources(module: str, package: Path = Path(__file__).parents[1]) -> str:
    """Hash of the code that makes the rows of an experiment's module.

    That is the library but for what only moves or shows results, the module, and the experiments'
    modules that it imports. Comments, and how a figure is drawn, do not count.
    """
    here, digest = package / "experiments", hashlib.sha256()
    files = [here / f"{name}.py" for name in sorted(_imported(here, module))]
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room not in {"experiments", *_NO_ROWS}:
            files.append(path)
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.parent == here:
            tree.body = [n for n in tree.body if getattr(n, "name", "") != "draw"]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _imported(folder: Path, module: str) -> set[str]:
    """The module, and those of this package that it imports, directly or not."""
    open_, found = [module], set()
    while open_:
        name = open_.pop()
        if name in found or name == "style" or not (folder / f"{name}.py").exists():
            continue
        found.add(name)
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module == "preimage.experiments":
                    open_ += [alias.name for alias in node.names]
                elif node.module.startswith("preimage.experiments."):
                    open_.append(node.module.rpartition(".")[2])
    return found


def _resume(journal: Path | None, wanted: str) -> dict[str, list[Row]]:
    done: dict[str, list[Row]] = {}
    if journal is None:
        return done
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    if not lines or lines[0] != wanted:
        journal.write_text(wanted + "\n", encoding="utf-8")
        return done
    for line in lines[1:]:
        try:
            job, rows = json.loads(line)
        except json.JSONDecodeError:
            continue  # The line that was being written when the run ended.
        done[json.dumps(job)] = rows
    if journal.read_bytes()[-1:] != b"\n":
        with journal.open("a", encoding="utf-8") as file:
            file.write("\n")
    return done


def _work(
    name: str, config: Any, jobs: list[Job], workers: int, spawn: bool
) -> Iterator[tuple[Job, list[Row]]]:
    if not spawn:
        for job in jobs:
            yield job, _one(name, config, job)
        return
    with _one_thread_each():
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            futures = {pool.submit(_one, name, config, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _one(name: str, config: Any, job: Job) -> list[Row]:
    # A job that comes from a journal is a list; one of this run a tuple.
    return find(name)[0].work(config, tuple(job))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are spawned meanwhile use one thread each for BLAS and Numba."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _facts(name: str, config: Any, seconds: float, workers: int, spawn: bool) -> dict[str, str]:
    versions = [f"python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return {
        "experiment": name,
        "config": repr(config),
        "seed": str(config.seed),
        "versions": ", ".join(versions),
        "machine": f"{_processor()}, {os.cpu_count()} cores, "
        + (f"{workers} processes of one thread" if spawn else "one process"),
        "seconds": f"{seconds:.1f}",
        "fingerprint": fingerprint(name, config),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
