"""Videos of one length to measure predictions on: windows of our own files, or the field's mnist_test_seq.npy."""

import errno
import itertools
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from skimage.transform import downscale_local_mean

from data.bouncing import to_pixels
from data.hdf5 import Frames, create
from runtime.errors import UserError


def read_windows(path, split, length, skip=1, stride=None, count=None, crop=None):
    """Windows of `length` frames, every skip-th of a video, and what is known of them.

    Returns frames (V, length, channels, height, width) uint8; the rows and columns (V, length, D, 2) of the pixels at
    which the top-left corners of digits are drawn, or None; the size of a digit in pixels, or None. A video gives
    windows at every stride-th frame (None: side by side), at most `count` in all, the first ones; crop: (height,
    width), cut from the centre. Raises UserError if no video is long enough.
    """
    if Path(path).suffix == ".npy":
        return read_npy(path, length, skip, count), None, None
    videos = Frames(path, split, crop)
    span = (length - 1) * skip + 1
    firsts = (
        first
        for start, end in zip(videos.starts, videos.starts[1:], strict=False)
        for first in range(start, end - span + 1, stride or span)
    )
    firsts = list(itertools.islice(firsts, count))
    if not firsts:
        raise UserError(
            f"{path}: the longest {split} video has {np.diff(videos.starts).max()} frames, "
            f"--context and --horizon need {span}"
        )
    rows = np.array(firsts)[:, None] + skip * np.arange(length)
    frames = videos.__getitems__(rows.ravel()).numpy().reshape(*rows.shape, *videos.shape[1:])
    positions = videos.positions(rows.max() + 1)  # not of all videos, which may be many more
    if positions is None:
        return frames, None, None
    return frames, to_pixels(positions[rows], videos.attributes["physics"]), videos.attributes["num_sz"]


def read_npy(path, length, skip, count):
    """Videos of an array (T, N, height, width) uint8, as Srivastava et al. (2015) laid theirs out.

    The first `length` frames of each, every skip-th. Raises UserError if the array is no such one, or if it seems to
    be (N, T, height, width).
    """
    try:
        try:
            array = np.lib.format.open_memmap(path, mode="r")  # never unpickles, maps what the file has room for
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            array = np.load(path, allow_pickle=False)  # from a disk whose files cannot be mapped
    except FileNotFoundError:
        raise UserError(f"{path} is not there; fetch it, or name another file") from None
    except Exception as error:  # numpy's parser of headers is Python's own
        raise UserError(f"{path} cannot be read as an array of videos ({error!s:.200})") from None
    span = (length - 1) * skip + 1
    if array.ndim != 4 or array.dtype != np.uint8 or len(array) < span or 0 in array.shape:
        raise UserError(f"{path} is {array.dtype} {array.shape}, not uint8 (at least {span} frames, N, height, width)")
    if is_video_first(array):
        raise UserError(
            f"{path} {array.shape} seems to be (N, frames, height, width), where (frames, N, height, width) is read: "
            "save it again with its first two axes swapped, array.swapaxes(0, 1)"
        )
    return np.array(array[:span:skip, :count]).swapaxes(0, 1)[:, :, None]


def is_video_first(array):
    """Whether frames (A, B, height, width) follow one another in time along the second axis, and not along the first.

    The next frame in time is nearly always more alike than a frame of another video, fast motion included if frames
    are compared coarsely. Blank or still videos, copies of one video, and overlapping windows of one film do not tell:
    False.
    """
    some = array[:20, :20]
    height, width = some.shape[2:]
    coarse = downscale_local_mean(some, (1, 1, -(-height // 8), -(-width // 8)))

    def distance(one, two):
        return np.abs(one - two).sum((2, 3))

    first = distance(coarse[1:], coarse[:-1])[:, :-1]  # (A - 1, B - 1)
    second = distance(coarse[:, 1:], coarse[:, :-1])[:-1]
    if first.size < 20:
        return False
    second_is_time = ((second > 0) & (second < first)).mean() > 0.9
    two_apart = distance(coarse[2:], coarse[:-2])[:, :-1]  # (A - 2, B - 1)
    first_is_time = (first[:-1] < two_apart).mean() > 0.75
    return second_is_time and not first_is_time


@contextmanager
def keep_predictions(path, arguments):
    """A function keep(V, name, videos, frames) that writes frames (n, H, ...) of n of V videos to an HDF5 file.

    Without a path it keeps nothing. arguments: a dict, for the file's attributes. Raises UserError if there is a file.
    """
    if path is None:
        yield lambda *_: None
        return
    with create(path, "predictions", {"arguments": json.dumps(arguments)}) as file:

        def keep(total, name, videos, frames):
            file.require_dataset(name, (total, *frames.shape[1:]), np.float32)[videos] = frames

        yield keep
