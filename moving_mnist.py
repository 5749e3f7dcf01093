"""Make videos of bouncing MNIST digits, with labels and true positions, in three splits.

The splits share no digit.
"""

from functools import partial
from pathlib import Path

import runtime.environment  # noqa: F401 (before torch)

from data import bouncing, export, hdf5, mnist
from runtime import cli, limits
from runtime.errors import UserError

WRITERS = {
    "hdf5": hdf5.write_videos,
    "npz": export.write_npz,
    "jpg": partial(export.write_pictures, suffix="jpg"),
    "png": partial(export.write_pictures, suffix="png"),
}
FRAME_RATE = 10.0  # per second, when shown


def flags():
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    dest = "the file, or for pictures the folder, to make"
    add("--dest", default="data/moving_mnist.hdf5", help=dest)
    add("--filetype", choices=WRITERS, help="if not given: from the suffix of --dest")
    folder = 'folder of the IDX files, fetched if missing, or "sample": 12,000 packaged digits'
    add("--mnist", default="data/mnist", help=folder)
    physics = "how the digits move: see data/bouncing.py"
    add("--physics", choices=bouncing.PHYSICS, default="2016", help=physics)
    add("--frame_size", type=hdf5.flag("frame_size"), default=64, help="pixels")
    size = "digit size in pixels; if not given: 28, for svg 32"
    add("--num_sz", type=hdf5.flag("num_sz"), help=size)
    digits = "digits per video"
    add("--nums_per_image", type=hdf5.flag("nums_per_image"), default=1, help=digits)
    add("--seq_len", type=limits.at_least(1), default=60, help="frames per video")
    add("--seqs", type=limits.at_least(1), default=5000, help="videos in all")
    shares = "shares of the train, valid and test videos"
    add("--split", type=limits.shares, default="80/10/10", help=shares)
    add("--seed", type=limits.seed, default=0, help="video i depends on the seed and i alone")
    return parser


def main(args):
    suffix = Path(args.dest).suffix.lstrip(".")
    filetype = args.filetype or suffix
    if suffix in WRITERS and suffix != filetype:
        raise UserError(f"--dest {args.dest} is named {suffix}, not {filetype}: name another")
    if filetype not in WRITERS:
        suffixes = ", ".join(WRITERS)
        raise UserError(f"--dest {args.dest} has none of the suffixes {suffixes}: give --filetype")
    num_sz = args.num_sz or (32 if args.physics.startswith("svg") else 28)
    room = args.frame_size - num_sz
    needed = bouncing.ROOM[args.physics]
    if room < needed:
        raise UserError(
            f"--num_sz {num_sz} has {max(room, 0)} pixels of room in "
            f"--frame_size {args.frame_size}, and --physics {args.physics} needs {needed}: "
            "make the frame larger"
        )
    hdf5.refuse_existing(args.dest)

    digits = {}
    for split, (images, labels) in mnist.digits_by_split(args.mnist).items():
        digits[split] = (bouncing.resize(images, num_sz), labels)
    counts = count_videos(args.seqs, args.split)

    def make(split, videos):
        images, labels = digits[split]
        return bouncing.make_videos(
            images,
            labels,
            videos,
            seed=[args.seed, hdf5.SPLITS.index(split)],
            physics=args.physics,
            frame_size=args.frame_size,
            seq_len=args.seq_len,
            nums_per_image=args.nums_per_image,
        )

    attributes = {
        **vars(args),
        "filetype": filetype,
        "num_sz": num_sz,
        "source": "moving MNIST",
        "frame_rate": FRAME_RATE,
        "frame_skip": 1,
    }
    WRITERS[filetype](args.dest, counts, make, attributes)
    made = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{args.dest}: {made} videos of {args.seq_len} frames")


def count_videos(total, shares):
    """{split: number of videos}; shares: such as "80/10/10"."""
    train, valid, test = map(int, shares.split("/"))
    first_valid = round(total * train / (train + valid + test))
    first_test = round(total * (train + valid) / (train + valid + test))
    return {
        "train": first_valid,
        "valid": first_test - first_valid,
        "test": total - first_test,
    }


if __name__ == "__main__":
    cli.run(main, flags())
