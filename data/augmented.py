"""Windows of frames: plain or, for training on films, changed at random."""

import numpy as np
import torch
from torch.utils.data import Dataset

from data.hdf5 import Videos
from runtime.errors import UserError

# Of the colours: contrast is multiplied, brightness added (in units of the range).
CONTRAST = (0.7, 1.2)
BRIGHTNESS = (-0.1, 0.1)


class FilmWindows(Videos, Dataset):
    """Windows of frames, (length, channels, height, width) uint8. Each lies in one video.

    skip: take every skip-th frame; frame_shape: (channels, height, width), cut from all frames of a
    window. With a seed, windows are changed at random, and drawn again for each epoch from (seed,
    epoch): first frame, crop, skip (from 1 to less than twice the given one), left and right,
    direction of time, colours. Without one the centre is cut, and a window begins every `length`
    frames. Raises UserError if no video is long enough, or if the file's frames are too small or
    have other channels.
    """

    def __init__(self, path, split, length, skip, frame_shape, seed=None):
        super().__init__(path, split, "frames")
        channels, *crop = frame_shape
        self.length = length
        self.skip = skip
        self.crop = np.array(crop)
        self.seed = seed
        self.room = np.array(self.shape[2:]) - crop
        if self.shape[1] != channels or (self.room < 0).any():
            raise UserError(
                f"{path} has frames {self.shape[1:]}, its autoencoder's are {tuple(frame_shape)}: "
                "train that anew"
            )
        # With a seed a video that is too short for this skip may do for a shorter one.
        shortest = skip if seed is None else 1
        needed = (length - 1) * shortest + 1
        lengths = np.diff(self.starts)
        counts = ((lengths - needed) // length + 1).clip(min=0)  # one begins every `length` frames
        if not counts.any():
            longest = (lengths.max() - 1) // shortest + 1
            raise UserError(
                f"{path}: the longest {split} video has {lengths.max()} frames, a window needs "
                f"{needed}: lower --seq_length to {longest}, or take longer videos"
            )
        self.videos = np.repeat(np.arange(len(counts)), counts)
        number = np.concatenate([np.arange(count) for count in counts])  # within its video
        self.first = self.starts[self.videos] + number * length
        self.set_epoch(0)

    def set_epoch(self, epoch):
        if self.seed is None:
            return
        count = len(self.videos)
        rng = np.random.default_rng([self.seed, epoch])
        lengths = np.diff(self.starts)[self.videos]
        longest = np.minimum((lengths - 1) // (self.length - 1), 2 * self.skip - 1)
        self.skips = rng.integers(longest) + 1
        spans = (self.length - 1) * self.skips + 1
        self.first = self.starts[self.videos] + rng.integers(lengths - spans + 1)
        self.corners = rng.integers(self.room + 1, size=(count, 2))
        self.mirrored = rng.random(count) < 0.5
        self.reversed = rng.random(count) < 0.5
        self.channel_order = np.argsort(rng.random((count, self.shape[1])))
        self.contrast = rng.uniform(*CONTRAST, count)
        self.brightness = 255 * rng.uniform(*BRIGHTNESS, count)

    def __len__(self):
        return len(self.videos)

    def __getitems__(self, indices):
        """A batch (n, length, channels, height, width) uint8."""
        make = self.plain if self.seed is None else self.changed
        return torch.from_numpy(np.stack([make(i) for i in indices]))

    def plain(self, i):
        return self.cut(self.first[i], self.skip, self.room // 2)

    def changed(self, i):
        frames = self.cut(self.first[i], self.skips[i], self.corners[i])
        frames = frames[:, self.channel_order[i]]
        if self.mirrored[i]:
            frames = frames[..., ::-1]
        if self.reversed[i]:
            frames = frames[::-1]
        frames = (frames - 127.5) * self.contrast[i] + 127.5 + self.brightness[i]
        return frames.round().clip(0, 255).astype(np.uint8)

    def cut(self, first, skip, corner):
        """A window of a crop, (length, channels, height, width) uint8."""
        rows = first + skip * np.arange(self.length)
        top, left = corner
        height, width = self.crop
        return np.stack(
            [self.array[row, :, top : top + height, left : left + width] for row in rows]
        )
