"""Solving layer programs: ``solve(program, backend)``.

``"kernel"`` is made for these programs; ``"highs"`` is a general solver. What a backend says is
checked here and in ``duality``: feasibility, slack and value are recomputed from the unscaled data.
Programs that the kernel cannot settle go to HiGHS, one by one, and are marked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from preimage.clock import UNLIMITED, Clock
from preimage.errors import InputError
from preimage.layer_program import LayerProgram
from preimage.lp import highs, kernel
from preimage.lp.solution import Outcome, Solution, unsettled

Backend = Literal["kernel", "highs"]

__all__ = ["Backend", "Outcome", "Solution", "check_backend", "highs", "kernel", "solve"]


def check_backend(backend: str) -> None:
    """Raise ``InputError`` for an unknown backend."""
    if backend not in get_args(Backend):
        known = ", ".join(get_args(Backend))
        raise InputError(f"backend: expected one of {known}, got {backend!r}")


def solve(program: LayerProgram, backend: Backend = "kernel", clock: Clock = UNLIMITED) -> Solution:
    """Minimise every sample of ``program``.

    Args:
        program: A batch of layer programs.
        backend: ``"kernel"`` (batched interior point; see ``engine``) or ``"highs"`` (simplex,
            the reference).
        clock: Samples that are not reached in time have the outcome ``FAILED``.
    """
    check_backend(backend)
    if backend == "kernel":
        found = kernel.minimise(program, clock)
        open_ = found.outcome == Outcome.FAILED
    else:
        found, open_ = unsettled(program), np.ones(len(program), dtype=bool)
    for sample in np.flatnonzero(open_):
        if clock.is_over:
            break
        answer = highs.solve(program, int(sample), clock)
        found.outcome[sample], found.z[sample] = answer[:2]
        found.dual_lower[sample], found.dual_upper[sample] = answer[2:]
    slack, value = program.slack_at(found.z), (program.objective * found.z).sum(axis=1)
    value = value if program.slack == "none" else value + slack
    return replace(found, slack=slack, value=value, fallback=open_ & (backend == "kernel"))
