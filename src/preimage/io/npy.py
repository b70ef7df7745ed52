"""The header of npy data: what follows is compared with the bytes that are there. No pickles."""

from __future__ import annotations

import warnings
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError
from preimage.io.guard import check_stored


class Header(NamedTuple):
    """What npy data hold, and at which byte the entries begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int


def read_header(file: BinaryIO, stored: int, name: str = "array", kinds: str = "biufc") -> Header:
    """Read a header, and leave the file at the first entry.

    Args:
        file: At its start.
        stored: Bytes of header and entries together.
        name: For errors.
        kinds: Of NumPy's types that are accepted.

    Raises:
        FormatError: No npy data of plain numbers, or not as many bytes as the shape needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers of Python 2 are read all the same
            major, minor = np.lib.format.read_magic(file)
            readers = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            if (major, minor) not in readers:
                raise FormatError(f"{name}: expected npy data of version 1 or 2, got {major}")
            shape, fortran, dtype = readers[major, minor](file)
    except FormatError:
        raise
    except Exception as error:  # what a foreign parser raises on foreign data is open-ended
        raise FormatError(f"not an npy file of a plain array: {error!r:.200}") from error
    if dtype.hasobject:
        raise FormatError(f"{name}: not an npy file of a plain array: it holds pickled objects")
    if dtype.kind not in kinds or dtype.itemsize < 1:
        raise FormatError(f"{name}: expected real numbers, got dtype {str(dtype)[:200]}")
    if not all(isinstance(n, int) for n in shape):
        raise FormatError(f"{name}: expected a shape of whole numbers, got {str(shape)[:200]}")
    start = file.tell()
    check_stored(name, shape, dtype.itemsize, stored - start)
    return Header(shape, fortran, dtype, start)


def read(file: BinaryIO, stored: int, name: str = "array", kinds: str = "biufc") -> NDArray[Any]:
    """Read an array; arguments and errors as of ``read_header``."""
    header = read_header(file, stored, name, kinds)
    data = file.read(stored - header.start)
    if len(data) != stored - header.start:
        raise FormatError(f"{name}: expected {stored} bytes, the file ends before")
    return np.frombuffer(data, header.dtype).reshape(
        header.shape, order="F" if header.fortran else "C"
    )
