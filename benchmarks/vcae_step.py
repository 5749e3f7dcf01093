"""A training step of the autoencoder of frames: precision and layout."""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import runtime.environment  # noqa: F401 (before torch)

import torch
from compare import compare

from models.vae import VCAE
from runtime import cli, limits
from runtime.device import choose_device
from training.loop import take_step
from training.step import Recorded, adam


def main(args):
    device = choose_device(args.device)
    torch.manual_seed(0)
    frames = torch.rand(args.batch_size, 1, 64, 64, device=device)

    def step(amp, layout=torch.contiguous_format):
        sizes = (
            {"n_hid": 1024, "nfilts": 32, "L": 2}
            if args.arch == "2016"
            else {"n_hid": 512, "nfilts": 24, "L": 1}
        )
        model = VCAE((1, 64, 64), arch=args.arch, **sizes).to(device, memory_format=layout)
        optimizer = adam(model, 1e-3, device)
        how = argparse.Namespace(amp=amp, grad_clip=0)
        return partial(Recorded(partial(take_step, model, optimizer, how)), frames)

    variants = {"bfloat16": step(True), "float32": step(False)}
    if args.arch == "deep":
        variants = {"bfloat16, channels last": step(True, torch.channels_last)} | variants
    print(f"{args.arch}, batch {args.batch_size}, {torch.get_num_threads()} threads")
    compare(variants, device, args.rounds)


if __name__ == "__main__":
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--arch", choices=("2016", "deep"), default="2016", help="of the autoencoder")
    add("--batch_size", type=limits.at_least(1), default=128, help="frames per step")
    add("--rounds", type=limits.at_least(1), default=7, help="that count")
    add("--device", help="if not given: cuda, else mps, else cpu")
    cli.run(main, parser)
