"""The table and the plots of ``programs.py``."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from cases import AGREE, Case, Effort, Times
from rows import commit
from scaling import EXPANSION, Curve

# How many times the throughput of a peer is asked for, at the full batch, and at batch 1.
TARGETS = {
    ("cvxopt", (100, 20)): (60, 3),
    ("cvxopt", (784, 60)): (30, 3),
    ("cvxopt", (500, 100)): (25, 3),
    ("cvxopt", (600, 250)): (20, 3),
    ("PIQP", (784, 60)): (10, 1),
}
COLOURS = {
    "cvxopt": "#1b6ca8", "PIQP": "#c8553d", "Clarabel": "#5a9367", "HiGHS": "#7d5ba6",
    "SciPy": "#a08000",
}  # fmt: skip
NAMES = {"linf": "l∞", "l1": "l1"}


def _spread(values: np.ndarray) -> str:
    """Median and range, as in ``21 (19-22)``."""
    digits = 0 if np.median(values) >= 10 else 1
    low, middle, high = (f"{v:.{digits}f}" for v in np.percentile(values, [0, 50, 100]))
    return f"{middle} ({low}–{high})"


def _peer_row(peer: Times, shape: tuple[int, int]) -> tuple[str, bool]:
    """One line of the table, and whether the targets hold."""
    batch, one = TARGETS.get((peer.name, shape), (0, 1))
    halves = peer.pair / np.median(peer.each)
    held = bool(np.median(peer.ratio) >= batch and np.median(peer.single) >= one)
    goal = f"{batch}" if batch else "–"
    text = (
        f"| {peer.name} | {1e3 * np.median(peer.each):.2f} | {_spread(peer.ratio)} | {goal} | "
        f"{np.median(peer.ratio) * halves:.1f} | {_spread(peer.single)} | {one} | "
        f"{peer.failed}/{peer.count} | {peer.error:.0e} | {peer.far}/{peer.count} | "
        f"{'yes' if held else '**no**'} |\n"
    )
    return text, held


def _growth(curve: Curve) -> str:
    points = ", ".join(f"{x:g}: {1e3 * s:.3g}" for x, s in zip(curve.x, curve.seconds, strict=True))
    return f"| {NAMES[curve.norm]} | {curve.of} | {curve.exponent:.2f} | {points} |\n"


def table(cases: list[Case], curves: list[Curve], effort: Effort) -> tuple[str, bool]:
    """The page in Markdown, and whether every target is met."""
    packages = ("numpy", "cvxopt", "piqp", "clarabel", "highspy", "scipy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    coretype = os.environ.get("OPENBLAS_CORETYPE", "not set")
    text = (
        "# Layer programs: the kernel and its peers\n\n"
        f"Written by `{' '.join(['python', *sys.argv])}` at commit {commit()} on "
        f"{platform.machine()}, {os.cpu_count()} processors, Python "
        f"{platform.python_version()}, {versions}; OPENBLAS_CORETYPE {coretype}.\n\n"
        f"Batch {effort.batch}, all processors for the kernel; a peer solves one program after "
        "another in one process. A ratio is the peer's time a program by the kernel's, from one "
        f"turn: median (least–greatest) of {effort.repeats}. 'Two processes' is the ratio if two "
        "processes of the peer share the programs. The kernel's time includes the proof of every "
        "answer; a peer's is that of its solver's call alone, at its default tolerances. Every "
        f"objective of the kernel agrees with HiGHS to {AGREE:g}, every sample; of a peer the "
        "table counts those that do not.\n\n"
    )
    held = True
    for case in cases:
        text += (
            f"## {case.shape[0]} × {case.shape[1]}, {NAMES[case.norm]}\n\n"
            f"Kernel: {1e3 * np.median(case.batch):.3f} ms a program, at batch 1 "
            f"{1e3 * np.median(case.one):.3f} ms; objectives within {case.error:.0e}.\n\n"
            "| peer | ms | ratio | target | two processes | ratio at batch 1 | target | failed | "
            f"worst difference | above {AGREE:g} | met |\n|{'---|' * 11}\n"
        )
        for peer in case.peers:
            row, good = _peer_row(peer, case.shape)
            text, held = text + row, held and good
        text += "\n"
    text += (
        "## Growth\n\nMilliseconds a program; the exponent is the slope of a line through all "
        f"points in logarithms (k: with n = {EXPANSION} k; at most 3 is asked for; n: at k = 60; "
        "batch and threads: at 784 × 60).\n\n"
        "| norm | against | exponent | value: ms a program |\n|---|---|---|---|\n"
    )
    text += "".join(_growth(curve) for curve in curves)
    held = held and all(curve.exponent <= 3 for curve in curves if curve.of == "k")
    return text + "\n![ratios](programs.png)\n\n![growth](scaling.png)\n", held


def draw_ratios(cases: list[Case], path: Path) -> None:
    """Ratios at the full batch, a panel a norm, with the spread and the targets."""
    norms = list(dict.fromkeys(case.norm for case in cases))
    figure, axes = plt.subplots(
        1, len(norms), figsize=(9, 4), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, norm in zip(axes[0], norms, strict=True):
        mine = [case for case in cases if case.norm == norm]
        for place, case in enumerate(mine):
            for i, peer in enumerate(case.peers):
                x = place + 0.14 * (i - 2)
                low, middle, high = np.percentile(peer.ratio, [0, 50, 100])
                axis.vlines(x, low, high, color=COLOURS[peer.name], lw=1.5)
                axis.plot(x, middle, "o", ms=6, color=COLOURS[peer.name])
                goal = TARGETS.get((peer.name, case.shape), (0, 1))[0]
                if goal:
                    axis.hlines(goal, x - 0.07, x + 0.07, color="black", lw=2)
        axis.set_xticks(range(len(mine)), [f"{c.shape[0]} × {c.shape[1]}" for c in mine])
        axis.set_yscale("log")
        axis.grid(axis="y", color="#dddddd", lw=0.7)
        axis.set_axisbelow(True)
        axis.set_title(f"{NAMES[norm]} programs", loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("times as fast as the peer")
    handles = [plt.Line2D([], [], marker="o", ls="", color=c, label=n) for n, c in COLOURS.items()]
    handles.append(plt.Line2D([], [], color="black", lw=2, label="target"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_curves(curves: list[Curve], path: Path) -> None:
    """Time a program, a panel a quantity."""
    kinds = list(dict.fromkeys(curve.of for curve in curves))
    titles = {
        "k": f"against k, n = {EXPANSION} k",
        "n": "against n, k = 60",
        "batch": "against the batch, 784 × 60",
        "threads": "against threads, 784 × 60",
    }
    figure, axes = plt.subplots(1, len(kinds), figsize=(12, 3.4), layout="constrained")
    for axis, kind in zip(axes, kinds, strict=True):
        for curve in (curve for curve in curves if curve.of == kind):
            colour = {"linf": "#1b6ca8", "l1": "#c8553d"}[curve.norm]
            label = NAMES[curve.norm] + (f", exponent {curve.exponent:.2f}" if kind in "kn" else "")
            axis.plot(curve.x, 1e3 * curve.seconds, "o-", ms=4, color=colour, label=label)
        axis.set_title(titles[kind], loc="left", fontsize=10)
        if kind == "threads":
            axis.set_xticks(curves[-1].x)
            axis.set_ylim(bottom=0)
        else:
            axis.set_xscale("log", base=2 if kind == "batch" else 10)
            axis.set_yscale("log")
        axis.set_xlabel(kind)
        axis.grid(color="#e4e4e4", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("ms a program")
    figure.savefig(path, dpi=130)
    plt.close(figure)
