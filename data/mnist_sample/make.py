"""Select the packaged digits from MNIST: of each part the first digits of every class, equally many, in MNIST's order.

python -m data.mnist_sample.make data/mnist
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from data.mnist import SAMPLE, read_pair

COUNT = {"train": 10000, "t10k": 2000}


def write_idx(path, array):
    """Write a uint8 array as a gzipped IDX file, the same bytes every time."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), 9, mtime=0))


def main(folder):
    for part, count in COUNT.items():
        images, labels = read_pair(folder, part)
        picked = np.sort(np.concatenate([np.flatnonzero(labels == digit)[: count // 10] for digit in range(10)]))
        write_idx(SAMPLE / f"{part}-images-idx3-ubyte.gz", images[picked])
        write_idx(SAMPLE / f"{part}-labels-idx1-ubyte.gz", labels[picked])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
