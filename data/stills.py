"""Still pictures and animations, read with Pillow: RGB, upright, transparency on black."""

import itertools
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from runtime.errors import UserError

SUFFIXES = {
    ".apng", ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg",
    ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
# Formats whose further pictures are frames. Of a JPEG they are a preview or a map of brightness.
ANIMATIONS = {"AVIF", "GIF", "PNG", "TIFF", "WEBP"}
MAX_16 = 2**16 - 1  # of 16 bits
MAX_PIXELS = 2**26  # of a picture, twice those of 8K: a small file may claim any number
SUBFILE = 254  # a TIFF's tag for what a page is
THUMBNAIL = 1  # the bit in it of a page that is another one made small


def read(path):
    """The picture at `path`, or its first: (height, width, 3) uint8. Raises UserError if none."""
    with open_picture(path) as image:
        return pixels(image)


def is_animation(path):
    """Whether `path` holds several pictures. What cannot be read holds none."""
    try:
        with open_picture(path) as image:
            return image.format in ANIMATIONS and getattr(image, "is_animated", False)
    except UserError:
        return False


def frames(path):
    """Yield (seconds, picture) for each frame of an animation, pictures as `read` has them.

    The seconds say how long it is on screen; None if that is unknown. Raises UserError at the first
    that cannot be read.
    """
    with blame(path), open(path, "rb") as file:
        image = Image.open(file)
        for i in itertools.count() if image.format in ANIMATIONS else range(1):
            with blame(path):
                try:
                    image.seek(i)
                except EOFError:
                    return
                picture = pixels(image) if is_frame(image, i) else None
            if picture is not None:
                yield (image.info.get("duration") or 0) / 1000 or None, picture


def is_frame(image, i):
    """Whether image i belongs to the animation.

    A PNG may begin with a stand-in for viewers without animations, a TIFF may hold a thumbnail.
    """
    if image.format == "TIFF":
        return not image.tag_v2.get(SUBFILE, 0) & THUMBNAIL
    return not (i == 0 and getattr(image, "default_image", False))


def pixels(image):
    """An open picture, upright: (height, width, 3) uint8. Sixteen bits are scaled to eight."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it claims {image.width}x{image.height} pixels")
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright).clip(0, MAX_16) / (MAX_16 // 255)
        return np.rint(grey).astype(np.uint8)[..., None].repeat(3, axis=2)
    if upright.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if not upright.has_transparency_data:
        return np.asarray(upright.convert("RGB"))
    layer = upright.convert("RGBA")
    flat = Image.new("RGB", layer.size)
    flat.paste(layer, mask=layer)
    return np.asarray(flat)


@contextmanager
def open_picture(path):
    """The picture at `path`, its header read.

    Raises UserError if there is none, or if what the block does with it fails.
    """
    with blame(path), open(path, "rb") as file, Image.open(file) as image:
        yield image


@contextmanager
def blame(path):
    """Turn an error in the block into a UserError that names the file; ignore warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except UnidentifiedImageError:
        avif = Path(path).suffix.lower() == ".avif" and "avif" not in features.get_supported()
        way_out = "for AVIF, install Pillow 11.3 or later" if avif else "remove or replace it"
        raise UserError(f"{path} is not a picture that Pillow can read; {way_out}") from None
    except OSError as error:
        if error.errno is None:  # Pillow's own, of a damaged file
            raise UserError(
                f"{path} is not a picture that Pillow can read ({error!s:.200}); remove or replace "
                "it"
            ) from None
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # Pillow raises many kinds of them
        raise UserError(
            f"{path} is not a picture that Pillow can read ({error!s:.200}); remove or replace it"
        ) from None
