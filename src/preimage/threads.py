"""How many processors there are to use."""

from __future__ import annotations

import os


def processors() -> int:
    """Processors that this process may use; ``PREIMAGE_NUM_THREADS`` says if it is to use fewer."""
    wanted = os.environ.get("PREIMAGE_NUM_THREADS", "")
    if wanted.isdecimal():
        return max(int(wanted), 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
