"""Sampling: frames to latents, a rollout, and back to frames, of many videos at once and of one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import runtime.environment  # noqa: F401 (before torch)

import torch
from compare import compare

from models.codec import batch_size
from models.lstm import LatentLSTM
from models.vae import VCAE
from runtime import cli, limits
from runtime.device import choose_device


@torch.no_grad()
def main(args):
    device = choose_device(args.device)
    torch.manual_seed(0)
    vcae = VCAE((1, 64, 64), arch="deep", n_hid=512, nfilts=24).to(device).eval()
    lstm = LatentLSTM(32).to(device).eval()
    frames = torch.rand(64, 30, 1, 64, 64, device=device)

    size = batch_size(device)

    def encode():
        means = [torch.stack(vcae.encode(part), 1) for part in frames.flatten(0, 1).split(size)]
        return torch.cat(means).unflatten(0, (64, 30))

    def sample(amp):
        latents = encode()
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            z = lstm.rollout(latents, 30).flatten(0, 1)
            return torch.cat([vcae.decode(part) for part in z.split(size)]).cpu()

    def rollout(context, amp):
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            return lstm.rollout(context, 30).cpu()

    latents = encode()
    variants = {
        "64 videos in bfloat16": lambda: sample(True),
        "64 videos in float32": lambda: sample(False),
        "one video's rollout in bfloat16": lambda: rollout(latents[:1], True),
        "its 30 free steps in bfloat16": lambda: rollout(latents[:1, :1], True),
        "30 free steps in float32": lambda: rollout(latents[:1, :1], False),
    }
    medians = compare(variants, device, args.rounds)
    for name, median in medians.items():
        if name.startswith("64"):
            print(f"{name}: {64 * 60 / median:.2f} frames/ms")


if __name__ == "__main__":
    parser = cli.Parser(__doc__)
    parser.add_argument("--rounds", type=limits.at_least(1), default=7, help="that count")
    parser.add_argument("--device", help="if not given: cuda, else mps, else cpu")
    cli.run(main, parser)
