"""Compilation as progress; importing this room imports Numba, which tells when it compiles."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from numba.core import event

from preimage.cli.terminal import progress_bar


class _Compilation(event.Listener):
    """A clock and a count on stderr, from the start of the outermost function to its end.

    What comes from disk is not compiled, and not shown. Numba holds a lock while it compiles, so
    that functions never overlap.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._bar: Any = None
        self._told = False
        self._lock = threading.Lock()  # the clock must not draw a bar that was closed
        self.done = threading.Event()

    def on_start(self, event: Any) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        label = f"compiling {event.data['dispatcher'].py_func.__name__}, only this once"
        self._bar = progress_bar(None, label, layout="{desc}: {n} functions in {elapsed}")
        if self._bar.disable and not self._told:  # no terminal, but somebody may wonder later
            typer.echo("Compiling the solvers: a minute or two, only this once", err=True)
            self._told = True

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        self._bar.update()
        if self._depth == 0:
            with self._lock:
                self._bar.close()
                self._bar = None

    def tick(self) -> None:
        """Most functions are parts of another, whose own code takes long: the clock goes on."""
        while not self.done.wait(1.0):
            with self._lock:
                if self._bar is not None:
                    self._bar.refresh()


@contextmanager
def show_compilation() -> Iterator[None]:
    """Whatever Numba compiles within is shown."""
    compilation = _Compilation()
    clock = threading.Thread(target=compilation.tick, daemon=True)
    with event.install_listener("numba:compile", compilation):
        clock.start()
        try:
            yield
        finally:
            compilation.done.set()
            clock.join()
