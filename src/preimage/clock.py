"""How long an inversion may take, and how far it has come."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

_DELAY = 1.0  # seconds before a progress bar appears
_LOG_SECONDS = 30.0  # between two lines of a log


def _silent(stage: str, open_: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Clock:
    """What all loops ask whether they may go on, and tell how far they are."""

    deadline: float = math.inf  # in seconds of ``time.perf_counter``; infinite for none
    # Called with the name of what is done now, and the number of samples of this part of the batch
    # that it is done for.
    report: Callable[[str, int], None] = _silent

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(self.deadline - time.perf_counter(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether the time has run out."""
        return self.left == 0


UNLIMITED = Clock()


class _Lines:
    """A file to which a bar is written as lines, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


class Progress:
    """A bar over ``total`` samples, of which ``done`` are done already, shown after a second.

    Where standard error is no terminal, as in a log, it is a line every half minute. ``wanted`` is
    whether to show it at all, None for a bar where standard error is a terminal.
    """

    def __init__(self, total: int, wanted: bool | None, done: int = 0) -> None:
        self.done, self.bar = done, None
        terminal = sys.stderr is not None and sys.stderr.isatty()
        if wanted or (wanted is None and terminal):
            from tqdm.auto import tqdm

            log = not terminal and "ipykernel" not in sys.modules
            self.bar = tqdm(
                total=total, initial=done, unit="sample", delay=_DELAY, leave=log,
                file=_Lines(sys.stderr) if log else sys.stderr, ncols=100 if log else None,
                mininterval=_LOG_SECONDS if log else 0.1,
            )  # fmt: skip

    def report(self, part: int) -> Callable[[str, int], None]:
        """What a clock reports to while the next ``part`` samples are worked on."""

        def report(stage: str, open_: int) -> None:
            if self.bar is not None:
                self.bar.set_postfix_str(stage, refresh=False)
                self.bar.update(self.done + part - open_ - self.bar.n)

        return report if self.bar is not None else _silent

    def finish(self, part: int) -> None:
        """That many more samples are done."""
        self.done += part
        if self.bar is not None:
            self.bar.update(self.done - self.bar.n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.bar is not None:
            self.bar.close()
