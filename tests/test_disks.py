"""What differs from disk to disk: locks, maps, links, names, permissions; and two processes that
want one place.
"""

import errno
import fcntl
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import run

import moving_mnist
import sample_video
import train_lstm
import train_vcae
from data import hdf5
from evaluation.windows import read_windows
from models.lstm import LatentLSTM
from models.vae import VCAE
from runtime import files
from runtime.errors import UserError
from training import checkpoint

SMALL = ["--num_epochs", 1, "--max_per_epoch", 1, "--device", "cpu"]
ABOUT = {"source": "made up", "frame_rate": 10.0, "frame_skip": 1}


def write(path, text):
    with files.atomic_write(path) as partial:
        partial.write_text(text)


def test_the_second_writer_of_a_file_is_told_and_the_first_wins(tmp_path):
    place = tmp_path / "file.txt"
    with files.atomic_write(place) as partial:
        partial.write_text("first")
        with pytest.raises(UserError, match=r"file\.txt is being written by another process"):
            write(place, "second")
    assert place.read_text() == "first"
    write(place, "third")
    assert place.read_text() == "third"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_link_in_the_way_is_not_followed(tmp_path):
    (tmp_path / "own.txt").write_text("somebody's own")
    files.tmp_path(tmp_path / "file.txt").symlink_to(tmp_path / "own.txt")
    with pytest.raises(UserError, match=r"file\.txt cannot be written"):
        write(tmp_path / "file.txt", "ours")
    assert (tmp_path / "own.txt").read_text() == "somebody's own"


def test_the_second_writer_of_a_folder_is_told_and_the_first_wins(tmp_path):
    place = tmp_path / "folder"
    left = tmp_path / ".folder.part"
    left.mkdir()
    (left / "somebody's own").touch()
    with pytest.raises(UserError, match="holds something else"), files.atomic_folder(place):
        pass
    (left / ".lock").touch()  # then it was left by a run that was killed
    with files.atomic_folder(place) as partial:
        (partial / "first").touch()
        with (
            pytest.raises(UserError, match="folder is being written by another process"),
            files.atomic_folder(place),
        ):
            pass
    assert os.listdir(place) == ["first"]
    with pytest.raises(UserError, match="exists already"), files.atomic_folder(place):
        pass
    shutil.rmtree(tmp_path / ".folder.part")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_file_written_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    """Between the look whether there is a file and the lock, another process may come and go."""
    place, looks = tmp_path / "a.hdf5", []
    refuse = hdf5.refuse_existing

    def look(path):
        looks.append(refuse(path))
        if len(looks) == 1:
            place.write_text("theirs")

    monkeypatch.setattr(hdf5, "refuse_existing", look)
    with pytest.raises(UserError, match="exists already"), hdf5.create(place, "frames", ABOUT):
        pass
    assert place.read_text() == "theirs"


def test_a_folder_is_claimed_by_one(tmp_path):
    with (
        files.lock(tmp_path / ".lock", ""),
        pytest.raises(UserError, match="in use by another process"),
    ):
        files.lock_folder(tmp_path)
    files.lock_folder(tmp_path)
    files.folder_lock.close()


def test_a_disk_without_locks(tmp_path, monkeypatch, capsys):
    """It is said once for each folder, and every file is written and read."""

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    frames, vcae = tmp_path / "frames.hdf5", tmp_path / "vcae"
    run(
        moving_mnist,
        "--mnist",
        "sample",
        "--seqs",
        6,
        "--seq_len",
        6,
        "--split",
        "1/1/1",
        "--dest",
        frames,
    )
    run(train_vcae, "--data_file", frames, "--save_to", vcae, "--nfilts", 2, *SMALL)
    said = capsys.readouterr().err
    assert [
        said.count(f"{folder} lies on a disk without locks") for folder in (tmp_path, vcae)
    ] == [1, 1]


def test_a_disk_whose_files_cannot_be_mapped(chain, tmp_path, monkeypatch):
    np.save(tmp_path / "videos.npy", np.arange(3 * 2 * 8 * 8, dtype=np.uint8).reshape(3, 2, 8, 8))

    def read():
        yield torch.from_numpy(read_windows(tmp_path / "videos.npy", "test", 3)[0])
        frames = hdf5.Frames(chain / "frames.hdf5", "train", crop=(32, 32))
        windows = hdf5.Windows(chain / "vcae" / "latents.hdf5", "train", 4, 1, 0)
        yield frames.evenly_spaced(7)
        yield frames.video(1)
        yield windows.__getitems__([0, 2])
        yield from checkpoint.load(chain / "lstm" / "best.pt", LatentLSTM)["model"].values()

    def memmap(*_, **__):
        raise OSError(errno.ENODEV, "No such device")

    def from_file(*_, **__):
        raise RuntimeError("unable to mmap 9999 bytes from file: No such device (19)")

    mapped = list(read())
    monkeypatch.setattr(np, "memmap", type("memmap", (), {"__new__": memmap}))
    monkeypatch.setattr(torch.UntypedStorage, "from_file", from_file)
    for a, b in zip(mapped, read(), strict=True):
        assert torch.equal(a, b)


def test_the_systems_reason_is_told(chain, tmp_path):
    """Not that a checkpoint is damaged, which would cost days of training."""
    with pytest.raises(
        UserError, match=r"lstm is a folder: name the checkpoint in it, .*lstm/best\.pt"
    ):
        checkpoint.load(chain / "lstm", LatentLSTM)
    shutil.copy(chain / "lstm" / "best.pt", tmp_path)
    (tmp_path / "best.pt").chmod(0)
    if os.access(tmp_path / "best.pt", os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(UserError, match=r"best\.pt cannot be read: Permission denied"):
        checkpoint.load(tmp_path / "best.pt", LatentLSTM)


def test_a_run_folder_whose_name_is_not_utf_8(chain, tmp_path):
    folder = tmp_path / os.fsdecode(b"run_\xf6")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("a file system of Unicode names")
    run(
        train_vcae, "--data_file", chain / "frames.hdf5", "--save_to", folder, "--nfilts", 2, *SMALL
    )
    assert checkpoint.load(folder / "best.pt", VCAE)["history"]


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """A project in which runs/ is a link to a folder at another depth, and all stages were run by
    relative paths.
    """
    project, disk = tmp_path / "project", tmp_path / "disk" / "a" / "b"
    for folder in (project, disk):
        folder.mkdir(parents=True)
    (project / "runs").symlink_to(disk)
    monkeypatch.chdir(project)
    run(moving_mnist, "--mnist", "sample", "--seqs", 12, "--seq_len", 8, "--split", "1/1/1")
    run(train_vcae, "--nfilts", 2, *SMALL)
    run(train_lstm, "--lstm_n_hid", 4, *SMALL)
    return project


def test_two_names_of_one_place(linked, tmp_path, monkeypatch):
    flags = [
        "--context",
        4,
        "--horizon",
        2,
        "--n",
        1,
        "--device",
        "cpu",
        "--dest",
        tmp_path / "out",
    ]
    run(sample_video, *flags)
    run(sample_video, "--model", tmp_path / "disk/a/b/lstm/best.pt", *flags)
    monkeypatch.chdir("runs/lstm")
    run(sample_video, "--model", "best.pt", *flags)


def test_resumed_from_another_folder(linked, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(train_lstm, "--resume", "--save_to", linked / "runs" / "lstm", "--num_epochs", 2)
    run(train_vcae, "--resume", "--save_to", "../disk/a/b/vcae", "--num_epochs", 2)
    assert len(checkpoint.load(linked / "runs" / "vcae" / "last.pt", VCAE)["history"]) == 2
