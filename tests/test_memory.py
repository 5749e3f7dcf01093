"""A dataset ten times larger raises no stage's peak memory by more than 100 MB."""

import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import new_process

from data import hdf5

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
LIMIT = 100e6

# Both chains, the networks as small as can be. Of ten times the size, the training frames are 130
# MB more, or 150, as uint8: a stage that held them would be found out.
DIGITS = [
    "moving_mnist --dest frames.hdf5 --mnist sample --frame_size 32 --num_sz 14 --split 80/5/15 --seqs {}",
    "train_vcae --data_file frames.hdf5 --save_to vcae --arch deep --nfilts 1 --n_hid 2 --z_dim 6",
    "train_lstm --data_file vcae/latents.hdf5 --save_to lstm --lstm_n_hid 4 --seq_length 10",
    "train_jointly --lstm lstm/best.pt --save_to joint --seq_length 10 --rollout 4",
    "sample_video --model lstm/best.pt --context 4 --horizon 4 --dest gifs",
    "evaluate --model lstm/best.pt --context 4 --horizon 4 --n 4 --dest evaluation",
]
FILM = [
    "movie_frames film.mp4 --dest frames.hdf5 --no-detect_cuts",
    "train_cae --data_file frames.hdf5 --save_to cae --specstr 2-5,p-2,2-3,2-3,4",
    "train_deconv --cae cae/best.pt --save_to deconv --arch deep --nfilts 1 --split_layer conv4",
    "train_vae_on_convs --cae cae/best.pt --deconv deconv/best.pt --save_to vae --arch deep --nfilts 1 --n_hid 2 "
    "--z_dim 4 --crops 1",
    "train_lstm --data_file vae/latents.hdf5 --save_to lstm --lstm_n_hid 4 --seq_length 10",
    "sample_video --model lstm/best.pt --context 4 --horizon 4 --dest gifs --split train",  # its one shot is the split
    "evaluate --model lstm/best.pt --context 2 --horizon 2 --n 4 --dest evaluation --split train",
]
# What reads a few rows of a dataset however large: 10,000 videos, as moving_mnist.py makes, and ten
# times as many.
LARGE = [
    "train_cae --data_file frames.hdf5 --save_to cae --specstr 2-5,p-2,2-3,2-3,4",
    "train_lstm --data_file latents.hdf5 --save_to lstm --lstm_n_hid 4",
    "evaluate --data_file frames.hdf5 --context 4 --horizon 4 --n 8 --dest evaluation --split train --stride 1",
]
SHORT = " --num_epochs 1 --max_per_epoch 4 --batch_size 16 --device cpu"


def peak(folder, command):
    """The peak memory in bytes of a stage that runs in `folder`, in a new process.

    What counts is anonymous memory: datasets are read through file maps, whose pages the system
    takes back when it needs them. It is looked at from outside, every few milliseconds; to fill 100
    MB takes a process longer than that.
    """
    process, highest = new_process(folder, command), 0
    while process.is_alive():
        with suppress(FileNotFoundError, ProcessLookupError):  # when it has just ended
            status = Path(f"/proc/{process.pid}/status").read_text()
            highest = max(
                highest,
                sum(1024 * int(kb) for kb in re.findall(r"(?:RssAnon|VmSwap):\s+(\d+)", status)),
            )
        time.sleep(0.003)
    assert process.exitcode == 0, command
    return highest


def compare(commands, one, ten):
    """Run the stages in both folders; each may take LIMIT more in the second."""
    peaks = {}
    for command in commands:
        command += SHORT if command.startswith("train_") else ""
        peaks[command] = peak(one, command.format(600)), peak(ten, command.format(6000))
    assert not {command: pair for command, pair in peaks.items() if pair[1] - pair[0] > LIMIT}


def two(root):
    """Two empty folders, for a dataset and for one of ten times its size."""
    folders = root / "1", root / "10"
    for folder in folders:
        folder.mkdir()
    return folders


def test_digits(tmp_path):
    compare(DIGITS, *two(tmp_path))


@pytest.mark.parametrize("stages", [1, pytest.param(len(FILM), marks=pytest.mark.slow)])
def test_a_film(tmp_path, stages):
    folders = two(tmp_path)
    for folder, frames in zip(folders, (700, 7000), strict=True):
        with av.open(str(folder / "film.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=24)
            stream.width, stream.height = 160, 64
            for i in range(frames):
                picture = np.full((64, 160, 3), i % 200, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
    compare(FILM[:stages], *folders)


def test_large_datasets(tmp_path):
    about = {
        "source": "made up",
        "frame_rate": 10.0,
        "frame_skip": 1,
        "physics": "2016",
        "num_sz": 10,
    }
    codec = {"codec": "best.pt", "codec_id": "", "data_file": "frames.hdf5"}
    folders = two(tmp_path)
    for folder, videos in zip(folders, (10_000, 100_000), strict=True):
        with hdf5.create(folder / "frames.hdf5", "frames", about) as file:
            fill(file, videos, frames=lambda n: (n, 3, 16, 20), positions=lambda n: (n, 12, 2))
        with hdf5.create(folder / "latents.hdf5", "latents", about | codec) as file:
            fill(file, videos, latents=lambda n: (1, n, 2, 32))
    compare(LARGE, *folders)


def fill(file, videos, **shapes):
    """Datasets of `videos` videos of 30 frames: holes in the file, which read as zeros and take no
    room.
    """
    for split, share in zip(hdf5.SPLITS, (0.8, 0.1, 0.1), strict=True):
        group, count = file.create_group(split), round(share * videos)
        group["starts"] = 30 * np.arange(count + 1)
        for name, shape in shapes.items():
            group.create_dataset(
                name, shape(30 * count), np.uint8 if name == "frames" else np.float32
            )[0, 0] = 1
