"""The one HDF5 layout for videos, as frames and as latents: how it is written and how it is read.

A file has a group per split, in which video v is rows `starts[v]:starts[v + 1]` of
    frames   (N, channels, height, width) uint8, or
    latents  (crops, N, 2, z_dim) float32: each frame's posterior mean and log-sigma.
Generated digits add labels (V, digits) uint8 and positions (N, digits, 2) float32. Films add films
(V,), the name of each video's film. The file's attributes hold what later stages need to know. A
file appears only when it is complete, and is read lazily.

A file may come from anywhere: hdf5_checks.py has what is checked when one is opened.
"""

import math
import os
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from data import hdf5_checks as checks
from data.hdf5_checks import ATTRIBUTES, FORMAT
from runtime import files, limits, processes
from runtime.errors import UserError
from runtime.files import refuse_existing

SPLITS = ("train", "valid", "test")
CHUNK = 16  # videos generated at a time: what fits into a core's cache
FRAMES_ENCODED = 500  # at a time
VIDEOS_ENCODED = 250
FLOAT = 4  # bytes of a float32


def flag(name):
    """The argparse type of a flag that sets the attribute `name` of a file."""
    return limits.limited(ATTRIBUTES[name])


@contextmanager
def create(path, kind, attributes, replace=False):
    """An HDF5 file open for writing. It gets the name `path` only if the block ends well.

    kind: "frames" or "latents". Raises UserError if `path` exists and is not to be replaced, or if
    a reader would refuse one of the attributes.
    """
    if not replace:
        refuse_existing(path)
    with files.atomic_write(path) as tmp:
        if not replace:
            refuse_existing(path)  # another process may have written it before the lock was ours
        with new_file(tmp, kind, attributes) as file:
            yield file


def new_file(path, kind, attributes):
    """An HDF5 file open for writing, with its attributes; those that are None are left out."""
    attributes = {"format": FORMAT, "kind": kind, **attributes}
    attributes = {name: value for name, value in attributes.items() if value is not None}
    checks.check_writable(attributes)
    file = open_file(path, "w", libver=("v110", "v110"))  # whose metadata have checksums
    for name, value in attributes.items():
        # A string of a fixed length lies in the part with checksums.
        file.attrs[name] = np.bytes_(os.fsencode(value)) if type(value) is str else value
    return file


def open_file(path, mode="r", **options):
    """An open file without HDF5's own locks, which not every disk has.

    None are needed: a file that has its final name is never changed.
    """
    return h5py.File(path, mode, locking=False, **options)


@contextmanager
def open_checked(path):
    """A file from elsewhere, open for reading. An error in the block is a UserError."""
    with checks.blame(path):
        checks.check_signature(path)
        with open_file(path) as file:
            yield file


def write_videos(dest, counts, make, attributes):
    """Write frames, labels and positions of generated videos.

    counts: {split: number of videos}; make(split, range of videos) -> frames (V, T, C, H, W) uint8,
    labels (V, D) uint8, positions (V, T, D, 2) float32; attributes: of the file.
    """
    with create(dest, "frames", attributes) as file:
        for split, count in counts.items():
            group = file.create_group(split)
            frames, labels, positions = make(split, range(0))  # for their shapes
            steps = frames.shape[1]
            group["starts"] = np.arange(count + 1, dtype=np.int64) * steps
            group.create_dataset("frames", (count * steps, *frames.shape[2:]), np.uint8)
            group.create_dataset("labels", (count, *labels.shape[1:]), np.uint8)
            group.create_dataset("positions", (count * steps, *positions.shape[2:]), np.float32)
            for videos in chunks(count, split):
                frames, labels, positions = make(split, videos)
                rows = slice(videos.start * steps, videos.stop * steps)
                group["frames"][rows] = frames.reshape(-1, *frames.shape[2:])  # (V*T, C, H, W)
                group["labels"][videos.start : videos.stop] = labels
                positions = positions.reshape(-1, *positions.shape[2:])  # (V*T, D, 2)
                group["positions"][rows] = positions


