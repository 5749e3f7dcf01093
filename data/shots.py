"""Small frames to videos: films are decoded, cut into shots, and each shot written to its split.

Nothing here holds more than a few frames: they go to a temporary file without a name beside the
final one, which the system frees even if the process is killed, and from there to HDF5 in pieces.
"""

import itertools
import math
import os
import tempfile
from array import array
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import hdf5
from data.movie import sampled, shrinker, ticks
from runtime.errors import UserError

ROWS = 500  # frames copied at a time
# See `find_cuts`: grey levels, a ratio, frames, grey levels
FLOOR = 12
RATIO = 2.5
NEAR = 4
DARK = 12


def write_films(dest, films, shape, rate, shares, detect_cuts, min_frames, attributes):
    """Write the small frames of `films`, and the bounds and the film of each shot.

    The films of a split are written in order.

    A film with a `split` goes there in one piece; one without is divided. shape: (channels, height,
    width) of the small frames; rate: frames per second; shares: three integers, the parts of train,
    valid and test; min_frames: shorter shots are dropped; attributes: of the file. Sets each film's
    `frames`, `shots` and `damaged`. Returns {split: (frames, shots)}. Raises UserError if nothing
    is left of a split that should have something.
    """
    videos = {split: [] for split in hdf5.SPLITS}
    names = {split: [] for split in hdf5.SPLITS}  # of each video's film
    total = sum(ticks(film, rate) for film in films)
    all_cuts = 0
    first = 0
    # Created first, so that the second of two processes is refused before it decodes.
    with (
        hdf5.create(dest, "frames", attributes) as target,
        tempfile.TemporaryFile(dir=Path(dest).parent) as file,
    ):
        with tqdm(total=total, desc="decoding", unit="frame", disable=None) as progress:
            for film, name in zip(films, name_films(films), strict=True):
                try:
                    differences, brightness = decode(film, rate, shape, file, progress)
                except UserError as error:
                    if film.named:
                        raise
                    film.problem = str(error)
                    file.truncate(first * math.prod(shape))
                    file.seek(0, os.SEEK_END)
                    continue
                film.frames = len(differences)
                cuts = []
                if detect_cuts and film.frames:
                    frames = mapped(file, first, film.frames, shape)
                    cuts = find_cuts(frames, differences, brightness)
                spans = divide(film.frames, cuts, shares, math.ceil(rate), min_frames, film.split)
                film.shots = sum(map(len, spans.values()))
                for split in hdf5.SPLITS:
                    videos[split] += [(first + a, first + b) for a, b in spans[split]]
                    names[split] += [name] * len(spans[split])
                first += film.frames
                all_cuts += len(cuts)
        check_filled(videos, films, shares, min_frames, all_cuts)
        copy(mapped(file, 0, first, shape), videos, target)
        for split in hdf5.SPLITS:
            target[split]["films"] = np.array(names[split], np.bytes_)
    return {split: (count_frames(spans), len(spans)) for split, spans in videos.items()}


def name_films(films):
    """Each film's path from the folder that holds them all, as bytes."""
    paths = [os.path.abspath(film.path) for film in films]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.fsencode(os.path.relpath(path, folder)) for path in paths]


def count_frames(spans):
    return sum(end - first for first, end in spans)


def check_filled(videos, films, shares, min_frames, cuts):
    """Raise UserError if a split that has a film or a share has no video. cuts: how many."""
    wanted = {film.split for film in films}
    if None in wanted:
        wanted |= {split for split, share in zip(hdf5.SPLITS, shares, strict=True) if share}
    empty = [split for split in hdf5.SPLITS if split in wanted and not videos[split]]
    if not empty:
        return
    frames = sum(film.frames for film in films)
    if None not in wanted:
        raise UserError(
            f"nothing is left for {' and '.join(empty)}: no shot of its films has {min_frames} "
            "frames; give it longer films, or a lower --min_frames"
        )
    several = len(films) > 1
    whose = f"the {len(films)} films are" if several else f"{films[0].path} is"
    way_out = "deal whole films with --split_by film, " if several else ""
    raise UserError(
        f"{whose} too short: {frames} frames with {cuts} cuts do not give each split a shot of "
        f"{min_frames} frames; {way_out}take more of it, a longer film, or another --split"
    )


def mapped(file, first, count, shape):
    """`count` frames of the open `file` from number `first` on, (count, *shape), read when needed.

    On a disk whose files cannot be mapped they are read at once.
    """
    start = first * math.prod(shape)
    try:
        return np.memmap(file, np.uint8, "r", start, (count, *shape))
    except OSError:
        file.seek(start)
        frames = np.fromfile(file, np.uint8, count * math.prod(shape))
        file.seek(0, os.SEEK_END)
        return frames.reshape(count, *shape)


def decode(film, rate, shape, file, progress):
    """Append a film's small frames to the open binary `file`; return two numbers of each, (N,).

    They are its absolute difference from the previous frame (of the first: 0) and its brightness,
    means over pixels and colours, 0 to 255.
    """
    shrink = shrinker(film, shape)
    previous = None
    differences = array("d")
    brightness = array("d")
    for frame in sampled(film, rate):
        small = shrink(frame)
        file.write(small)
        differences.append(0.0 if previous is None else difference(small, previous))
        brightness.append(small.mean())
        previous = small
        progress.update()
    file.flush()
    return np.array(differences), np.array(brightness)


