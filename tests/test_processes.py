"""Several processes train what one does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
import torch
from conftest import new_process

from models import checkpoint
from models.vae import VCAE

# Without batch norm, whose statistics on a CPU are each process's own.
STAGES = {
    "vcae": "train_vcae --data_file frames.hdf5 --nfilts 2 --n_hid 8 --z_dim 4 --lr 1e-3",
    "slots": "train_vcae --data_file frames.hdf5 --arch slots --n_hid 8 --z_dim 10 --max_per_epoch 4 "
    "--schedule constant",
    "cae": "train_cae --data_file frames.hdf5 --specstr d-.2,2-5,p-2,2-3,2-3,4 --batch_size 7 --lr 1e-3",
    "deconv": "train_deconv --cae cae/best.pt --split_layer conv4 --lr 1e-3",
    "vae": "train_vae_on_convs --cae cae/best.pt --deconv deconv/best.pt --n_hid 4 --z_dim 4 --crops 1 --lr 1e-3",
    "lstm": "train_lstm --data_file vcae/latents.hdf5 --seq_length 4 --lstm_n_hid 6 --rollout 1 --lr 1e-3",
    "mse": "train_lstm --data_file vcae/latents.hdf5 --seq_length 4 --lstm_n_hid 6 --loss mse --lr 1e-3",
}
TINY = " --device cpu --no-amp --num_epochs 2 --save_to run --grad_clip 5"


def start(folder, command, count):
    """Start `count` processes as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    ranks = range(count)
    return [new_process(folder, command, shared | {"RANK": str(r), "LOCAL_RANK": str(r)}) for r in ranks]


def finish(processes):
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_are_as_one(stages, tmp_path, stage):
    """Also of an odd batch, of a last batch of one example, and where one process begins and two go on."""
    for name in ("one", "two", "mixed"):
        shutil.copytree(stages, tmp_path / name)
    command = STAGES[stage] + TINY + ("" if "--batch_size" in STAGES[stage] else " --batch_size 5")
    assert finish(start(tmp_path / "one", command, 1)) == [0]
    assert finish(start(tmp_path / "two", command, 2)) == [0, 0]
    assert finish(start(tmp_path / "mixed", command.replace("--num_epochs 2", "--num_epochs 1"), 1)) == [0]
    assert finish(start(tmp_path / "mixed", f"{command} --resume", 2)) == [0, 0]
    one, *others = (torch.load(tmp_path / name / "run" / "last.pt") for name in ("one", "two", "mixed"))
    for other in others:
        for name, weight in one["model"].items():
            assert (other["model"][name] - weight).norm() <= 1e-5 * weight.norm(), name
        for row, theirs in zip(one["history"], other["history"], strict=True):
            timed = {"seconds": 0, "waited": 0}
            assert row | timed == pytest.approx(theirs | timed, rel=1e-5)
    if (tmp_path / "one" / "run" / "latents.hdf5").exists():
        with h5py.File(tmp_path / "one/run/latents.hdf5") as a, h5py.File(tmp_path / "two/run/latents.hdf5") as b:
            for split in ("train", "valid", "test"):
                ours, theirs = (torch.from_numpy(file[split]["latents"][:]) for file in (a, b))
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="finds torchrun's processes in /proc")
def test_a_dead_process_ends_all(stages, tmp_path):
    """Under torchrun itself, whose processes train with batch norm, too."""
    script = Path(__file__).parents[1] / "train_vcae.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
    command += f"--data_file {stages}/frames.hdf5 --arch deep --nfilts 2 --n_hid 8 --z_dim 4 --device cpu".split()
    command += f"--num_epochs 100000 --batch_size 5 --save_every 0.01 --save_to {tmp_path}/run".split()
    with open(tmp_path / "errors", "w") as errors:
        torchrun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    while not (tmp_path / "run" / "best.pt").exists():
        assert torchrun.poll() is None
        time.sleep(0.1)
    workers = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    began = time.monotonic()
    assert torchrun.wait(60)
    print(f"all ended after {time.monotonic() - began:.1f} s")
    said = (tmp_path / "errors").read_text()
    assert "train_vcae.py: error: another process of this run has ended; go on with --resume" in said
    assert "Traceback" not in said.split("ChildFailedError")[0].split("train_vcae.py: error")[0]
    assert checkpoint.load(tmp_path / "run" / "last.pt", VCAE)["history"]


@pytest.mark.parametrize("told", [[1], [0, 1]])
def test_told_to_stop_all_stop_at_the_same_step(stages, tmp_path, told):
    for name in ("one", "two"):
        shutil.copytree(stages, tmp_path / name)
    command = STAGES["lstm"] + TINY.replace("--num_epochs 2", "--num_epochs 50") + " --batch_size 5"
    assert finish(start(tmp_path / "one", command, 1)) == [0]
    processes = start(tmp_path / "two", command, 2)
    while not (tmp_path / "two" / "run" / "log.csv").exists():
        time.sleep(0.001)
    for rank in told:
        os.kill(processes[rank].pid, signal.SIGTERM)
    assert finish(processes) == [143, 143]
    assert finish(start(tmp_path / "two", command + " --resume", 2)) == [0, 0]
    one, two = (torch.load(tmp_path / name / "run" / "last.pt")["history"][-1] for name in ("one", "two"))
    assert one["valid_loss"] == pytest.approx(two["valid_loss"], rel=1e-4)


def test_more_processes_than_examples(stages, tmp_path):
    command = STAGES["lstm"] + TINY + " --batch_size 1"
    shutil.copytree(stages, tmp_path / "run")
    assert finish(start(tmp_path / "run", command, 2)) == [2, 2]
    assert "--batch_size 1 gives 2 processes nothing to share" in (tmp_path / "run" / "said").read_text()
