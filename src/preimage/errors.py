"""The errors that preimage raises; everything else is a status (see ``inversion.Status``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PreimageError(Exception):
    """Every error that preimage raises on purpose."""


class InputError(PreimageError, ValueError):
    """An argument is not what was expected; the message says what came and what to do."""


class FormatError(InputError):
    """A file or a module cannot be read as a generator or as observations."""


class MissingExtraError(PreimageError, ImportError):
    """An optional dependency is not installed; the message names the extra."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is needed here and is not installed; run: pip install 'preimage[{extra}]'"
        )


@contextmanager
def extra(name: str, package: str) -> Iterator[None]:
    """Within, an import that fails is a ``MissingExtraError`` of the extra that has the package."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, name) from error


class StoreError(PreimageError):
    """A store cannot be written or read: locked, full, or a shard is missing or damaged."""


class StoppedError(PreimageError):
    """A job was told to stop, and did so after the shards that were running.

    Attributes:
        signal: The number of the signal that said so.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