def difference(a, b):
    """Mean absolute difference of two frames."""
    return np.abs(np.subtract(a, b, dtype=np.int16)).mean()


def find_cuts(frames, differences, brightness):
    """The numbers of the frames with which a new shot begins.

    frames: (N, channels, height, width) uint8; differences, brightness: (N,), see `decode`.
    1. A cut stands out: its difference is at least FLOOR, and RATIO times the second largest of the
    NEAR
       differences on either side. Pans, shakes and slow or repeated frames have rivals beside them.
       The largest is ignored so that a second cut close by hides nothing.
    2. A cut lasts: no picture from before it returns within NEAR frames, as after a flash.
    3. A fade through black is cut in the middle of the frames darker than DARK on average
       (PySceneDetect's threshold).
    Dissolves and wipes are missed (their shots stay in one video), and so are cuts between two
    similar pictures and shots of fewer than NEAR frames.
    """
    cuts = []
    for k in np.flatnonzero(differences >= FLOOR):
        left = differences[max(k - NEAR, 1) : k]
        right = differences[k + 1 : k + 1 + NEAR]
        beside = np.sort(np.r_[left, right, 0, 0])
        stands_out = differences[k] >= RATIO * beside[-2]
        returns = [difference(frames[k - 1], frame) for frame in frames[k + 1 : k + 1 + NEAR]]
        returns += [difference(frames[k], frame) for frame in frames[max(k - 1 - NEAR, 0) : k - 1]]
        if stands_out and all(other > differences[k] / 2 for other in returns):
            cuts.append(int(k))
    edges = np.flatnonzero(np.diff(brightness < DARK, prepend=False, append=False))
    fades = []
    for first, end in edges.reshape(-1, 2):  # of dark frames
        if first > 0 and end < len(frames):
            fades.append(int(first + end) // 2)
    return sorted({*cuts, *fades})


def divide(length, cuts, shares, gap, min_frames, only=None):
    """Split a film: {split: [(first frame, end), ...]}, a pair per shot, in time order.

    length: the film's frames; cuts: frames that begin a shot; shares: three integers; only: the
    split that all of the film goes to, if it is not divided. The bounds between the splits are the
    cuts nearest to the shares. With fewer shots than splits the shares are of time alone, with
    `gap` frames left out between one split and the next. Shots of fewer than `min_frames` are
    dropped.
    """
    bounds = itertools.pairwise([0, *cuts, length])
    shots = [(first, end) for first, end in bounds if end - first >= min_frames]
    if only:
        return {split: shots if split == only else [] for split in hdf5.SPLITS}
    so_far = [part / sum(shares) for part in itertools.accumulate(shares, initial=0)]
    least = [1 if share else 0 for share in shares]  # shots of each split
    if len(shots) >= sum(least):
        return divide_shots(shots, length, so_far, least)
    return divide_time(shots, length, so_far, gap * (sum(least) - 1), gap, min_frames)


def divide_shots(shots, length, so_far, least):
    """`divide` at cuts. so_far: sums of the shares, 0 to 1 (4); least: shots of each split (3)."""
    edges = np.array([first for first, _ in shots] + [length])
    _, of_valid, of_test = least
    valid = nearest(edges, length * so_far[1], least[0], len(shots) - of_valid - of_test)
    test = nearest(edges, length * so_far[2], valid + of_valid, len(shots) - of_test)
    return {"train": shots[:valid], "valid": shots[valid:test], "test": shots[test:]}


def divide_time(shots, length, so_far, gaps, gap, min_frames):
    """`divide` at any frame, with a gap between splits. gaps: frames left out in all."""
    bounds = [round(max(length - gaps, 0) * part) for part in so_far]
    spans = {}
    skipped = 0
    for split, (low, high) in zip(hdf5.SPLITS, itertools.pairwise(bounds), strict=True):
        inside = [(max(a, low + skipped), min(b, high + skipped)) for a, b in shots]
        spans[split] = [(a, b) for a, b in inside if b - a >= min_frames]
        if high > low:
            skipped += gap
    return spans


def nearest(edges, frame, low, high):
    """The index, `low` to `high`, of the edge nearest to `frame`."""
    return low + int(np.abs(edges[low : high + 1] - frame).argmin())


def copy(frames, videos, target):
    """Copy the frames of `videos` ({split: [(first, end), ...]}) into an HDF5 file."""
    total = sum(map(count_frames, videos.values()))
    with tqdm(total=total, desc="writing", unit="frame", disable=None) as progress:
        for split, spans in videos.items():
            group = target.create_group(split)
            starts = np.cumsum([0] + [end - first for first, end in spans], dtype=np.int64)
            group["starts"] = starts
            shape = (starts[-1], *frames.shape[1:])
            copied = group.create_dataset("frames", shape, np.uint8)
            row = 0
            for first, end in spans:
                for a in range(first, end, ROWS):
                    b = min(a + ROWS, end)
                    copied[row : row + b - a] = frames[a:b]
                    row += b - a
                    progress.update(b - a)
