"""Render held-out videos beside the LSTM's prediction: fed true frames, then its own output."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.hdf5 import SPLITS, Frames
from data.pictures import save_comparison, save_plain
from models.codec import unit_scale
from runtime import cli, files, limits
from runtime.device import choose_device, fast_bfloat16
from runtime.errors import UserError
from training.trained import Trained

MAX_CONTEXT = 30  # frames fed in, if --context is not given
REPORTED = 10  # free-running frames whose error is printed
SLOWEST = 0.01  # frames per second: a GIF knows no longer delays


def flags():
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    model = "checkpoint of train_lstm.py or, of a film, train_jointly.py; names codec and frames"
    add("--model", default="runs/lstm/best.pt", help=model)
    add("--data_file", help="frames; if not given: those the model was trained on")
    add("--split", choices=SPLITS, default="test", help="where the videos are from")
    context = f"frames fed in; if not given: half of the median video, at most {MAX_CONTEXT}"
    add("--context", "--prime", type=limits.at_least(1), help=context)
    horizon = "frames predicted after them"
    add("--horizon", "--predict", type=limits.at_least(1), default=30, help=horizon)
    add("--n", type=limits.at_least(1), default=8, help="videos")
    add("--dest", help="folder; if not given: picture_output/NAME_OF_THE_RUN")
    add("--format", choices=("gif", "mp4", "png"), default="gif", help="png: a sheet of all frames")
    plain = "the prediction alone, as the original had it"
    add("--plain", action=cli.Switch, default=False, help=plain)
    temperature = "of samples of --loss mdn; if not given: its mean"
    add("--temperature", type=limits.real(0), help=temperature)
    restored = """undo what the codec loses: add its loss of the last true frame; slots: draw
        objects as they were seen"""
    add("--restore", action=cli.Switch, default=False, help=restored)
    fps = "frames per second (a GIF shows at most 50); if not given: as the data says"
    add("--fps", type=limits.real(0, 1000, above=True), help=fps)
    add("--scale", type=limits.at_least(1), default=3, help="screen pixels per pixel")
    add("--seed", type=limits.seed, default=0, help="of the choice of videos and of samples")
    add("--device", help="if not given: cuda, else mps, else cpu")
    amp = "decode in bfloat16; if not given: where the hardware is fast at it"
    add("--amp", action=cli.Switch, help=amp)
    return parser


def main(args):
    device = choose_device(args.device)
    model = Trained(args.model, device)
    torch.manual_seed(args.seed)
    frames = open_frames(args, model)
    if args.temperature is not None:
        model.require_mixture("--temperature")
    if args.restore and model.film:
        raise UserError(f"--restore: {args.model} paints upon the last true frame; leave it out")
    length, chosen = choose_videos(args, frames, model.skip)
    dest = Path(args.dest or Path("picture_output") / Path(args.model).resolve().parent.name)
    files.writable_folder(dest)

    truth = read_videos(frames, chosen, model.skip, length + args.horizon)
    context = torch.stack([video[:length] for video in truth])  # (V, T, C, H, W)
    amp = fast_bfloat16(device) if args.amp is None else args.amp
    predicted, reconstructed = model.rollout(
        context, args.horizon, args.temperature, amp, args.restore
    )

    fps = max(args.fps or frames.attributes["frame_rate"] / model.skip, SLOWEST)
    videos = zip(tqdm(chosen, desc="videos", disable=None), truth, predicted, strict=True)
    for v, true, video in videos:
        target = dest / f"{args.split}_{v:04d}.{args.format}"
        if args.plain:
            save_plain(target, video, fps, args.scale)
        else:
            save_comparison(target, true, video, length, fps, args.scale)

    print(
        f"{dest}: {len(chosen)} videos of the {args.split} split, {length} frames fed in; squared "
        "error per frame:"
    )
    report(truth, context, predicted, reconstructed)


def open_frames(args, model):
    """The frames of the split, cut to what the codec takes: a square, or nearly all with a grid.

    Raises UserError if the codec does not take such frames.
    """
    data_file = args.data_file or model.data_file
    channels, *crop = model.codec.frame_shape
    frames = Frames(data_file, args.split, crop)  # before widening: it names the codec's own size
    if frames.shape[1] != channels:
        raise UserError(
            f"{data_file} has {frames.shape[1]} channels, {args.model} takes {channels}: name "
            "frames like those it was trained on"
        )
    if model.has_places:
        model.widen(*Frames(data_file, args.split).shape[2:])
        frames = Frames(data_file, args.split, model.codec.frame_shape[1:])
    return frames


def choose_videos(args, frames, skip):
    """How many frames to feed in, and which videos, (V,). Raises UserError if all are too short."""
    lengths = -(-np.diff(frames.starts) // skip)  # of each video, in frames that the LSTM gets
    half = int(np.median(lengths) // 2)  # the other half is truth to compare with
    length = args.context or min(max(half, 1), MAX_CONTEXT)
    long_enough = np.flatnonzero(lengths >= length)
    if not len(long_enough):
        raise UserError(
            f"no {args.split} video has {length} frames to feed in: lower --context to "
            f"{lengths.max()}"
        )
    shuffled = np.random.default_rng(args.seed).permutation(long_enough)
    return length, shuffled[: args.n]


def read_videos(frames, videos, skip, length):
    """Every skip-th frame of each video, `length` at most: a list of (T, C, H, W) uint8."""
    truth = []
    for v in videos:
        rows = range(frames.starts[v], frames.starts[v + 1], skip)
        truth.append(frames.__getitems__(list(rows[:length])))
    return truth


def report(truth, context, predicted, reconstructed):
    """Print squared errors of what was predicted, of the codec, and of a copy of the last frame."""
    length = context.shape[1]
    horizon = predicted.shape[1] - length
    primed = [video[1:length] for video in truth]
    free = [video[length:][:REPORTED] for video in truth]
    copy = unit_scale(context[:, -1:]).expand(-1, horizon, -1, -1, -1)  # (V, horizon, C, H, W)
    report_error("reconstruction by the codec", reconstructed, context)
    report_error("fed the truth, one step ahead", predicted[:, 1:length], primed)
    name = f"first {min(REPORTED, horizon)} free-running frames"
    report_error(name, predicted[:, length:], free)
    report_error("last true frame copied instead", copy, free)


def report_error(name, predicted, truth):
    """Print the squared error summed over a frame, a mean over the frames that have a true one.

    predicted: (V, T, C, H, W) in [0, 1]; truth: uint8 videos, which may be shorter.
    """
    errors = []
    for video, true in zip(predicted, truth, strict=True):
        difference = video[: len(true)] - unit_scale(true)
        errors.append(difference.square().sum((1, 2, 3)))
    errors = torch.cat(errors)
    print(f"  {name:34}" + (f"{errors.mean():7.1f}" if len(errors) else "  no frames to compare"))


if __name__ == "__main__":
    cli.run(main, flags())
