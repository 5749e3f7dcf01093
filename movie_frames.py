"""Turn films, or folders of pictures, into small frames: one video a shot, split into train, valid and test by time."""

from pathlib import Path

import cli
from data import hdf5, movie


def flags():
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "films", nargs="+", metavar="FILM", help="a file that ffmpeg reads, or a folder of pictures in natural order"
    )
    parser.add_argument("--dest", default="data/movie.hdf5", help="the file to make")
    parser.add_argument("--frame_size", type=cli.whole(2), default=64, help="short edge in pixels")
    parser.add_argument(
        "--fps",
        type=cli.real(0, above=True),
        help="frames a second; if not given: the average rate of the slowest film, for a folder 24",
    )
    parser.add_argument("--start", type=cli.real(0), default=0.0, help="seconds of each film to leave out")
    parser.add_argument("--end", type=cli.real(0, above=True), help="seconds; if not given: to each film's end")
    parser.add_argument("--crop_bars", action=cli.Switch, default=False, help="remove black bars at the edges")
    parser.add_argument(
        "--detect_cuts", action=cli.Switch, default=True, help="begin a video at each cut, see data/movie.py"
    )
    parser.add_argument(
        "--split", type=cli.shares, default="80/10/10", help="shares of each film for train, valid and test"
    )
    parser.add_argument(
        "--min_frames", type=cli.whole(1), default=2, help="drop shorter shots; of one frame, nothing can be predicted"
    )
    return parser


def main(args):
    if args.end is not None and args.end <= args.start:
        raise cli.UserError(f"--end {args.end:g} is not after --start {args.start:g}: give a later one")
    hdf5.refuse_existing(args.dest)

    films = [
        movie.inspect(path, args.frame_size, args.fps, args.start, args.end, args.crop_bars) for path in args.films
    ]
    rate, (height, width) = movie.common_rate(films, args.fps), movie.common_shape(films)

    names = ",".join(Path(path).resolve().name for path in args.films)
    about = {**vars(args), "films": names, "fps": rate, "end": max(film.end for film in films)}
    about |= {"source": names, "frame_rate": rate, "frame_skip": 3}  # as in 2016, every third frame makes a sequence
    shares = [int(share) for share in args.split.split("/")]
    counts = movie.write_films(args.dest, films, rate, shares, args.detect_cuts, args.min_frames, about)

    for film in films:
        if film.damaged:
            print(f"{film.path} is damaged or cut short: the {film.frames} frames that decode are kept")
    told = ", ".join(f"{frames} {split} frames (shots: {shots})" for split, (frames, shots) in counts.items())
    print(f"{args.dest}: {told}, {width}x{height} pixels, {rate:.4g} a second")


if __name__ == "__main__":
    cli.run(main, flags())
