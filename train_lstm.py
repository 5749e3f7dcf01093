"""Train the LSTM that predicts the next latent, on the latents that an autoencoder left."""

from pathlib import Path

import numpy as np

from data.hdf5 import Videos, Windows
from models.losses import LOSSES
from models.lstm import LatentLSTM
from models.residuals import RESIDUALS
from runtime import cli, files, limits, processes
from runtime.device import new_network
from runtime.errors import UserError
from training import checkpoint
from training.flags import Parser, Steps
from training.loop import fit
from training.run import start

FEW = 2048  # windows


def flags():
    parser = Parser(
        __doc__, LatentLSTM, save_to="runs/lstm", num_epochs=Steps(1000, least=60), lr=2e-3,
        schedule="cosine", amp=None,
    )  # fmt: skip
    parser.explain(
        "batch_size", f"; if not given: 128, or 16 where an epoch has fewer than {FEW} windows"
    )
    parser.add_argument("--data_file", default="runs/vcae/latents.hdf5", help="latents")
    parser.add_argument(
        "--seq_length",
        type=limits.at_least(3),
        help="frames per window; if not given: 20, or what half of the videos have",
    )
    parser.add_argument(
        "--frame_skip",
        type=limits.at_least(1),
        help="take every N-th frame; if not given: as the data says",
    )
    parser.add_argument(
        "--loss",
        choices=LOSSES,
        default="mse",
        help="mse: squared error of Z; kl: KL(posterior || prediction); weighted: squared error "
        "over the posterior's variance; distance: in posterior deviations, for slots; "
        "mdn: mixture density",
    )
    parser.add_argument(
        "--kl_loss", action=cli.Switch, help="the 2016 flag: --loss kl or, if false, --loss mse"
    )
    parser.add_argument(
        "--mixtures", type=checkpoint.flag("mixtures"), default=5, help="Gaussians of --loss mdn"
    )
    parser.add_argument(
        "--diffs", action=cli.Switch, default=False, help="read and predict differences in Z"
    )
    parser.add_argument(
        "--rollout",
        type=checkpoint.flag("free"),
        help="last frames of a window trained in free running, 0: none, as in 2016; if not given: "
        "half the window",
    )
    parser.add_argument(
        "--residual",
        choices=RESIDUALS,
        help="what the LSTM predicts. none: Z; first: its difference from the last Z; second: its "
        "difference from going on at the last speed; if not given: first if Z changes little from "
        "frame to frame, as in films, else none",
    )
    parser.add_argument(
        "--peepholes", action=cli.Switch, default=True, help="the 2016 cell, else torch.nn.LSTM"
    )
    parser.add_argument(
        "--lstm_n_hid", type=checkpoint.flag("n_hid"), default=512, help="units per layer"
    )
    parser.add_argument("--layers", type=checkpoint.flag("layers"), default=1, help="LSTM layers")
    parser.add_argument(
        "--dropout", type=checkpoint.flag("dropout"), default=0.0, help="on each layer's input"
    )
    return parser


def main(args):
    if args.kl_loss is not None:
        args.loss = "kl" if args.kl_loss else "mse"
    latents = Videos(args.data_file, "train", "latents")
    about = latents.attributes
    if "slots" in about and (args.loss == "mdn" or args.diffs):
        raise UserError(
            f"--loss mdn and --diffs are for latents without slots, not {args.data_file}: leave "
            "them out"
        )
    if args.loss == "distance" and "slots" not in about:
        raise UserError(
            f"--loss distance is for latents with slots, not {args.data_file}: take --loss weighted"
        )
    args.frame_skip = args.frame_skip or about["frame_skip"]
    if args.seq_length is None:
        others = Videos(args.data_file, "valid", "latents").starts
        args.seq_length = usual_length(latents.starts, others, args.frame_skip)
    args.rollout = (
        min(args.seq_length // 2, args.seq_length - 3) if args.rollout is None else args.rollout
    )
    if args.rollout > args.seq_length - 3:
        raise UserError(
            f"--rollout {args.rollout} leaves no context in --seq_length {args.seq_length}: lower "
            "it"
        )
    train, valid = (
        Windows(args.data_file, split, args.seq_length, args.frame_skip, args.seed)
        for split in ("train", "valid")
    )
    args.batch_size = args.batch_size or (128 if len(train) >= FEW else 16)
    if args.residual is None:
        args.residual = "first" if changes_little(train) and not args.diffs else "none"
    device = start(args)
    run = Path(args.save_to)
    processes.say(
        f"{args.data_file}: {len(train)} training windows an epoch; {train.left_out} videos are "
        "too short for one"
    )

    model = new_network(
        LatentLSTM,
        device,
        train.shape[-1],
        args.lstm_n_hid,
        args.layers,
        args.dropout,
        args.loss,
        args.mixtures,
        args.diffs,
        args.peepholes,
        free=args.rollout,
        residual=args.residual,
        slots=about.get("slots", 0),
    )
    # Both are named as seen from the run folder, so that the folders can move together.
    beside = Path(args.data_file).resolve().parent
    seen = {
        name: files.relative(files.resolve(about[name], beside), run)
        for name in ("codec", "data_file")
    }
    parents = {
        "codec": {"path": seen["codec"], "id": about["codec_id"]},
        "frames": {"path": seen["data_file"]},
    }
    fit(model, train, valid, args, device, parents)


def changes_little(windows):
    """Whether the mean squared step between latents is below a tenth of their variance.

    Over the first 256 windows.
    """
    means = windows.__getitems__(range(min(len(windows), 256)))[:, :, 0]  # n, length, z_dim
    step = (means[:, 1:] - means[:, :-1]).square().mean()
    return bool(step < 0.1 * (means - means.mean((0, 1))).square().mean())


def usual_length(train, valid, skip):
    """A window of 20 frames, or the longest for which half of the training videos, and one for
    validation, will do.

    train, valid: where their videos start, and the last one ends; skip: of the frames, every
    skip-th is taken.
    """
    frames = min(np.median(np.diff(train)), np.diff(valid).max())
    return int(np.clip((frames - 1) // skip + 1, 3, 20))


if __name__ == "__main__":
    cli.run(main, flags())
