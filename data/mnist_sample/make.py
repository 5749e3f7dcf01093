"""Draw the packaged digits from MNIST: at random with a fixed seed, every class equally often in
every split, shuffled.

python -m data.mnist_sample.make data/mnist
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from data.mnist import SAMPLE, digits_by_split

# Drawn from the split of the same name, so that a digit is for training, validation or test in both
# sets alike.
COUNT = {"train": 9000, "valid": 1000, "test": 2000}


def draw(images, labels, count, rng):
    """`count` of the digits, a tenth of them of each class, in random order."""
    picked = [
        rng.permutation(np.flatnonzero(labels == digit))[: count // 10] for digit in range(10)
    ]
    picked = rng.permutation(np.concatenate(picked))
    return images[picked], labels[picked]


def write_idx(path, array):
    """Write a uint8 array as a gzipped IDX file, the same bytes every time."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), 9, mtime=0))


def main(folder):
    rng, digits = np.random.default_rng(0), digits_by_split(folder)
    drawn = {split: draw(*digits[split], count, rng) for split, count in COUNT.items()}
    # The last tenth of the training file is for validation, as in MNIST itself.
    images, labels = (
        np.concatenate(pair) for pair in zip(drawn["train"], drawn["valid"], strict=True)
    )
    write_idx(SAMPLE / "train-images-idx3-ubyte.gz", images)
    write_idx(SAMPLE / "train-labels-idx1-ubyte.gz", labels)
    write_idx(SAMPLE / "t10k-images-idx3-ubyte.gz", drawn["test"][0])
    write_idx(SAMPLE / "t10k-labels-idx1-ubyte.gz", drawn["test"][1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
