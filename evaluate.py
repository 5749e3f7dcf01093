"""Measure predictions of held-out videos, by trained LSTMs and by rules that learn nothing: tables, curves, strips."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from data import pictures
from data.hdf5 import SPLITS, Frames, refuse_existing
from evaluation import metrics, tables
from evaluation.baselines import COPY, in_latents, in_pixels
from evaluation.windows import keep_predictions, read_windows
from runtime import cli, files, limits
from runtime.device import choose_device
from runtime.errors import UserError
from training.trained import Trained


def flags():
    parser = cli.Parser(__doc__)
    parser.add_argument("--model", action="append", default=[], help="checkpoint of train_lstm.py; may be repeated")
    parser.add_argument(
        "--data_file",
        help="frames, ours or mnist_test_seq.npy (frames, videos, height, width); if not given: the first model's",
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="where the videos are from")
    parser.add_argument("--context", type=limits.at_least(2), default=10, help="frames fed in")
    parser.add_argument("--horizon", type=limits.at_least(1), default=10, help="frames predicted after them")
    parser.add_argument("--n", type=limits.at_least(1), default=1000, help="videos at most")
    parser.add_argument(
        "--stride", type=limits.at_least(1), help="frames from one window to the next; if not given: side by side"
    )
    parser.add_argument("--dest", default="picture_output/evaluation", help="folder for tables and pictures")
    parser.add_argument("--save_predictions", help="HDF5 file for what was predicted, and the truth")
    parser.add_argument(
        "--samples", type=limits.at_least(1), help="of --loss mdn, too: the best of so many for each video"
    )
    parser.add_argument(
        "--forget", action=cli.Switch, default=False, help="the models also without memory, as the 2016 code sampled"
    )
    parser.add_argument("--temperature", type=limits.real(0), default=1.0, help="of the samples")
    parser.add_argument("--seed", type=limits.seed, default=0, help="of the bootstrap, the strips and the samples")
    parser.add_argument("--device", help="if not given: cuda, else mps, else cpu")
    return parser


def main(args):
    if not args.model and not args.data_file:
        raise UserError("nothing to measure: give --model, --data_file or both")
    if args.save_predictions:
        refuse_existing(args.save_predictions)
    dest, device = Path(args.dest), choose_device(args.device)
    models = [Trained(path, device) for path in args.model]
    if len({(model.skip, model.codec.frame_shape) for model in models}) > 1:
        raise UserError("the models differ in their frames' size or skip: measure them one by one")
    data_file, skip = args.data_file or models[0].data_file, models[0].skip if models else 1
    crop = models[0].codec.frame_shape[1:] if models else None

    if args.samples:
        for model in models:
            model.require_mixture("--samples")
    length = args.context + args.horizon
    frames, corners, size = read_windows(data_file, args.split, length, skip, args.stride, args.n, crop)
    if models and frames.shape[2:] != models[0].codec.frame_shape:
        raise UserError(f"{data_file} has frames {frames.shape[2:]}, the model's are {models[0].codec.frame_shape}")
    if not models and Path(data_file).suffix == ".npy":
        raise UserError(f"{data_file} has no training frames to compare with: give --model, which knows its own")
    train = Frames(models[0].data_file if models else data_file, "train", crop)
    known = train.evenly_spaced(5000).numpy()
    predictors = in_pixels(known.mean(0, dtype=np.float32) / np.float32(255))
    first_with = {model.codec.identity: model for model in reversed(models)}
    for model in first_with.values():
        predictors |= in_latents(model.codec, f", codec of {model.name}" if len(first_with) > 1 else "")
    predictors |= {model.name: model.predict for model in models}
    if corners is None:
        predictors |= {f"{model.name}, codec's loss restored": model.predict_restored for model in models}
    if args.forget:
        predictors |= {f"{model.name}, state lost": model.forget for model in models}
    if args.samples:
        torch.manual_seed(args.seed)
        note = f", best of {args.samples} samples"
        predictors |= {model.name + note: partial(model.best_of, args.samples, args.temperature) for model in models}
    files.lock_folder(dest)
    print(f"{data_file}: {len(frames)} videos of {args.context} frames fed in and {args.horizon} to predict")

    with keep_predictions(args.save_predictions, vars(args)) as keep:
        digits = None
        if corners is not None and len(frames) > 1:
            digits = metrics.Digits(frames / np.float32(255), corners, size)
        scores = metrics.measure(predictors, frames, args.context, digits, known, keep)
    if digits:
        runs = metrics.count_coherent_digits(scores, digits.threshold)
    elif corners is None:
        runs = metrics.count_coherent_film(scores, COPY)
    else:
        print("one video: coherent and tracked frames are not counted, which takes digits of another to compare with")
        runs = {name: {} for name in scores}
    summary = tables.summarise(scores, runs, partial(metrics.bootstrap, seed=args.seed))

    about = {**vars(args), "data_file": str(data_file), "videos": len(frames)}
    if digits:
        about |= {"identity_threshold": digits.threshold, "identity_error": digits.error}
    tables.write_json(dest / "metrics.json", about, summary)
    tables.write_csv(dest / "metrics.csv", scores)
    tables.print_table(summary)
    pictures.save_curves(dest / "horizon.png", {name: rows["mse"].mean(0) for name, rows in scores.items()})
    drawn = np.random.default_rng(args.seed).permutation(np.arange(4, len(frames)))[:4]
    chosen = [*range(min(4, len(frames))), *drawn]
    past, future = np.split(frames[chosen] / np.float32(255), [args.context], axis=1)
    made = {model.name: model.predict(past, future)[:, -args.horizon :] for model in models}
    pictures.save_strips(dest / "strips.png", chosen, past, future, made)


if __name__ == "__main__":
    cli.run(main, flags())
