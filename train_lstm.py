"""Train the LSTM that predicts the next latent, on the latents that an autoencoder left."""

from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

import numpy as np

from data.augmented import FilmWindows
from data.hdf5 import Videos, Windows
from evaluation import figures
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
from training.trained import Trained

FEW = 2048  # windows
# The values of flags that are not given, for latents in one vector, a grid and slots.
VECTOR = {"lstm_n_hid": 512, "layers": 1, "loss": "mse"}
GRID = VECTOR | {"batch_size": 16, "lstm_n_hid": 128, "residual": "paced"}
# Untrained, an LSTM of slots runs away with their speed: it needs teacher forcing first.
SLOTS = VECTOR | {
    "batch_size": 64, "lstm_n_hid": 128, "layers": 4, "loss": "distance", "residual": "objects",
    "rollout": 0,
}  # fmt: skip


def flags():
    parser = Parser(
        __doc__, LatentLSTM, save_to="runs/lstm", num_epochs=Steps(1000, least=60), lr=2e-3,
        schedule="cosine", amp=None,
    )  # fmt: skip
    batch = f"128, or 16 where an epoch has fewer than {FEW} windows; slots: 64; grid: 16"
    parser.explain("batch_size", f"; if not given: {batch}")
    add = parser.add_argument
    add("--data_file", default="runs/vcae/latents.hdf5", help="latents")
    length = "frames per window; if not given: 20, or what half of the videos have"
    add("--seq_length", type=limits.at_least(3), help=length)
    transpose = """slots: swap rows and columns of places in a random half of the windows; where
        objects move alike along both"""
    add("--transpose", action=cli.Switch, default=False, help=transpose)
    skip = "take every N-th frame; if not given: as the data says"
    add("--frame_skip", type=limits.at_least(1), help=skip)
    loss = """mse: squared error of Z; kl: KL(posterior || prediction); weighted: squared error
        over the posterior's variance; distance: in posterior deviations, for slots; mdn: mixture
        density; if not given: mse, or distance for slots"""
    add("--loss", choices=LOSSES, help=loss)
    add("--kl_loss", action=cli.Switch, help="the 2016 flag: --loss kl or, if false, --loss mse")
    add("--mixtures", type=checkpoint.flag("mixtures"), default=5, help="Gaussians of --loss mdn")
    add("--diffs", action=cli.Switch, default=False, help="read and predict differences in Z")
    free = """last frames of a window trained in free running; 0: none, as in 2016; if not given:
        half the window; slots: 0"""
    add("--rollout", type=checkpoint.flag("free"), help=free)
    residual = """what the LSTM predicts. none: Z; first: its difference from the last Z; paced: the
        same, and the last difference is read; second: its difference from going on at the last
        speed; objects: the same for slots, read in whole pixels; if not given: of a grid
        paced, of slots objects, else first if Z changes little from frame to frame, else none"""
    add("--residual", choices=RESIDUALS, help=residual)
    cell = "the 2016 cell, else torch.nn.LSTM"
    add("--peepholes", action=cli.Switch, default=True, help=cell)
    units = "units per layer; if not given: 512, or 128 for a slot or a place of a grid"
    add("--lstm_n_hid", type=checkpoint.flag("n_hid"), help=units)
    layers = "LSTM layers; if not given: 1, or 4 for slots"
    add("--layers", type=checkpoint.flag("layers"), help=layers)
    add("--dropout", type=checkpoint.flag("dropout"), default=0.0, help="on each layer's input")
    return parser


def main(args):
    latents = Videos(args.data_file, "train", "latents")
    layout = layout_config(latents)
    settle_network(args, layout)
    settle_windows(args, latents)
    window = (args.seq_length, args.frame_skip, args.seed)
    train = Windows(args.data_file, "train", *window, args.transpose)
    valid = Windows(args.data_file, "valid", *window)
    settle_vector(args, train)
    device = start(args)
    windows = f"{len(train)} training windows per epoch"
    processes.say(f"{args.data_file}: {windows}; videos too short for one: {train.left_out}")

    model = new_network(
        LatentLSTM, device, z_dim=train.shape[-1], n_hid=args.lstm_n_hid, layers=args.layers,
        dropout=args.dropout, loss=args.loss, mixtures=args.mixtures, diffs=args.diffs,
        peepholes=args.peepholes, free=args.rollout, residual=args.residual, **layout,
    )  # fmt: skip

    def draw(path):
        save_predictions(path, Path(args.save_to) / "best.pt", args.seq_length, device)

    fit(model, train, valid, args, device, parents_of(latents, args.save_to), draw=draw)


