"""Bouncing digits generated on the fly, so that no training video comes twice."""

import torch
from torch.utils.data import Dataset

from data import bouncing, mnist
from data.hdf5 import SPLITS, Videos
from runtime.errors import UserError

NEEDED = {"physics", "mnist", "num_sz", "frame_size", "nums_per_image"}  # attributes


class GeneratedVideos(Dataset):
    """Videos like those of a file of moving_mnist.py, from the same digits.

    Item i is (seq_len, 1, height, width) uint8. There are as many as in the file's split, and
    different ones in each epoch, drawn from (seed, epoch). Raises UserError if the file's frames
    were not generated, or MNIST is not where it was.
    """

    def __init__(self, path, split, seq_len, seed):
        videos = Videos(path, split, "frames")
        attributes = videos.attributes
        if not attributes.keys() >= NEEDED:
            raise UserError(
                f"{path} was not made by moving_mnist.py: only videos of bouncing digits can be "
                "generated"
            )
        side = attributes["frame_size"]
        digit = attributes["num_sz"]
        least = bouncing.ROOM[attributes["physics"]]
        if videos.shape[1:] != (1, side, side) or side - digit < least:
            raise UserError(f"{path} has other frames or digits than it says; make it again")
        images, labels = mnist.digits_by_split(attributes["mnist"], fetch=False)[split]
        self.images = bouncing.resize(images, digit)
        self.labels = labels
        self.count = len(videos.starts) - 1
        options = ("physics", "frame_size", "nums_per_image")
        self.options = {name: attributes[name] for name in options}
        self.options["seq_len"] = seq_len
        self.seed = [seed, SPLITS.index(split)]
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        """A batch (n, seq_len, 1, height, width) uint8."""
        seed = [*self.seed, self.epoch]
        frames, _, _ = bouncing.make_videos(self.images, self.labels, indices, seed, **self.options)
        return torch.from_numpy(frames)
