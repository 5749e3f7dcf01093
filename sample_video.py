"""Render held-out videos beside the LSTM's prediction: primed with true frames, then fed its own output."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.hdf5 import SPLITS, Frames
from data.pictures import save_comparison, save_plain
from evaluation.baselines import restore
from models.codec import unit_scale
from runtime import cli, files, limits
from runtime.device import choose_device, fast_bfloat16
from runtime.errors import UserError
from training.trained import Trained


def flags():
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--model", default="runs/lstm/best.pt", help="checkpoint of train_lstm.py; it names its codec and frames"
    )
    parser.add_argument("--data_file", help="frames; if not given: those the model was trained on")
    parser.add_argument("--split", choices=SPLITS, default="test", help="where the videos are from")
    parser.add_argument(
        "--prime", type=limits.at_least(1), help="frames fed in; if not given: half of the median video, at most 30"
    )
    parser.add_argument("--predict", type=limits.at_least(1), default=30, help="frames predicted after them")
    parser.add_argument("--n", type=limits.at_least(1), default=8, help="videos")
    parser.add_argument("--dest", help="folder; if not given: picture_output/NAME_OF_THE_RUN")
    parser.add_argument("--format", choices=("gif", "mp4", "png"), default="gif", help="png: a sheet of all frames")
    parser.add_argument(
        "--plain", action=cli.Switch, default=False, help="the prediction alone, as the original had it"
    )
    parser.add_argument("--temperature", type=limits.real(0), help="of samples of --loss mdn; if not given: its mean")
    parser.add_argument(
        "--restore", action=cli.Switch, default=False, help="add what the codec loses of the last true frame"
    )
    parser.add_argument(
        "--fps",
        type=limits.real(0, 1000, above=True),
        help="frames per second (a GIF shows at most 50); if not given: as the data says",
    )
    parser.add_argument("--scale", type=limits.at_least(1), default=3, help="screen pixels a pixel")
    parser.add_argument("--seed", type=limits.seed, default=0, help="of the choice of videos and of samples")
    parser.add_argument("--device", help="if not given: cuda, else mps, else cpu")
    parser.add_argument(
        "--amp", action=cli.Switch, help="paint in bfloat16; if not given: where the hardware is fast at it"
    )
    return parser


def main(args):
    model = Trained(args.model, device := choose_device(args.device))
    torch.manual_seed(args.seed)
    codec, skip, data_file = model.codec, model.skip, args.data_file or model.data_file
    frames = Frames(data_file, args.split, crop=codec.frame_shape[1:])
    if frames.shape[1:] != codec.frame_shape:
        raise UserError(f"{data_file} has {frames.shape[1]} channels, the codec wants {codec.frame_shape[0]}")
    if args.temperature is not None:
        model.require_mixture("--temperature")
    lengths = -(-np.diff(frames.starts) // skip)  # of each video, in frames that the LSTM sees
    prime = args.prime or int(np.clip(np.median(lengths) // 2, 1, 30))  # the other half is truth to compare with
    long_enough = np.flatnonzero(lengths >= prime)
    if not len(long_enough):
        raise UserError(f"no {args.split} video has {prime} frames to prime with: lower --prime to {lengths.max()}")
    dest = Path(args.dest or Path("picture_output") / Path(args.model).resolve().parent.name)
    files.writable_folder(dest)
    chosen = np.random.default_rng(args.seed).permutation(long_enough)[: args.n]

    rows = [range(*frames.starts[v : v + 2], skip)[: prime + args.predict] for v in chosen]  # a shot may be long
    truth = [frames.__getitems__(list(r)) for r in rows]
    context = torch.stack([video[:prime] for video in truth])
    latents = codec.encode_videos(context)
    with torch.no_grad():
        predicted = model.lstm.rollout(latents, args.predict, args.temperature)
    amp = fast_bfloat16(device) if args.amp is None else args.amp
    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
        predicted = codec.decode(predicted).cpu()
    again = codec.decode(latents[:, :, 0]).cpu()
    if args.restore:
        predicted = restore(predicted, unit_scale(context), again)

    fps = max(args.fps or frames.attributes["frame_rate"] / skip, 0.01)  # a GIF knows no longer frames
    for v, true, video in zip(tqdm(chosen, desc="videos", disable=None), truth, predicted, strict=True):
        target = dest / f"{args.split}_{v:04d}.{args.format}"
        if args.plain:
            save_plain(target, video, fps, args.scale)
        else:
            save_comparison(target, true, video, prime, fps, args.scale)
    last = unit_scale(context[:, -1:]).expand(-1, args.predict, -1, -1, -1)
    print(f"{dest}: {len(chosen)} videos of the {args.split} split, {prime} frames fed in; squared error of a frame:")
    report("reconstruction by the codec", again, [video[:prime] for video in truth])
    report("primed, one step ahead", predicted[:, 1:prime], [video[1:prime] for video in truth])
    ahead = [video[prime:][:10] for video in truth]
    report(f"first {min(10, args.predict)} free-running frames", predicted[:, prime:], ahead)
    report("last primed frame copied instead", last, ahead)


def report(name, predicted, truth):
    """Print the mean squared error, summed over a frame, where there is truth to compare with."""
    pairs = zip(predicted, truth, strict=True)
    errors = torch.cat([(video[: len(true)] - unit_scale(true)).square().sum((1, 2, 3)) for video, true in pairs])
    print(f"  {name:34}" + (f"{errors.mean():7.1f}" if len(errors) else "  no frames to compare"))


if __name__ == "__main__":
    cli.run(main, flags())
