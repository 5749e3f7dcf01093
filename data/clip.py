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


def read(film, shape, skip, start, length, horizon, least):
    """Small frames, (T, channels, height, width) uint8, and the second at which they begin.

    They are every skip-th of the film: from second `start` on length + horizon, or as many as it
    has; if start is None its last `length`. shape: (channels, height, width). Raises UserError if
    there are fewer than `least`.
    """
    count = skip * (length if start is None else length + horizon)  # of the film's own frames
    begin = film.end - count / film.rate - SPARE if start is None else start
    film.start = max(round(begin * film.rate), 0) / film.rate  # with a frame
    if start is not None:
        film.end = min(film.end, film.start + count / film.rate)
    shrink = movie.shrinker(film, shape)
    frames = [shrink(frame) for frame in movie.sampled(film, film.rate)]
    first = (len(frames) - 1) % skip if start is None else 0  # the last one counts
    chosen = range(first, len(frames), skip)
    chosen = chosen[-length:] if start is None else chosen
    if len(chosen) < least:
        way_out = "lower --start or" if start else "take a longer film, or lower"
        raise UserError(
            f"{film.path} has {len(chosen)} of the {least} frames to feed in, from second "
            f"{film.start:.1f} on and at {film.rate / skip:.3g} per second: {way_out} --context"
        )
    taken = np.stack([frames[i] for i in chosen])
    return torch.from_numpy(taken), film.start + chosen[0] / film.rate
