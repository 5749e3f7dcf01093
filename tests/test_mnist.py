"""MNIST's files: the packaged selection, damaged files, and downloads that break and go on."""

import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest

from data import mnist
from runtime.errors import UserError

# Mean energy of MNIST's digits, the sum of squared pixels in [0, 1], in the same three splits.
ENERGY = {"train": 87.86, "valid": 87.37, "test": 89.34}


def test_packaged_digits_are_like_mnist():
    """Every class equally often in every split, none twice, the energy within 2 %, and in no order."""
    digits = mnist.digits_by_split("sample")
    assert {split: len(images) for split, (images, _) in digits.items()} == {
        "train": 9000,
        "valid": 1000,
        "test": 2000,
    }
    for split, (images, labels) in digits.items():
        assert np.bincount(labels, minlength=10) == pytest.approx(len(labels) / 10, rel=0.1), split
        energy = np.square(images / 255).sum((1, 2)).mean()
        assert energy == pytest.approx(ENERGY[split], rel=0.02), split
        same = (labels[1:] == labels[:-1]).mean()
        assert 0.05 < same < 0.15, "neighbours share their class one time in ten"
    hashes = [image.tobytes() for images, _ in digits.values() for image in images]
    assert len(set(hashes)) == len(hashes)
    assert sum(path.stat().st_size for path in mnist.SAMPLE.iterdir() if path.is_file()) < 2.5e6


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_gzipped_or_not(tmp_path, suffix):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = idx(array)
    (tmp_path / f"x{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    assert np.array_equal(mnist.read_idx(tmp_path / "x"), array)


@pytest.mark.parametrize("name", ["train-images.idx3-ubyte", "train-images.idx3-ubyte.gz"])
def test_a_dot_in_the_name(tmp_path, name):
    """As some programs unpack them, and nothing is fetched then."""
    content = idx(np.zeros((2, 28, 28), np.uint8))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (tmp_path / "train-images-idx3-ubyte").mkdir()  # some archives have folders of these names
    for other in mnist.SHA256.keys() - {"train-images-idx3-ubyte"}:
        (tmp_path / other.replace("-idx", ".idx")).touch()
    mnist.fetch_missing(tmp_path, mirrors=())
    assert mnist.read_idx(tmp_path / "train-images-idx3-ubyte").shape == (2, 28, 28)


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-1], lambda c: c[:3], lambda c: b"\1" + c[1:], lambda c: b"", lambda c: c * 2],
)
def test_damaged_idx_is_refused(tmp_path, damage):
    (tmp_path / "x").write_bytes(damage(idx(np.zeros((2, 3), np.uint8))))
    with pytest.raises(UserError, match="IDX"):
        mnist.read_idx(tmp_path / "x")


def test_truncated_gzip_is_refused(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx(np.zeros((50, 60), np.uint8)))[:-9])
    with pytest.raises(UserError, match="damaged"):
        mnist.read_idx(tmp_path / "x")


@pytest.fixture
def mirror(monkeypatch):
    """A web server on this machine with two small files; `asked` records the Range of each request."""
    rng = np.random.default_rng(0)
    content = {f"{name}.gz": gzip.compress(rng.bytes(5000)) for name in ("a", "b")}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Range")))
            body = content.get(self.path.split("/")[-1])
            if body is None or self.path.startswith("/gone"):
                self.send_error(404)
                return
            if self.path.startswith("/breaks"):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:777])
                return
            if self.path.startswith("/corrupt"):
                body = gzip.compress(b"something else")
            first = int(self.headers.get("Range", "bytes=0-")[6:-1])
            if first >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(body) - first))
            self.end_headers()
            self.wfile.write(body[first:])

        def log_message(self, *_):
            pass

    monkeypatch.setattr(
        mnist,
        "SHA256",
        {n[:-3]: hashlib.sha256(gzip.decompress(body)).hexdigest() for n, body in content.items()},
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", content, asked
        server.shutdown()


def test_missing_files_are_fetched(tmp_path, mirror):
    url, content, asked = mirror
    (tmp_path / "b").write_bytes(b"already here")
    mnist.fetch_missing(tmp_path, [f"{url}/gone/", f"{url}/corrupt/", f"{url}/good/"])
    assert (tmp_path / "a.gz").read_bytes() == content["a.gz"]
    assert [path for path, _ in asked] == ["/gone/a.gz", "/corrupt/a.gz", "/good/a.gz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gz", "b"]


@pytest.mark.parametrize("have", [1000, None])
def test_an_interrupted_download_goes_on(tmp_path, mirror, have):
    url, content, asked = mirror
    (tmp_path / "a.127.0.0.1.part").write_bytes(content["a.gz"][:have])
    mnist.fetch_missing(tmp_path, [f"{url}/good/"])
    assert (tmp_path / "a.gz").read_bytes() == content["a.gz"]
    assert asked[0] == ("/good/a.gz", f"bytes={have or len(content['a.gz'])}-")


def test_a_connection_that_breaks_off_leaves_its_part(tmp_path, mirror):
    url, content, asked = mirror
    mnist.fetch_missing(tmp_path, [f"{url}/breaks/", f"{url}/good/"])
    assert (tmp_path / "a.gz").read_bytes() == content["a.gz"]
    assert asked[1] == ("/good/a.gz", "bytes=777-")


def test_without_a_mirror_the_error_says_what_to_do(tmp_path, mirror):
    with pytest.raises(UserError, match="--mnist sample"):
        mnist.fetch_missing(tmp_path, ["http://127.0.0.1:9/", f"{mirror[0]}/corrupt/"])
    assert not list(tmp_path.glob("*.gz"))
