"""Measure predictions of held-out videos, by LSTMs and by rules that learn nothing."""

from functools import partial
from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

import numpy as np
import torch

from data import pictures
from data.hdf5 import SPLITS, Frames, refuse_existing
from evaluation import baselines, figures, metrics, perceptual, tables
from evaluation.windows import keep_predictions, read_windows
from runtime import cli, files, limits
from runtime.device import choose_device
from runtime.errors import UserError
from training.trained import Trained

KNOWN = 5000  # training frames: their mean is a prediction, and the nearest one is looked for


def flags():
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    model = "checkpoint of train_lstm.py or, of a film, train_jointly.py; may be repeated"
    add("--model", action="append", default=[], help=model)
    data = "frames, ours or mnist_test_seq.npy (frames, videos, height, width)"
    add("--data_file", help=f"{data}; if not given: the first model's")
    add("--split", choices=SPLITS, default="test", help="where the videos are from")
    add("--context", type=limits.at_least(2), default=10, help="frames fed in")
    add("--horizon", type=limits.at_least(1), default=10, help="frames predicted after them")
    add("--n", type=limits.at_least(1), default=1000, help="at most N windows")
    stride = "frames from one window to the next; if not given: side by side"
    add("--stride", type=limits.at_least(1), help=stride)
    add("--dest", default="picture_output/evaluation", help="folder for tables and pictures")
    add("--save_predictions", help="HDF5 file for the predictions and the truth")
    samples = "also the best of N samples for each video, with --loss mdn"
    add("--samples", metavar="N", type=limits.at_least(1), help=samples)
    forget = "also the models without memory, as the 2016 code sampled"
    add("--forget", action=cli.Switch, default=False, help=forget)
    add("--temperature", type=limits.real(0), default=1.0, help="of the samples")
    lpips = "also measure LPIPS, see requirements-lpips.txt"
    add("--lpips", action=cli.Switch, default=False, help=lpips)
    i3d = "TorchScript file of an I3D network: also measure the Fréchet video distance (FVD)"
    add("--i3d", metavar="FILE", help=i3d)
    add("--seed", type=limits.seed, default=0, help="of the bootstrap, the strips and the samples")
    add("--device", help="if not given: cuda, else mps, else cpu")
    return parser


def main(args):
    models = load_models(args)
    measures, fvd = load_networks(args)
    data_file = args.data_file or models[0].own_frames()
    frames, sources, corners, data, films = read_videos(data_file, models, args)
    if fvd and len(frames) == 1:
        raise UserError("--i3d compares sets of videos, and there is one: raise --n, or take more")
    known = read_known(data_file, models)
    predictors = baselines.collect(
        models, known, data, corners is None, args.forget, args.samples, args.temperature
    )
    dest = Path(args.dest)
    files.lock_folder(dest)
    lengths = f"{args.context} frames fed in and {args.horizon} to predict"
    videos = len(set(sources.tolist()))
    print(f"{data_file}: {len(frames)} windows of {videos} videos, {lengths}")

    digits = None
    with keep_predictions(args.save_predictions, vars(args)) as save:

        def keep(*predictions):
            save(*predictions)
            if fvd:
                fvd.keep(*predictions)

        if corners is not None and videos > 1:
            digits = metrics.Digits(frames / np.float32(255), sources, corners, data["num_sz"])
        torch.manual_seed(args.seed)  # of the samples
        scores = metrics.measure(predictors, frames, args.context, digits, known, keep, measures)
    if digits:
        runs = metrics.count_coherent_digits(scores, digits.threshold)
    elif corners is None:
        runs = metrics.count_coherent_film(scores, baselines.COPY)
    else:
        print("coherent and tracked frames are not counted: that takes a second video's digits")
        runs = {name: {} for name in scores}

    counts = {"windows": len(frames), "videos": videos}
    attributes = {**vars(args), "data_file": str(data_file), **counts}
    if digits:
        attributes["identity_threshold"] = digits.threshold
        attributes["identity_error"] = digits.error
    interval = partial(metrics.bootstrap, sources=sources, seed=args.seed)
    summary = tables.summarise(scores, runs, interval)
    if fvd:
        for name, row in summary.items():
            row["fvd"] = fvd.distance(name)
    by_film = tables.summarise_films(scores, films)
    tables.write_json(dest / "metrics.json", attributes, summary, by_film)
    tables.write_csv(dest / "metrics.csv", scores, by_film)
    tables.print_table(summary)
    curves = {name: rows["mse"].mean(0) for name, rows in scores.items()}
    if by_film:
        print()
        tables.print_films(by_film, baselines.name_compared(scores, models))
        curves = by_film[tables.MEAN]["mse"]
    pictures.save_curves(dest / "horizon.png", curves, tables.MEAN if by_film else "")
    figures.save_strips(dest / "strips.png", models, frames, args.context, args.seed)
    slotted = next(filter(figures.has_slots, models), None)
    if slotted:
        figures.save_slots(dest / "slots.png", slotted, frames, args.context)


def load_models(args):
    """The models to measure. Raises UserError if they cannot be measured, or not together."""
    if not args.model and not args.data_file:
        raise UserError("nothing to measure: give --model, --data_file or both")
    if args.save_predictions:
        refuse_existing(args.save_predictions)
    device = choose_device(args.device)
    models = [Trained(path, device) for path in args.model]
    if len({(model.skip, model.codec.frame_shape) for model in models}) > 1:
        raise UserError("the models differ in their frames' size or skip: measure them one by one")
    if args.samples:
        for model in models:
            model.require_mixture("--samples")
    return models


def load_networks(args):
    """Networks that measure: {measure: of frames}, and that of videos or None.

    Raises UserError if they are not there.
    """
    device = choose_device(args.device)
    measures = {"lpips": perceptual.Lpips(device)} if args.lpips else {}
    fvd = perceptual.VideoDistance(args.i3d, args.horizon, device) if args.i3d else None
    return measures, fvd


def read_videos(data_file, models, args):
    """What `read_windows` returns. Raises UserError if the models do not take such frames."""
    skip = models[0].skip if models else 1
    shape = models[0].codec.frame_shape if models else None
    length = args.context + args.horizon
    crop = shape and shape[1:]
    windows = read_windows(data_file, args.split, length, skip, args.stride, args.n, crop)
    found = windows[0].shape[2:]
    if models and found != shape:
        raise UserError(
            f"{data_file} has frames {found}, the model's are {shape}: name frames like those it "
            "was trained on"
        )
    return windows


def read_known(data_file, models):
    """Some frames of the training set, (N, channels, height, width) uint8, or None.

    It is the first model's or, if that is not there, the data file's own, if it has one.
    """
    own = models[0].data_file if models else data_file
    source = own if Path(own).exists() else data_file
    if Path(source).suffix == ".npy":
        print(f"{source} has no training frames: nothing is compared with them")
        return None
    if source != own:
        print(f"{own} is not there: training frames are those of {source}")
    crop = models[0].codec.frame_shape[1:] if models else None
    return Frames(source, "train", crop).evenly_spaced(KNOWN).numpy()


if __name__ == "__main__":
    cli.run(main, flags())
