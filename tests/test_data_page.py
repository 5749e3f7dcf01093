"""docs/data.md: its commands run, on small copies of the folder trees that the owners distribute."""

import importlib
import re
import struct
import subprocess
import sys
import tarfile
import zipfile

import av
import h5py
import numpy as np
import pytest
from conftest import ROOT, run
from PIL import Image

from recipes import bair
from runtime import cli
from runtime.errors import UserError

PAGE = (ROOT / "docs" / "data.md").read_text()
RNG = np.random.default_rng(0)
ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
# In place of Python: archives are opened; the stages are noted, to be run in this process.
PYTHON = f"""#!/usr/bin/env bash
[ "$1 $2" = "-m zipfile" ] && exec {sys.executable} "$@"
echo "$*" >> commands
"""
UNRAR = """#!/usr/bin/env bash
mv in_the_archive UCF-101
"""
TRAIN = "--num_epochs 1 --max_per_epoch 1 --batch_size 2 --device cpu"
SMALL = {  # sizes that replace those of the page
    "movie_frames.py": "--shape 20x20",
    "train_cae.py": f"{TRAIN} --specstr d-0.1,4-5,p-2,d-0.1,6-3,d-0.1,6-3,d-0.1,12",
    "train_deconv.py": f"{TRAIN} --nfilts 3",
    "train_vae_on_convs.py": f"{TRAIN} --nfilts 3 --z_dim 64 --crops 1",
    "train_lstm.py": f"{TRAIN} --lstm_n_hid 6 --seq_length 6",
    "train_jointly.py": f"{TRAIN} --seq_length 6 --rollout 2",
    "sample_video.py": "--n 1 --device cpu",
    "evaluate.py": "--n 2 --device cpu",
}


