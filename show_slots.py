"""Draw what the slots of train_vcae.py --arch slots see, and where the LSTM takes them to go."""

from pathlib import Path

import torch

from data.hdf5 import SPLITS
from data.pictures import save_slots
from evaluation.windows import read_windows
from models.codec import unit_scale
from models.slots import SlotVAE
from runtime import cli, files, limits
from runtime.device import choose_device
from runtime.errors import UserError
from training.trained import Trained


def flags():
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--model", default="runs/lstm/best.pt", help="checkpoint of train_lstm.py; it names its codec and frames"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="where the videos are from")
    parser.add_argument("--context", type=limits.at_least(2), default=10, help="frames fed in; the last one is shown")
    parser.add_argument("--horizon", type=limits.at_least(1), default=10, help="frames predicted after them")
    parser.add_argument("--n", type=limits.at_least(1), default=4, help="videos, the first ones")
    parser.add_argument("--dest", default="picture_output/slots.png", help="the picture, a PNG")
    parser.add_argument("--device", help="if not given: cuda, else mps, else cpu")
    return parser


@torch.no_grad()
def main(args):
    model = Trained(args.model, choose_device(args.device))
    vae, length = model.codec.networks.vae, args.context + args.horizon
    if not isinstance(vae, SlotVAE):
        raise UserError(f"{args.model} predicts latents without slots: train with train_vcae.py --arch slots")
    if Path(args.dest).is_dir():
        raise UserError(f"{args.dest} is a folder: name a picture in it with --dest")
    files.writable_folder(Path(args.dest).parent)
    frames = torch.from_numpy(read_windows(model.data_file, args.split, length, model.skip, count=args.n)[0])

    latents = model.codec.encode_videos(frames)
    z_what, z_where = vae.what_and_where(latents[:, :, 0])
    predicted = vae.what_and_where(model.lstm.rollout(latents[:, : args.context], args.horizon))[1]
    last = args.context - 1
    shown = unit_scale(frames[:, last, 0]).to(z_what.device)
    drawn = vae.draw(z_what[:, last], z_where[:, last])
    crops = vae.glimpse(shown[:, None] - vae.overlay_others(drawn), z_where[:, last], vae.offsets)

    paths = [vae.to_pixels(path[:, last:]).transpose(1, 2) for path in (z_where, predicted)]
    save_slots(args.dest, *(tensor.cpu().numpy() for tensor in (shown, drawn, crops, *paths)))
    print(f"{args.dest}: the last of {args.context} frames fed in, and the way of the next {args.horizon}")


if __name__ == "__main__":
    cli.run(main, flags())
