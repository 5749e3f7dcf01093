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
    "deep": {"num_epochs": Steps(1500), "batch_size": 8, "lr": 1e-3, "schedule": "cosine"},
    "2016": {"num_epochs": 10, "batch_size": 128, "lr": 3e-3, "schedule": "constant"},
}


def flags():
    parser = Parser(__doc__, Deconvoluter, archs=ARCHS, save_to="runs/deconv")
    parser.add_argument(
        "--cae", default="runs/cae/best.pt", help="checkpoint of train_cae.py; it names its frames"
    )
    parser.add_argument(
        "--split_layer", default="conv7", help="the CAE's convolution whose output are the features"
    )
    parser.add_argument(
        "--nfilts",
        type=checkpoint.flag("nfilts"),
        default=64,
        help="deep: maps of each convolution",
    )
    return parser


def main(args):
    content = checkpoint.load(args.cae, CAE)
    config = content["config"]
    data_file = checkpoint.parent_path(args.cae, content, "frames")
    crop = (config["side"], config["side"])
    train = Frames(data_file, "train", crop, args.seed)
    valid, test = (Frames(data_file, split, crop) for split in ("valid", "test"))
    device = start(args)
    run = Path(args.save_to)

    cae = checkpoint.build(content, CAE).to(device)
    about = (args.split_layer, config["channels"], config["pxsh"], args.arch, args.nfilts)
    try:
        model = new_network(Deconvoluter, device, config["specstr"], *about)
    except ValueError as error:
        raise UserError(f"--split_layer: {error}") from None

    painted = model.paint(
        cae.features(
            torch.zeros(1, config["channels"], *crop, device=device), args.split_layer
        ).cpu()
    )
    if painted.shape[2:] != crop:
        raise UserError(
            f"{args.cae}: its spec paints {tuple(painted.shape[2:])} pixels back, not {crop}; "
            "pools must divide"
        )

    def prepare(frames):
        shifted = cae.shifted(frames)
        return cae.features(shifted, args.split_layer), shifted

    parents = {"cae": checkpoint.parent(args.cae, content, run)}
    fit(model, train, valid, args, device, parents, prepare)
    if processes.rank():
        return

    model = checkpoint.build(checkpoint.load(run / "best.pt", Deconvoluter), Deconvoluter).to(
        device
    )
    shown = test.evenly_spaced(12).to(device)
    with torch.no_grad():
        again = model.paint(prepare(shown)[0]) + model.pxsh
    (run / "pictures").mkdir(exist_ok=True)
    rows = {"test frames": shown.cpu(), "painted from their features": again.cpu()}
    save_sheet(run / "pictures" / "reconstructions.png", rows, scale=2)


if __name__ == "__main__":
    cli.run(main, flags())
