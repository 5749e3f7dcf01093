"""The one HDF5 layout for videos, as frames and as latents; written whole or not at all, read lazily.

A file has a group per split. In it video v is rows `starts[v]:starts[v + 1]` of
    frames   (N, channels, height, width) uint8, or
    latents  (crops, N, 2, z_dim) float32: each frame's posterior mean and log-sigma.
Generated digits add labels (V, digits) uint8 and positions (N, digits, 2) float32. What later stages need to know is
in the file's attributes. The README lists them.

A file that is read may come from anywhere. All its metadata have checksums, which libhdf5 checks: what is damaged is an
error, where older layouts can crash it. Strings have a fixed length, for others lie in a heap without checksums.
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

from data.bouncing import PHYSICS
from runtime import files, limits, processes
from runtime.errors import UserError

FORMAT = 2
SIGNATURE = b"\x89HDF\r\n\x1a\n"  # then a byte: the version of the superblock, from 2 on with checksums
SPLITS = ("train", "valid", "test")
TEXT = 2**12  # bytes of an attribute at most
CHUNK = 16  # videos made at a time: what fits into a core's cache
ABOUT = {
    "frames": {"source", "frame_rate", "frame_skip"},
    "latents": {"source", "frame_rate", "frame_skip", "codec", "codec_id", "data_file"},
}
DTYPE = {"frames": np.uint8, "latents": np.float32}
SHAPE = {"frames": "(N, channels, height, width)", "latents": "(crops, N, 2, z_dim)"}
VIDEO_AXIS = {"frames": 0, "latents": 1}
# What an attribute may be: text, one of a few, a whole number of a range, a number from low to high. No other is read.
ATTRIBUTES = {
    **dict.fromkeys(("kind", "source", "codec", "codec_id", "data_file", "mnist"), str),
    "physics": set(PHYSICS),
    "format": range(2**20),
    "frame_rate": (1e-9, 1e9),
    "frame_skip": range(1, 2**31),
    "slots": range(1, 5),
    "num_sz": range(1, 2**9 + 1),
    "frame_size": range(2, 2**12 + 1),
    "nums_per_image": range(1, 2**10 + 1),
}


def flag(name):
    """The argparse type of a flag that sets the attribute `name` of a file."""
    return limits.limited(ATTRIBUTES[name])


@contextmanager
def create(path, kind, attributes, replace=False):
    """An HDF5 file open for writing; it appears under `path` when the block ends well, and never half written.

    kind: "frames" or "latents". Raises UserError if `path` exists and is not to be replaced, or if an attribute is one
    that a reader would refuse.
    """
    if not replace:
        refuse_existing(path)
    with files.atomic_write(path) as partial:
        if not replace:
            refuse_existing(path)  # written while this process came to the lock
        with new_file(partial, kind, attributes) as file:
            yield file


def new_file(path, kind, attributes):
    """An HDF5 file open for writing, with its attributes, strings of them in the part that has checksums."""
    about = {"format": FORMAT, "kind": kind, **attributes}
    about = {key: value for key, value in about.items() if value is not None}
    for name in about.keys() & ATTRIBUTES.keys():
        if not limits.fits(about[name], ATTRIBUTES[name]) or len(os.fsencode(str(about[name]))) > TEXT:
            raise UserError(f"{name} {about[name]!s:.50} is more than a file of this format can say: make it less")
    file = open_file(path, "w", libver=("v110", "v110"))
    file.attrs.update({key: np.bytes_(os.fsencode(v)) if type(v) is str else v for key, v in about.items()})
    return file


def open_file(path, mode="r", **options):
    """The file without HDF5's own locks, which not every disk has: a file that has its name is never changed."""
    return h5py.File(path, mode, locking=False, **options)


def refuse_existing(path):
    """Raise UserError if there is something at `path` already."""
    if os.path.lexists(path):
        raise UserError(f"{path} exists already; delete it, or name another place")


