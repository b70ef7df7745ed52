"""A worker process: ``python -m preimage.batch.worker HANDLE``, started by ``batch.local``.

It is a program of its own, not a copy of the one that starts it, so that it has as many threads as
its environment says, and nothing of a notebook or a script is run again.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from preimage.batch.task import Task
from preimage.errors import PreimageError


def main() -> None:
    """Answer until the other end is closed."""
    # A terminal sends its interrupt to all; who started the worker says when it ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, received), daemon=True).start()
    task: Task = received.get()
    connection.send("ready")
    while True:
        rows = received.get()
        try:
            answer: tuple[str, Any] = "arrays", task.solve(rows)
        except PreimageError as error:
            answer = "error", error
        except BaseException as error:
            answer = "reason", f"{type(error).__name__}: {error}"[:500]
        connection.send(answer)


def _receive(connection: Connection, received: queue.SimpleQueue[Any]) -> None:
    """Read ahead, to notice at once when nobody is there any more, and end then."""
    while True:
        try:
            received.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


if __name__ == "__main__":
    main()
