"""Every file is whole or not there, whatever stops its writer."""

import csv
import json
import shutil
from pathlib import Path

import h5py
import pytest
import torch
from conftest import new_process
from PIL import Image

from runtime import files

TINY = " --device cpu --num_epochs 1 --max_per_epoch 2 --save_to new"
# stage, and bytes to which a file can grow: less than its largest has
STAGES = {
    "moving_mnist --mnist sample --seqs 20 --dest new.hdf5": 50_000,
    "moving_mnist --mnist sample --seqs 20 --dest new.npz": 50_000,
    "moving_mnist --mnist sample --seqs 20 --dest new --filetype png": 600,
    "train_vcae --data_file frames.hdf5 --arch deep --nfilts 4 --z_dim 6" + TINY: 20_000,
    "train_vcae --data_file frames.hdf5 --arch 2016 --nfilts 1 --n_hid 2 --z_dim 128"
    + TINY: 160_000,  # the checkpoint fits
    "train_cae --data_file frames.hdf5 --specstr 2-5,p-2,2-3,2-3,4" + TINY: 10_000,
    "train_lstm --data_file vcae/latents.hdf5 --seq_length 4" + TINY: 10_000,
    "train_jointly --lstm lstm/best.pt --seq_length 6 --rollout 2" + TINY: 10_000,
    "sample_video --model lstm/best.pt --context 4 --horizon 4 --dest new": 2000,
    "sample_video --model lstm/best.pt --context 4 --horizon 4 --dest new --format mp4": 1000,
    "sample_video --model lstm/best.pt --context 4 --horizon 4 --dest new --format png": 1000,
    "evaluate --model lstm/best.pt --context 4 --horizon 4 --n 4 --dest new": 1000,
    "evaluate --model lstm/best.pt --context 4 --horizon 4 --n 4 --dest new --save_predictions new.hdf5": 10_000,
}


@pytest.mark.parametrize("command", STAGES)
def test_a_full_disk(stages, tmp_path, command):
    shutil.copytree(stages, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    process = new_process(tmp_path / "run", command, file_size=STAGES[command])
    process.join()
    said = (tmp_path / "run" / "said").read_text()
    assert process.exitcode == 2, said
    # NumPy 1 leaves its archive open, and Python says afterwards that it could not close it.
    said, _, _ = said.partition("Exception ignored in: <function ZipFile.__del__")
    assert "Traceback" not in said
    assert said.count(" error: ") == 1
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    assert not [path for path in after if ".part" in path.name and "png" not in command]
    for path in after.keys() - before.keys():
        whole(path)


def whole(path):
    """Read a file to its end; an exception if it is not whole."""
    if path.suffix == ".pt":
        torch.load(path)
    elif path.suffix == ".hdf5":
        h5py.File(path).close()
    elif path.suffix in (".png", ".gif"):
        Image.open(path).load()
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        with open(path) as file:
            assert len({len(row) for row in csv.reader(file)}) == 1
    else:
        assert path.name in ("said", ".lock", "about.npz")


def fail(place):
    with files.atomic_write(place) as partial:
        partial.write_text("second")
        raise ZeroDivisionError


def test_what_is_there_stays_until_its_successor_is_whole(tmp_path):
    place = tmp_path / "folder" / "file.txt"
    with files.atomic_write(place) as partial:
        partial.write_text("first")
        assert not place.exists()
    with pytest.raises(ZeroDivisionError):
        fail(place)
    assert place.read_text() == "first"
    with files.atomic_write(place) as partial:
        partial.write_text("third")
        assert place.read_text() == "first"
    assert [path.name for path in place.parent.iterdir()] == ["file.txt"]
    assert place.read_text() == "third"


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="looks for a folder that even root cannot write to"
)
@pytest.mark.parametrize(
    "command", ["moving_mnist --mnist sample --seqs 4 --dest /proc/new/a.hdf5"]
)
def test_a_folder_that_cannot_be_written(tmp_path, command):
    process = new_process(tmp_path, command)
    process.join()
    assert process.exitcode == 2
    assert "/proc/new/a.hdf5 cannot be written" in (tmp_path / "said").read_text()