def write_videos(dest, counts, make, attributes):
    """Write frames, labels and positions of generated videos.

    counts: {split: number of videos}; make(split, range of videos) -> frames (V, T, C, H, W) uint8,
    labels (V, D) uint8, positions (V, T, D, 2) float32; attributes: what the file says about itself.
    """
    with create(dest, "frames", attributes) as file:
        for split, count in counts.items():
            group = file.create_group(split)
            frames, labels, positions = make(split, range(0))
            steps = frames.shape[1]
            group["starts"] = np.arange(count + 1, dtype=np.int64) * steps
            group.create_dataset("frames", (count * steps, *frames.shape[2:]), np.uint8)
            group.create_dataset("labels", (count, *labels.shape[1:]), np.uint8)
            group.create_dataset("positions", (count * steps, *positions.shape[2:]), np.float32)
            for videos in chunks(count, split):
                frames, labels, positions = make(split, videos)
                rows = slice(videos.start * steps, videos.stop * steps)
                group["frames"][rows] = frames.reshape(-1, *frames.shape[2:])
                group["labels"][videos.start : videos.stop] = labels
                group["positions"][rows] = positions.reshape(-1, *positions.shape[2:])


def chunks(count, split):
    """Ranges of CHUNK videos that cover `count`, under a progress bar."""
    for first in tqdm(range(0, count, CHUNK), desc=f"{split} videos", unit=f"{CHUNK} videos", disable=None):
        yield range(first, min(first + CHUNK, count))


def write_latents(dest, data_file, encode, crop, crops, attributes, replace=False, follow=None, batch_size=500):
    """Encode every frame of `data_file` and write the latents beside the same `starts`.

    encode(frames (n, C, H, W) uint8 tensor) -> mean and log-sigma, each (n, z_dim); crop: (height, width) it takes;
    crops: so many of them, evenly spaced over a larger frame, are encoded (one: the centre); follow(latents
    (V, T, 2, z_dim), frames (V, T, C, H, W) uint8), if given, is what whole videos go through at last.
    """
    if not replace:
        refuse_existing(dest)
    writer = processes.rank() == 0
    with files.atomic_write(dest) if writer else nullcontext(files.tmp_path(dest)) as partial:
        if writer:
            z_dim = encode(Frames(data_file, "train", crop).evenly_spaced(1))[0].shape[1]
            at_once = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            at_once.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # so that the rows have their place in the file
            at_once.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            with new_file(partial, "latents", attributes) as file:
                for split in SPLITS:
                    frames, group = Frames(data_file, split), file.create_group(split)
                    group["starts"] = frames.starts
                    group.create_dataset("latents", (crops, len(frames), 2, z_dim), np.float32, dcpl=at_once)
        processes.wait()
        for split in SPLITS:
            encode_split(partial, data_file, split, encode, crop, crops, follow, batch_size)
        processes.wait()


def encode_split(path, data_file, split, encode, crop, crops, follow, batch_size):
    """Fill in the latents that this process's share of the split's videos gives. Arguments as of `write_latents`."""
    frames = Frames(data_file, split)
    room = np.array(frames.shape[2:]) - crop
    with open_file(path) as file:
        latents = file[split]["latents"]
        offset, shape = latents.id.get_offset(), latents.shape
    first, end = np.searchsorted(frames.starts, processes.local_rows(len(frames)))  # as many frames for each as can be
    starts = frames.starts[first : end + 1]
    blocks = rows_of_videos(starts) if follow else range(starts[0], starts[-1], batch_size)

    def put(file, k, row, latents):
        try:
            file.seek(offset + (k * shape[1] + row) * 4 * math.prod(shape[2:]))
            file.write(latents.cpu().numpy().tobytes())
            file.flush()
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error}): make room") from None

    with open(path, "r+b") as file:
        for block in tqdm(blocks, desc=f"{split} latents", unit="batch", disable=processes.rank() or None):
            rows = block.ravel() if follow else range(block, min(block + batch_size, starts[-1]))
            batch = frames.__getitems__(rows)
            for k in range(crops):
                y, x = room * k // (crops - 1) if crops > 1 else room // 2
                latents = torch.stack(encode(batch[..., y : y + crop[0], x : x + crop[1]]), dim=1).float()
                if not follow:
                    put(file, k, block, latents)
            if follow:
                videos = follow(latents.unflatten(0, block.shape), batch.unflatten(0, block.shape))
                for row, video in zip(block[:, 0], videos, strict=True):
                    put(file, 0, row, video)


