"""Time the kernel on layer programs beside its peers: ``python benchmarks/programs.py [--quick]``.

Every solver gets the same programs in the same run. Before anything is timed, the objectives of
the kernel are compared with those of HiGHS, every sample, and so are those of each peer. Writes
``docs/benchmarks/programs.md`` and the plots beside it; exits with 1 if an answer of the kernel is
wrong or a target is missed.

Ratios are of seconds a program. A peer solves one program after another in one process, as its
user would; the table also says what two processes of it would give. In each repeat the kernel and
all peers take turns, and a ratio is taken within a repeat. A slow peer gets the first few programs
only.
"""

from __future__ import annotations

import os

# Before NumPy is imported: two BLAS threads slow cvxopt down at these sizes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import report
import scaling
from cases import FULL, QUICK, TINY, measure
from tqdm import tqdm

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"


def main() -> int:
    """Measure, write the table and the plots, and say what was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer programs and repeats")
    parser.add_argument("--tiny", action="store_true", help="seconds only, for the tests")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the table and plots")
    options = parser.parse_args()
    effort = TINY if options.tiny else QUICK if options.quick else FULL
    cases = []
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for shape in tqdm(effort.shapes, desc="shapes"):
            cases += [measure(shape, norm, effort, pool) for norm in effort.norms]
    curves = scaling.measure(effort)
    options.out.mkdir(parents=True, exist_ok=True)
    text, held = report.table(cases, curves, effort)
    (options.out / "programs.md").write_text(text)
    report.draw_ratios(cases, options.out / "programs.png")
    report.draw_curves(curves, options.out / "scaling.png")
    print(text)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
