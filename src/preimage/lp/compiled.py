"""How this room's numerical functions are compiled (Numba); importing it imports Numba.

Every function is compiled once, for float64 arrays, and kept on disk beside its source. Numba
notices when a function's own file changes, but not when that of a function it calls does; so
whatever is older than the newest source of any is thrown away first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_jit: Any = numba.njit

# Sums may be reordered (by the compiler, once for all) and products fused into them.
_LOOSE = {"reassoc", "contract", "nsz"}

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
# Functions that only compiled code calls need no way in from Python. They are part of each of their
# callers: a function of its own would be shared by name, each caller would then run the copy that
# was loaded first, whose sums may be in another order, and the last bit would depend on what else
# the process has done.
_INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}


def compiled(function: Function) -> Function:
    """Compile a function that compiled code calls; NaN and infinity keep their meaning."""
    return _jit(function, fastmath=_LOOSE, **_OPTIONS, **_INNER)


def compiled_finite(function: Function) -> Function:
    """The same for finite numbers only, which lets maxima run in vector registers."""
    return _jit(function, fastmath=_LOOSE | {"nnan", "ninf"}, **_OPTIONS, **_INNER)


def entry(function: Function) -> Function:
    """Compile a function that Python calls."""
    return _jit(function, **_OPTIONS)


def _forget_stale_code() -> None:
    rooms = (Path(__file__).parent, Path(__file__).parents[1] / "methods")
    sources = [source for room in rooms for source in room.rglob("*.py")]
    # Only these hold compiled code; an edit elsewhere costs no compilation.
    sources = [one for one in sources if b"preimage.lp.compiled import" in one.read_bytes()]
    newest = max(source.stat().st_mtime for source in sources)
    for folder in {source.parent / "__pycache__" for source in sources}:
        for index in folder.glob("*.nbi"):
            # Another process may be quicker; and where nothing may be written, nothing is stale.
            with suppress(OSError):
                if index.stat().st_mtime < newest:
                    index.unlink()


_forget_stale_code()
