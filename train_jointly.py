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
        __doc__,
        Joint,
        save_to="runs/joint",
        batch_size=32,
        num_epochs=Steps(1000),
        lr=1e-3,
        schedule="cosine",
    )
    parser.add_argument(
        "--lstm", default="runs/lstm/best.pt", help="checkpoint of train_lstm.py to begin from"
    )
    parser.add_argument("--seq_length", type=limits.at_least(3), default=21, help="frames a video")
    parser.add_argument(
        "--rollout",
        type=limits.at_least(0),
        default=10,
        help="last frames of it predicted in free running",
    )
    parser.add_argument(
        "--shown",
        type=checkpoint.flag("shown"),
        default=4,
        help="predicted frames painted of each video",
    )
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
    train, valid = (
        GeneratedVideos(frames, split, args.seq_length, args.seed) for split in ("train", "valid")
    )
    device = start(args)
    run = Path(args.save_to)

    model = new_network(
        Joint, device, codec["config"], content["config"] | {"free": args.rollout}, args.shown
    )
    model.vcae.load_state_dict(codec["model"])
    model.lstm.load_state_dict(content["model"])
    fit(model, train, valid, args, device, {}, prepare=lambda videos: (unit_scale(videos),))
    if processes.rank():
        return

    # Apart again, as the checkpoints that later stages know.
    best = checkpoint.load(run / "best.pt", Joint)
    model = checkpoint.build(best, Joint)
    about = {**best["args"], "frame_skip": content["args"]["frame_skip"]}
    checkpoint.save(run / "vcae.pt", model.vcae, about, best["history"], {})
    parents = {
        "codec": checkpoint.parent(run / "vcae.pt", checkpoint.load(run / "vcae.pt", VCAE), run)
    }
    parents["frames"] = {"path": files.relative(frames, run)}
    checkpoint.save(run / "lstm.pt", model.lstm, about, best["history"], parents)
    print(
        f"{run}/lstm.pt: the LSTM for sample_video.py and evaluate.py, with its autoencoder "
        f"{run}/vcae.pt"
    )


if __name__ == "__main__":
    cli.run(main, flags())
