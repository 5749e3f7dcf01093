"""The videos that are shown beside their predictions: of a file of frames, or one film."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import clip
from data.hdf5 import Frames
from runtime.errors import UserError

# Frames fed in, if it is not said how many:
MAX_CONTEXT = 30  # at most
FILM_CONTEXT = 8  # of one film: as the pretrained networks were trained
FEWEST = 3  # at least, of one film: those that a painter sees


class Shown(NamedTuple):
    """Videos to continue."""

    names: list  # one each
    truth: list  # (T, channels, height, width) uint8 each, as many frames as there are
    length: int  # frames to feed in
    rate: float  # frames per second
    source: str  # where they are from, in words


def of_film(path, start, model, length, horizon):
    """A `Shown` of the film at `path`: its last `length` frames or, with start, those from there.

    It is read at about the rate that the `Trained` model knows. start: seconds, or None; length:
    None for FILM_CONTEXT, or fewer of a short film; horizon: true frames to show after them, where
    there are any. Raises UserError if there is no such film, or if it is too short.
    """
    known = model.frame_rate or Frames(model.own_frames(), "train").attributes["frame_rate"]
    film = clip.find(path, model.codec.frame_shape[1:], start)
    if model.has_places:
        model.widen(*film.shape)
    skip = max(round(film.rate / (known / model.skip)), 1)
    rate = film.rate / skip
    least = length or FEWEST
    length = length or FILM_CONTEXT
    shape = model.codec.frame_shape
    frames, first = clip.read(film, shape, skip, start, length, horizon, least)
    length = min(length, len(frames))
    source = f"{path} from second {first:.1f} on, {rate:.3g} frames per second"
    return Shown([Path(path).absolute().stem], [frames], length, rate, source)


def open_frames(data_file, split, model):
    """The frames of a split, cut to what the codec takes: a square, or nearly all with a grid.

    data_file: None for the model's own. Raises UserError if the codec does not take such frames.
    """
    data_file = data_file or model.own_frames()
    channels, *crop = model.codec.frame_shape
    frames = Frames(data_file, split, crop)  # before widening: it names the codec's own size
    if frames.shape[1] != channels:
        raise UserError(
            f"{data_file} has {frames.shape[1]} channels, {model.name} takes {channels}: name "
            "frames like those it was trained on"
        )
    if model.has_places:
        model.widen(*Frames(data_file, split).shape[2:])
        frames = Frames(data_file, split, model.codec.frame_shape[1:])
    return frames


def of_split(frames, skip, length, horizon, count, seed):
    """A `Shown` of at most `count` videos of a split, chosen by the seed.

    skip: take every skip-th frame; length: None for half of the median video, at most MAX_CONTEXT.
    Raises UserError if all videos are shorter.
    """
    lengths = -(-np.diff(frames.starts) // skip)  # of each video, in frames that the LSTM gets
    half = int(np.median(lengths) // 2)  # the other half is truth to compare with
    length = length or min(max(half, 1), MAX_CONTEXT)
    long_enough = np.flatnonzero(lengths >= length)
    if not len(long_enough):
        raise UserError(
            f"no {frames.split} video has {length} frames to feed in: lower --context to "
            f"{lengths.max()}"
        )
    chosen = np.random.default_rng(seed).permutation(long_enough)[:count]
    truth = [read_video(frames, v, skip, length + horizon) for v in chosen]
    names = [f"{frames.split}_{v:04d}" for v in chosen]
    rate = frames.attributes["frame_rate"] / skip
    return Shown(names, truth, length, rate, f"{len(chosen)} videos of the {frames.split} split")


def read_video(frames, v, skip, length):
    """Every skip-th frame of video v, `length` at most, (T, C, H, W) uint8."""
    rows = range(frames.starts[v], frames.starts[v + 1], skip)
    return frames.__getitems__(list(rows[:length]))
