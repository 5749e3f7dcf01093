"""Generated videos in forms that other tools read: one .npz, or a folder of pictures."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.hdf5 import CHUNK, refuse_existing


def write_npz(dest, counts, make, attributes):
    """Write `SPLIT_frames`, `SPLIT_starts`, `SPLIT_labels` and `SPLIT_positions` to an .npz, frames chunk by chunk.

    Arguments as of `hdf5.write_videos`; each attribute becomes an array of its own.
    """
    refuse_existing(dest)
    dest = Path(dest)
    dest.parent.mkdir(parents=True, exist_ok=True)
    partial = dest.with_name(dest.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w") as archive:

            def put(name, array):
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)

            for split, count in counts.items():
                empty = make(split, range(0))[0]
                steps, rest = empty.shape[1], []
                with archive.open(f"{split}_frames.npy", "w", force_zip64=True) as file:
                    shape = (count * steps, *empty.shape[2:])
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    for videos in chunks(count, split):
                        frames, *others = make(split, videos)
                        file.write(frames.tobytes())
                        rest.append(others)
                put(f"{split}_starts", np.arange(count + 1, dtype=np.int64) * steps)
                if rest:
                    put(f"{split}_labels", np.concatenate([labels for labels, _ in rest]))
                    put(f"{split}_positions", np.concatenate([p.reshape(-1, *p.shape[2:]) for _, p in rest]))
            for name, value in attributes.items():
                put(name, value)
        partial.rename(dest)
    finally:
        partial.unlink(missing_ok=True)


def write_pictures(dest, counts, make, attributes, suffix):
    """Write `DEST/SPLIT/VIDEO/FRAME.suffix`, and beside the videos of a split `truth.npz` (labels, positions).

    Arguments as of `hdf5.write_videos`; suffix: "jpg" or "png".
    """
    refuse_existing(dest)
    partial = Path(f"{dest}.part")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left under the temporary name
    partial.mkdir(parents=True)
    np.savez(partial / "about.npz", **attributes)
    for split, count in counts.items():
        truth = []
        for videos in chunks(count, split):
            frames, labels, positions = make(split, videos)
            truth.append((labels, positions))
            for v, video in zip(videos, frames, strict=True):
                folder = partial / split / f"{v:06d}"
                folder.mkdir(parents=True)
                for t, frame in enumerate(video):
                    Image.fromarray(frame[0]).save(folder / f"{t:04d}.{suffix}", quality=95)
        if truth:
            labels, positions = (np.concatenate(arrays) for arrays in zip(*truth, strict=True))
            np.savez(partial / split / "truth.npz", labels=labels, positions=positions)
    partial.rename(dest)


def chunks(count, split):
    """Ranges of CHUNK videos that cover `count`, under a progress bar."""
    for first in tqdm(range(0, count, CHUNK), desc=f"{split} videos", unit=f"{CHUNK} videos", disable=None):
        yield range(first, min(first + CHUNK, count))
