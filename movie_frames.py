"""Turn films, animations and folders of them, or of pictures, into small frames.

Each shot becomes a video, in one of three splits.
"""

import argparse
import os
from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

from data import footage, hdf5, movie, shots
from runtime import cli, limits
from runtime.errors import UserError

SIZES = hdf5.ATTRIBUTES["frame_size"]
MAX_NAMES = 1000  # bytes of the films' names, as the file's source
FRAME_SKIP = 3  # as in 2016, every third frame makes a sequence


def flags():
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    films = "a film, or a folder of films, pictures or such folders"
    add("films", nargs="+", metavar="FILM", help=films)
    add("--dest", default="data/movie.hdf5", help="the file to make")
    edge = "short edge in pixels"
    add("--frame_size", type=hdf5.flag("frame_size"), default=64, help=edge)
    narrowest = "pixels, as 64x48; if not given: the narrowest film's at --frame_size"
    add("--shape", type=shape, help=narrowest)
    grey = "one channel instead of red, green and blue"
    add("--grey", action=cli.Switch, default=False, help=grey)
    fps = """frames per second; if not given: the average rate of the slowest film
        (of pictures without times: 24)"""
    add("--fps", type=hdf5.flag("frame_rate"), help=fps)
    add("--start", type=limits.real(0), default=0.0, help="seconds of each film to leave out")
    add("--end", type=limits.real(0, above=True), help="seconds; if not given: to each film's end")
    add("--crop_bars", action=cli.Switch, default=False, help="remove black bars at the edges")
    cuts = "begin a video at each cut, see data/shots.py"
    add("--detect_cuts", action=cli.Switch, default=True, help=cuts)
    add("--split", type=limits.shares, default="80/10/10", help="shares of train, valid and test")
    by = (
        "what is dealt to the splits: whole films, each film's shots, or what folders train, valid "
        "and test hold; auto: such folders if all films are in them; films if there are "
        f"{footage.MANY}, or most are too short to divide; else shots"
    )
    add("--split_by", choices=("auto", "film", "shot", "folder"), default="auto", help=by)
    lists = """a list of films by split, with lines such as: train walking/person01.avi;
        films not in it are left out"""
    add("--split_file", metavar="FILE", help=lists)
    least = "drop shorter shots and films; of one frame, nothing can be predicted"
    add("--min_frames", type=limits.at_least(1), default=2, help=least)
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

    found, passed = footage.find(args.films)
    listed = footage.read_list(args.split_file, found) if args.split_file else found
    size = (args.frame_size, args.frame_size)
    if args.shape:
        width, height = map(int, args.shape.lower().split("x"))
        size = (height, width)
    selection = (args.fps, args.start, args.end, args.crop_bars)
    films = footage.inspect_all(listed, passed, args.min_frames, size, *selection)
    rate = movie.common_rate(films, args.fps)
    split_by = "file"
    if not args.split_file:
        split_by = footage.choose_splits(films, args.split_by, shares, rate, args.min_frames)
    if not args.shape:
        size = movie.common_shape(films)
    height, width = size

    names = name_films(args.films)
    attributes = {
        **vars(args),
        "films": names,
        "fps": rate,
        "end": max(film.end for film in films),
        "frame_size": min(size),
        "shape": f"{width}x{height}",
        "split_by": split_by,
        "split_file": args.split_file or "",
        "source": names,
        "frame_rate": rate,
        "frame_skip": FRAME_SKIP,
    }
    frame = (1 if args.grey else 3, height, width)
    counts = shots.write_films(
        args.dest, films, frame, rate, shares, args.detect_cuts, args.min_frames, attributes
    )
    footage.report(films, passed, len(found) - len(listed), size)
    report(args.dest, counts, f"{width}x{height} pixels, {rate:.4g} per second")


def name_films(paths):
    """The names of the films and folders, without their paths; only the first if they are many."""
    names = [Path(path).resolve().name for path in paths]
    joined = ",".join(names)
    if len(os.fsencode(joined)) > MAX_NAMES:
        return f"{names[0]} and {len(names) - 1} others"
    return joined


def report(dest, counts, form):
    """Print what was written. counts: {split: (frames, shots)}; form: of the frames, in words."""
    for split in ("train", "valid"):
        if not counts[split][1]:
            print(f"nothing in {split}: the scripts that train will want some")
    parts = [f"{frames} {split} frames (shots: {n})" for split, (frames, n) in counts.items()]
    print(f"{dest}: {', '.join(parts)}, {form}")


if __name__ == "__main__":
    cli.run(main, flags())
