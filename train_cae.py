"""Train the convolutional autoencoder of a movie's frames.

Its convolutions become the feature extractor.
"""

from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

import torch

from data.hdf5 import Frames
from data.pictures import save_sheet
from models.cae import CAE
from runtime import cli, files, processes
from runtime.device import new_network
from runtime.errors import UserError
from training import checkpoint
from training.flags import Parser, Steps
from training.loop import fit
from training.run import start

SHOWN = 12  # frames of a picture
SPEC = "d-0.2,16-5,p-2,d-0.2,32-3,d-0.2,32-3,d-0.2,512"


def flags():
    parser = Parser(
        __doc__, CAE, save_to="runs/cae", batch_size=16, num_epochs=Steps(1500), lr=1e-3,
        schedule="cosine", grad_clip=10.0,
    )  # fmt: skip
    add = parser.add_argument
    add("--data_file", default="data/movie.hdf5", help="frames, from movie_frames.py")
    add("--specstr", default=SPEC, help="the layers, as models/cae.py explains")
    shift = "subtracted from pixels in [0, 1]"
    add("--pxsh", type=checkpoint.flag("pxsh"), default=0.5, help=shift)
    unpool = "unpool to the maxima, else to whole windows"
    add("--unpool", action=cli.Switch, default=True, help=unpool)
    return parser


def main(args):
    channels, *size = Frames(args.data_file, "train").shape[1:]
    crop = (min(size), min(size))
    train = Frames(args.data_file, "train", crop, args.seed)
    valid = Frames(args.data_file, "valid", crop)
    test = Frames(args.data_file, "test", crop)
    device = start(args)
    run = Path(args.save_to)

    try:
        model = new_network(CAE, device, args.specstr, channels, min(size), args.pxsh, args.unpool)
    except ValueError as error:
        raise UserError(f"--specstr: {error}") from None
    parents = {"frames": {"path": files.relative(args.data_file, run)}}

    def prepare(frames):
        return (model.shifted(frames),)

    def draw(path):
        save_reconstructions(path, run / "best.pt", valid, device)

    fit(model, train, valid, args, device, parents, prepare, draw)
    if processes.rank() == 0:
        path = run / "pictures" / "reconstructions.png"
        save_reconstructions(path, run / "best.pt", test, device)


def save_reconstructions(path, best, frames, device):
    """Save a picture of some frames, and of what the CAE of the checkpoint `best` makes of them."""
    model = checkpoint.build(checkpoint.load(best, CAE), CAE).to(device)
    shown = frames.evenly_spaced(SHOWN)
    with torch.no_grad():
        again = model.reconstruct(model.shifted(shown.to(device))) + model.pxsh
    rows = {f"{frames.split} frames": shown, "reconstructions": again.cpu()}
    save_sheet(path, rows, scale=2)


if __name__ == "__main__":
    cli.run(main, flags())
