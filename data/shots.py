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
FLOOR, RATIO, NEAR, DARK = 12, 2.5, 4, 12  # see `find_cuts`


def write_films(dest, films, shape, rate, shares, detect_cuts, min_frames, attributes):
    """Write the small frames of `films` and the bounds of their shots, each split's films one after the other.

    A film with a `split` goes there whole; one without is divided. shape: (channels, height, width)
    of the small frames; rate: frames a second; shares: three whole numbers, the parts of train,
    valid and test; min_frames: shorter shots are dropped; attributes: what the file says about
    itself. Sets each film's `frames`, `shots` and `damaged`. Returns {split: (frames, shots)}.
    Raises UserError if nothing is left of a split that should have something.
    """
    videos, cuts_in_all = {split: [] for split in hdf5.SPLITS}, 0
    total = sum(ticks(film, rate) for film in films)
    # Created first, so that of two processes the second is told before it decodes.
    with (
        hdf5.create(dest, "frames", attributes) as target,
        tempfile.TemporaryFile(dir=Path(dest).parent) as file,
    ):
        first = 0
        with tqdm(total=total, desc="decoding", unit="frame", disable=None) as progress:
            for film in films:
                differences, brightness = decode(film, rate, shape, file, progress)
                film.frames, cuts = len(differences), []
                if detect_cuts and film.frames:
                    cuts = find_cuts(
                        mapped(file, first, film.frames, shape), differences, brightness
                    )
                spans = divide(film.frames, cuts, shares, math.ceil(rate), min_frames, film.split)
                film.shots = sum(map(len, spans.values()))
                for split in hdf5.SPLITS:
                    videos[split] += [(first + a, first + b) for a, b in spans[split]]
                first += film.frames
                cuts_in_all += len(cuts)
        check_filled(videos, films, shares, min_frames, cuts_in_all)
        copy(mapped(file, 0, first, shape), videos, target)
    return {split: (sum(b - a for a, b in spans), len(spans)) for split, spans in videos.items()}


def check_filled(videos, films, shares, min_frames, cuts):
    """Raise UserError if a split has no video though there is a film for it, or a share. cuts: how many were found."""
    wanted = {film.split for film in films}
    if None in wanted:
        wanted |= {split for split, share in zip(hdf5.SPLITS, shares, strict=True) if share}
    empty = [split for split in hdf5.SPLITS if split in wanted and not videos[split]]
    if not empty:
        return
    frames = sum(film.frames for film in films)
    if None not in wanted:
        raise UserError(
            f"nothing is left for {' and '.join(empty)}: no shot of its films has {min_frames} frames; give it longer "
            "films, or a lower --min_frames"
        )
    whose = f"{films[0].path} is" if len(films) == 1 else f"the {len(films)} films are"
    raise UserError(
        f"{whose} too short: {frames} frames with {cuts} cuts do not give each split a shot of {min_frames} frames; "
        + ("" if len(films) == 1 else "deal whole films with --split_by film, ")
        + "take more of it, a longer film, or another --split"
    )


def mapped(file, first, count, shape):
    """`count` frames of the open `file`, from number `first` on: an array (count, *shape), read when needed.

    On a disk whose files cannot be mapped they are read at once.
    """
    start, size = first * math.prod(shape), count * math.prod(shape)
    try:
        return np.memmap(file, np.uint8, "r", start, (count, *shape))
    except OSError:
        file.seek(start)
        frames = np.fromfile(file, np.uint8, size).reshape(count, *shape)
        file.seek(0, os.SEEK_END)
        return frames


def decode(film, rate, shape, file, progress):
    """Append a film's small frames to the open binary `file`; return two numbers of each, as arrays (N,).

    They are its absolute difference from the frame before it (of the first: 0) and its brightness,
    means over pixels and colours, 0 to 255.
    """
    shrink, before, differences, brightness = shrinker(film, shape), None, array("d"), array("d")
    for frame in sampled(film, rate):
        small = shrink(frame)
        file.write(small)
        differences.append(0.0 if before is None else difference(small, before))
        brightness.append(small.mean())
        before = small
        progress.update()
    file.flush()
    return np.array(differences), np.array(brightness)


def difference(a, b):
    """Mean absolute difference of two frames."""
    return np.abs(np.subtract(a, b, dtype=np.int16)).mean()


