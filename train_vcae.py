"""Train the convolutional VAE of frames; leave its checkpoints, pictures, and the latents of all frames."""

import os
from pathlib import Path

import numpy as np

import cli
import processes
from data.hdf5 import Frames, write_latents
from data.pictures import save_sheet
from models import training
from models.codec import Codec, unit_scale
from models.slots import SlotVAE
from models.vae import VCAE

# What --arch sets where a flag is not given; "2016" has the original's values.
ARCHS = {
    "2016": {"num_epochs": 12, "batch_size": 128, "lr": 3e-5, "schedule": "constant", "grad_clip": 0.0, "beta": 1.0},
    "deep": {"num_epochs": 5, "batch_size": 128, "lr": 2e-3, "schedule": "cosine", "grad_clip": 0.0, "beta": 1.0},
    "slots": {"num_epochs": 2, "batch_size": 64, "lr": 1.5e-3, "schedule": "cosine", "grad_clip": 50.0, "beta": 0.05},
}
ARCHS["2016"] |= {"n_hid": 1024, "nfilts": 32, "L": 2}
ARCHS["deep"] |= {"n_hid": 512, "nfilts": 24, "L": 1}
ARCHS["slots"] |= {"n_hid": 256}


def flags():
    parser = training.Parser(__doc__, VCAE, SlotVAE, save_to="runs/vcae", grad_clip=None)
    parser.add_argument("--data_file", default="data/moving_mnist.hdf5", help="frames, from moving_mnist.py")
    parser.add_argument(
        "--arch",
        choices=ARCHS,
        default="2016",
        help="the original's two convolutions, eight strided ones, or objects and places",
    )
    parser.add_argument("--z_dim", type=cli.whole(1), default=32, help="numbers a latent")
    parser.add_argument(
        "--slots",
        type=int,
        choices=range(1, 5),
        help="objects a frame, of --arch slots alone; if not given: as the data says",
    )
    parser.add_argument("--n_hid", type=cli.whole(1), help="dense hidden units; 2016: 1024, deep: 512, slots: 256")
    parser.add_argument("--nfilts", type=cli.whole(1), help="maps of the outermost convolution; 2016: 32, deep: 24")
    parser.add_argument("--fsize", type=cli.whole(1), default=3, help="filter size of the 2016 convolutions, odd")
    parser.add_argument("--L", type=cli.whole(1), help="posterior samples a frame; 2016: 2, deep: 1")
    parser.add_argument("--binary", action=cli.Switch, default=True, help="Bernoulli pixels, else Gaussian")
    parser.add_argument("--beta", type=cli.real(0), help="weight of the KL term; slots: 0.05, else 1")
    return parser


def main(args):
    for name, value in ARCHS[args.arch].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.fsize % 2 == 0:
        raise cli.UserError(f"--fsize {args.fsize} is even: take an odd one, which has a centre")
    train, valid, test = (Frames(args.data_file, split) for split in ("train", "valid", "test"))
    if args.arch == "slots":
        count_slots(args, train.attributes)
    device, run = training.start(args), Path(args.save_to)

    if args.arch == "slots":
        about = train.attributes
        combine = "max" if about["physics"] == "srivastava" else "sum"
        model = SlotVAE(train.shape[1:], args.z_dim, args.slots, about["num_sz"], combine, args.n_hid, beta=args.beta)
    else:
        names = ("z_dim", "n_hid", "arch", "nfilts", "fsize", "L", "binary", "beta")
        model = VCAE(train.shape[1:], **{name: getattr(args, name) for name in names})
    training.fit(model, train, valid, args, device, parents={}, prepare=lambda frames: (unit_scale(frames),))

    codec = Codec(run / "best.pt", device)
    about = {"codec": "best.pt", "codec_id": codec.identity, "data_file": os.path.relpath(args.data_file, run)}
    about |= {key: test.attributes[key] for key in ("source", "frame_rate", "frame_skip")}
    if args.arch == "slots":
        about["slots"] = args.slots
    write_latents(
        run / "latents.hdf5", args.data_file, codec.encode, codec.frame_shape[1:], 1, about, args.resume, codec.follow
    )
    if processes.rank():
        return

    shown = test.evenly_spaced(2000)
    again = codec.decode(codec.encode(shown)[0]).cpu()
    error = (again - unit_scale(shown)).square().sum((1, 2, 3)).mean()
    (run / "pictures").mkdir(exist_ok=True)
    some = np.linspace(0, len(shown) - 1, 16).astype(int)
    rows = {"test frames": shown[some], f"reconstructions (squared error {error:.1f} a frame)": again[some]}
    save_sheet(run / "pictures" / "reconstructions.png", rows, scale=2)
    print(f"{run}: squared error of the reconstruction, summed over a frame: {error:.1f} (test split)")


def count_slots(args, about):
    """Settle --slots. Raises UserError if the frames, or the flags, are not such that slots can be made of them."""
    if "num_sz" not in about:
        raise cli.UserError(f"--arch slots is for bright things on black, from moving_mnist.py; not {args.data_file}")
    args.slots = args.slots or about["nums_per_image"]
    if args.slots > 4:
        raise cli.UserError(f"{args.data_file} shows {args.slots} digits a frame: give --slots 4, or take --arch deep")
    if args.z_dim % args.slots or args.z_dim // args.slots < 3:
        raise cli.UserError(
            f"--z_dim {args.z_dim} does not divide into --slots {args.slots} of at least 3 numbers each: "
            f"take a multiple, --z_dim {16 * args.slots}"
        )


if __name__ == "__main__":
    cli.run(main, flags())
