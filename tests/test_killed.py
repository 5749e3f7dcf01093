"""A run that is killed, or told to stop, at any moment and then resumed is the run that was left
alone.
"""

import csv
import random
import re
import shutil
import signal
import time

import pytest
import torch
from conftest import new_process, run

import train_lstm
from training import loop

TINY = " --device cpu --num_epochs 2 --batch_size 6 --save_every 0 --save_to run"
STAGES = {
    "vcae": "train_vcae --data_file frames.hdf5 --arch deep --nfilts 2 --n_hid 8 --z_dim 4 --schedule cosine",
    "vcae 2016": "train_vcae --arch 2016 --data_file frames.hdf5 --nfilts 1 --n_hid 5 --z_dim 4 --max_per_epoch 8",
    "slots": "train_vcae --data_file frames.hdf5 --arch slots --n_hid 8 --z_dim 10 --max_per_epoch 3",
    "cae": "train_cae --data_file frames.hdf5 --specstr d-.2,2-5,p-2,2-3,2-3,4 --max_per_epoch 6",
    "deconv": "train_deconv --arch 2016 --cae cae/best.pt --split_layer conv4 --max_per_epoch 6",
    "vae": "train_vae_on_convs --arch 2016 --cae cae/best.pt --deconv deconv/best.pt --n_hid 4 --z_dim 4 --crops 1 --lr 1e-3 "
    "--max_per_epoch 6",
    "lstm": "train_lstm --data_file vcae/latents.hdf5 --seq_length 4 --lstm_n_hid 6 --rollout 1",
    "joint": "train_jointly --lstm lstm/best.pt --seq_length 6 --rollout 2",
}


def left_alone(folder, command, code=0, **options):
    process = new_process(folder, command, **options)
    process.join(300)
    assert process.exitcode == code, command


def results(run):
    """What a run leaves: weights, history without times, the log without times, the bytes of
    latents.
    """
    timed = "seconds", "waited"
    left = {}
    for name in ("last.pt", "best.pt"):
        content = torch.load(run / name)
        left[name] = {key: value.numpy().tobytes() for key, value in content["model"].items()}
        left[name]["history"] = [
            {k: v for k, v in row.items() if k not in timed} for row in content["history"]
        ]
    with open(run / "log.csv") as file:
        left["log.csv"] = [
            {k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)
        ]
    for name in ("latents.hdf5", "log.png", "pictures/best.png"):
        left[name] = (run / name).read_bytes() if (run / name).exists() else None
    return left


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_moment(stages, tmp_path, stage):
    """Three times at random, and while a checkpoint and latents are written."""
    for name in ("unbroken", "killed"):
        shutil.copytree(stages, tmp_path / name)
    command, folder = STAGES[stage] + TINY, tmp_path / "killed"
    left_alone(
        tmp_path, "evaluate --model none", 2
    )  # has the server of new processes begin, so as not to time that
    began = time.monotonic()
    left_alone(tmp_path / "unbroken", command)
    whole, rng = time.monotonic() - began, random.Random(stage)
    marks = [rng.uniform(0, whole) for _ in range(3)]
    marks.insert(rng.randrange(4), (rng.choice(["torch.save", "os.replace"]), rng.randint(1, 5)))
    if (tmp_path / "unbroken" / "run" / "latents.hdf5").exists():
        marks.append(("data.hdf5.encode_split", 2))
    for mark in marks:
        for halvings in range(20):
            if killed(folder, command, mark if isinstance(mark, tuple) else mark / 2**halvings):
                break
            shutil.rmtree(folder / "run")  # it ended first: again from the beginning, and earlier
        else:
            pytest.fail(f"is never killed at {mark}")
    left_alone(folder, resuming(folder, command))
    print(f"{stage}: {len(marks)} kills at {marks}")
    ours, theirs = results(folder / "run"), results(tmp_path / "unbroken" / "run")
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name] == theirs[name], name


def resuming(folder, command):
    return command + " --resume" * (folder / "run" / "last.pt").exists()


def killed(folder, command, mark):
    """Begin or resume a run and kill it, after `mark` seconds or at (function, call); False: it
    ended before.
    """
    at_call = isinstance(mark, tuple)
    signal_at = (*mark, signal.SIGKILL) if at_call else None
    process = new_process(folder, resuming(folder, command), signal_at=signal_at)
    process.join(300 if at_call else mark)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("stage", ["vcae", "lstm"])
def test_told_to_stop(stages, tmp_path, stage, number, code):
    """The step is finished and saved, although no checkpoint was due."""
    command, folder = (
        STAGES[stage] + TINY.replace("--save_every 0", "--save_every 100"),
        tmp_path / "stopped",
    )
    for name in ("unbroken", "stopped"):
        shutil.copytree(stages, tmp_path / name)
    left_alone(tmp_path / "unbroken", command)
    left_alone(folder, command, code, signal_at=("training.loop.take_step", 3, number))
    last = torch.load(folder / "run" / "last.pt")
    assert (last["history"], last["progress"]["step"]) == ([], 3)
    assert re.search("continues? with --resume", (folder / "said").read_text())
    assert not list((folder / "run").glob("*.part*"))
    left_alone(folder, command + " --resume")
    assert results(folder / "run") == results(tmp_path / "unbroken" / "run")


def test_stopped_while_latents_are_written(stages, tmp_path):
    shutil.copytree(stages, tmp_path / "run")
    command = STAGES["slots"] + TINY
    left_alone(
        tmp_path / "run", command, 143, signal_at=("data.hdf5.encode_split", 2, signal.SIGTERM)
    )
    assert "interrupted; continue with --resume, or" in (tmp_path / "run" / "said").read_text()
    assert not list((tmp_path / "run" / "run").glob("latents*"))


def test_one_process_a_folder(stages, tmp_path, monkeypatch):
    """While a run takes its first step, another process resumes it. Killed, a process holds
    nothing.
    """
    shutil.copytree(stages, tmp_path / "run")
    command = STAGES["lstm"] + TINY

    class Refused(Exception):
        pass

    def another_comes(*_):
        left_alone(tmp_path / "run", command + " --resume", 2)
        raise Refused

    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setattr(loop, "take_step", another_comes)
    with pytest.raises(Refused):
        run(train_lstm, *command.split()[1:])
    assert "run is in use by another process" in (tmp_path / "run" / "said").read_text()
    folder = tmp_path / "killed"
    shutil.copytree(stages, folder)
    left_alone(
        folder, command, -signal.SIGKILL, signal_at=("training.loop.take_step", 1, signal.SIGKILL)
    )
    left_alone(folder, command + " --resume")