def chunks(count, split):
    """Ranges of at most CHUNK videos that cover `count`, under a progress bar."""
    firsts = range(0, count, CHUNK)
    for first in tqdm(firsts, desc=f"{split} videos", unit=f"{CHUNK} videos", disable=None):
        yield range(first, min(first + CHUNK, count))


def write_latents(
    dest, data_file, encode, crop, crops, attributes, replace=False, encode_videos=None
):
    """Encode every frame of `data_file` and write the latents with the same `starts`.

    encode(frames (n, C, H, W) uint8 tensor) -> mean and log-sigma, each (n, z_dim).
    crop: (height, width) that it takes. crops: the number of crops of a larger frame that are
    encoded, evenly spaced; one: the centre.
    encode_videos(frames (V, T, C, H, W) uint8) -> latents (V, T, 2, z_dim): if given, it takes
    complete videos in place of `encode`, uncropped.
    Of several processes each writes its part of the rows into the same file.
    """
    if not replace:
        refuse_existing(dest)
    is_writer = processes.rank() == 0
    with files.atomic_write(dest) if is_writer else nullcontext(files.tmp_path(dest)) as tmp:
        if is_writer:
            mean, _ = encode(Frames(data_file, "train", crop).evenly_spaced(1))
            lay_out_latents(tmp, data_file, crops, mean.shape[1], attributes)
        processes.wait()  # for the file
        for split in SPLITS:
            encode_split(tmp, data_file, split, encode, crop, crops, encode_videos)
        processes.wait()  # for everyone's rows


