"""Making bouncing digits: 64 videos of 20 frames, by the rules of each physics."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import runtime.environment  # noqa: F401 (before torch)

import torch
from compare import compare

from data import bouncing, mnist
from runtime import cli, limits


def main(args):
    images, labels = mnist.digits_by_split("sample")["train"]
    how = {"frame_size": 64, "seq_len": 20, "nums_per_image": 2}
    variants = {
        physics: partial(
            bouncing.make_videos,
            bouncing.resize(images, 32 if physics.startswith("svg") else 28),
            labels,
            range(64),
            [0],
            physics=physics,
            **how,
        )
        for physics in bouncing.PHYSICS
    }
    for name, ms in compare(variants, torch.device("cpu"), args.rounds).items():
        print(f"{name}: {64 * 20 / ms:.0f} frames/ms")


if __name__ == "__main__":
    parser = cli.Parser(__doc__)
    parser.add_argument("--rounds", type=limits.at_least(1), default=7, help="that count")
    cli.run(main, parser)
