"""Turn films, animations and folders of them, or of pictures, into small frames: a video a shot, in three splits."""

import argparse
import os
from pathlib import Path

from data import footage, hdf5, movie, shots
from runtime import cli, limits
from runtime.errors import UserError

SIZES = hdf5.ATTRIBUTES["frame_size"]


def flags():
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "films",
        nargs="+",
        metavar="FILM",
        help="a film, or a folder of films, pictures or such folders",
    )
    parser.add_argument("--dest", default="data/movie.hdf5", help="the file to make")
    parser.add_argument(
        "--frame_size", type=hdf5.flag("frame_size"), default=64, help="short edge in pixels"
    )
    parser.add_argument(
        "--shape",
        type=shape,
        help="pixels, as 64x48; if not given: the narrowest film's at --frame_size",
    )
    parser.add_argument(
        "--grey",
        action=cli.Switch,
        default=False,
        help="one channel instead of red, green and blue",
    )
    fps = "frames a second; if not given: the average rate of the slowest film (of pictures without times: 24)"
    parser.add_argument("--fps", type=hdf5.flag("frame_rate"), help=fps)
    parser.add_argument(
        "--start", type=limits.real(0), default=0.0, help="seconds of each film to leave out"
    )
    parser.add_argument(
        "--end", type=limits.real(0, above=True), help="seconds; if not given: to each film's end"
    )
    parser.add_argument(
        "--crop_bars", action=cli.Switch, default=False, help="remove black bars at the edges"
    )
    cuts = "begin a video at each cut, see data/shots.py"
    parser.add_argument("--detect_cuts", action=cli.Switch, default=True, help=cuts)
    parser.add_argument(
        "--split", type=limits.shares, default="80/10/10", help="shares of train, valid and test"
    )
    by = f"""what is dealt to the splits: whole films, each film's shots, or what folders train, valid and test hold;
        auto: such folders if all films are in them; films if there are {footage.MANY}, or most are too short to divide;
        else shots"""
    parser.add_argument(
        "--split_by", choices=("auto", "film", "shot", "folder"), default="auto", help=by
    )
    lists = "a list of films by split, with lines such as: train walking/person01.avi; films not in it are left out"
    parser.add_argument("--split_file", metavar="FILE", help=lists)
    least = "drop shorter shots and films; of one frame, nothing can be predicted"
    parser.add_argument("--min_frames", type=limits.at_least(1), default=2, help=least)
    return parser


def shape(text):
    """An argparse type: WIDTHxHEIGHT, pixels."""
    sizes = text.lower().split("x")
    if len(sizes) != 2 or not all(size.isdecimal() and int(size) in SIZES for size in sizes):
        raise argparse.ArgumentTypeError(
            f"takes pixels from {SIZES[0]} to {SIZES[-1]} such as 64x48, not {text!r}"
        )
    return text


def main(args):
    if args.end is not None and args.end <= args.start:
        raise UserError(f"--end {args.end:g} is not after --start {args.start:g}: give a later one")
    if args.split_file and args.split_by != "auto":
        raise UserError(
            f"--split_file says where each film goes: leave out --split_by {args.split_by}"
        )
    hdf5.refuse_existing(args.dest)
    shares = [int(share) for share in args.split.split("/")]

    films, passed = footage.find(args.films)
    listed = footage.read_list(args.split_file, films) if args.split_file else films
    left_out = len(films) - len(listed)
    width, height = (
        map(int, args.shape.lower().split("x"))
        if args.shape
        else (args.frame_size, args.frame_size)
    )
    selection = args.fps, args.start, args.end, args.crop_bars
    films = footage.inspect_all(listed, passed, args.min_frames, (height, width), *selection)
    rate = movie.common_rate(films, args.fps)
    split_by = "file"
    if not args.split_file:
        split_by = footage.choose_splits(films, args.split_by, shares, rate, args.min_frames)
    height, width = (height, width) if args.shape else movie.common_shape(films)

    names = ",".join(Path(path).resolve().name for path in args.films)
    if len(os.fsencode(names)) > 1000:
        names = f"{Path(args.films[0]).resolve().name} and {len(args.films) - 1} others"
    about = {**vars(args), "films": names, "fps": rate, "end": max(film.end for film in films)}
    about |= {"frame_size": min(width, height), "shape": f"{width}x{height}"}
    about |= {"split_by": split_by, "split_file": args.split_file or ""}
    about |= {
        "source": names,
        "frame_rate": rate,
        "frame_skip": 3,
    }  # as in 2016, every third frame makes a sequence
    frame = (1 if args.grey else 3, height, width)
    counts = shots.write_films(
        args.dest, films, frame, rate, shares, args.detect_cuts, args.min_frames, about
    )

    footage.report(films, passed, left_out, (height, width))
    for split in ("train", "valid"):
        if not counts[split][1]:
            print(f"nothing in {split}: the scripts that train will want some")
    told = ", ".join(
        f"{frames} {split} frames (shots: {count})" for split, (frames, count) in counts.items()
    )
    print(f"{args.dest}: {told}, {width}x{height} pixels, {rate:.4g} a second")


if __name__ == "__main__":
    cli.run(main, flags())
