"""MNIST's digits: the IDX files of a folder are read, and fetched if they are missing."""

import gzip
import hashlib
import http.client
import math
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runtime import files
from runtime.errors import UserError

TIMEOUT = 30  # seconds
LIMIT = 2**28  # bytes of an unpacked file; MNIST's largest has 47 MB
IDX_MAGIC = 4  # bytes
IDX_AXIS = 4  # bytes
SAMPLE = Path(__file__).parent / "mnist_sample"
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# SHA-256 of each file's unpacked content: mirrors may have compressed it differently.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def digits_by_split(folder, fetch=True):
    """The digits that each split may use; no two splits share an image.

    folder: the IDX files, gzipped or not; missing ones are fetched, unless a file that may come
    from anywhere named the folder (`fetch` is False). "sample" names the 12,000 packaged digits.
    Returns {split: (images, labels)}: images (n, 28, 28) uint8, labels (n,) uint8. The test split
    has MNIST's test set; the validation split has the last tenth of MNIST's training set, the train
    split the rest. Raises UserError if a file is damaged or cannot be fetched.
    """
    folder = SAMPLE if str(folder) == "sample" else Path(folder)
    if folder != SAMPLE and fetch:
        fetch_missing(folder)
    images, labels = read_pair(folder, "train")
    test = read_pair(folder, "t10k")
    cut = len(images) - len(images) // 10
    if not len(test[0]) or cut == len(images):
        raise UserError(
            f"{folder} has too few digits: {len(images)} to train, {len(test[0])} to test"
        )
    return {
        "train": (images[:cut], labels[:cut]),
        "valid": (images[cut:], labels[cut:]),
        "test": test,
    }


def read_pair(folder, part):
    """Images (n, 28, 28) and labels (n,), uint8, of one part ("train" or "t10k") of the folder."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte")
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise UserError(
            f"{folder}: {part} images {images.shape} and labels {labels.shape} do not belong "
            "together"
        )
    return images, labels


def read_idx(path):
    """The array in an IDX file of bytes, which may have any of the names that `found` knows."""
    path = found(path) or Path(path).with_name(Path(path).name + ".gz")
    if not path.exists():
        raise UserError(
            f"{path} is not there; moving_mnist.py fetches it with --mnist {path.parent}"
        )
    open_any = gzip.open if path.suffix == ".gz" else open
    try:
        with open_any(path, "rb") as file:
            content = file.read(LIMIT + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise UserError(f"{path} is damaged; delete it and it will be fetched again") from None
    shape = idx_shape(content)
    header = IDX_MAGIC + IDX_AXIS * len(shape)
    if not shape or len(content) != header + math.prod(shape):
        raise UserError(
            f"{path} is not a complete IDX file of bytes; delete it and it will be fetched again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def idx_shape(content):
    """The shape that the header of an IDX file of bytes states; () if it is none.

    The header is two zero bytes, 8 for uint8, the number of axes, then a big-endian int32 per axis.
    """
    if len(content) < IDX_MAGIC or content[:3] != b"\0\0\x08" or content[3] not in (1, 2, 3):
        return ()
    axes = content[IDX_MAGIC : IDX_MAGIC + IDX_AXIS * content[3]]
    if len(axes) < IDX_AXIS * content[3]:
        return ()
    shape = tuple(np.frombuffer(axes, ">i4").tolist())
    return shape if min(shape) >= 0 else ()


def found(path):
    """The file at `path`, gzipped or not, or None. Some programs unpack `-idx` as `.idx`."""
    path = Path(path)
    names = (path.name, path.name.replace("-idx", ".idx"))
    places = (path.with_name(name + suffix) for name in names for suffix in ("", ".gz"))
    return next((place for place in places if place.is_file()), None)


def fetch_missing(folder, mirrors=MIRRORS):
    """Fetch the files that `folder` lacks from the first mirror that serves them.

    A file appears under its name only when its content has the right SHA-256; an interrupted
    download continues where it stopped. Raises UserError, with the way out, if no mirror serves a
    file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--mnist {folder} is a file: name the folder that holds MNIST's files")
    for name, digest in SHA256.items():
        target = folder / f"{name}.gz"
        if found(folder / name):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        reasons = []
        busy = f"{target} is being fetched by another process: wait for it"
        for mirror in mirrors:
            # Named after the mirror: another one may have compressed the file differently.
            tmp = target.with_name(f"{name}.{urllib.parse.urlsplit(mirror).hostname}.part")
            try:
                with files.lock(tmp, busy):
                    download(mirror + target.name, tmp)
                with gzip.open(tmp) as file:
                    content = file.read(LIMIT)
            except urllib.error.HTTPError as error:
                reasons.append(f"{mirror} answers {error.code}")
            except (EOFError, gzip.BadGzipFile, zlib.error):
                reasons.append(f"{mirror} sent a damaged file")
                tmp.unlink()
            except (OSError, http.client.HTTPException) as error:
                reasons.append(f"{mirror} cannot be reached ({getattr(error, 'reason', error)})")
            else:
                if hashlib.sha256(content).hexdigest() == digest:
                    files.to_disk(tmp)
                    tmp.rename(target)
                    break
                reasons.append(f"{mirror} sent other content")
                tmp.unlink()
        else:
            raise UserError(
                f"cannot fetch {target.name} into {folder} ({'; '.join(reasons)}): "
                f"put MNIST's files there ({', '.join(SHA256)}, gzipped or not), "
                "or use the packaged digits with --mnist sample"
            )


def download(url, path):
    """Download `url` to `path`, or the rest of it if a download was interrupted.

    Raises OSError if the server cannot be reached or the connection breaks off.
    """
    have = path.stat().st_size if path.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing lies beyond what we have: it is complete
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        kept = have if resumed else 0
        size = kept + int(response.headers.get("Content-Length", 0))
        progress = {
            "total": size or None,
            "initial": kept,
            "desc": path.name,
            "disable": None,
        }
        with (
            open(path, "ab" if resumed else "wb") as file,
            tqdm.wrapattr(file, "write", **progress) as bar,
        ):
            shutil.copyfileobj(response, bar)
    if path.stat().st_size < size:
        raise OSError("the connection broke off")
