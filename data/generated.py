"""Bouncing digits made when they are asked for, so that no training video comes twice."""

import torch
from torch.utils.data import Dataset

from data import bouncing, mnist
from data.hdf5 import SPLITS, Videos
from runtime.errors import UserError


class GeneratedVideos(Dataset):
    """Videos like those of a file of moving_mnist.py, from the same digits.

    Item i is (seq_len, 1, height, width) uint8. There are as many as in the file's split, and others in each epoch,
    from (seed, epoch). Raises UserError if the file's frames were not generated, or MNIST is not where it was.
    """

    def __init__(self, path, split, seq_len, seed):
        videos = Videos(path, split, "frames")
        about = videos.attributes
        if not {"physics", "mnist", "num_sz", "frame_size", "nums_per_image"} <= about.keys():
            raise UserError(f"{path} was not made by moving_mnist.py: only videos of bouncing digits can be made anew")
        if videos.shape[1:] != (1, about["frame_size"], about["frame_size"]) or (
            about["frame_size"] - about["num_sz"] < bouncing.ROOM[about["physics"]]
        ):
            raise UserError(f"{path} has other frames or digits than it says; make it again")
        images, self.labels = mnist.digits_by_split(about["mnist"], fetch=False)[split]
        self.images, self.count = bouncing.resize(images, about["num_sz"]), len(videos.starts) - 1
        self.how = {name: about[name] for name in ("physics", "frame_size", "nums_per_image")} | {"seq_len": seq_len}
        self.seed, self.epoch = [seed, SPLITS.index(split)], 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        """A batch (n, seq_len, 1, height, width) uint8."""
        seed = [*self.seed, self.epoch]
        return torch.from_numpy(bouncing.make_videos(self.images, self.labels, indices, seed, **self.how)[0])
