"""Train the deconvoluter, which paints frames from the features of a trained CAE."""

from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

import torch

from data.hdf5 import Frames
from data.pictures import save_sheet
from models.cae import CAE, Deconvoluter
from runtime import cli, processes
from runtime.device import new_network
from runtime.errors import UserError
from training import checkpoint
from training.flags import Parser, Steps
from training.loop import fit
from training.run import start

SHOWN = 12  # frames of a picture
# Of each --arch, the values of flags that are not given; those of "2016" are the original's.
ARCHS = {
    "grid": {
        "num_epochs": Steps(1500), "batch_size": 16, "lr": 2e-3, "schedule": "cosine", "nfilts": 48,
    },
    "deep": {
        "num_epochs": Steps(1500), "batch_size": 8, "lr": 1e-3, "schedule": "cosine", "nfilts": 64,
    },
    "2016": {"num_epochs": 10, "batch_size": 128, "lr": 3e-3, "schedule": "constant"},
}  # fmt: skip


def flags():
    parser = Parser(__doc__, Deconvoluter, archs=ARCHS, save_to="runs/deconv")
    add = parser.add_argument
    cae = "checkpoint of train_cae.py; it names its frames"
    add("--cae", default="runs/cae/best.pt", help=cae)
    layer = "the CAE's convolution whose output are the features"
    add("--split_layer", default="conv7", help=layer)
    add("--nfilts", type=checkpoint.flag("nfilts"), help="deep, grid: maps of each convolution")
    return parser


def main(args):
    content = checkpoint.load(args.cae, CAE)
    data_file = checkpoint.parent_path(args.cae, content, "frames")
    crop = (content["config"]["side"], content["config"]["side"])
    train = Frames(data_file, "train", crop, args.seed)
    valid = Frames(data_file, "valid", crop)
    test = Frames(data_file, "test", crop)
    device = start(args)
    run = Path(args.save_to)

    cae = checkpoint.build(content, CAE).to(device)
    model = new_deconvoluter(args, cae, device)

    def prepare(frames):
        shifted = cae.shifted(frames)
        return cae.features(shifted, args.split_layer), shifted

    parents = {"cae": checkpoint.parent(args.cae, content, run)}

    def draw(path):
        save_reconstructions(path, run / "best.pt", valid, prepare, device)

    fit(model, train, valid, args, device, parents, prepare, draw)
    if processes.rank() == 0:
        path = run / "pictures" / "reconstructions.png"
        save_reconstructions(path, run / "best.pt", test, prepare, device)


def new_deconvoluter(args, cae, device):
    """A deconvoluter of the CAE's features. Raises UserError if it would paint another size."""
    config = cae.config
    shape = {"arch": args.arch} | ({"nfilts": args.nfilts} if args.nfilts else {})
    try:
        model = new_network(
            Deconvoluter, device, config["specstr"], args.split_layer, config["channels"],
            config["pxsh"], **shape,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"--split_layer: {error}") from None
    frame = torch.zeros(1, config["channels"], config["side"], config["side"], device=device)
    painted = model.paint(cae.features(frame, args.split_layer).cpu())
    if painted.shape != frame.shape:
        raise UserError(
            f"{args.cae}: its spec paints {tuple(painted.shape[2:])} pixels back, not "
            f"{tuple(frame.shape[2:])}; pools must divide: train it with another --specstr, or on "
            "frames of an even --frame_size"
        )
    return model


def save_reconstructions(path, best, frames, prepare, device):
    """Save a picture of some frames, and of what the checkpoint `best` paints from their features.

    prepare: as in training.
    """
    model = checkpoint.build(checkpoint.load(best, Deconvoluter), Deconvoluter).to(device)
    shown = frames.evenly_spaced(SHOWN)
    with torch.no_grad():
        features, _ = prepare(shown.to(device))
        again = model.paint(features) + model.pxsh
    rows = {f"{frames.split} frames": shown, "painted from their features": again.cpu()}
    save_sheet(path, rows, scale=2)


if __name__ == "__main__":
    cli.run(main, flags())