def lay_out_latents(path, data_file, crops, z_dim, attributes):
    """Write a file of latents whose rows have their place in it, but no values yet."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with new_file(path, "latents", attributes) as file:
        for split in SPLITS:
            frames = Frames(data_file, split)
            group = file.create_group(split)
            group["starts"] = frames.starts
            shape = (crops, len(frames), 2, z_dim)
            group.create_dataset("latents", shape, np.float32, dcpl=layout)


def encode_split(path, data_file, split, encode, crop, crops, encode_videos):
    """Fill in this process's part of a split's latents. Arguments as for `write_latents`."""
    frames = Frames(data_file, split)
    bounds = processes.local_rows(len(frames))
    # Of several processes each encodes complete videos, about as many frames as the others.
    first, end = np.searchsorted(frames.starts, bounds)
    starts = frames.starts[first : end + 1]
    corners = crop_corners(np.array(frames.shape[2:]) - crop, crops)

    def encode_at(corner, batch):
        top, left = corner
        mean, log_sigma = encode(batch[..., top : top + crop[0], left : left + crop[1]])
        return torch.stack((mean, log_sigma), dim=1).float()  # (n, 2, z)

    def progress(batches):
        hidden = processes.rank() > 0 or None  # None: only a terminal shows it
        return tqdm(batches, desc=f"{split} latents", unit="batch", disable=hidden)

    with open(path, "r+b") as file:
        writer = RowWriter(file, path, split)
        if encode_videos:
            for rows in progress(rows_of_videos(starts)):  # (V, T)
                videos = frames.__getitems__(rows.ravel()).unflatten(0, rows.shape)
                for row, video in zip(rows[:, 0], encode_videos(videos), strict=True):
                    writer.write(0, row, video)
        else:
            for row in progress(range(starts[0], starts[-1], FRAMES_ENCODED)):
                batch = frames.__getitems__(range(row, min(row + FRAMES_ENCODED, starts[-1])))
                for k, corner in enumerate(corners):
                    writer.write(k, row, encode_at(corner, batch))


def crop_corners(room, crops):
    """Top and left of each crop, (crops, 2): evenly spaced over `room` (2,); one: its centre."""
    if crops == 1:
        return room[None] // 2
    return room * np.arange(crops)[:, None] // (crops - 1)


class RowWriter:
    """Writes latents of a split to where the file has their place, past HDF5.

    HDF5 lets one process write at a time; here each of several writes its own rows.
    """

    def __init__(self, file, path, split):
        self.file = file
        self.path = path
        with open_file(path) as layout:
            latents = layout[split]["latents"]
            self.offset = latents.id.get_offset()
            self.shape = latents.shape  # (crops, N, 2, z)

    def write(self, k, row, latents):
        """Write latents (n, 2, z) of crop k, the first at `row`. Raises UserError if it fails."""
        index = k * self.shape[1] + row
        try:
            self.file.seek(self.offset + index * FLOAT * math.prod(self.shape[2:]))
            self.file.write(latents.cpu().numpy().tobytes())
            self.file.flush()
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error}): make room") from None


def rows_of_videos(starts):
    """The rows (V, T) of all videos, in blocks of at most VIDEOS_ENCODED videos of one length."""
    lengths = np.diff(starts)
    for length in np.unique(lengths):
        firsts = starts[:-1][lengths == length]
        for v in range(0, len(firsts), VIDEOS_ENCODED):
            yield firsts[v : v + VIDEOS_ENCODED, None] + np.arange(length)  # (V, T)


class Videos:
    """One split of a file, checked on opening.

    attributes: of the file; starts: (V + 1,) int64; shape: of the rows; array: the rows, mapped
    into memory when first used and dropped when pickled. Raises UserError if the file is missing,
    foreign, damaged or of another format, or if the split is empty.
    """

    def __init__(self, path, split, kind):
        self.path = Path(path)
        self.split = split
        self.kind = kind
        self._array = None
        with open_checked(path) as file:
            self.attributes = checks.read_attributes(file, path, kind)
            self.shape = checks.checked_rows(file, path, split, kind).shape
            count = self.shape[checks.ROW_AXIS[kind]]
            self.starts = checks.read_starts(file, path, split, kind, count)
            if kind == "latents":
                checks.check_layout(path, self.shape[3], self.attributes)

    @property
    def array(self):
        if self._array is None:
            rows = open_file(self.path)[self.split][self.kind]
            self._array = rows
            # Uncompressed rows are contiguous. A random row takes h5py 100 us, a few if mapped.
            offset = rows.id.get_offset()
            if offset is not None:
                with suppress(OSError):  # a disk whose files cannot be mapped
                    self._array = np.memmap(self.path, rows.dtype, "r", offset, rows.shape)
        return self._array

    def __getstate__(self):
        return {**self.__dict__, "_array": None}

    def evenly_spaced(self, count):
        """At most `count` items of a dataset, evenly spaced over the split, as a batch."""
        indices = np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)
        return self.__getitems__(indices)


class Frames(Videos, Dataset):
    """Single frames for training: item i is frame i, (channels, height, width) uint8.

    crop: (height, width) to cut from every frame. With a seed its offset is random, uniform, drawn
    again for each frame and epoch from (seed, epoch); without one the centre is cut.
    """

    def __init__(self, path, split, crop=None, seed=None):
        super().__init__(path, split, "frames")
        height, width = crop or self.shape[2:]
        self.room = np.array([self.shape[2] - height, self.shape[3] - width])
        if (self.room < 0).any():
            raise UserError(
                f"{path} has frames {self.shape[2]} x {self.shape[3]}, smaller than {height} x "
                f"{width}: make larger ones, or name others"
            )
        self.shape = (*self.shape[:2], height, width)
        self.seed = seed
        self.corners = np.broadcast_to(self.room // 2, (len(self), 2))
        self.set_epoch(0)

    def set_epoch(self, epoch):
        if self.seed is not None and self.room.any():
            rng = np.random.default_rng([self.seed, epoch])
            corners = rng.integers(self.room + 1, size=(len(self), 2))
            self.corners = corners.astype(np.uint16)  # small: one pair is kept per frame

    def __len__(self):
        return self.shape[0]

    def __getitems__(self, indices):
        """A batch (n, channels, height, width) uint8. torch's loader asks for a batch at once."""
        array = np.asarray(self.array) if isinstance(self.array, np.memmap) else self.array
        if self.room.any():
            frames = self.cropped(array, indices)
        elif isinstance(indices, range):  # contiguous
            frames = np.array(array[indices.start : indices.stop])
        elif isinstance(array, np.ndarray):
            frames = array[indices]
        else:
            try:
                frames = np.stack([array[i] for i in indices])
            except OSError as error:
                raise UserError(f"{self.path} cannot be read ({error}); make it again") from None
        return torch.from_numpy(frames)

    def cropped(self, array, indices):
        """The crops of some frames, never read in full: they may be much wider."""
        height, width = self.shape[2:]
        crops = []
        for i, (top, left) in zip(indices, self.corners[indices].tolist(), strict=True):
            crops.append(array[i, :, top : top + height, left : left + width])
        return np.stack(crops)

    def positions(self, count):
        """Top-left corners of the digits in the first `count` frames, not rounded, or None.

        They are (count, digits, 2) float32, rows and columns. Raises UserError if the file has
        some, but not inside the frames, or if it does not say how large the digits are.
        """
        with open_checked(self.path) as file:
            return checks.read_positions(file, self, count)

    def films(self):
        """The name of each video's film, an array (V,) of str, or None if the file has none.

        Raises UserError if the file has some, but not one per video.
        """
        with open_checked(self.path) as file:
            return checks.read_films(file, self)

    def video(self, v):
        """Video v, (frames, channels, height, width) uint8."""
        return self.__getitems__(range(self.starts[v], self.starts[v + 1]))


