"""A run that is killed, or told to stop, at any moment and then resumed is the run that was left alone."""

import csv
import os
import random
import re
import shutil
import signal
import time

import pytest
import torch
from conftest import new_process

TINY = " --device cpu --num_epochs 3 --batch_size 6 --save_every 0 --save_to run"
STAGES = {
    "vcae": "train_vcae --data_file frames.hdf5 --arch deep --nfilts 2 --n_hid 8 --z_dim 4 --schedule cosine",
    "vcae 2016": "train_vcae --data_file frames.hdf5 --nfilts 1 --n_hid 5 --z_dim 4 --max_per_epoch 8",
    "slots": "train_vcae --data_file frames.hdf5 --arch slots --n_hid 8 --z_dim 10 --max_per_epoch 3",
    "cae": "train_cae --data_file frames.hdf5 --specstr d-.2,2-5,p-2,2-3,2-3,4 --max_per_epoch 6",
    "deconv": "train_deconv --cae cae/best.pt --split_layer conv4 --max_per_epoch 6",
    "vae": "train_vae_on_convs --cae cae/best.pt --deconv deconv/best.pt --n_hid 4 --z_dim 4 --crops 1 --lr 1e-3 "
    "--max_per_epoch 6",
    "lstm": "train_lstm --data_file vcae/latents.hdf5 --seq_length 4 --lstm_n_hid 6 --rollout 1",
    "joint": "train_jointly --lstm lstm/best.pt --seq_length 6 --rollout 2",
}


def left_alone(folder, command, code=0):
    process = new_process(folder, command)
    process.join()
    assert process.exitcode == code, command


def results(run):
    """What a run leaves: weights, history without times, the log without times, the bytes of latents."""
    timed = "seconds", "waited"
    left = {}
    for name in ("last.pt", "best.pt"):
        content = torch.load(run / name)
        left[name] = {key: value.numpy().tobytes() for key, value in content["model"].items()}
        left[name]["history"] = [{k: v for k, v in row.items() if k not in timed} for row in content["history"]]
    with open(run / "log.csv") as file:
        left["log.csv"] = [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]
    for name in ("latents.hdf5",):
        left[name] = (run / name).read_bytes() if (run / name).exists() else None
    return left


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_moment(stages, tmp_path, stage):
    """Three times at random, and when first seen to write a checkpoint, and latents."""
    for name in ("unbroken", "killed"):
        shutil.copytree(stages, tmp_path / name)
    command, folder = STAGES[stage] + TINY, tmp_path / "killed"
    left_alone(tmp_path, "show_slots --model none", 2)  # has the server of new processes begin, so as not to time that
    began = time.monotonic()
    left_alone(tmp_path / "unbroken", command)
    whole, rng = time.monotonic() - began, random.Random(stage)
    marks = [rng.uniform(0, whole) for _ in range(3)] + ["last.part.pt"]
    marks += ["latents.part.hdf5"] if (tmp_path / "unbroken" / "run" / "latents.hdf5").exists() else []
    rng.shuffle(marks)
    for mark in marks:
        while not killed(folder, command, mark):  # it ended first: again from the beginning, and earlier
            shutil.rmtree(folder / "run")
            mark = mark if isinstance(mark, str) else mark / 2
    left_alone(folder, command + " --resume" * (folder / "run" / "last.pt").exists())
    print(f"{stage}: {len(marks)} kills at {marks}")
    ours, theirs = results(folder / "run"), results(tmp_path / "unbroken" / "run")
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name] == theirs[name], name


def killed(folder, command, mark):
    """Begin or resume a run and kill it, after `mark` seconds or when there is a file of that name; False: it ended."""
    if isinstance(mark, str):  # what an earlier kill left is no sign
        (folder / "run" / mark).unlink(missing_ok=True)
    process = new_process(folder, command + " --resume" * (folder / "run" / "last.pt").exists())
    began = time.monotonic()
    while process.is_alive():
        if (folder / "run" / mark).exists() if isinstance(mark, str) else time.monotonic() - began > mark:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.0002)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("stage", ["vcae", "lstm"])
def test_told_to_stop(stages, tmp_path, stage, number, code):
    """The step is finished and saved, although no checkpoint was due."""
    command = STAGES[stage] + TINY.replace("--save_every 0", "--save_every 100").replace(
        "--num_epochs 3", "--num_epochs 9"
    )
    folder = tmp_path / "stopped"
    for name in ("unbroken", "stopped"):
        shutil.copytree(stages, tmp_path / name)
    left_alone(tmp_path / "unbroken", command)
    process = new_process(folder, command)
    while not (folder / "run" / "log.csv").exists():
        time.sleep(0.001)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == code
    assert re.search("go(es)? on with --resume", (folder / "said").read_text())
    assert not list((folder / "run").glob("*.part*"))
    left_alone(folder, command + " --resume")
    assert results(folder / "run") == results(tmp_path / "unbroken" / "run")


def test_stopped_while_latents_are_written(stages, tmp_path):
    shutil.copytree(stages, tmp_path / "run")
    process = new_process(tmp_path / "run", STAGES["slots"] + TINY)
    while not (tmp_path / "run" / "run" / "latents.part.hdf5").exists():
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143
    assert "interrupted; go on with --resume, or" in (tmp_path / "run" / "said").read_text()
    assert not list((tmp_path / "run" / "run").glob("latents*"))


def test_one_process_a_folder(stages, tmp_path):
    """The lock is a living process's: killed, it holds nothing."""
    shutil.copytree(stages, tmp_path / "run")
    command = STAGES["lstm"] + TINY.replace("--num_epochs 3", "--num_epochs 100000")
    first = new_process(tmp_path / "run", command)
    while not (tmp_path / "run" / "run" / "last.pt").exists():
        time.sleep(0.001)
    second = new_process(tmp_path / "run", command + " --resume")
    second.join()
    assert second.exitcode == 2
    assert "run is in use by another process" in (tmp_path / "run" / "said").read_text()
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    left_alone(tmp_path / "run", STAGES["lstm"] + TINY + " --resume --num_epochs 1")