def rows_of_videos(starts):
    """The rows (V, T) of all videos, in blocks of at most CHUNK videos of one length."""
    lengths = np.diff(starts)
    for length in np.unique(lengths):
        firsts = starts[:-1][lengths == length, None]
        yield from (firsts[v : v + CHUNK] + np.arange(length) for v in range(0, len(firsts), CHUNK))


class Videos:
    """One split of a file, checked on opening.

    `attributes`: what the file says about itself; `starts`: (V + 1,) int64; `array`: the rows, mapped into memory when
    first used and dropped when pickled. Raises UserError if the file is missing, foreign, damaged, of another format or
    without anything in the split.
    """

    def __init__(self, path, split, kind):
        self.path, self.split, self.kind, self._array = Path(path), split, kind, None
        with opened(path) as file:
            self.attributes = {name: attribute(file, name) for name in ATTRIBUTES if name in file.attrs}
            if self.attributes.get("kind") != kind or "format" not in self.attributes:
                raise UserError(f"{path} is not a {kind} file made by this project's stages")
            if self.attributes["format"] != FORMAT:
                raise UserError(older(path, self.attributes["format"]))
            if missing := ABOUT[kind] - self.attributes.keys():
                raise UserError(f"{path} does not say its {', '.join(sorted(missing))}; make it again")
            rows, starts = member(file, split, kind), member(file, split, "starts")
            if rows is None or 0 in rows.shape:
                raise UserError(f"{path} has no videos in its {split} split; make it again with some")
            self.shape, dtype = rows.shape, rows.dtype
            if dtype != DTYPE[kind] or len(self.shape) != 4 or (kind == "latents" and self.shape[2] != 2):
                raise UserError(
                    f"{path}: {split}/{kind} is {dtype} {self.shape}, not {np.dtype(DTYPE[kind])} {SHAPE[kind]}"
                )
            if kind == "frames" and self.shape[3] <= 4 < self.shape[1]:
                raise UserError(f"{path} has frames {self.shape[1:]} with their channels last; store {SHAPE[kind]}")
            count = self.shape[VIDEO_AXIS[kind]]
            check_storage(rows, self.path)
            if starts is not None and starts.dtype == np.int64 and starts.ndim == 1 and len(starts) <= count + 1:
                check_storage(starts, self.path)
                starts = starts[:]
        if (
            type(starts) is not np.ndarray
            or len(starts) < 2
            or starts[0] != 0
            or starts[-1] != count
            or (np.diff(starts) < 1).any()
        ):
            raise UserError(f"{path}: {split}/starts must be int64 and rise from 0 to the {count} rows of {kind}")
        self.starts, slots = starts, self.attributes.get("slots")
        if kind == "latents" and slots and (self.shape[3] % slots or self.shape[3] // slots < 3):
            raise UserError(f"{path}: latents of {self.shape[3]} numbers are not those of {slots} slots; make it again")

    @property
    def array(self):
        if self._array is None:
            self._array = rows = open_file(self.path)[self.split][self.kind]
            # Uncompressed rows lie in one piece: mapped, a random row costs microseconds instead of h5py's 100.
            if (offset := rows.id.get_offset()) is not None:
                with suppress(OSError):  # a disk whose files cannot be mapped
                    self._array = np.memmap(self.path, rows.dtype, "r", offset, rows.shape)
        return self._array

    def __getstate__(self):
        return {**self.__dict__, "_array": None}


class Frames(Videos, Dataset):
    """Single frames for training: item i is frame i, (channels, height, width) uint8.

    crop: (height, width) to cut from every frame: at a random offset, each equally likely and drawn anew for every
    frame and epoch from (seed, epoch), if there is a seed; from the centre if not.
    """

    def __init__(self, path, split, crop=None, seed=None):
        super().__init__(path, split, "frames")
        height, width = crop or self.shape[2:]
        self.room = np.array([self.shape[2] - height, self.shape[3] - width])
        if (self.room < 0).any():
            raise UserError(f"{path} has frames {self.shape[2]} x {self.shape[3]}, smaller than {height} x {width}")
        self.shape, self.seed = (*self.shape[:2], height, width), seed
        self.corners = np.broadcast_to(self.room // 2, (len(self), 2))
        self.set_epoch(0)

    def set_epoch(self, epoch):
        if self.seed is not None and self.room.any():
            corners = np.random.default_rng([self.seed, epoch]).integers(self.room + 1, size=(len(self), 2))
            self.corners = corners.astype(np.uint16)  # they are kept for every frame

    def __len__(self):
        return self.shape[0]

    def __getitems__(self, indices):
        """A batch (n, channels, height, width) uint8: torch's loader asks for all of a batch at once."""
        array = np.asarray(self.array) if isinstance(self.array, np.memmap) else self.array
        if self.room.any():  # never the frames as a whole, which may be much wider
            height, width = self.shape[2:]
            pairs = zip(indices, self.corners[indices].tolist(), strict=True)
            frames = np.stack([array[i, :, y : y + height, x : x + width] for i, (y, x) in pairs])
        elif isinstance(indices, range):  # in one piece
            frames = np.array(array[indices.start : indices.stop])
        elif isinstance(array, np.ndarray):
            frames = array[indices]
        else:
            try:
                frames = np.stack([array[i] for i in indices])
            except OSError as error:
                raise UserError(f"{self.path} cannot be read ({error}); make it again") from None
        return torch.from_numpy(frames)

    def positions(self, count):
        """Of the first frames the rows and columns of digits' top-left corners before rounding, or None.

        They are (count, digits, 2) float32. Raises UserError if the file has them, and they are not inside the frames
        or the digits' size is not known.
        """
        with opened(self.path) as file:
            positions, size = member(file, self.split, "positions"), self.attributes.get("num_sz", 0)
            if positions is None:
                return None
            check_storage(positions, self.path)
            digits = positions.shape[1] if positions.ndim == 3 else 0
            if positions.dtype != np.float32 or positions.shape != (len(self), digits, 2) or not digits:
                raise ValueError(f"{self.split}/positions is {positions.dtype} {positions.shape}")
            positions = positions[:count]
            high = np.array(self.shape[2:]) + self.room - size // 2
            if "physics" not in self.attributes or not 1 <= size < min(self.shape[2:]):
                raise ValueError("it does not say how its digits move and how large they are")
            if not ((positions >= -size // 2) & (positions <= high)).all():
                raise ValueError(f"{self.split}/positions are not in the frames")
        return positions

    def evenly_spaced(self, count):
        """At most `count` frames, evenly spaced over the split, as a batch."""
        return self.__getitems__(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))

    def video(self, v):
        """Video v, (frames, channels, height, width) uint8."""
        return self.__getitems__(range(self.starts[v], self.starts[v + 1]))


class Windows(Videos, Dataset):
    """Windows of latents for training: each lies in one video, so that none runs over a cut.

    length: frames a window; skip: take every skip-th frame. An epoch has as many windows of a video as fit into it side
    by side; their starts (and crops) are drawn anew for each epoch from (seed, epoch), whatever the order in which
    items are asked for. Videos too short for one window are left out (`left_out` counts them). Raises UserError if
    all are.
    """

    def __init__(self, path, split, length, skip, seed):
        super().__init__(path, split, "latents")
        span = (length - 1) * skip + 1
        lengths = np.diff(self.starts)
        self.videos = np.repeat(np.arange(len(lengths)), lengths // span)
        self.left_out = (lengths < span).sum()
        if not len(self.videos):
            raise UserError(
                f"{path}: the longest {split} video has {lengths.max()} frames, a window of --seq_length {length} "
                f"with --frame_skip {skip} needs {span}: lower one of them, or take longer videos"
            )
        self.choices = lengths[self.videos] - span + 1
        self.offsets, self.seed = skip * np.arange(length), seed
        self.set_epoch(0)

    def set_epoch(self, epoch):
        rng = np.random.default_rng([self.seed, epoch])
        self.first = self.starts[self.videos] + rng.integers(self.choices)
        self.crop = rng.integers(self.shape[0], size=len(self.videos))

    def __len__(self):
        return len(self.videos)

    def __getitems__(self, indices):
        """A batch (n, length, 2, z_dim) float32."""
        return torch.from_numpy(np.stack([self.array[self.crop[i], self.first[i] + self.offsets] for i in indices]))


@contextmanager
def opened(path):
    """An HDF5 file open for reading. What goes wrong in the block is a UserError, too: the file is to blame."""
    try:
        with open(path, "rb") as raw:
            begin = raw.read(len(SIGNATURE) + 1)
        if begin[:-1] == SIGNATURE and begin[-1] < 2:
            raise UserError(older(path, 1))
        if begin[:-1] != SIGNATURE:
            raise ValueError("it does not begin as HDF5 does")
        with open_file(path) as file:
            yield file
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run the stage that makes it, or name another file") from None
    except Exception as error:  # h5py raises many kinds of them
        raise UserError(f"{path} cannot be read as HDF5 of this project ({error!s:.200})") from None


def older(path, number):
    return f"{path} is HDF5 of format {number} (or foreign), and this code reads format {FORMAT}: make it again"


def attribute(file, name):
    """An attribute as a plain Python value. Raises ValueError if it is not what ATTRIBUTES says."""
    found, allowed = file.attrs.get_id(name), ATTRIBUTES[name]
    if found.shape != () or found.dtype.kind not in "Siuf" or found.dtype.itemsize > TEXT:
        raise ValueError(f"attribute {name} is no number and no text of a fixed length")
    value = os.fsdecode(file.attrs[name]) if found.dtype.kind == "S" else file.attrs[name].item()
    if not limits.fits(value, allowed):
        raise ValueError(f"attribute {name} is {value!s:.50}")
    return value


def member(file, split, name):
    """The dataset `name` of a split, None if there is none. Raises ValueError at a link, which may lead anywhere."""
    found = file
    for part, kind in ((split, h5py.Group), (name, h5py.Dataset)):
        link = found.get(part, getlink=True)
        if link is None:
            return None
        if type(link) is not h5py.HardLink or not isinstance(found[part], kind):
            raise ValueError(f"{split}/{name} is a link, or no dataset")
        found = found[part]
    return found


def check_storage(rows, path):
    """Raise ValueError if a dataset claims more than there is in the file, or is not in it."""
    size = math.prod(rows.shape) * rows.dtype.itemsize
    if rows.is_virtual or rows.external:
        raise ValueError(f"{rows.name} lies in other files")
    if rows.chunks:  # written by another tool: nothing that gzip stores shrinks a thousandfold
        whole = size <= 1100 * rows.id.get_storage_size() and math.prod(rows.chunks) * rows.dtype.itemsize <= 2**26
    else:
        offset = rows.id.get_offset()
        whole = not size or (offset is not None and offset + size <= Path(path).stat().st_size)
    if not whole:
        raise ValueError(f"{rows.name} {rows.shape} is more than the file holds")
