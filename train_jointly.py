"""Train an LSTM on the pixels of the frames that it predicts in free running.

Digits: together with its autoencoder, on videos generated on the fly. A film: together with a
painter, which moves the last true frame as the predicted latents say.
"""

from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

import torch

from data.augmented import FilmWindows
from data.generated import GeneratedVideos
from data.hdf5 import Videos
from data.pictures import save_strips
from evaluation import figures
from models.codec import Codec, Direct, unit_scale
from models.film import FilmPredictor
from models.joint import Joint
from models.lstm import LatentLSTM
from models.vae import VCAE
from runtime import cli, files, limits, processes
from runtime.device import new_network
from runtime.errors import UserError
from training import checkpoint
from training.flags import Parser, Steps
from training.loop import fit
from training.run import start
from training.trained import Trained, load_codec, load_parent

# The values of flags that are not given.
DIGITS = {"batch_size": 32, "num_epochs": Steps(1000), "grad_clip": 0.0, "seq_length": 21}
FILM = {"batch_size": 8, "num_epochs": Steps(3000), "grad_clip": 1.0, "seq_length": 18}


def flags():
    parser = Parser(
        __doc__, Joint, FilmPredictor, save_to="runs/joint", num_epochs=None, lr=1e-3,
        grad_clip=None, schedule="cosine",
    )  # fmt: skip
    for name in ("batch_size", "num_epochs", "grad_clip"):
        parser.explain(name, f"; if not given: {DIGITS[name]}, or {FILM[name]} for films")
    add = parser.add_argument
    lstm = "checkpoint of train_lstm.py to begin from"
    add("--lstm", default="runs/lstm/best.pt", help=lstm)
    length = "frames per video; if not given: 21, or 18 for films"
    add("--seq_length", type=limits.at_least(3), help=length)
    free = "last frames of a video, predicted in free running"
    add("--rollout", type=limits.at_least(0), default=10, help=free)
    shown = "predicted frames per video that are decoded in training"
    add("--shown", type=checkpoint.flag("shown"), default=4, help=shown)
    return parser


def main(args):
    content = checkpoint.load(args.lstm, LatentLSTM)
    if content["config"]["diffs"]:
        raise UserError(
            f"{args.lstm} was trained with --diffs: joint training is for LSTMs that predict Z "
            "itself"
        )
    if content["config"]["slots"]:
        raise UserError(
            f"{args.lstm} predicts objects in slots: joint training is for one vector or a grid"
        )
    frames = checkpoint.parent_path(args.lstm, content, "frames")
    is_digits = "physics" in Videos(frames, "train", "frames").attributes
    for name, value in (DIGITS if is_digits else FILM).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.rollout > args.seq_length - 2:
        raise UserError(
            f"--rollout {args.rollout} leaves no context in --seq_length {args.seq_length}: lower "
            f"it to {args.seq_length - 2}"
        )
    train = train_on_digits if is_digits else train_on_film
    train(args, content, frames)


def train_on_digits(args, content, frames):
    codec = load_parent(content, args.lstm, "codec", VCAE)
    train = GeneratedVideos(frames, "train", args.seq_length, args.seed)
    valid = GeneratedVideos(frames, "valid", args.seq_length, args.seed)
    device = start(args)
    run = Path(args.save_to)

    model = new_network(
        Joint, device, codec["config"], content["config"] | {"free": args.rollout}, args.shown
    )
    model.vcae.load_state_dict(codec["model"])
    model.lstm.load_state_dict(content["model"])

    def prepare(videos):
        return (unit_scale(videos),)

    def draw(path):
        videos = valid.__getitems__(range(min(figures.SHOWN, len(valid))))
        save_predictions(path, run / "best.pt", videos, device)

    fit(model, train, valid, args, device, {}, prepare, draw)
    if processes.rank() == 0:
        save_apart(run, content["args"]["frame_skip"], frames)


def save_predictions(path, best, videos, device):
    """Save a picture of videos above what the `Joint` of the checkpoint `best` predicts of them.

    videos: (V, T, channels, height, width) uint8; the first half of their frames is fed in.
    """
    model = checkpoint.build(checkpoint.load(best, Joint), Joint).to(device)
    codec = Codec(Direct(model.vcae), device)
    context = videos.shape[1] // 2
    latents = codec.encode_videos(videos[:, :context])  # (V, context, 2, z)
    means = model.lstm.rollout(latents, videos.shape[1] - context)  # (V, T, z)
    predicted = codec.decode(means[:, context:]).cpu()
    past, future = unit_scale(videos).tensor_split([context], dim=1)
    save_strips(path, range(len(videos)), past, future, {"prediction": predicted})


def save_apart(run, frame_skip, frames):
    """Write the two parts of the best checkpoint as vcae.pt and lstm.pt, for the later stages."""
    best = checkpoint.load(run / "best.pt", Joint)
    model = checkpoint.build(best, Joint)
    flags_of_run = {**best["args"], "frame_skip": frame_skip}
    checkpoint.save(run / "vcae.pt", model.vcae, flags_of_run, best["history"], {})
    codec = checkpoint.load(run / "vcae.pt", VCAE)
    parents = {
        "codec": checkpoint.parent(run / "vcae.pt", codec, run),
        "frames": {"path": files.relative(frames, run)},
    }
    checkpoint.save(run / "lstm.pt", model.lstm, flags_of_run, best["history"], parents)
    print(
        f"{run}/lstm.pt: the LSTM for sample_video.py and evaluate.py, with its autoencoder "
        f"{run}/vcae.pt"
    )


def train_on_film(args, content, frames):
    if not content["config"]["grid"]:
        raise UserError(
            f"{args.lstm} predicts latents without places: train its autoencoder with --arch grid"
        )
    args.frame_skip = content["args"]["frame_skip"]
    codec_path = checkpoint.parent_path(args.lstm, content, "codec")
    codec = load_codec(codec_path, "cpu", content["parents"]["codec"]["id"])
    window = (args.seq_length, args.frame_skip, codec.frame_shape)
    train = FilmWindows(frames, "train", *window, args.seed)
    valid = FilmWindows(frames, "valid", *window)
    device = start(args)
    codec = load_codec(codec_path, device)
    run = Path(args.save_to)

    lstm = content["config"] | {"free": args.rollout}
    model = new_network(FilmPredictor, device, lstm, codec.frame_shape[0], args.shown)
    model.lstm.load_state_dict(content["model"])
    parents = {
        "codec": {**content["parents"]["codec"], "path": files.relative(codec_path, run)},
        "frames": {"path": files.relative(frames, run)},
    }

    def prepare(videos):
        with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
            latents = codec.encode_videos(videos)
        return unit_scale(videos), latents.float()

    def draw(path):
        trained = Trained(run / "best.pt", device)
        videos = valid.evenly_spaced(figures.SHOWN).numpy()
        figures.save_strips(path, [trained], videos, context=args.seq_length // 2, seed=0)

    fit(model, train, valid, args, device, parents, prepare, draw)
    processes.say(f"{run}/best.pt: for sample_video.py and evaluate.py, with its painter")


if __name__ == "__main__":
    cli.run(main, flags())
