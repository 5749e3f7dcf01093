"""What a video file from elsewhere may hold, checked when it is opened.

libhdf5 verifies the checksums of all metadata in the files read here, so damage is an error. Older
layouts have no checksums and can crash it: they are refused by their first bytes. Strings must have
a fixed length, because the others lie in a heap without checksums.
"""

import math
import os
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from data.bouncing import PHYSICS
from runtime import limits
from runtime.errors import UserError

FORMAT = 2
SIGNATURE = b"\x89HDF\r\n\x1a\n"
FIRST_SUPERBLOCK = 2  # the byte after the signature is the superblock's version: checksums since 2
MAX_TEXT = 2**12  # bytes of an attribute
MAX_CHUNK = 2**26  # bytes of a compressed piece, unpacked
MAX_RATIO = 1100  # gzip shrinks nothing a thousandfold
MAX_CHANNELS = 4  # a last axis this short holds the channels of a picture
MIN_SLOT = 3  # numbers in a slot: its position, and at least one for its appearance
REQUIRED = {
    "frames": {"source", "frame_rate", "frame_skip"},
    "latents": {"source", "frame_rate", "frame_skip", "codec", "codec_id", "data_file"},
}
DTYPE = {"frames": np.uint8, "latents": np.float32}
SHAPE = {"frames": "(N, channels, height, width)", "latents": "(crops, N, 2, z_dim)"}
ROW_AXIS = {"frames": 0, "latents": 1}
# What an attribute may be, as `limits.fits` has it: text, one of a set, an integer in a range, or a
# number from low to high. Attributes without a line here are not read.
ATTRIBUTES = {
    **dict.fromkeys(("kind", "source", "codec", "codec_id", "data_file", "mnist"), str),
    "physics": set(PHYSICS),
    "format": range(2**20),
    "frame_rate": (1e-9, 1e9),
    "frame_skip": range(1, 2**31),
    "slots": range(1, 5),
    **dict.fromkeys(("grid_rows", "grid_columns"), range(1, 2**10 + 1)),
    "num_sz": range(1, 2**9 + 1),
    "frame_size": range(2, 2**12 + 1),
    **dict.fromkeys(("frame_height", "frame_width"), range(1, 2**16)),
    "nums_per_image": range(1, 2**10 + 1),
}


