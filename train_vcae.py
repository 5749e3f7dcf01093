"""Train the VAE of frames; leave its checkpoints, pictures, and the latents of all frames."""

from pathlib import Path

import numpy as np

from data.hdf5 import Frames, write_latents
from data.pictures import save_sheet
from models.codec import unit_scale
from models.slots import SlotVAE
from models.vae import VCAE
from runtime import cli, files, processes
from runtime.device import new_network
from runtime.errors import UserError
from training import checkpoint
from training.flags import Parser, Steps
from training.loop import fit
from training.run import start
from training.trained import load_codec

# Of each --arch, the values of flags that are not given; those of "2016" are the original's.
ARCHS = {
    "deep": {
        "num_epochs": Steps(4000), "batch_size": 128, "lr": 2e-3, "schedule": "cosine", "amp": None,
        "grad_clip": 0.0, "n_hid": 512, "nfilts": 16, "L": 1, "beta": 0.5,
    },
    "2016": {
        "num_epochs": 12, "batch_size": 128, "lr": 3e-5, "schedule": "constant", "amp": False,
        "grad_clip": 0.0, "n_hid": 1024, "nfilts": 32, "L": 2, "beta": 1.0,
    },
    "slots": {
        "num_epochs": 2, "batch_size": 64, "lr": 1.5e-3, "schedule": "cosine", "amp": False,
        "grad_clip": 50.0, "n_hid": 256, "beta": 0.05,
    },
}  # fmt: skip


def flags():
    parser = Parser(__doc__, VCAE, SlotVAE, archs=ARCHS, save_to="runs/vcae")
    add = parser.add_argument
    add("--data_file", default="data/moving_mnist.hdf5", help="frames, from moving_mnist.py")
    add("--z_dim", type=checkpoint.flag("z_dim"), default=32, help="numbers per latent")
    slots = "objects per frame, of --arch slots alone; if not given: as the data says"
    add("--slots", type=int, choices=range(1, 5), help=slots)
    add("--n_hid", type=checkpoint.flag("n_hid"), help="dense hidden units")
    maps = "deep, 2016: maps of the outermost convolution"
    add("--nfilts", type=checkpoint.flag("nfilts"), help=maps)
    odd = "2016: filter size of the convolutions, odd"
    add("--fsize", type=checkpoint.flag("fsize"), default=3, help=odd)
    add("--L", type=checkpoint.flag("L"), help="deep, 2016: posterior samples per frame")
    add("--binary", action=cli.Switch, default=True, help="Bernoulli pixels, else Gaussian")
    add("--beta", type=checkpoint.flag("beta"), help="weight of the KL term")
    return parser


def main(args):
    if args.fsize % 2 == 0:
        raise UserError(f"--fsize {args.fsize} is even: take an odd one, which has a centre")
    if args.slots and args.arch != "slots":
        raise UserError(
            f"--slots {args.slots} is for --arch slots, not {args.arch}: give that, or leave it out"
        )
    train, valid, test = (Frames(args.data_file, split) for split in ("train", "valid", "test"))
    if args.arch == "slots":
        count_slots(args, train.attributes)
    device = start(args)
    run = Path(args.save_to)

    if args.arch == "slots":
        about = train.attributes
        combine = "max" if about["physics"] == "srivastava" else "sum"
        size = (about["num_sz"], combine, args.n_hid)
        model = new_network(
            SlotVAE, device, train.shape[1:], args.z_dim, args.slots, *size, beta=args.beta
        )
    else:
        names = ("z_dim", "n_hid", "arch", "nfilts", "fsize", "L", "binary", "beta")
        model = new_network(
            VCAE, device, train.shape[1:], **{name: getattr(args, name) for name in names}
        )
    fit(model, train, valid, args, device, parents={}, prepare=lambda frames: (unit_scale(frames),))

    codec = load_codec(run / "best.pt", device)
    about = {
        "codec": "best.pt",
        "codec_id": codec.identity,
        "data_file": files.relative(args.data_file, run),
    }
    about |= {key: test.attributes[key] for key in ("source", "frame_rate", "frame_skip")}
    if args.arch == "slots":
        about["slots"] = args.slots
    write_latents(
        run / "latents.hdf5",
        args.data_file,
        codec.encode,
        codec.frame_shape[1:],
        1,
        about,
        args.resume,
        codec.follow,
    )
    if processes.rank():
        return

    shown = test.evenly_spaced(2000)
    again = codec.decode(codec.encode(shown)[0]).cpu()
    error = (again - unit_scale(shown)).square().sum((1, 2, 3)).mean()
    (run / "pictures").mkdir(exist_ok=True)
    some = np.linspace(0, len(shown) - 1, 16).astype(int)
    rows = {
        "test frames": shown[some],
        f"reconstructions (squared error {error:.1f} a frame)": again[some],
    }
    save_sheet(run / "pictures" / "reconstructions.png", rows, scale=2)
    print(
        f"{run}: squared error of the reconstruction, summed over a frame: {error:.1f} (test split)"
    )


def count_slots(args, about):
    """Settle --slots.

    Raises UserError if the frames or the flags do not allow slots.
    """
    if "num_sz" not in about:
        raise UserError(
            "--arch slots is for bright things on black, from moving_mnist.py; not "
            f"{args.data_file}"
        )
    args.slots = args.slots or about["nums_per_image"]
    if args.slots > 4:
        raise UserError(
            f"{args.data_file} shows {args.slots} digits a frame: give --slots 4, or take --arch "
            "deep"
        )
    if args.z_dim % args.slots or args.z_dim // args.slots < 3:
        raise UserError(
            f"--z_dim {args.z_dim} does not divide into --slots {args.slots} of at least 3 numbers "
            "each: "
            f"take a multiple, --z_dim {16 * args.slots}"
        )


if __name__ == "__main__":
    cli.run(main, flags())
