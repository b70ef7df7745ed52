"""What an experiment is, and how one runs: in processes, resumed after an interruption."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

import preimage
from benchmarks.rows import commit
from experiments.table import Row, Table
from preimage import InputError, MissingExtraError, __version__

Job = tuple[Any, ...]  # plain numbers and words: what a process needs besides the configuration
_PACKAGES = ("preimage", "numpy", "scipy", "scikit-learn")
_HERE = Path(__file__).parent
_LIBRARY = Path(preimage.__file__).parent

# Parts of the library that no row depends on.
_NO_ROWS = {"adapters", "app", "batch", "cli", "notebook", "plot", "report", "__main__"}

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
        alone: Whether its jobs run one after the other, with one BLAS thread: timed jobs run alone.
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
        MissingExtraError: A package that the experiment needs is not installed.
    """
    if name not in MODULES:
        raise InputError(f"NAME: expected one of {', '.join(MODULES)}, got {name!r}")
    try:
        module = import_module(f"experiments.{MODULES[name]}")
    except ImportError as error:
        raise MissingExtraError(error.name or name, "experiments") from error
    experiment: Experiment = module.EXPERIMENTS[name]
    if scale not in experiment.scales:
        raise InputError(f"--scale: expected one of {', '.join(experiment.scales)}, got {scale!r}")
    return experiment, experiment.scales[scale]


def run(
    name: str,
    config: Any,
    *,
    workers: int = 1,
    folder: Path | None = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] | None = None,
) -> Table:
    """Do all jobs of an experiment.

    Args:
        name: As in ``MODULES``.
        config: Of its kind; ``find`` has three.
        workers: Processes; with 1 everything happens in this one. The rows do not depend on it,
            except for the seconds.
        folder: Where finished jobs are kept (``joblib.Memory``), so that an interrupted run
            continues where it stopped; the caller removes it.
        progress: Wraps the iterable of finished jobs; its second argument is their number.
    """
    experiment, _ = find(name)
    workers = 1 if experiment.alone else workers
    jobs = list(experiment.jobs(config))
    mark = fingerprint(name, config)
    work = joblib.Memory(folder, verbose=0).cache(_one, ignore=["config"])
    start = time.perf_counter()
    with (
        threadpool_limits(1 if experiment.alone else None, user_api="blas"),
        joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=1),
    ):
        finished = joblib.Parallel(return_as="generator")(
            joblib.delayed(work)(mark, name, config, job) for job in jobs
        )
        parts = list(progress(finished, len(jobs)) if progress else finished)
    facts = _facts(name, config, time.perf_counter() - start, workers)
    return Table(facts, tuple(row for part in parts for row in part))


def fingerprint(name: str, config: Any) -> str:
    """Changes with all that rows depend on, as far as this package knows: see ``sources``."""
    text = f"{name} {config!r} {__version__} {sources(MODULES[name])}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def sources(module: str, here: Path = _HERE, library: Path = _LIBRARY) -> str:
    """Hash of the code that makes the rows of an experiment's module.

    That is the library except for what only moves or shows results, the module, and the modules
    beside it that it imports. Comments, and how a figure is drawn, do not count.
    """
    digest = hashlib.sha256()
    files = [here / f"{name}.py" for name in sorted(_imported(here, module))]
    for path in sorted(library.rglob("*.py")):
        if path.relative_to(library).parts[0].removesuffix(".py") not in _NO_ROWS:
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
                if node.module == "experiments":
                    open_ += [alias.name for alias in node.names]
                elif node.module.startswith("experiments."):
                    open_.append(node.module.rpartition(".")[2])
    return found


def _one(mark: str, name: str, config: Any, job: Job) -> list[Row]:
    """Rows of one job; ``mark``, the fingerprint, stands for the configuration in the cache."""
    return find(name)[0].work(config, job)


def _facts(name: str, config: Any, seconds: float, workers: int) -> dict[str, str]:
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
        "commit": commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, "
        + (f"{workers} processes of one thread" if workers > 1 else "one process"),
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
