"""Render held-out videos, or a film, beside what is predicted from their first frames."""

from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

import torch
from tqdm import tqdm

from data.hdf5 import SPLITS
from data.pictures import save_comparison, save_plain
from evaluation.shown import FILM_CONTEXT, MAX_CONTEXT, of_film, of_split, open_frames
from evaluation.tables import print_errors
from runtime import cli, files, limits
from runtime.device import choose_device, fast_bfloat16
from runtime.errors import UserError
from training.trained import Trained

PRETRAINED = Path(__file__).parent / "pretrained" / "film" / "lstm.pt"
HORIZON = 30  # frames predicted, if --horizon is not given
FILM_HORIZON = 10  # the same of --film: as far ahead as the pretrained networks were trained
SLOWEST = 0.01  # frames per second: a GIF knows no longer delays


def flags():
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    model = """checkpoint of train_lstm.py or, of a film, train_jointly.py; names codec and frames;
        if not given: runs/lstm/best.pt, or with --film pretrained/film/lstm.pt"""
    add("--model", help=model)
    add("--data_file", help="frames; if not given: those the model was trained on")
    add("--split", choices=SPLITS, default="test", help="where the videos are from")
    add("--film", help="a film, animation or folder of pictures to continue, instead of frames")
    start = "second of --film to begin at; if not given: its last frames are fed in"
    add("--start", type=limits.real(0), help=start)
    context = f"""frames fed in; if not given: half of the median video, at most {MAX_CONTEXT}; of
        --film {FILM_CONTEXT}"""
    add("--context", "--prime", type=limits.at_least(1), help=context)
    horizon = f"frames predicted after them; if not given: {HORIZON}, of --film {FILM_HORIZON}"
    add("--horizon", "--predict", type=limits.at_least(1), help=horizon)
    add("--n", type=limits.at_least(1), default=8, help="videos")
    add("--dest", help="folder; if not given: picture_output/NAME_OF_THE_RUN")
    add("--format", choices=("gif", "mp4", "png"), default="gif", help="png: a sheet of all frames")
    plain = "the prediction alone, as the original had it"
    add("--plain", action=cli.Switch, default=False, help=plain)
    temperature = "of samples of --loss mdn; if not given: its mean"
    add("--temperature", type=limits.real(0), help=temperature)
    restored = """undo what the codec loses: add its loss of the last true frame; slots: after the
        frames fed in, draw objects as those show them"""
    add("--restore", action=cli.Switch, default=False, help=restored)
    fps = "frames per second (a GIF shows at most 50); if not given: as the data says"
    add("--fps", type=limits.real(0, 1000, above=True), help=fps)
    add("--scale", type=limits.at_least(1), default=3, help="screen pixels per pixel")
    add("--seed", type=limits.seed, default=0, help="of the choice of videos and of samples")
    add("--device", help="if not given: cuda, else mps, else cpu")
    amp = "predict and paint in bfloat16; if not given: where the hardware is fast at it"
    add("--amp", action=cli.Switch, help=amp)
    return parser


def main(args):
    if args.film and args.data_file:
        raise UserError("--film and --data_file are two sources of frames: leave one out")
    if args.start is not None and not args.film:
        raise UserError("--start is a second of a --film: name that, too, or leave it out")
    device = choose_device(args.device)
    model = Trained(args.model or (PRETRAINED if args.film else "runs/lstm/best.pt"), device)
    torch.manual_seed(args.seed)
    if args.temperature is not None:
        model.require_mixture("--temperature")
    if args.film and model.codec.has_slots:
        raise UserError(f"--film: {model.name} predicts objects in slots; take a film's model")
    if args.restore and model.film:
        raise UserError(f"--restore: {model.name} paints upon the last true frame; leave it out")
    horizon = args.horizon or (FILM_HORIZON if args.film else HORIZON)
    if args.film:
        shown = of_film(args.film, args.start, model, args.context, horizon)
    else:
        frames = open_frames(args.data_file, args.split, model)
        shown = of_split(frames, model.skip, args.context, horizon, args.n, args.seed)
    dest = Path(args.dest or Path("picture_output") / Path(model.name).resolve().parent.name)
    files.writable_folder(dest)

    context = torch.stack([video[: shown.length] for video in shown.truth])  # (V, T, C, H, W)
    amp = fast_bfloat16(device) if args.amp is None else args.amp
    predicted, reconstructed = model.rollout(context, horizon, args.temperature, amp, args.restore)

    fps = max(args.fps or shown.rate, SLOWEST)
    videos = zip(
        tqdm(shown.names, desc="videos", disable=None), shown.truth, predicted, strict=True
    )
    for name, true, video in videos:
        target = dest / f"{name}.{args.format}"
        if args.plain:
            save_plain(target, video, fps, args.scale)
        else:
            save_comparison(target, true, video, shown.length, fps, args.scale)

    place = dest if len(shown.names) > 1 else target
    restored = "free-running frames" if model.codec.has_slots else "what is predicted"
    how = f", {restored} restored" if args.restore else ""
    print(f"{place}: {shown.source}, {shown.length} frames fed in{how}; squared error per frame:")
    print_errors(shown.truth, context, predicted, reconstructed)


if __name__ == "__main__":
    cli.run(main, flags())
