"""Train the VAE of frames; leave its checkpoints, pictures, and the latents of all frames."""

import math
from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

import numpy as np

from data.hdf5 import Frames, write_latents
from data.pictures import save_sheet
from models.codec import unit_scale
from models.grid import grid_of
from models.slots import SlotVAE
from models.vae import VCAE
from runtime import cli, processes
from runtime.device import new_network
from runtime.errors import UserError
from training import checkpoint
from training.flags import Parser, Steps
from training.loop import fit
from training.run import start
from training.trained import attributes_of_latents, load_codec

# Of each --arch, the values of flags that are not given; those of "2016" are the original's.
ARCHS = {
    "deep": {
        "num_epochs": Steps(4000), "batch_size": 128, "lr": 2e-3, "schedule": "cosine", "amp": None,
        "grad_clip": 0.0, "z_dim": 32, "n_hid": 512, "nfilts": 16, "L": 1, "binary": True,
        "beta": 0.5,
    },
    "grid": {
        "num_epochs": Steps(4000), "batch_size": 32, "lr": 2e-3, "schedule": "cosine", "amp": None,
        "grad_clip": 0.0, "z_dim": None, "nfilts": 32, "L": 1, "binary": True, "beta": 1.0,
    },
    "2016": {
        "num_epochs": 12, "batch_size": 128, "lr": 3e-5, "schedule": "constant", "amp": False,
        "grad_clip": 0.0, "z_dim": 32, "n_hid": 1024, "nfilts": 32, "fsize": 3, "L": 2,
        "binary": True, "beta": 1.0,
    },
    "slots": {
        "num_epochs": 2, "batch_size": 64, "lr": 1.5e-3, "schedule": "cosine", "amp": False,
        "grad_clip": 50.0, "z_dim": 32, "n_hid": 256, "slots": None, "beta": 0.05,
    },
}  # fmt: skip
SHOWN = 16  # frames of a picture
MEASURED = 2000  # test frames whose squared error is printed
PER_PLACE = 4  # numbers per place of a grid, if --z_dim is not given


def flags():
    parser = Parser(__doc__, VCAE, SlotVAE, archs=ARCHS, save_to="runs/vcae")
    add = parser.add_argument
    add("--data_file", default="data/moving_mnist.hdf5", help="frames, from moving_mnist.py")
    numbers = f"numbers per latent; grid: if not given, {PER_PLACE} per place"
    add("--z_dim", type=checkpoint.flag("z_dim"), help=numbers)
    slots = "slots: objects per frame; if not given: as the data says"
    add("--slots", type=int, choices=range(1, 5), help=slots)
    add("--n_hid", type=checkpoint.flag("n_hid"), help="dense hidden units")
    maps = "deep, grid, 2016: maps of the outermost convolution"
    add("--nfilts", type=checkpoint.flag("nfilts"), help=maps)
    add("--fsize", type=checkpoint.flag("fsize"), help="2016: filter size, odd")
    add("--L", type=checkpoint.flag("L"), help="deep, grid, 2016: posterior samples per frame")
    add("--binary", action=cli.Switch, help="deep, grid, 2016: Bernoulli pixels, else Gaussian")
    add("--beta", type=checkpoint.flag("beta"), help="weight of the KL term")
    return parser


def main(args):
    if args.fsize and args.fsize % 2 == 0:
        raise UserError(f"--fsize {args.fsize} is even: take an odd one, which has a centre")
    train = Frames(args.data_file, "train")
    valid = Frames(args.data_file, "valid")
    test = Frames(args.data_file, "test")
    if args.arch == "slots":
        count_slots(args, train)
    device = start(args)
    run = Path(args.save_to)

    new = new_slot_vae if args.arch == "slots" else new_vcae
    model = new(args, train, device)

    def prepare(frames):
        return (unit_scale(frames),)

    def draw(path):
        save_reconstructions(path, load_codec(run / "best.pt", device), valid, SHOWN)

    fit(model, train, valid, args, device, {}, prepare, draw)

    codec = load_codec(run / "best.pt", device)
    write_latents(
        run / "latents.hdf5", args.data_file, codec.encode, codec.frame_shape[1:], 1,
        attributes_of_latents(run, codec, test), args.resume,
        codec.encode_videos if codec.has_slots else None,
    )  # fmt: skip
    if processes.rank() == 0:
        path = run / "pictures" / "reconstructions.png"
        error = save_reconstructions(path, codec, test, MEASURED)
        print(f"{run}: squared error of the reconstruction, per frame: {error:.1f} (test split)")


def new_vcae(args, frames, device):
    """A VCAE by the flags; what they leave out is for the other architecture."""
    if args.z_dim is None:
        args.z_dim = PER_PLACE * math.prod(grid_of(*frames.shape[2:]))
    names = ("z_dim", "n_hid", "arch", "nfilts", "fsize", "L", "binary", "beta")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    try:
        return new_network(VCAE, device, frames.shape[1:], **given)
    except ValueError as error:
        raise UserError(f"--z_dim {error}") from None


def new_slot_vae(args, frames, device):
    """A SlotVAE by the flags, of objects as large as the digits of the frames."""
    digits = frames.attributes
    return new_network(
        SlotVAE, device, frames.shape[1:], z_dim=args.z_dim, slots=args.slots,
        size=digits["num_sz"], combine="max" if digits["physics"] == "srivastava" else "sum",
        n_hid=args.n_hid, beta=args.beta,
    )  # fmt: skip


def save_reconstructions(path, codec, frames, count):
    """Save a picture of some frames and their reconstructions.

    Returns the mean squared error of `count` frames, of which SHOWN are in the picture.
    """
    measured = frames.evenly_spaced(count)
    mean, _ = codec.encode(measured)
    again = codec.decode(mean).cpu()
    error = (again - unit_scale(measured)).square().sum((1, 2, 3)).mean()
    some = np.linspace(0, len(measured) - 1, SHOWN).astype(int)
    label = f"reconstructions (squared error {error:.1f} per frame)"
    save_sheet(path, {f"{frames.split} frames": measured[some], label: again[some]}, scale=2)
    return error


def count_slots(args, frames):
    """Settle --slots.

    Raises UserError if the frames or the flags do not allow slots.
    """
    attributes = frames.attributes
    channels, *sides = frames.shape[1:]
    is_known = {"num_sz", "physics", "nums_per_image"} <= attributes.keys()
    if not is_known or channels > 1 or min(sides) < max(attributes["num_sz"], 2):
        source = f"from moving_mnist.py; not {args.data_file}"
        raise UserError(f"--arch slots is for bright things on black, {source}")
    args.slots = args.slots or attributes["nums_per_image"]
    if args.slots > 4:
        shows = f"{args.data_file} shows {args.slots} digits per frame"
        raise UserError(f"{shows}: give --slots 4, or take --arch deep")
    if args.z_dim % args.slots or args.z_dim // args.slots < 3:
        divides = f"--z_dim {args.z_dim} does not divide into --slots {args.slots}"
        multiple = f"take a multiple, --z_dim {16 * args.slots}"
        raise UserError(f"{divides} of at least 3 numbers each: {multiple}")


if __name__ == "__main__":
    cli.run(main, flags())
