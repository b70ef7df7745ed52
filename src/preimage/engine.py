"""The compiled kernel: which variant of it is in use, its functions, and how many threads.

The kernel is a small C library (``src/kernel``), built when preimage is installed where there is a
C compiler, once for each instruction set. Without it NumPy, SciPy and HiGHS give the same answers,
more slowly. The environment variable ``PREIMAGE_KERNEL`` chooses: ``0`` for none, or ``baseline``,
``avx2`` or ``avx512``.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VARIANTS = ("baseline", "avx2", "avx512")
# ``INTERFACE`` of ``src/kernel/kernel.h``, which says when both are raised.
INTERFACE = 2


@cache
def variant() -> str | None:
    """The variant in use: the best that this processor can run; None without a kernel that fits."""
    wanted = os.environ.get("PREIMAGE_KERNEL", "")
    if wanted == "0" or not _fits("baseline"):
        return None
    best = VARIANTS[ctypes.CDLL(str(_file("baseline"))).kernel_level()]
    allowed = VARIANTS[: VARIANTS.index(best) + 1]
    name = wanted if wanted in allowed else best
    return name if _fits(name) else None


@cache
def library() -> ctypes.CDLL | None:
    """The loaded library, whose calls release the interpreter lock; None without the kernel."""
    name = variant()
    return None if name is None else ctypes.CDLL(str(_file(name)))


def address(array: NDArray[Any] | None) -> int | None:
    """Where the entries of a C-contiguous array start, as an argument of the library."""
    if array is None:
        return None
    if not array.flags.c_contiguous:
        raise ValueError("expected a C-contiguous array")
    return int(array.ctypes.data)


def packed(*arguments: NDArray[Any] | int | None) -> NDArray[np.int64]:
    """A structure of the library: whole numbers, and where arrays start, 0 for None."""
    given = (value if isinstance(value, int) else address(value) or 0 for value in arguments)
    return np.fromiter(given, dtype=np.int64, count=len(arguments))


def call(function: str, *arguments: NDArray[Any] | int | None) -> None:
    """Call a function of the library with a structure of these fields.

    Raises:
        MemoryError: It found none for its workspace.
    """
    structure = packed(*arguments)  # held: the library reads it until it returns
    if getattr(library(), function)(ctypes.c_void_p(address(structure))):
        raise MemoryError(f"no memory for the workspace of {function}")


def processors() -> int:
    """Processors that this process may use; ``PREIMAGE_NUM_THREADS`` says if it is to use fewer."""
    wanted = os.environ.get("PREIMAGE_NUM_THREADS", "")
    if wanted.isdecimal():
        return max(int(wanted), 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def description() -> str:
    """One line for people: what does the work, and how to get the other."""
    name = variant()
    if name is not None:
        return f"C kernel ({name}); PREIMAGE_KERNEL=0 selects NumPy, SciPy and HiGHS"
    if os.environ.get("PREIMAGE_KERNEL", "") == "0":
        return "NumPy, SciPy and HiGHS (PREIMAGE_KERNEL=0); unset it for the C kernel"
    if any(_file(each).exists() for each in VARIANTS):
        return (
            "NumPy, SciPy and HiGHS; the C kernel that was found is of another version and is not "
            "used: run `make kernel` in the source folder, or reinstall preimage"
        )
    return (
        "NumPy, SciPy and HiGHS; for the faster C kernel, install a C compiler (GCC or Clang) "
        "and reinstall preimage"
    )


def _fits(name: str) -> bool:
    """Whether a variant is there, and made for this Python code: others may read wrong memory."""
    if not _file(name).exists():
        return False
    found = getattr(ctypes.CDLL(str(_file(name))), "kernel_interface", None)
    return found is not None and found() == INTERFACE


def _file(name: str) -> Path:
    return Path(__file__).parent / f"kernel_{name}.so"
