"""The video files: windows stay inside a video, draws depend on (seed, epoch) alone, nothing half
written.
"""

import pickle
import tracemalloc

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from data import export, hdf5
from data.hdf5 import Frames, Windows
from runtime.errors import UserError

ABOUT = {
    "source": "",
    "frame_rate": 1.0,
    "frame_skip": 1,
    "codec": "",
    "codec_id": "",
    "data_file": "",
}


@pytest.fixture
def latents(tmp_path):
    """Latents of videos of 5, 9, 3 and 7 frames; each tells its crop, video and frame number."""
    lengths = [5, 9, 3, 7]
    video, frame = np.repeat(np.arange(4), lengths), np.concatenate([np.arange(n) for n in lengths])
    rows = np.stack([np.stack([np.full(24, crop), video, frame], 1) for crop in range(2)])
    with hdf5.create(tmp_path / "z.hdf5", "latents", ABOUT) as file:
        for split in hdf5.SPLITS:
            file[f"{split}/starts"] = np.cumsum([0, *lengths])
            file[f"{split}/latents"] = np.stack([rows, -rows], 2).astype(np.float32)
    return tmp_path / "z.hdf5"


@pytest.mark.parametrize("skip", [1, 2])
def test_windows_never_cross_a_video(latents, skip):
    """Fault 2 of the original: every window held a cut."""
    windows = Windows(latents, "train", 3, skip, seed=0)
    assert windows.left_out == (0 if skip == 1 else 1)
    assert np.bincount(windows.videos).tolist() == ([1, 3, 1, 2] if skip == 1 else [1, 1, 0, 1])
    seen = set()
    for epoch in range(60):
        windows.set_epoch(epoch)
        batch = windows.__getitems__(range(len(windows)))
        assert batch.shape == (len(windows), 3, 2, 3)
        crop, video, frame = batch[:, :, 0].unbind(-1)
        assert (video == video[:, :1]).all()
        assert (crop == crop[:, :1]).all()
        assert (frame.diff(dim=1) == skip).all()
        assert torch.equal(batch[:, :, 1], -batch[:, :, 0])
        seen |= {(int(v), int(f)) for v, f in zip(video[:, 0], frame[:, 0], strict=True)}
    lengths = {0: 5, 1: 9, 2: 3, 3: 7}
    assert seen == {
        (v, f) for v, n in lengths.items() for f in range(n - 2 * skip)
    }  # every start, every video


def test_every_other_window_is_transposed(latents):
    """Rows and columns of the places, here video and frame, change parts; nothing else does."""
    with h5py.File(latents, "r+") as file:
        file.attrs.update({"slots": 1, "frame_height": 64, "frame_width": 64})
    plain = Windows(latents, "train", 3, 1, seed=0)
    windows = Windows(latents, "train", 3, 1, seed=0, transpose=True)
    count = 0
    for epoch in range(30):
        plain.set_epoch(epoch)
        windows.set_epoch(epoch)
        for i in range(len(windows)):
            window = windows.__getitems__([i])[0]
            expected = plain.__getitems__([i])[0]
            if windows.is_transposed[i]:
                expected = expected[..., [0, 2, 1]]
                count += 1
            assert torch.equal(window, expected)
    assert 0.3 < count / (30 * len(windows)) < 0.7


def test_draws_depend_on_seed_and_epoch_alone(latents):
    def draw(seed, epoch, order):
        windows = Windows(latents, "train", 3, 1, seed)
        windows.set_epoch(epoch)
        return torch.stack([windows.__getitems__([i])[0] for i in order])

    assert torch.equal(draw(0, 5, [0, 1, 2, 3]), draw(0, 5, [3, 2, 1, 0]).flip(0))
    assert not torch.equal(draw(0, 5, range(4)), draw(0, 6, range(4)))
    assert not torch.equal(draw(0, 5, range(4)), draw(1, 5, range(4)))


@pytest.mark.parametrize("storage", [{}, {"compression": "gzip"}])
def test_frames_are_read_by_batch_and_by_video(tmp_path, storage):
    frames = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4), np.uint8)
    with hdf5.create(tmp_path / "f.hdf5", "frames", ABOUT) as file:
        file["train/starts"] = np.array([0, 4, 10])
        file.create_dataset("train/frames", data=frames, **storage)
    dataset = Frames(tmp_path / "f.hdf5", "train")
    assert len(dataset) == 10
    assert np.array_equal(dataset.__getitems__([7, 2, 2]), frames[[7, 2, 2]])
    assert np.array_equal(dataset.video(1), frames[4:])
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy._array is None
    assert np.array_equal(copy.video(0), frames[:4])


