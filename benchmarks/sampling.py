"""Sampling: frames to latents, a rollout, and back to frames, of many videos at once and of one."""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from compare import compare

from models.lstm import LatentLSTM
from models.training import choose_device
from models.vae import VCAE


@torch.no_grad()
def main(args):
    device = choose_device(args.device)
    torch.manual_seed(0)
    vcae = VCAE((1, 64, 64), arch="deep", n_hid=512, nfilts=24).to(device).eval()
    lstm = LatentLSTM(32).to(device).eval()
    frames = torch.rand(64, 30, 1, 64, 64, device=device)

    def encode():
        return torch.stack(vcae.encode(frames.flatten(0, 1)), 1).unflatten(0, (64, 30))

    def sample():
        return vcae.decode(lstm.rollout(encode(), 30).flatten(0, 1)).cpu()

    latents = encode()

    variants = {
        "64 videos, 30 + 30 frames": sample,
        "one video, its rollout": lambda: lstm.rollout(latents[:1], 30).cpu(),
        "one video, 30 free steps": lambda: lstm.rollout(latents[:1, :1], 30).cpu(),
    }
    medians = compare(variants, device, args.rounds)
    print(f"{64 * 60 / medians['64 videos, 30 + 30 frames']:.1f} frames/ms with 64 videos")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device")
    main(parser.parse_args())