def save_predictions(path, best, length, device):
    """Save a picture of validation videos above what the checkpoint `best` predicts of them.

    Of `length` frames it gets the first half. Raises UserError if codec or frames are not there.
    """
    model = Trained(best, device)
    windows = FilmWindows(model.data_file, "valid", length, model.skip, model.codec.frame_shape)
    videos = windows.evenly_spaced(figures.SHOWN).numpy()
    figures.save_strips(path, [model], videos, context=length // 2, seed=0)


def layout_config(latents):
    """How a file's latents are laid out: arguments of `LatentLSTM`."""
    attributes = latents.attributes
    grid = []
    if "grid_rows" in attributes:
        grid = [attributes["grid_rows"], attributes["grid_columns"]]
    # Only slots need frames' sizes, and have them.
    frame_shape = [1, attributes.get("frame_height", 64), attributes.get("frame_width", 64)]
    return {"slots": attributes.get("slots", 0), "grid": grid, "frame_shape": frame_shape}


def settle_network(args, layout):
    """Set what is not given. Raises UserError if a flag does not go with the latents' layout."""
    if args.kl_loss is not None:
        args.loss = "kl" if args.kl_loss else "mse"
    settled = SLOTS if layout["slots"] else GRID if layout["grid"] else VECTOR
    for name, value in settled.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if layout["grid"] and (args.loss == "mdn" or args.diffs):
        raise UserError(
            f"{args.data_file} has places in a grid, which --loss mdn and --diffs do not take: "
            "leave them out"
        )
    if layout["slots"]:
        if args.diffs:
            raise UserError(f"{args.data_file} has slots: leave --diffs out")
        _, height, width = layout["frame_shape"]
        if args.transpose and height != width:
            raise UserError(
                f"--transpose takes square frames, not those of {args.data_file}: leave it out"
            )
        return
    lacks = f"{args.data_file} has no slots, which"
    if args.loss == "distance":
        raise UserError(f"{lacks} --loss distance needs: take --loss weighted")
    if args.transpose:
        raise UserError(f"{lacks} --transpose needs: leave it out")
    if args.residual == "objects":
        raise UserError(f"{lacks} --residual objects needs: take --residual second")


def settle_vector(args, windows):
    """Set what depends on the windows, where latents have neither slots nor a grid."""
    if args.batch_size is None:
        args.batch_size = 128 if len(windows) >= FEW else 16
    if args.residual is None:
        little = changes_little(windows) and not args.diffs
        args.residual = "first" if little else "none"


def settle_windows(args, latents):
    """Set what is not given of the windows. Raises UserError if --rollout leaves no context."""
    args.frame_skip = args.frame_skip or latents.attributes["frame_skip"]
    if args.seq_length is None:
        valid = Videos(args.data_file, "valid", "latents")
        args.seq_length = usual_length(latents.starts, valid.starts, args.frame_skip)
    longest = args.seq_length - 3  # two frames to read, so that there is a difference, and one more
    if args.rollout is None:
        args.rollout = min(args.seq_length // 2, longest)
    if args.rollout > longest:
        length = f"--seq_length {args.seq_length}"
        raise UserError(f"--rollout {args.rollout} leaves no context in {length}: lower it")


def parents_of(latents, run):
    """The codec and the frames of a file of latents, named as seen from the folder `run`."""
    attributes = latents.attributes
    folder = latents.path.resolve().parent
    codec = files.relative(files.resolve(attributes["codec"], folder), run)
    frames = files.relative(files.resolve(attributes["data_file"], folder), run)
    return {"codec": {"path": codec, "id": attributes["codec_id"]}, "frames": {"path": frames}}


def changes_little(windows):
    """Whether the mean squared step between latents is below a tenth of their variance."""
    some = windows.__getitems__(range(min(len(windows), 256)))  # (n, length, 2, z_dim)
    means = some[:, :, 0]
    step = (means[:, 1:] - means[:, :-1]).square().mean()
    return bool(step < 0.1 * (means - means.mean((0, 1))).square().mean())


def usual_length(train, valid, skip):
    """A window of 20 frames, or the longest that half of the training videos have, and a valid one.

    train, valid: where their videos start, and the last one ends; skip: of the frames, every
    skip-th is taken.
    """
    frames = min(np.median(np.diff(train)), np.diff(valid).max())
    return int(np.clip((frames - 1) // skip + 1, 3, 20))


if __name__ == "__main__":
    cli.run(main, flags())
