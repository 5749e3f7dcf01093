"""Train the VAE of a CAE's features.

It leaves its checkpoint, pictures of the whole chain, and the latents of all frames.
"""

from pathlib import Path

import torch

from data.hdf5 import Frames, write_latents
from data.pictures import save_sheet
from models.cae import CAE, Deconvoluter
from models.codec import unit_scale
from models.vae import VAE
from runtime import cli, files, limits, processes
from runtime.device import new_network
from runtime.errors import UserError
from training import checkpoint
from training.flags import Parser, Steps
from training.loop import fit
from training.run import start
from training.trained import load_codec

# Of each --arch, the values of flags that are not given; those of "2016" are the original's.
ARCHS = {
    "deep": {"num_epochs": Steps(1500), "batch_size": 32, "lr": 1e-3, "schedule": "cosine"},
    "2016": {"num_epochs": 10, "batch_size": 128, "lr": 1e-5, "schedule": "constant"},
}


def flags():
    parser = Parser(__doc__, VAE, archs=ARCHS, save_to="runs/vae_on_convs")
    parser.add_argument(
        "--cae", default="runs/cae/best.pt", help="checkpoint of train_cae.py; it names its frames"
    )
    parser.add_argument(
        "--deconv", default="runs/deconv/best.pt", help="checkpoint of train_deconv.py on that CAE"
    )
    parser.add_argument(
        "--z_dim", type=checkpoint.flag("z_dim"), default=256, help="numbers a latent"
    )
    parser.add_argument(
        "--nfilts",
        type=checkpoint.flag("nfilts"),
        default=64,
        help="deep: maps of the outermost convolution",
    )
    parser.add_argument(
        "--n_hid", type=checkpoint.flag("n_hid"), default=1500, help="dense hidden units"
    )
    parser.add_argument(
        "--L", type=checkpoint.flag("L"), default=2, help="posterior samples a frame"
    )
    parser.add_argument(
        "--beta", type=checkpoint.flag("beta"), default=1.0, help="weight of the KL term"
    )
    parser.add_argument(
        "--bounded",
        action=cli.Switch,
        default=False,
        help="2016: features as they are, means in tanh",
    )
    parser.add_argument(
        "--crops",
        type=limits.at_least(1),
        default=4,
        help="square crops of each frame in the latents",
    )
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
    crop = (cae_content["config"]["side"],) * 2
    train = Frames(data_file, "train", crop, args.seed)
    valid, test = (Frames(data_file, split, crop) for split in ("valid", "test"))
    device = start(args)
    run = Path(args.save_to)

    cae = checkpoint.build(cae_content, CAE).to(device)
    split_layer = deconv_content["config"]["split_layer"]
    with torch.no_grad():
        features = cae.features(cae.shifted(train.evenly_spaced(512).to(device)), split_layer)
    names = ("z_dim", "n_hid", "arch", "nfilts", "L", "bounded", "beta")
    model = new_network(
        VAE, device, features.shape[1:], **{name: getattr(args, name) for name in names}
    ).to(device)
    if not args.bounded:
        model.normalise_by(features)
    parents = {
        "cae": checkpoint.parent(args.cae, cae_content, run),
        "deconv": checkpoint.parent(args.deconv, deconv_content, run),
    }

    def prepare(frames):
        return (model.normalised(cae.features(cae.shifted(frames), split_layer)),)

    fit(model, train, valid, args, device, parents, prepare)

    codec = load_codec(run / "best.pt", device)
    about = {
        "codec": "best.pt",
        "codec_id": codec.identity,
        "data_file": files.relative(data_file, run),
    }
    about |= {key: test.attributes[key] for key in ("source", "frame_rate", "frame_skip")}
    write_latents(
        run / "latents.hdf5", data_file, codec.encode, crop, args.crops, about, args.resume
    )
    if processes.rank():
        return

    rows = {}
    for name, split in (("training", Frames(data_file, "train", crop)), ("test", test)):
        shown = split.evenly_spaced(200)
        some = slice(None, None, max(len(shown) // 10, 1))
        rows[f"{name} frames"] = shown[some]
        for network, again in codec.networks.stages(shown.to(device)).items():
            psnr = -10 * (again.cpu() - unit_scale(shown)).square().mean((1, 2, 3)).log10().mean()
            rows[f"{name} frames, {network}: PSNR {psnr:.1f} dB"] = again.cpu()[some]
            print(f"{run}: {name} frames, {network}: PSNR {psnr:.1f} dB")
    (run / "pictures").mkdir(exist_ok=True)
    save_sheet(run / "pictures" / "reconstructions.png", rows, scale=2)


if __name__ == "__main__":
    cli.run(main, flags())
