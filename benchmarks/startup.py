"""What a first use costs: ``python benchmarks/startup.py``.

Each measurement is made in a new process, ten times: importing the package, and the first
``invert`` of ten digits by each method after that. Also says the installed size of the core and of
what it depends on. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from rows import Row, finish, row

METHODS = ("exact", "linf", "l1", "gauss_newton", "auto")
IMPORT = """
import time
start = time.perf_counter()
import preimage
print(time.perf_counter() - start)
"""
FIRST = """
import sys, time
import numpy as np
import preimage
network = preimage.zoo.load("mnist-20-60-784")
method, noise = sys.argv[1], 0.0 if sys.argv[1] == "exact" else 0.01
x = network(np.random.default_rng(0).normal(size=(10, 20)))
start = time.perf_counter()
found = preimage.invert(network, x, method, noise=noise)
spent = time.perf_counter() - start
assert (found.status == "solved").mean() >= 0.8, found.status
print(spent)
"""


def fresh(script: str, *arguments: str, count: int) -> np.ndarray:
    """(count,) seconds that the script prints, each in a process of its own."""
    command = [sys.executable, "-c", script, *arguments]
    runs = [subprocess.run(command, capture_output=True, text=True) for _ in range(count)]
    failed = [run.stderr for run in runs if run.returncode]
    if failed:
        raise SystemExit(failed[0])
    return np.array([float(run.stdout) for run in runs])


def timed(claim: str, seconds: np.ndarray, most: float) -> Row:
    """The row of one measurement."""
    low, middle, high = np.percentile(seconds, [0, 50, 100])
    return row(claim, f"{middle:.2f} s ({low:.2f}-{high:.2f})", f"<= {most} s", middle <= most)


def megabytes(name: str, seen: set[str]) -> float:
    """Installed size of a distribution and of what it requires, each counted once."""
    if name in seen:
        return 0.0
    seen.add(name)
    package = distribution(name)
    files = (Path(str(package.locate_file(file))) for file in package.files or ())
    size = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    for requirement in package.requires or ():
        if "extra ==" not in requirement:
            size += megabytes(re.split(r"[^\w.-]", requirement)[0], seen)
    return size


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="processes a measurement")
    parser.add_argument("--out", type=Path, help="page to write")
    options = parser.parse_args()
    rows = [timed("import preimage", fresh(IMPORT, count=options.count), 0.3)]
    for method in METHODS:
        seconds = fresh(FIRST, method, count=options.count)
        rows.append(timed(f"first invert of 10 digits, {method}", seconds, 0.5))
    seen: set[str] = set()
    size = megabytes("preimage", seen)
    rows.append(row("installed core", f"{size:.0f} MB: {', '.join(sorted(seen))}", "-", True))
    return finish(rows, "First use", "python benchmarks/startup.py", options.out)


if __name__ == "__main__":
    sys.exit(main())
