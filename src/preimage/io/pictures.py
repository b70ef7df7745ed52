"""Pictures in files: PNG and JPEG, gray or coloured, of eight bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, MissingExtraError
from preimage.io.guard import check_entries

SUFFIXES = (".png", ".jpg", ".jpeg")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
# Rec. 601, as pillow and OpenCV turn colours into gray.
LUMINANCE = np.array([0.299, 0.587, 0.114])


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Levels 0 to 255: (rows, columns) of a gray picture, (3, rows, columns) of a coloured one.

    A coloured file whose three channels are equal is gray. Pictures are turned upright as their
    EXIF data say.

    Raises:
        FormatError: Not a PNG or JPEG picture of eight bits, one that was cut off, one with
            transparent pixels, or with more pixels than the limit in force.
        MissingExtraError: pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("pillow", "data") from error
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            # Opening reads the header alone; only now are pixels decoded.
            check_entries(image.size[::-1])
            if image.format == "PNG" and _PNG_END not in data:
                raise FormatError("a PNG picture that was cut off")
            if image.mode.startswith(("I", "F")):
                raise FormatError(f"expected a picture of 8 bits, got mode {image.mode}")
            return _channels(ImageOps.exif_transpose(image))
    except FormatError:
        raise
    except Exception as error:  # what a foreign parser raises on a foreign file is open-ended
        raise FormatError(f"not a PNG or JPEG picture: {error!r:.200}") from error


def _channels(image: Any) -> NDArray[np.uint8]:
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    has_alpha = "A" in image.mode or "transparency" in image.info
    if has_alpha and np.asarray(image.convert("RGBA"))[..., 3].min(initial=255) < 255:
        raise FormatError("expected an opaque picture, got one with transparent pixels")
    colours = np.asarray(image.convert("RGB"))
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    return np.moveaxis(colours, -1, 0)
