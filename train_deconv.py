"""Train the deconvoluter, which paints frames from the features of a trained CAE."""

from pathlib import Path

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
    fit(model, train, valid, args, device, parents, prepare)
    if processes.rank() == 0:
        save_reconstructions(run, test.evenly_spaced(12).to(device), prepare)


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
            f"{tuple(frame.shape[2:])}; pools must divide"
        )
    return model


def save_reconstructions(run, shown, prepare):
    """Save a picture of the frames `shown`, uint8, and what is painted from their features."""
    content = checkpoint.load(run / "best.pt", Deconvoluter)
    model = checkpoint.build(content, Deconvoluter).to(shown.device)
    with torch.no_grad():
        features, _ = prepare(shown)
        again = model.paint(features) + model.pxsh
    (run / "pictures").mkdir(exist_ok=True)
    rows = {"test frames": shown.cpu(), "painted from their features": again.cpu()}
    save_sheet(run / "pictures" / "reconstructions.png", rows, scale=2)


if __name__ == "__main__":
    cli.run(main, flags())
