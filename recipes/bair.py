"""Make one file of videos from the TFRecord files of BAIR robot pushing (Ebert et al. 2017).

python -m recipes.bair softmotion30_44k reads FOLDER/train/*.tfrecords and FOLDER/test/*.tfrecords.
TensorFlow is not needed. The last twentieth of the training files becomes the validation split. Of
the two cameras it takes `image_aux1`, as papers do.
"""

import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import hdf5
from data.movie import natural
from runtime import cli
from runtime.errors import UserError

LENGTH = 30  # frames of a video
SHAPE = (64, 64, 3)  # of a frame
IMAGE = "{}/image_aux1/encoded"  # the name of frame number {}; "encoded", and yet plain bytes
RATE = 10.0  # frames per second at which GIFs show them: the files state none
HEADER = 12  # bytes before a record: its length, and a checksum of that
FOOTER = 4  # bytes after it: a checksum
WITH_LENGTH = 2  # the wire type of a field that has its length before it


def flags():
    parser = cli.Parser(__doc__)
    parser.add_argument("folder", help="softmotion30_44k, as it is in the archive")
    parser.add_argument("--dest", default="data/bair.hdf5", help="the file to make")
    return parser


def main(args):
    hdf5.refuse_existing(args.dest)
    known = find(args.folder, "train")
    held_out = max(1, len(known) // 20)
    if held_out == len(known):
        raise UserError(f"{args.folder}/train has one file: one for training, one for validation")
    paths = {
        "train": known[:-held_out],
        "valid": known[-held_out:],
        "test": find(args.folder, "test"),
    }
    splits = {split: [r for path in paths[split] for r in records(path)] for split in paths}
    attributes = {"source": "BAIR robot pushing", "frame_rate": RATE, "frame_skip": 1}
    with hdf5.create(args.dest, "frames", attributes) as file:
        for split, found in splits.items():
            height, width, channels = SHAPE
            group = file.create_group(split)
            group["starts"] = LENGTH * np.arange(len(found) + 1)
            shape = (LENGTH * len(found), channels, height, width)
            frames = group.create_dataset("frames", shape, np.uint8)
            for v, record in enumerate(tqdm(found, desc=split, unit="video", disable=None)):
                frames[v * LENGTH : (v + 1) * LENGTH] = read_video(*record)
    counts = ", ".join(f"{len(found)} {split}" for split, found in splits.items())
    print(f"{args.dest}: {counts} videos of {LENGTH} frames")


def find(folder, split):
    """The files of a split, in natural order. Raises UserError if there are none."""
    paths = sorted(Path(folder, split).glob("*.tfrecords"), key=natural)
    if not paths:
        raise UserError(f"{folder}/{split} has no *.tfrecords: name the folder softmotion30_44k")
    return paths


def records(path):
    """Yield (path, offset, length in bytes) of each record of a TFRecord file."""
    end = path.stat().st_size
    with open(path, "rb") as file:
        while (start := file.tell()) < end:
            header = file.read(HEADER)
            length = int.from_bytes(header[:8], "little")
            if start + HEADER + length + FOOTER > end:
                raise UserError(f"{path} is cut short, or no TFRecord file: fetch it again")
            yield path, start + HEADER, length
            file.seek(length + FOOTER, os.SEEK_CUR)


def read_video(path, offset, length):
    """The frames of a record, (LENGTH, channels, height, width) uint8.

    A record is a message tf.train.Example. It holds Features, and they a map from names to
    Feature, which holds a BytesList here.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        example = memoryview(file.read(length))
    try:
        entries = [dict(fields(entry)) for _, entry in fields(dict(fields(example))[1])]
        features = {bytes(entry[1]).decode(): entry[2] for entry in entries}
        pixels = [features[IMAGE.format(t)] for t in range(LENGTH)]
        pixels = [dict(fields(dict(fields(feature))[1]))[1] for feature in pixels]
        frames = np.stack([np.frombuffer(image, np.uint8).reshape(SHAPE) for image in pixels])
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{path} is not as BAIR's are ({error!r:.100}): fetch it again") from None
    return frames.transpose(0, 3, 1, 2)  # (LENGTH, channels, height, width)


def fields(message):
    """Yield (number, content) of a protocol buffer whose fields have their lengths before them."""
    position = 0
    while position < len(message):
        tag, position = varint(message, position)
        if tag & 7 != WITH_LENGTH:
            raise ValueError(f"a field of wire type {tag & 7}")
        length, position = varint(message, position)
        yield tag >> 3, message[position : position + length]
        position += length


def varint(message, position):
    """An integer of seven bits per byte, lowest first, and the position after it."""
    value = 0
    shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


if __name__ == "__main__":
    cli.run(main, flags())
