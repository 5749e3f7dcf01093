"""Train an LSTM and its autoencoder together, on the pixels of free-running frames.

The videos are generated on the fly.
"""

from pathlib import Path

from data.generated import GeneratedVideos
from models.codec import unit_scale
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
from training.trained import load_parent


def flags():
    parser = Parser(
        __doc__, Joint, save_to="runs/joint", batch_size=32, num_epochs=Steps(1000), lr=1e-3,
        schedule="cosine",
    )  # fmt: skip
    add = parser.add_argument
    lstm = "checkpoint of train_lstm.py to begin from"
    add("--lstm", default="runs/lstm/best.pt", help=lstm)
    add("--seq_length", type=limits.at_least(3), default=21, help="frames per video")
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
    if args.rollout > args.seq_length - 2:
        raise UserError(
            f"--rollout {args.rollout} leaves no context in --seq_length {args.seq_length}: lower "
            "it"
        )
    codec = load_parent(content, args.lstm, "codec", VCAE)
    frames = checkpoint.parent_path(args.lstm, content, "frames")
    train = GeneratedVideos(frames, "train", args.seq_length, args.seed)
    valid = GeneratedVideos(frames, "valid", args.seq_length, args.seed)
    device = start(args)
    run = Path(args.save_to)

    model = new_network(
        Joint, device, codec["config"], content["config"] | {"free": args.rollout}, args.shown
    )
    model.vcae.load_state_dict(codec["model"])
    model.lstm.load_state_dict(content["model"])
    fit(model, train, valid, args, device, {}, prepare=lambda videos: (unit_scale(videos),))
    if processes.rank() == 0:
        save_apart(run, content["args"]["frame_skip"], frames)


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


if __name__ == "__main__":
    cli.run(main, flags())
