"""From a picture file to an array. Imported by decoding processes, so it needs nothing but Pillow and NumPy."""

import functools
import os
import signal
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deepexp.errors import InputError
from deepexp.process.orphans import die_with_parent

_SIXTEEN_BIT_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
_GRAY = ("1", "L", "LA", "La", *_SIXTEEN_BIT_GRAY)
_UNSUPPORTED = ("I", "F")  # 32 bits a pixel, without a range that could be mapped to 0 … 255
_ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height change places


class BrokenPicture(Exception):
    """Why a file cannot be used as a picture."""


def show(path: str | Path) -> str:
    """A path for people; names that are not valid Unicode stay printable."""
    return os.fsencode(path).decode("utf-8", "replace")


def channels_and_size(path: str) -> tuple[int, int, int]:
    """(channels, height, width) out of the header: 1 channel for grey pictures, 3 for all others.

    `InputError` if there is no header that can be read.
    """
    try:
        with _open(path) as image:
            width, height = image.size
            if image.getexif().get(_ORIENTATION, 1) >= 5:
                width, height = height, width
            return (1 if image.mode in _GRAY else 3), height, width
    except Exception as error:  # Pillow looks through a whole PNG for its EXIF, and may find it broken
        raise InputError(
            f"{show(path)}: {str(error) or type(error).__name__}; replace or remove this picture"
        ) from error


def decode(path: str, channels: int, height: int, width: int) -> tuple[np.ndarray, bool, bool]:
    """The picture as (height, width, channels) uint8, upright; whether colour was lost; whether transparency was.

    May raise `BrokenPicture`.

    Resized bilinearly with antialiasing if its size differs; the aspect ratio is not kept. The first frame of an
    animation is taken; an alpha channel is dropped.
    """
    with _open(path) as file:
        try:
            image = ImageOps.exif_transpose(file)
            is_transparent = _is_transparent(image)
            loses_colour = channels == 1 and image.mode not in _GRAY
            if image.mode in _SIXTEEN_BIT_GRAY:
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.mode == "LAB":  # Pillow converts it to RGB, but not to L
                image = image.convert("RGB")
            image = image.convert("L" if channels == 1 else "RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
            raise BrokenPicture(str(error) or type(error).__name__) from error
    return np.asarray(image).reshape(height, width, channels), loses_colour, is_transparent


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel is, at least in part; an alpha channel may be opaque all over."""
    if not image.has_transparency_data:
        return False
    try:
        alpha = (image if "A" in image.getbands() else image.convert("RGBA")).getchannel("A")
    except ValueError:  # Pillow cannot convert 16 bits with a transparent colour
        return True
    return bool(np.asarray(alpha).min() < 255)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that are read, as far as this Pillow has them. Others may be unsafe: an EPS file is a program."""
    Image.init()
    wanted = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "PPM", "TIFF", "JPEG2000", "AVIF", "MPO")
    return tuple(name for name in wanted if name in Image.OPEN)


def _open(path: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about flaws that do not prevent reading
            # Pillow warns of pictures of more than 89 megapixels. Here they are refused: they can fill the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_formats())
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BrokenPicture(f"too large, scale it down ({error})") from error
    except UnidentifiedImageError as error:
        raise BrokenPicture("not a picture in a format that is known") from error
    except OSError as error:
        raise BrokenPicture(error.strerror or str(error)) from error
    except Exception as error:  # Pillow's readers raise nearly anything on a broken file
        raise BrokenPicture(str(error) or type(error).__name__) from error
    if image.mode in _UNSUPPORTED:
        image.close()
        raise BrokenPicture(f"32 bits a pixel (mode {image.mode}); pictures of 8 or 16 bits are allowed")
    return image


def decode_many(paths: list[str], shape: tuple[int, int, int]) -> tuple[bytes, list[tuple[str, str]], int, int]:
    """Pixels of all pictures, one after the other (NHWC); (path, reason) of broken ones; how many lost what.

    That is colour and transparency. The pixels of a broken picture are zeros.
    """
    channels, height, width = shape
    pixels = np.zeros((len(paths), height, width, channels), np.uint8)
    broken, lost_colour, transparent = [], 0, 0
    for index, path in enumerate(paths):
        try:
            pixels[index], loses_colour, is_transparent = decode(path, channels, height, width)
            lost_colour += loses_colour
            transparent += is_transparent
        except BrokenPicture as error:
            broken.append((path, str(error)))
    return pixels.tobytes(), broken, lost_colour, transparent


def start_process() -> None:
    """Set up a decoding process: it ignores Ctrl-C, upon which the process that it works for ends it.

    That process may be killed. Decoding processes then die too: they would wait for ever, and keep their memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")  # Pillow's, about flaws that do not prevent reading
    die_with_parent()
