"""How long an inversion may take, and how far it has come."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Seconds before a progress bar appears.
_DELAY = 1.0


def _silent(stage: str, open_: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Clock:
    """What all loops ask whether they may go on, and tell how far they are.

    Attributes:
        deadline: In seconds of ``time.perf_counter``; infinite for none.
        report: Called with the name of what is done now, and the number of samples of this part of
            the batch that it is done for.
    """

    deadline: float = math.inf
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


class Progress:
    """A bar over the samples of a batch; shown after a second, and not at all if not wanted.

    Args:
        total: Samples of the batch.
        wanted: True or False; None for a bar where standard error is a terminal.
    """

    def __init__(self, total: int, wanted: bool | None) -> None:
        self.done, self.bar = 0, None
        if wanted or (wanted is None and sys.stderr is not None and sys.stderr.isatty()):
            from tqdm.auto import tqdm

            self.bar = tqdm(total=total, unit="sample", delay=_DELAY, leave=False)

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