@contextmanager
def blame(path):
    """Turn whatever goes wrong in the block into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there; run the stage that makes it, or name another file"
        ) from None
    except Exception as error:  # h5py raises many kinds
        raise UserError(f"{path} cannot be read as HDF5 of this project ({error!s:.200})") from None


def check_signature(path):
    """Raise UserError if the file has an older layout, ValueError if it is not HDF5."""
    with open(path, "rb") as file:
        beginning = file.read(len(SIGNATURE) + 1)
    if beginning[:-1] != SIGNATURE:
        raise ValueError("it does not begin as HDF5 does")
    if beginning[-1] < FIRST_SUPERBLOCK:
        raise UserError(other_format(path, 1))


def other_format(path, number):
    return (
        f"{path} is HDF5 of format {number} (or foreign), and this code reads format {FORMAT}: "
        "make it again"
    )


def check_writable(attributes):
    """Raise UserError if a reader would refuse one of the attributes."""
    for name in attributes.keys() & ATTRIBUTES.keys():
        value = attributes[name]
        too_long = len(os.fsencode(str(value))) > MAX_TEXT
        if too_long or not limits.fits(value, ATTRIBUTES[name]):
            raise UserError(
                f"{name} {value!s:.50} is more than this file format can hold: lower it"
            )


def read_attributes(file, path, kind):
    """The attributes of an open file: {name: str, int or float}.

    Raises UserError if it is not of this kind and format or lacks an attribute, ValueError if a
    value is not allowed.
    """
    attributes = {name: attribute(file, name) for name in ATTRIBUTES if name in file.attrs}
    if attributes.get("kind") != kind or "format" not in attributes:
        raise UserError(f"{path} is not a {kind} file made by this project's stages")
    if attributes["format"] != FORMAT:
        raise UserError(other_format(path, attributes["format"]))
    if missing := REQUIRED[kind] - attributes.keys():
        raise UserError(f"{path} does not say its {', '.join(sorted(missing))}; make it again")
    return attributes


def attribute(file, name):
    """An attribute as a plain Python value. Raises ValueError if ATTRIBUTES does not allow it."""
    stored = file.attrs.get_id(name)
    kind = stored.dtype.kind
    if stored.shape != () or kind not in "Siuf" or stored.dtype.itemsize > MAX_TEXT:
        raise ValueError(f"attribute {name} is neither a number nor text of a fixed length")
    value = os.fsdecode(file.attrs[name]) if kind == "S" else file.attrs[name].item()
    if not limits.fits(value, ATTRIBUTES[name]):
        raise ValueError(f"attribute {name} is {value!s:.50}")
    return value


def member(file, split, name):
    """The dataset `name` of a split, or None. Raises ValueError at a link: it may lead anywhere."""
    node = file
    for part, kind in ((split, h5py.Group), (name, h5py.Dataset)):
        link = node.get(part, getlink=True)
        if link is None:
            return None
        if type(link) is not h5py.HardLink or not isinstance(node[part], kind):
            raise ValueError(f"{split}/{name} is a link, or not a dataset")
        node = node[part]
    return node


def checked_rows(file, path, split, kind):
    """The dataset of a split's frames or latents.

    Raises UserError if it is empty or has another dtype or shape, ValueError if the file does not
    hold all of it.
    """
    rows = member(file, split, kind)
    if rows is None or 0 in rows.shape:
        raise UserError(f"{path} has no videos in its {split} split; make it again with some")
    shape = rows.shape
    is_pair = kind == "frames" or (len(shape) == 4 and shape[2] == 2)  # mean and log-sigma
    if rows.dtype != DTYPE[kind] or len(shape) != 4 or not is_pair:
        raise UserError(
            f"{path}: {split}/{kind} is {rows.dtype} {shape}, not {np.dtype(DTYPE[kind])} "
            f"{SHAPE[kind]}"
        )
    if kind == "frames" and shape[3] <= MAX_CHANNELS < shape[1]:
        raise UserError(
            f"{path} has frames {shape[1:]} with their channels last; store {SHAPE[kind]}"
        )
    check_storage(rows, path)
    return rows


def read_starts(file, path, split, kind, count):
    """The first row of each video and the end of the last, (V + 1,) int64.

    count: rows of frames or latents. Raises UserError if the starts do not rise from 0 to that.
    """
    stored = member(file, split, "starts")
    starts = np.zeros(0, np.int64)
    if (
        stored is not None
        and stored.dtype == np.int64
        and stored.ndim == 1
        and len(stored) <= count + 1
    ):
        check_storage(stored, path)
        starts = stored[:]
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != count or (np.diff(starts) < 1).any():
        raise UserError(
            f"{path}: {split}/starts must be int64 and rise from 0 to the {count} rows of {kind}"
        )
    return starts


def check_layout(path, z_dim, attributes):
    """Raise UserError if `z_dim` numbers do not divide into the slots or the grid of the file.

    Or if it has slots and does not say of how large frames; ValueError if it has slots and a grid,
    or half a grid.
    """
    grid = attributes.keys() & {"grid_rows", "grid_columns"}
    if len(grid) == 1 or (grid and "slots" in attributes):
        raise ValueError("a grid has grid_rows and grid_columns, and no slots")
    slots = attributes.get("slots", 1)
    places = attributes.get("grid_rows", 1) * attributes.get("grid_columns", 1)
    too_short = slots > 1 and z_dim // slots < MIN_SLOT
    if z_dim % slots or z_dim % places or too_short:
        raise UserError(
            f"{path}: latents of {z_dim} numbers do not divide into {slots} slots or {places} "
            "places; make it again"
        )
    if "slots" in attributes and not {"frame_height", "frame_width"} <= attributes.keys():
        raise UserError(
            f"{path} does not say how large its frames are, which slots need; run train_vcae.py "
            "--resume with its run folder, which encodes them again"
        )


def read_positions(file, frames, count):
    """Positions of the digits in the first `count` of the `Frames`, or None if the file has none.

    They are (count, digits, 2) float32, pixels. Raises ValueError if the digits are not inside the
    frames, or if the attributes do not say how they are drawn.
    """
    stored = member(file, frames.split, "positions")
    if stored is None:
        return None
    check_storage(stored, frames.path)
    digits = stored.shape[1] if stored.ndim == 3 else 0
    if stored.dtype != np.float32 or stored.shape != (len(frames), digits, 2) or not digits:
        raise ValueError(f"{frames.split}/positions is {stored.dtype} {stored.shape}")
    positions = stored[:count]
    size = frames.attributes.get("num_sz", 0)
    if "physics" not in frames.attributes or not 1 <= size < min(frames.shape[2:]):
        raise ValueError("it does not say how its digits move and how large they are")
    uncropped = np.array(frames.shape[2:]) + frames.room
    low = -size // 2
    high = uncropped - size // 2
    if not ((positions >= low) & (positions <= high)).all():
        raise ValueError(f"{frames.split}/positions are not in the frames")
    return positions


def read_films(file, frames):
    """The name of each video's film, (V,) of str, or None if the file has none.

    What cannot be printed in a name becomes a question mark. Raises ValueError if the names are not
    one per video of the `Frames`, or not of a fixed length.
    """
    stored = member(file, frames.split, "films")
    if stored is None:
        return None
    count = len(frames.starts) - 1
    if stored.dtype.kind != "S" or stored.dtype.itemsize > MAX_TEXT or stored.shape != (count,):
        raise ValueError(f"{frames.split}/films is {stored.dtype} {stored.shape}")
    check_storage(stored, frames.path)
    return np.array([printable(name.decode(errors="replace")) for name in stored[:]])


def printable(text):
    return "".join(c if c.isprintable() else "?" for c in text)


def check_storage(rows, path):
    """Raise ValueError if a dataset claims more than the file holds, or lies outside of it."""
    size = math.prod(rows.shape) * rows.dtype.itemsize
    if rows.is_virtual or rows.external:
        raise ValueError(f"{rows.name} lies in other files")
    if rows.chunks:  # written by another tool, perhaps compressed
        chunk = math.prod(rows.chunks) * rows.dtype.itemsize
        is_complete = size <= MAX_RATIO * rows.id.get_storage_size() and chunk <= MAX_CHUNK
    else:
        offset = rows.id.get_offset()
        in_file = offset is not None and offset + size <= Path(path).stat().st_size
        is_complete = size == 0 or in_file
    if not is_complete:
        raise ValueError(f"{rows.name} {rows.shape} is more than the file holds")
