"""Pictures in files, of eight bits: PNG and JPEG as they are, and others scaled to a shape."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preimage.errors import FormatError, extra
from preimage.io.limits import LIMITS, Limits, check_file

SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
_FITTED = (*_FORMATS, "GIF", "BMP", "WEBP", "TIFF")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
# Rec. 601, as pillow and OpenCV turn colours into gray.
LUMINANCE = np.array([0.299, 0.587, 0.114])


def read_picture(
    path: Path, limits: Limits = LIMITS, fit: tuple[int, ...] | None = None
) -> NDArray[np.uint8]:
    """Levels 0 to 255: (rows, columns) of a gray picture, (3, rows, columns) of a coloured one.

    A coloured file whose three channels are equal is gray. Pictures are turned upright as their
    EXIF data say.

    Args:
        path: The file, PNG or JPEG.
        limits: ``file_bytes`` of the file, ``entries`` of its pixels.
        fit: (rows, columns) or (3, rows, columns) to which the picture is scaled, whatever its
            shape; each pixel is the mean of those that it replaces, and transparent ones are black.
            GIF, BMP, WEBP and TIFF are read as well then.

    Raises:
        FormatError: Not such a picture of eight bits, one that was cut off, one with transparent
            pixels (unless it is scaled), or one beyond the limits; the message begins with the
            path.
        MissingExtraError: pillow is not installed.
    """
    with extra("data", "pillow"):
        from PIL import Image, ImageOps
    data, formats = check_file(path, limits).read_bytes(), _FORMATS if fit is None else _FITTED
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            # Opening reads the header alone; only now are pixels decoded.
            limits.check_shape(image.size[::-1])
            if image.format == "PNG" and _PNG_END not in data:
                raise FormatError("a PNG picture that was cut off; copy or save it again")
            if image.mode.startswith(("I", "F")):
                raise FormatError(
                    f"expected a picture of 8 bits, got mode {image.mode}; convert it first"
                )
            upright = ImageOps.exif_transpose(image)
            return _channels(upright) if fit is None else _scaled(upright, fit)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    except Exception as error:  # what a foreign parser raises on a foreign file is open-ended
        raise FormatError(
            f"{path}: expected a picture ({', '.join(formats)}): {error!r:.200}"
        ) from error


def _scaled(image: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from PIL import Image

    rgba = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    flat = flat.convert("RGB" if len(shape) == 3 else "L")
    rows, columns = shape[-2:]
    small = np.asarray(flat.resize((columns, rows), Image.Resampling.BOX))
    return small if small.ndim == 2 else np.moveaxis(small, -1, 0)


def _channels(image: Any) -> NDArray[np.uint8]:
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    has_alpha = "A" in image.mode or "transparency" in image.info
    if has_alpha and np.asarray(image.convert("RGBA"))[..., 3].min(initial=255) < 255:
        raise FormatError(
            "expected an opaque picture, got one with transparent pixels; flatten it first"
        )
    colours = np.asarray(image.convert("RGB"))
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    return np.moveaxis(colours, -1, 0)