def with_films(path, names):
    """A file of two videos, with `names` (anything) as those of their films."""
    with hdf5.create(path, "frames", ABOUT, replace=True) as file:
        file["train/starts"] = np.array([0, 4, 10])
        file["train/frames"] = np.zeros((10, 1, 4, 4), np.uint8)
        if names is not None:
            file["train/films"] = names
    return Frames(path, "train")


def test_names_of_films(tmp_path):
    path = tmp_path / "f.hdf5"
    assert with_films(path, None).films() is None
    names = np.array(["b/Kühe.mp4".encode(), b"a\x1b[2J\xff"])
    assert with_films(path, names).films().tolist() == ["b/Kühe.mp4", "a?[2J\ufffd"]


@pytest.mark.parametrize(
    "names",
    [np.zeros(2, np.int64), np.array([b"a"]), np.bytes_("a"), ["a", "b"], np.zeros(2, "S5000")],
    ids=["numbers", "too few", "one for all", "of any length", "too long"],
)
def test_names_that_are_none_of_films_are_refused(names, tmp_path):
    with pytest.raises(UserError, match=r"f\.hdf5 cannot be read .*train/films"):
        with_films(tmp_path / "f.hdf5", names).films()


def test_a_file_appears_only_when_whole(tmp_path):
    path = tmp_path / "deep" / "f.hdf5"
    with pytest.raises(ZeroDivisionError), hdf5.create(path, "frames", {}):
        1 / 0  # noqa: B018
    assert not list(path.parent.iterdir())
    with hdf5.create(path, "frames", {"seed": 3}):
        assert not path.exists()
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"format": hdf5.FORMAT, "kind": b"frames", "seed": 3}
    with pytest.raises(UserError, match="exists already"), hdf5.create(path, "frames", {}):
        pass


@pytest.mark.parametrize("write", [hdf5.write_videos, export.write_npz])
def test_memory_does_not_grow_with_the_number_of_videos(tmp_path, write):
    def make(split, videos):
        shape = (len(videos), 10)
        return (
            np.zeros((*shape, 1, 32, 32), np.uint8),
            np.zeros((len(videos), 1)),
            np.zeros((*shape, 1, 2), np.float32),
        )

    def peak(count):
        tracemalloc.start()
        write(tmp_path / f"{count}", {"train": count}, make, {})
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(64)  # imports and caches
    # Frames grow by 19 MB, positions by 0.3 MB, which an .npz may gather.
    assert peak(2048) < peak(128) + 1e6


def test_npz_holds_the_same_as_hdf5(tmp_path):
    def make(split, videos):
        frames = np.stack(
            [np.full((3, 1, 2, 2), v, np.uint8) for v in videos]
            or [np.zeros((3, 1, 2, 2), np.uint8)]
        )
        frames = frames[: len(videos)]
        return (
            frames,
            np.array(videos, np.uint8)[:, None],
            np.ones((len(videos), 3, 1, 2), np.float32),
        )

    counts = {"train": 40, "valid": 0, "test": 2}
    export.write_npz(tmp_path / "v.npz", counts, make, {"seed": 3})
    hdf5.write_videos(tmp_path / "v.hdf5", counts, make, {"seed": 3})
    npz = np.load(tmp_path / "v.npz")
    with h5py.File(tmp_path / "v.hdf5") as file:
        for split in ("train", "test"):
            for name in ("frames", "starts", "labels", "positions"):
                assert np.array_equal(npz[f"{split}_{name}"], file[split][name])
        assert npz["seed"] == file.attrs["seed"] == 3


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_are_a_folder_for_each_video(tmp_path, suffix):
    def make(split, videos):
        frames = np.stack([np.full((2, 1, 8, 8), 40 * v, np.uint8) for v in [*videos, 0]])[
            : len(videos)
        ]
        return (
            frames,
            np.zeros((len(videos), 1), np.uint8),
            np.zeros((len(videos), 2, 1, 2), np.float32),
        )

    export.write_pictures(tmp_path / "v", {"train": 3}, make, {}, suffix)
    files = sorted(
        path.relative_to(tmp_path / "v").as_posix()
        for path in (tmp_path / "v").rglob(f"*.{suffix}")
    )
    assert files == [f"train/{v:06d}/{t:04d}.{suffix}" for v in range(3) for t in range(2)]
    assert abs(int(np.asarray(Image.open(tmp_path / "v" / files[-1]))[4, 4]) - 80) <= 2
    assert np.load(tmp_path / "v" / "train" / "truth.npz")["positions"].shape == (3, 2, 1, 2)
