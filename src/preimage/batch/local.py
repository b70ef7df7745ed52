"""Worker processes on this machine: each has one thread, and any may die."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection, Pipe

from preimage.batch.task import Outcome, Piece, Task, pickled
from preimage.errors import PreimageError
from preimage.matrix import Array

# One thread each. Memory that is free is kept for the next array: giving it back and asking again
# costs a tenth of the time (glibc; others do not know these names).
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PREIMAGE_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
# Workers in a row that may end before they are ready; fewer if they end by themselves.
_KILLED_STARTS, _FALSE_STARTS = 25, 5


class LocalPool:
    """As many processes as asked for; one that dies is replaced.

    Args:
        task: What they do.
        workers: Number of processes.
        stall: Seconds that a piece may take.

    Raises:
        InputError: The task cannot be sent to another process.
    """

    def __init__(self, task: Task, workers: int, stall: float) -> None:
        payload = pickled(task)
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._slots = [_Slot(payload, self._ended) for _ in range(workers)]
        self._stall = stall

    @property
    def free(self) -> int:
        """See ``Pool``."""
        return sum(slot.piece is None for slot in self._slots)

    def submit(self, piece: Piece, rows: Array) -> None:
        """See ``Pool``."""
        slot = next(slot for slot in self._slots if slot.piece is None)
        slot.piece = piece
        slot.inbox.put((piece, rows))

    def wait(self, seconds: float) -> list[Outcome]:
        """See ``Pool``."""
        now = time.monotonic()
        for slot in self._slots:
            slot.kill_if_longer(now, self._stall)
        try:
            outcomes = [self._ended.get(timeout=seconds)]
        except queue.Empty:
            return []
        for slot in self._slots:
            if slot.piece == outcomes[0].piece:
                slot.piece = None
        return outcomes

    def close(self) -> None:
        """See ``Pool``."""
        for slot in self._slots:
            slot.close()


class _Slot:
    """A thread that keeps one worker process busy, and starts another when it dies."""

    def __init__(self, payload: bytes, ended: queue.SimpleQueue[Outcome]) -> None:
        self.inbox: queue.SimpleQueue[tuple[Piece, Array] | None] = queue.SimpleQueue()
        self.piece: Piece | None = None
        self._payload, self._ended = payload, ended
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._since: float | None = None
        self._stalled = self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while (work := self.inbox.get()) is not None:
            piece, rows = work
            try:
                outcome = self._run(piece, rows)
            except PreimageError as error:
                outcome = Outcome(piece, error=error)
            except Exception as error:
                # A thread that ended here would leave the job waiting for ever.
                outcome = Outcome(piece, error=PreimageError(f"no worker could run: {error!r}"))
            self._ended.put(outcome)

    def _run(self, piece: Piece, rows: Array) -> Outcome:
        connection = self._started()
        self._since = time.monotonic()
        try:
            connection.send(rows)
            kind, value = connection.recv()
        except (EOFError, OSError):
            return Outcome(piece, reason=self._died())
        finally:
            self._since = None
        return Outcome(piece, **{kind: value})

    def _started(self) -> Connection:
        """A worker that is ready, the one that is there or a new one."""
        killed = ended = 0
        while self._connection is None:
            if self._closed or killed > _KILLED_STARTS or ended > _FALSE_STARTS:
                raise PreimageError(
                    f"{killed + ended} workers in a row ended before they were ready; what they "
                    "wrote on standard error says why"
                )
            ours, theirs = Pipe()
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "preimage.batch.worker", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
                )
            self._connection = ours
            try:
                ours.send_bytes(self._payload)
                ours.recv()
            except (EOFError, OSError):
                self._died()
                killed += self._process.returncode < 0
                ended += self._process.returncode >= 0
        return self._connection

    def _died(self) -> str:
        """Clear away a dead worker, and say how it died."""
        assert self._process is not None
        assert self._connection is not None
        self._connection.close()
        self._connection = None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._stalled:
            self._stalled = False
            return "its worker was stopped: it took too long"
        if code < 0:
            return f"its worker was killed by {signal.Signals(-code).name}"
        return f"its worker ended with exit code {code}"

    def kill_if_longer(self, now: float, seconds: float) -> None:
        """Kill a worker that has had its piece for longer."""
        since = self._since
        if since is not None and now - since > seconds and self._process is not None:
            self._stalled = True
            self._process.kill()

    def close(self) -> None:
        """End the worker."""
        self._closed = True
        self.inbox.put(None)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout=5)
        if self._connection is not None:
            self._connection.close()
