"""What an image file's numbers mean, as red, green and blue of 0 … 255."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_PLAIN = ("1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_THROUGH_RGBA = ("P", "PA", "RGBa")
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
_INVERTED, _BITS, _SAMPLE_FORMAT, _SIGNED = 262, 258, 339, 2  # tags of TIFF


def upright_rgb(file: "Image") -> "Image":
    """The first frame of an opened file, turned upright by its EXIF tag, as RGB.

    Of 16 bits the higher 8 are taken, as Pillow does for colour. Transparency is left out: pixels keep their colour.

    Raises:
        ValueError: the numbers have no known range: floats, 32 bits, signed or other than 8 or 16 bits; or they are
            no red, green and blue (LAB).
    """
    from PIL import Image, ImageOps

    _require_plain_tiff(file)
    # a 16-bit grey PNG or PGM is "I" to some versions of Pillow
    sixteen = file.mode in _SIXTEEN or (file.mode == "I" and file.format in ("PNG", "PPM"))
    image = ImageOps.exif_transpose(file)
    if sixteen:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"values of {values.min()} to {values.max()}, expected 0 to 65535")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in _THROUGH_RGBA:
        return image.convert("RGBA").convert("RGB")
    if image.mode not in _PLAIN:
        raise ValueError(f"pixels of mode {image.mode}, whose range is not known (read: grey of 8 or 16 bits, RGB, "
                         "CMYK, YCbCr, palettes, black and white)")  # fmt: skip
    return image.convert("RGB")


def _require_plain_tiff(file: "Image") -> None:
    """Pillow takes signed, inverted and 12-bit numbers of TIFF for what they are not."""
    tags = getattr(file, "tag_v2", None)
    if file.format != "TIFF" or tags is None:
        return
    signed = _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1))
    odd = file.mode in _SIXTEEN and (tags.get(_INVERTED) == 0 or set(np.atleast_1d(tags.get(_BITS, 16))) != {16})
    if signed or odd:
        raise ValueError(f"a TIFF of signed, inverted or packed numbers (mode {file.mode})")
