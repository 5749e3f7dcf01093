"""Videos of one length to measure predictions on: of our own files, or of mnist_test_seq.npy."""

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

IS_TIME = 0.9  # of the frames are more alike along an axis of time
CAN_BE_TIME = 0.75
SIDE = 20  # frames of either axis that are looked at
FEWEST = 20  # pairs of frames that tell
COARSE = 8  # blocks per edge, in which frames are compared


def read_windows(path, split, length, skip=1, stride=None, count=None, crop=None):
    """Windows of `length` frames, every skip-th of a video, and what is known of them.

    Returns frames (V, length, channels, height, width) uint8; the number of the video that each is
    from, (V,); the rows and columns (V, length, D, 2) of the pixels of the digits' top-left
    corners, or None; what the file says of itself, of an array {}; the name of the film that each
    is from, (V,) of str, or None. stride: frames from one window of a video to the next (None: they
    lie side by side); count: at most, the first ones; crop: (height, width), cut from the centre.
    Raises UserError if no video is long enough.
    """
    if Path(path).suffix == ".npy":
        frames = read_npy(path, length, skip, count)
        return frames, np.arange(len(frames)), None, {}, None
    videos = Frames(path, split, crop)
    span = (length - 1) * skip + 1
    firsts = list(itertools.islice(first_frames(videos.starts, span, stride or span), count))
    if not firsts:
        raise UserError(
            f"{path}: the longest {split} video has {np.diff(videos.starts).max()} frames, "
            f"--context and --horizon need {span}"
        )
    rows = np.array(firsts)[:, None] + skip * np.arange(length)  # (V, length)
    frames = videos.__getitems__(rows.ravel()).numpy()  # (V*length, channels, height, width)
    frames = frames.reshape(*rows.shape, *videos.shape[1:])
    sources = np.searchsorted(videos.starts, firsts, side="right") - 1  # (V,)
    positions = videos.positions(rows.max() + 1)  # not of all videos, which may be many more
    if positions is None:
        films = videos.films()
        if films is not None:
            films = films[sources]  # (V,)
        return frames, sources, None, videos.attributes, films
    corners = to_pixels(positions[rows], videos.attributes["physics"])  # (V, length, D, 2)
    return frames, sources, corners, videos.attributes, None


def first_frames(starts, span, stride):
    """Yield the first frame of each window: every `stride` frames of each video."""
    for start, end in itertools.pairwise(starts):
        yield from range(start, end - span + 1, stride)


def read_npy(path, length, skip, count):
    """Videos of an array (T, N, height, width) uint8, as Srivastava et al. (2015) stored theirs.

    Returns every skip-th frame of each, `length` of them: (V, length, 1, height, width). Raises
    UserError if it is no such array, or if it seems to be (N, T, height, width).
    """
    array = open_npy(path)
    span = (length - 1) * skip + 1
    if array.ndim != 4 or array.dtype != np.uint8 or len(array) < span or 0 in array.shape:
        raise UserError(
            f"{path} is {array.dtype} {array.shape}, not uint8 (at least {span} frames, N, height, "
            "width)"
        )
    if is_video_first(array):
        raise UserError(
            f"{path} {array.shape} seems to be (N, frames, height, width), where "
            "(frames, N, height, width) is read: save it again with its first two axes swapped, "
            "array.swapaxes(0, 1)"
        )
    videos = np.array(array[:span:skip, :count])  # (length, V, height, width)
    return videos.swapaxes(0, 1)[:, :, None]


def open_npy(path):
    """An array, mapped into memory. Raises UserError if it cannot be read."""
    try:
        try:
            # This never unpickles, and maps no more than the file holds.
            return np.lib.format.open_memmap(path, mode="r")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return np.load(path, allow_pickle=False)  # from a disk whose files cannot be mapped
    except FileNotFoundError:
        raise UserError(f"{path} is not there; fetch it, or name another file") from None
    except Exception as error:  # numpy's parser of headers is Python's own
        raise UserError(f"{path} cannot be read as an array of videos ({error!s:.200})") from None


def is_video_first(array):
    """Whether the second axis of frames (A, B, height, width) is time, and the first is not.

    The next frame in time is nearly always more alike than a frame of another video, even in fast
    motion if frames are compared coarsely. Blank or still videos, copies of one video, and
    overlapping windows of one film do not tell: False.
    """
    corner = array[:SIDE, :SIDE]
    height, width = corner.shape[2:]
    block = (1, 1, -(-height // COARSE), -(-width // COARSE))
    coarse = downscale_local_mean(corner, block)

    def distance(one, two):
        return np.abs(one - two).sum((2, 3))

    along_first = distance(coarse[1:], coarse[:-1])[:, :-1]  # (A - 1, B - 1)
    along_second = distance(coarse[:, 1:], coarse[:, :-1])[:-1]  # (A - 1, B - 1)
    if along_first.size < FEWEST:
        return False
    is_alike = (along_second > 0) & (along_second < along_first)
    second_is_time = is_alike.mean() > IS_TIME
    two_apart = distance(coarse[2:], coarse[:-2])[:, :-1]  # (A - 2, B - 1)
    first_is_time = (along_first[:-1] < two_apart).mean() > CAN_BE_TIME
    return second_is_time and not first_is_time


@contextmanager
def keep_predictions(path, arguments):
    """A function keep(V, name, videos, frames) that stores predictions in an HDF5 file.

    frames (n, H, ...) are those of `videos` (n,) out of V. Without a path nothing is stored.
    arguments: a dict, for the file's attributes. Raises UserError if there is a file.
    """
    if path is None:
        yield lambda *_: None
        return
    with create(path, "predictions", {"arguments": json.dumps(arguments)}) as file:

        def keep(total, name, videos, frames):
            shape = (total, *frames.shape[1:])
            file.require_dataset(name, shape, np.float32)[videos] = frames

        yield keep
