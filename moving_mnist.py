"""Make videos of bouncing MNIST digits, with labels and true positions, in three splits that share no digit."""

from functools import partial
from pathlib import Path

from data import bouncing, export, hdf5, mnist
from runtime import cli, limits
from runtime.errors import UserError

WRITERS = {
    "hdf5": hdf5.write_videos,
    "npz": export.write_npz,
    "jpg": partial(export.write_pictures, suffix="jpg"),
    "png": partial(export.write_pictures, suffix="png"),
}


def flags():
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--dest",
        default="data/moving_mnist.hdf5",
        help="the file, or for pictures the folder, to make",
    )
    parser.add_argument(
        "--filetype", choices=WRITERS, help="if not given: from the suffix of --dest"
    )
    parser.add_argument(
        "--mnist",
        default="data/mnist",
        help='folder of the IDX files, fetched if missing, or "sample": 12,000 packaged digits',
    )
    parser.add_argument(
        "--physics",
        choices=bouncing.PHYSICS,
        default="2016",
        help="how the digits move: see data/bouncing.py",
    )
    parser.add_argument("--frame_size", type=hdf5.flag("frame_size"), default=64, help="pixels")
    parser.add_argument(
        "--num_sz",
        type=hdf5.flag("num_sz"),
        help="digit size in pixels; if not given: 28, for svg 32",
    )
    parser.add_argument(
        "--nums_per_image", type=hdf5.flag("nums_per_image"), default=1, help="digits a video"
    )
    parser.add_argument("--seq_len", type=limits.at_least(1), default=60, help="frames a video")
    parser.add_argument("--seqs", type=limits.at_least(1), default=5000, help="videos in all")
    parser.add_argument(
        "--split",
        type=limits.shares,
        default="80/10/10",
        help="shares of the train, valid and test videos",
    )
    parser.add_argument(
        "--seed", type=limits.seed, default=0, help="video i depends on the seed and i alone"
    )
    return parser


def main(args):
    filetype = args.filetype or Path(args.dest).suffix.lstrip(".")
    if filetype not in WRITERS:
        raise UserError(
            f"--dest {args.dest} has none of the suffixes {', '.join(WRITERS)}: give --filetype"
        )
    num_sz = args.num_sz or (32 if args.physics.startswith("svg") else 28)
    room, least = args.frame_size - num_sz, bouncing.ROOM[args.physics]
    if room < least:
        raise UserError(
            f"--num_sz {num_sz} has {max(room, 0)} pixels of room in --frame_size {args.frame_size}, "
            f"and --physics {args.physics} needs {least}: make the frame larger"
        )
    hdf5.refuse_existing(args.dest)

    digits = mnist.digits_by_split(args.mnist)
    digits = {
        split: (bouncing.resize(images, num_sz), labels)
        for split, (images, labels) in digits.items()
    }

    train, valid, test = map(int, args.split.split("/"))
    first_valid, first_test = (
        round(args.seqs * s / (train + valid + test)) for s in (train, train + valid)
    )
    counts = {
        "train": first_valid,
        "valid": first_test - first_valid,
        "test": args.seqs - first_test,
    }

    def make(split, videos):
        return bouncing.make_videos(
            *digits[split], videos, seed=[args.seed, hdf5.SPLITS.index(split)], physics=args.physics,
            frame_size=args.frame_size, seq_len=args.seq_len, nums_per_image=args.nums_per_image,
        )  # fmt: skip

    about = {
        **vars(args),
        "filetype": filetype,
        "num_sz": num_sz,
        "source": "moving MNIST",
        "frame_rate": 10.0,
        "frame_skip": 1,
    }
    WRITERS[filetype](args.dest, counts, make, about)
    print(
        f"{args.dest}: {', '.join(f'{n} {split}' for split, n in counts.items())} videos of {args.seq_len} frames"
    )


if __name__ == "__main__":
    cli.run(main, flags())
