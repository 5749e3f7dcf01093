"""Generated videos in forms that other tools read: one .npz, or a folder of pictures."""

import zipfile

import numpy as np
from PIL import Image

from data.hdf5 import chunks, refuse_existing
from runtime import files

QUALITY = 95  # of a JPEG


def write_npz(dest, counts, make, attributes):
    """Write `SPLIT_frames`, `_starts`, `_labels` and `_positions` to an .npz, in chunks.

    Arguments as for `hdf5.write_videos`; each attribute becomes an array of its own.
    """
    refuse_existing(dest)
    with files.atomic_write(dest) as tmp, zipfile.ZipFile(tmp, "w") as archive:

        def put(name, array):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)

        for split, count in counts.items():
            frames, labels, positions = make(split, range(0))
            steps = frames.shape[1]
            labels = np.empty((count, *labels.shape[1:]), labels.dtype)
            positions = np.empty((count, *positions.shape[1:]), positions.dtype)
            with archive.open(f"{split}_frames.npy", "w", force_zip64=True) as file:
                shape = (count * steps, *frames.shape[2:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for videos in chunks(count, split):
                    made = slice(videos.start, videos.stop)
                    frames, labels[made], positions[made] = make(split, videos)
                    file.write(frames.tobytes())
            put(f"{split}_starts", np.arange(count + 1, dtype=np.int64) * steps)
            put(f"{split}_labels", labels)
            rows = positions.reshape(-1, *positions.shape[2:])  # (V*T, D, 2)
            put(f"{split}_positions", rows)
        for name, value in attributes.items():
            put(name, value)


def write_pictures(dest, counts, make, attributes, suffix):
    """Write `DEST/SPLIT/VIDEO/FRAME.suffix`, and each split's labels and positions in `truth.npz`.

    Arguments as for `hdf5.write_videos`; suffix: "jpg" or "png".
    """
    refuse_existing(dest)
    with files.atomic_folder(dest) as tmp:
        np.savez(tmp / "about.npz", **attributes)
        for split, count in counts.items():
            _, labels, positions = make(split, range(0))
            labels = np.empty((count, *labels.shape[1:]), labels.dtype)
            positions = np.empty((count, *positions.shape[1:]), positions.dtype)
            for videos in chunks(count, split):
                made = slice(videos.start, videos.stop)
                frames, labels[made], positions[made] = make(split, videos)
                for v, video in zip(videos, frames, strict=True):
                    folder = tmp / split / f"{v:06d}"
                    folder.mkdir(parents=True)
                    for t, frame in enumerate(video):
                        path = folder / f"{t:04d}.{suffix}"
                        Image.fromarray(frame[0]).save(path, quality=QUALITY)
            if count:
                np.savez(tmp / split / "truth.npz", labels=labels, positions=positions)