class Windows(Videos, Dataset):
    """Windows of latents for training. Each lies in one video, so none crosses a cut.

    length: frames per window; skip: take every skip-th frame. An epoch has as many windows of a
    video as fit into it side by side. Their first frames and crops are drawn again for each epoch
    from (seed, epoch), whatever the order in which items are read. Videos too short for a window
    are left out (`left_out` counts them). Raises UserError if all are.
    transpose: swap rows and columns of the slots' places in a random half of the windows.
    """

    def __init__(self, path, split, length, skip, seed, transpose=False):
        super().__init__(path, split, "latents")
        span = (length - 1) * skip + 1
        lengths = np.diff(self.starts)
        self.videos = np.repeat(np.arange(len(lengths)), lengths // span)
        self.left_out = (lengths < span).sum()
        if not len(self.videos):
            raise UserError(
                f"{path}: the longest {split} video has {lengths.max()} frames, a window of "
                f"--seq_length {length} "
                f"with --frame_skip {skip} needs {span}: lower one of them, or take longer videos"
            )
        self.choices = lengths[self.videos] - span + 1
        self.offsets = skip * np.arange(length)
        self.seed = seed
        self.transpose = transpose
        self.set_epoch(0)

    def set_epoch(self, epoch):
        rng = np.random.default_rng([self.seed, epoch])
        self.first = self.starts[self.videos] + rng.integers(self.choices)
        self.crop = rng.integers(self.shape[0], size=len(self.videos))
        self.is_transposed = rng.random(len(self.videos)) < 0.5

    def __len__(self):
        return len(self.videos)

    def __getitems__(self, indices):
        """A batch (n, length, 2, z_dim) float32."""
        windows = [self.array[self.crop[i], self.first[i] + self.offsets] for i in indices]
        windows = np.stack(windows)
        if self.transpose:
            by_slot = windows.reshape(*windows.shape[:-1], self.attributes["slots"], -1)
            places = by_slot[..., -2:]  # a view, as by_slot is
            chosen = self.is_transposed[indices]
            places[chosen] = places[chosen][..., ::-1]
        return torch.from_numpy(windows)