def commands(heading):
    """The indented lines of a section of the page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return "".join(f"{line[4:]}\n" for line in section.splitlines() if line.startswith("    "))


TO_A_PREDICTION = commands("Train and predict")
(BAIR_AS_PNG,) = re.findall(r"^python movie_frames.*\n", commands("BAIR"), re.MULTILINE)


def film(path, frames, width, height):
    """A film of moving noise as KTH and UCF-101 have them: MPEG-4 in AVI, 25 frames per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = RNG.integers(0, 256, (height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = width
        stream.height = height
        stream.pix_fmt = "yuv420p"
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, t, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_kth(folder):
    """Six archives without folders in them."""
    for action in ACTIONS:
        with zipfile.ZipFile(folder / f"{action}.zip", "w") as archive:
            for person in (1, 14, 15, 16, 17, 25) if action == "boxing" else (2, 9):
                path = folder / "made" / f"person{person:02}_{action}_d1_uncomp.avi"
                film(path, 41, 32, 24)
                archive.write(path, path.name)


def make_ucf(folder):
    """The unpacked archive, and the lists, of which that of training has labels."""
    lists = {"train": [], "test": []}
    for label, name in enumerate(("ApplyEyeMakeup", "HandstandPushups"), 1):
        for group in (1, 7, 8, 23, 24, 25):
            film_name = name.replace("stand", "Stand")  # so it is in UCF-101
            path = f"{name}/v_{film_name}_g{group:02}_c01.avi"
            film(folder / "in_the_archive" / path, 24, 32, 24)
            test = group < 8
            lists["test" if test else "train"].append(path if test else f"{path} {label}")
    with zipfile.ZipFile(folder / "UCF101TrainTestSplits-RecognitionTask.zip", "w") as archive:
        for split, lines in lists.items():
            text = "".join(f"{line}\r\n" for line in lines)
            archive.writestr(f"ucfTrainTestlist/{split}list01.txt", text)
            archive.writestr(f"ucfTrainTestlist/{split}list02.txt", "another split\r\n")


def field(number, content):
    """A field of a protocol buffer with its length before it."""
    length = len(content)
    encoded = bytearray([number << 3 | 2])
    while length > 127:
        encoded.append(length & 127 | 128)
        length >>= 7
    return bytes(encoded) + bytes([length]) + content


def example(video, names):
    """A tf.train.Example as BAIR's: two cameras, the arm's action and position, of each frame."""
    features = {}
    for t, frame in enumerate(video):
        features[names.format(t)] = field(1, field(1, frame.tobytes()))
        features[f"{t}/image_main/encoded"] = field(1, field(1, frame[::-1].tobytes()))
        features[f"{t}/action"] = field(2, field(1, struct.pack("<4f", 1, 2, 3, 4)))
        features[f"{t}/endeffector_pos"] = field(2, field(1, struct.pack("<3f", 1, 2, 3)))
    entries = [
        field(1, field(1, key.encode()) + field(2, value)) for key, value in features.items()
    ]
    return field(1, b"".join(entries))


def tfrecords(path, videos, names=bair.IMAGE):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for video in videos:
            record = example(video, names)
            file.write(struct.pack("<QI", len(record), 0) + record + bytes(4))
    return path


def make_bair(folder):
    """The archive, of two videos per file. Returns the videos of each file."""
    videos = {}
    root = folder / "softmotion30_44k"
    for name in ("train/traj_256_to_511", "train/traj_1024_to_1279", "test/traj_0_to_255"):
        videos[name] = RNG.integers(0, 256, (2, 30, 64, 64, 3), np.uint8)
        tfrecords(root / f"{name}.tfrecords", videos[name])
    with tarfile.open(folder / "bair_robot_pushing_dataset_v0.tar", "w") as archive:
        archive.add(root, root.name)
    (folder / "softmotion30_44k").rename(folder / "away")
    return videos


def follow(page, folder, sizes=SMALL):
    """Run commands of the page in `folder`: the stages in this process, all else in the shell."""
    for name, text in (("python", PYTHON), ("unrar", UNRAR)):
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    script = ["bash", "-euc", page]
    subprocess.run(script, cwd=folder, env=environment, check=True)
    for line in (folder / "commands").read_text().splitlines():
        stage, *argv = line.removeprefix("-m ").split()
        module = importlib.import_module(stage.removesuffix(".py"))
        run(module, *argv, *sizes.get(stage, "").split())


def films(path):
    """{split: the films of a file}"""
    with h5py.File(path) as file:
        return {split: file[split]["films"].asstr()[:].tolist() for split in file}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


def check_prediction(folder, name):
    assert list((folder / "picture_output" / name).glob("*.gif"))
    assert (folder / "picture_output" / name / "evaluation" / "metrics.json").exists()


def test_kth_to_a_prediction(folder):
    make_kth(folder)
    follow(commands("KTH") + TO_A_PREDICTION, folder)
    check_prediction(folder, "kth")
    splits = films("data/kth.hdf5")
    assert splits["test"] == [f"boxing/person{p}_boxing_d1_uncomp.avi" for p in (17, 25)]
    assert splits["valid"] == [f"boxing/person{p}_boxing_d1_uncomp.avi" for p in (15, 16)]
    assert len(splits["train"]) == 2 + 5 * 2
    with h5py.File("data/kth.hdf5") as file:
        assert file["test/frames"].shape == (2 * 41, 1, 20, 20)
        assert file.attrs["frame_rate"] == 25


def test_ucf_to_a_prediction(folder):
    make_ucf(folder)
    follow(commands("UCF-101") + TO_A_PREDICTION, folder)
    check_prediction(folder, "ucf101")
    splits = films("data/ucf101.hdf5")
    for split, groups in {"train": "08 23", "valid": "24 25", "test": "01 07"}.items():
        assert splits[split] == [
            f"{name}/v_{name.replace('stand', 'Stand')}_g{group}_c01.avi"
            for name in ("ApplyEyeMakeup", "HandstandPushups")
            for group in groups.split()
        ]
    with h5py.File("data/ucf101.hdf5") as file:
        assert file["test/starts"][:].tolist() == [0, 24, 48, 72, 96]


def test_bair_to_a_prediction(folder):
    videos = make_bair(folder)
    page = commands("BAIR").replace(BAIR_AS_PNG, "")
    follow(page + TO_A_PREDICTION, folder)
    check_prediction(folder, "bair")
    files = {"train": "256_to_511", "valid": "1024_to_1279", "test": "0_to_255"}
    with h5py.File("data/bair.hdf5") as file:
        for split, name in files.items():
            (true,) = [made for path, made in videos.items() if path.endswith(f"traj_{name}")]
            frames = file[split]["frames"][:].reshape(2, 30, 3, 64, 64)
            assert (frames == true.transpose(0, 1, 4, 2, 3)).all()
            assert file[split]["starts"][:].tolist() == [0, 30, 60]


def test_bair_as_png(folder):
    """As SVG's converter leaves it, and with a folder moved."""
    videos = {}
    for name in ("train/traj_256_to_511/1", "valid/traj_1024_to_1279/2", "test/traj_0_to_255/1"):
        videos[name] = RNG.integers(0, 256, (12, 64, 64, 3), np.uint8)
        (folder / "processed_data" / name).mkdir(parents=True)
        for t, frame in enumerate(videos[name]):
            Image.fromarray(frame).save(folder / "processed_data" / name / f"{t}.png")
    follow(f"name=bair\n{BAIR_AS_PNG}", folder, sizes={})
    with h5py.File("data/bair.hdf5") as file:
        for name, video in videos.items():
            frames = file[name.split("/")[0]]["frames"][:]
            assert (frames == video.transpose(0, 3, 1, 2)).all()


def test_page_names_context_and_horizon_that_fit(folder):
    """BAIR's videos have 30 frames."""
    for heading, frames in {"KTH": 40, "BAIR": 30, "UCF-101": 20}.items():
        context, horizon = re.findall(r"context=(\d+) horizon=(\d+)", commands(heading))[0]
        assert int(context) + int(horizon) == frames


@pytest.mark.parametrize(
    ("damage", "said"),
    [("cut", "is cut short"), ("other", "is not as BAIR's"), ("noise", "is not as BAIR's")],
)
def test_what_is_no_bair_file_is_told(damage, said, folder):
    video = np.zeros((1, 30, 64, 64, 3), np.uint8)
    for name in ("train/a", "train/b", "test/a"):
        path = tfrecords(folder / f"{name}.tfrecords", video)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "other":
        tfrecords(path, video, "frame/{}")
    else:
        path.write_bytes(struct.pack("<QI", 3, 0) + b"\xff\xff\xff" + bytes(4))
    with pytest.raises(UserError, match=said):
        run(bair, folder)
    assert not (folder / "data" / "bair.hdf5").exists()


def test_a_folder_that_is_not_bairs_is_told_in_one_line(folder, capsys):
    with pytest.raises(SystemExit) as left:
        cli.run(bair.main, bair.flags(), [str(folder)])
    assert left.value.code == 2
    assert "softmotion30_44k" in capsys.readouterr().err