def find_cuts(frames, differences, brightness):
    """The numbers of the frames with which a new shot begins.

    frames: (N, channels, height, width) uint8; differences, brightness: (N,), see `decode`.
    A cut stands out: its difference is at least FLOOR, and RATIO times the second largest among the
    NEAR differences on either side. Pans, shakes and slow or repeated frames have rivals beside
    them; the largest is left out of account so that a second cut close by hides nothing. It lasts:
    no picture from before it returns within NEAR frames, as after a flash. A fade through black is
    cut in the middle of the frames darker than DARK on average (by PySceneDetect's threshold).
    Dissolves and wipes are missed (their shots stay in one video), so are cuts between two similar
    pictures and shots of fewer than NEAR frames.
    """
    cuts = []
    for k in np.flatnonzero(differences >= FLOOR):
        beside = np.sort(
            np.r_[differences[max(k - NEAR, 1) : k], differences[k + 1 : k + 1 + NEAR], 0, 0]
        )
        back = [difference(frames[k - 1], frame) for frame in frames[k + 1 : k + 1 + NEAR]]
        back += [difference(frames[k], frame) for frame in frames[max(k - 1 - NEAR, 0) : k - 1]]
        if differences[k] >= RATIO * beside[-2] and all(
            other > differences[k] / 2 for other in back
        ):
            cuts.append(int(k))
    # where dark frames begin, and where they end
    edges = np.flatnonzero(np.diff(brightness < DARK, prepend=False, append=False))
    fades = [int(a + b) // 2 for a, b in edges.reshape(-1, 2) if a > 0 and b < len(frames)]
    return sorted({*cuts, *fades})


def divide(length, cuts, shares, gap, min_frames, only=None):
    """Split a film: {split: [(first frame, frame after the last), ...]}, one pair a shot, in time order.

    length: the film's frames; cuts: frames that begin a shot; shares: three whole numbers; only:
    the split that all of the film goes to, if it is not divided. The bounds between the splits are
    the cuts nearest to the shares. With fewer shots than splits the shares are of time alone, with
    `gap` frames left out between one split and the next. Shots of less than `min_frames` are
    dropped.
    """
    shots = [(a, b) for a, b in itertools.pairwise([0, *cuts, length]) if b - a >= min_frames]
    if only:
        return {split: shots if split == only else [] for split in hdf5.SPLITS}
    wanted = [share > 0 for share in shares]
    so_far = [part / sum(shares) for part in itertools.accumulate(shares, initial=0)]
    if len(shots) >= sum(wanted):
        edges = np.array([a for a, _ in shots] + [length])
        valid = nearest(edges, length * so_far[1], wanted[0], len(shots) - wanted[1] - wanted[2])
        test = nearest(edges, length * so_far[2], valid + wanted[1], len(shots) - wanted[2])
        parts = shots[:valid], shots[valid:test], shots[test:]
        return dict(zip(hdf5.SPLITS, parts, strict=True))
    bounds = [round(max(length - gap * (sum(wanted) - 1), 0) * share) for share in so_far]
    spans, skipped = {}, 0
    for split, first, last in zip(hdf5.SPLITS, bounds, bounds[1:], strict=False):
        inside = [(max(a, first + skipped), min(b, last + skipped)) for a, b in shots]
        spans[split] = [(a, b) for a, b in inside if b - a >= min_frames]
        skipped += gap if last > first else 0
    return spans


def nearest(edges, frame, low, high):
    """The index, `low` to `high`, of the edge nearest to `frame`."""
    return low + int(np.abs(edges[low : high + 1] - frame).argmin())


def copy(raw, videos, target):
    """Copy the frames of `videos` ({split: [(first, after last), ...]}) from the array `raw` into an HDF5 file."""
    total = sum(b - a for spans in videos.values() for a, b in spans)
    with tqdm(total=total, desc="writing", unit="frame", disable=None) as progress:
        for split, spans in videos.items():
            group = target.create_group(split)
            starts = np.cumsum([0] + [b - a for a, b in spans], dtype=np.int64)
            group["starts"] = starts
            frames = group.create_dataset("frames", (starts[-1], *raw.shape[1:]), np.uint8)
            for (first, last), at in zip(spans, starts, strict=False):
                for a in range(first, last, ROWS):
                    b = min(a + ROWS, last)
                    frames[at + a - first : at + b - first] = raw[a:b]
                    progress.update(b - a)
