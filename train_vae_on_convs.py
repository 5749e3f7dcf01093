"""Train the VAE of a CAE's features.

It leaves its checkpoint, pictures of the whole chain, and the latents of all frames.
"""

from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

import torch

from data.hdf5 import Frames, write_latents
from data.pictures import save_sheet
from models.cae import CAE, Deconvoluter
from models.codec import unit_scale
from models.vae import VAE
from runtime import cli, limits, processes
from runtime.device import new_network
from runtime.errors import UserError
from training import checkpoint
from training.flags import Parser, Steps
from training.loop import fit
from training.run import start
from training.trained import attributes_of_latents, load_codec

SHOWN = 10  # frames of a row of a picture
MEASURED = 200  # frames of a split whose PSNR is printed
# Of each --arch, the values of flags that are not given; those of "2016" are the original's.
ARCHS = {
    "grid": {
        "num_epochs": Steps(2000), "batch_size": 32, "lr": 2e-3, "schedule": "cosine", "nfilts": 48,
        "L": 1,
    },
    "deep": {
        "num_epochs": Steps(1500), "batch_size": 32, "lr": 1e-3, "schedule": "cosine", "nfilts": 64,
        "n_hid": 1500, "L": 2,
    },
    "2016": {
        "num_epochs": 10, "batch_size": 128, "lr": 1e-5, "schedule": "constant", "n_hid": 1500,
        "L": 2,
    },
}  # fmt: skip


def flags():
    parser = Parser(__doc__, VAE, archs=ARCHS, save_to="runs/vae_on_convs")
    add = parser.add_argument
    cae = "checkpoint of train_cae.py; it names its frames"
    add("--cae", default="runs/cae/best.pt", help=cae)
    deconv = "checkpoint of train_deconv.py on that CAE"
    add("--deconv", default="runs/deconv/best.pt", help=deconv)
    add("--z_dim", type=checkpoint.flag("z_dim"), default=256, help="numbers per latent")
    maps = "deep, grid: maps of the outermost convolution"
    add("--nfilts", type=checkpoint.flag("nfilts"), help=maps)
    units = "deep, 2016: dense hidden units"
    add("--n_hid", type=checkpoint.flag("n_hid"), help=units)
    add("--L", type=checkpoint.flag("L"), help="posterior samples per frame")
    add("--beta", type=checkpoint.flag("beta"), default=1.0, help="weight of the KL term")
    bounded = "2016: features as they are, means in tanh"
    add("--bounded", action=cli.Switch, default=False, help=bounded)
    crops = "square crops of each frame in the latents"
    add("--crops", type=limits.at_least(1, 1000), default=4, help=crops)
    return parser


def main(args):
    cae_content = checkpoint.load(args.cae, CAE)
    deconv_content = checkpoint.load(args.deconv, Deconvoluter)
    if deconv_content["parents"]["cae"]["id"] != checkpoint.identity(cae_content):
        raise UserError(
            f"--deconv {args.deconv} was trained on another CAE than {args.cae}: train it on this "
            "one"
        )
    data_file = checkpoint.parent_path(args.cae, cae_content, "frames")
    crop = (cae_content["config"]["side"], cae_content["config"]["side"])
    train = Frames(data_file, "train", crop, args.seed)
    valid = Frames(data_file, "valid", crop)
    test = Frames(data_file, "test", crop)
    device = start(args)
    run = Path(args.save_to)

    cae = checkpoint.build(cae_content, CAE).to(device)
    split_layer = deconv_content["config"]["split_layer"]
    with torch.no_grad():
        features = cae.features(cae.shifted(train.evenly_spaced(512).to(device)), split_layer)
    model = new_vae(args, features)

    def prepare(frames):
        return (model.normalised(cae.features(cae.shifted(frames), split_layer)),)

    parents = {
        "cae": checkpoint.parent(args.cae, cae_content, run),
        "deconv": checkpoint.parent(args.deconv, deconv_content, run),
    }

    def draw(path):
        codec = load_codec(run / "best.pt", device)
        save_reconstructions(path, codec, {"validation": valid.evenly_spaced(SHOWN)})

    fit(model, train, valid, args, device, parents, prepare, draw)

    codec = load_codec(run / "best.pt", device)
    write_latents(
        run / "latents.hdf5", data_file, codec.encode, crop, args.crops,
        attributes_of_latents(run, codec, test), args.resume,
    )  # fmt: skip
    if processes.rank() == 0:
        measured = {
            "training": Frames(data_file, "train", crop).evenly_spaced(MEASURED),
            "test": test.evenly_spaced(MEASURED),
        }
        path = run / "pictures" / "reconstructions.png"
        for label in save_reconstructions(path, codec, measured):
            print(f"{run}: {label}")


def new_vae(args, features):
    """The VAE that the flags describe, of examples of features (n, maps, height, width)."""
    names = ("z_dim", "n_hid", "arch", "nfilts", "L", "bounded", "beta")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    try:
        model = new_network(VAE, features.device, features.shape[1:], **given).to(features.device)
    except ValueError as error:
        raise UserError(f"--z_dim {error}") from None
    if not args.bounded:
        model.normalise_by(features)
    return model


def save_reconstructions(path, codec, frames):
    """Save a picture of some frames after each network of the chain.

    frames: {name: (n, channels, side, side) uint8}. Returns a list of str: how good all of them
    are, after each network.
    """
    rows = {}
    labels = []
    for name, shown in frames.items():
        some = slice(None, None, max(len(shown) // SHOWN, 1))
        rows[f"{name} frames"] = shown[some]
        for network, again in codec.networks.stages(shown.to(codec.device)).items():
            error = (again.cpu() - unit_scale(shown)).square().mean((1, 2, 3))  # (n,)
            psnr = -10 * error.clamp_min(1e-10).log10().mean()  # at most 100 dB, as of evaluate.py
            label = f"{name} frames, {network}: PSNR {psnr:.1f} dB"
            rows[label] = again.cpu()[some]
            labels.append(label)
    save_sheet(path, rows, scale=2)
    return labels


if __name__ == "__main__":
    cli.run(main, flags())
