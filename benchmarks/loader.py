"""Time to read batches in random order from a file in memory.

Of 128 frames, and of 128 windows of 30 latents.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import runtime.environment  # noqa: F401 (before torch)

import numpy as np
from compare import compare

import moving_mnist
from data.hdf5 import Frames, Windows, write_latents
from models.codec import unit_scale
from runtime import cli, limits
from runtime.device import choose_device


def some_pixels(frames):
    """In place of latents."""
    return frames.float().flatten(1)[:, :64].split(32, 1)


def main(args):
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.hdf5"
        latents = Path(folder) / "latents.hdf5"
        sizes = ["--seqs", "2000", "--mnist", "sample", "--dest", str(frames)]
        moving_mnist.main(moving_mnist.flags().parse_args(sizes))
        about = {
            "codec": "",
            "codec_id": "",
            "data_file": "",
            "source": "",
            "frame_rate": 10.0,
            "frame_skip": 1,
        }
        write_latents(latents, frames, some_pixels, (64, 64), 1, about)
        frames = Frames(frames, "train")
        windows = Windows(latents, "train", 30, 1, 0)
        rng = np.random.default_rng(0)

        def draw(dataset):
            return dataset.__getitems__(rng.integers(len(dataset), size=128))

        variants = {
            "frames": lambda: draw(frames),
            "frames, on the device, scaled": lambda: unit_scale(draw(frames).to(device)),
            "windows of latents": lambda: draw(windows),
        }
        compare(variants, device, args.rounds)


if __name__ == "__main__":
    parser = cli.Parser(__doc__)
    parser.add_argument("--rounds", type=limits.at_least(1), default=101, help="that count")
    parser.add_argument("--device", help="if not given: cuda, else mps, else cpu")
    cli.run(main, parser)
