"""Some frames of one film, read from the film itself. Nothing is stored."""

import numpy as np
import torch

from data import footage, movie
from runtime.errors import UserError

SPARE = 2.0  # seconds: some films end earlier than their packets say


def find(path, cover, start):
    """The one film at `path`, inspected, see `movie.inspect`.

    cover: (height, width) that a small frame fills; start: seconds, or None. Raises UserError if
    there is none, or several, or if it ends before `start`.
    """
    films, _ = footage.find([path])
    if len(films) > 1:
        raise UserError(
            f"--film {path} holds {len(films)} films: name one, such as {films[0].path}"
        )
    (film,) = films
    movie.inspect(film, cover, start=start or 0.0)
    return film


def even_rate(film, wanted):
    """About `wanted` frames per second, such that every N-th frame of the film is taken."""
    return film.rate / max(round(film.rate / wanted), 1)


def read(film, shape, rate, start, length, horizon, least):
    """Small frames, (T, channels, height, width) uint8, and the second at which they begin.

    From second `start` on there are length + horizon, or as many as the film has; if start is None
    they are its last `length`. shape: (channels, height, width); rate: frames per second. Raises
    UserError if there are fewer than `least`.
    """
    if start is None:
        film.start = max(film.end - length / rate - SPARE, 0.0)
    else:
        film.start = start
        film.end = min(film.end, start + (length + horizon) / rate)
    shrink = movie.shrinker(film, shape)
    frames = [shrink(frame) for frame in movie.sampled(film, rate)]
    count = len(frames)
    if count < least:
        way_out = "lower --start or" if start else "take a longer film, or lower"
        raise UserError(
            f"{film.path} has {count} of the {least} frames to feed in, from second "
            f"{film.start:.1f} on and at {rate:.3g} per second: {way_out} --context"
        )
    left_out = max(count - length, 0) if start is None else 0
    return torch.from_numpy(np.stack(frames[left_out:])), film.start + left_out / rate
