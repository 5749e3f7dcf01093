"""Several processes train what one does."""

import os
import shutil
import signal
import subprocess
import sys

import h5py
import pytest
import torch
from conftest import ROOT, new_process
from torch.distributed import TCPStore

from models.vae import VCAE
from training import checkpoint

# Without batch norm, whose statistics on a CPU are each process's own.
STAGES = {
    "vcae": "train_vcae --arch 2016 --data_file frames.hdf5 --nfilts 2 --n_hid 8 --z_dim 4 --lr 1e-3",
    "slots": "train_vcae --data_file frames.hdf5 --arch slots --n_hid 8 --z_dim 10 --max_per_epoch 4 "
    "--schedule constant",
    "cae": "train_cae --data_file frames.hdf5 --specstr d-.2,2-5,p-2,2-3,2-3,4 --batch_size 7 --lr 1e-3",
    "deconv": "train_deconv --arch 2016 --cae cae/best.pt --split_layer conv4 --lr 1e-3",
    "vae": "train_vae_on_convs --arch 2016 --cae cae/best.pt --deconv deconv/best.pt --n_hid 4 --z_dim 4 --crops 1 "
    "--lr 1e-3",
    "lstm": "train_lstm --data_file vcae/latents.hdf5 --seq_length 4 --lstm_n_hid 6 --rollout 1 --lr 1e-3",
    "mse": "train_lstm --data_file vcae/latents.hdf5 --seq_length 4 --lstm_n_hid 6 --loss mse --lr 1e-3",
}
TINY = " --device cpu --no-amp --schedule constant --num_epochs 2 --save_to run --grad_clip 5"


@pytest.fixture
def start():
    """A function that starts `count` processes as torchrun does: they meet in a store of this
    one's.
    """
    stores = []

    def start(folder, command, count, signal_at=()):
        """signal_at: {rank: what `new_process` takes}."""
        stores.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(stores[-1].port),
            "WORLD_SIZE": str(count),
        }
        shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        environments = [
            shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)
        ]
        signals = dict(signal_at)
        return [
            new_process(folder, command, e, signal_at=signals.get(r))
            for r, e in enumerate(environments)
        ]

    return start


def finish(processes):
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_are_as_one(start, stages, tmp_path, stage):
    """Also of an odd batch, of a last batch of one example, and where one process begins and two go
    on.
    """
    for name in ("one", "two", "mixed"):
        shutil.copytree(stages, tmp_path / name)
    command = STAGES[stage] + TINY + ("" if "--batch_size" in STAGES[stage] else " --batch_size 5")
    starts = [start(tmp_path / "one", command, 1), start(tmp_path / "two", command, 2)]
    assert finish(
        start(tmp_path / "mixed", command.replace("--num_epochs 2", "--num_epochs 1"), 1)
    ) == [0]
    starts.append(start(tmp_path / "mixed", f"{command} --resume", 2))
    assert [finish(processes) for processes in starts] == [[0], [0, 0], [0, 0]]
    one, *others = (
        torch.load(tmp_path / name / "run" / "last.pt") for name in ("one", "two", "mixed")
    )
    for other in others:
        for name, weight in one["model"].items():
            assert (other["model"][name] - weight).norm() <= 1e-5 * weight.norm(), name
        for row, theirs in zip(one["history"], other["history"], strict=True):
            timed = {"seconds": 0, "waited": 0}
            assert row | timed == pytest.approx(theirs | timed, rel=1e-5)
    if (tmp_path / "one" / "run" / "latents.hdf5").exists():
        with (
            h5py.File(tmp_path / "one/run/latents.hdf5") as a,
            h5py.File(tmp_path / "two/run/latents.hdf5") as b,
        ):
            for split in ("train", "valid", "test"):
                ours, theirs = (torch.from_numpy(file[split]["latents"][:]) for file in (a, b))
                tolerance = torch.full(ours.shape[-1:], 1e-4)  # (z_dim,)
                if stage == "slots":
                    # An untrained decoder hardly determines the looks that are fitted to frames,
                    # whose places are the same.
                    tolerance.view(2, 5)[:, :-2] = 0.1
                assert ((ours - theirs).abs() <= tolerance + 1e-3 * theirs.abs()).all()


def test_a_dead_process_ends_all(stages, tmp_path):
    """Under torchrun itself, whose processes train with batch norm, too. One is killed in the
    second epoch.
    """
    (tmp_path / "rank.py").write_text(
        "import os, runpy, signal, sys, conftest\n"
        "if os.environ['RANK'] == '1':\n"
        "    conftest.send_signal_at('training.loop.take_step', 25, signal.SIGKILL)\n"
        "sys.argv.pop(0)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    flags = "--arch deep --nfilts 2 --n_hid 8 --z_dim 4 --device cpu --num_epochs 3 --batch_size 5"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    command += [tmp_path / "rank.py", ROOT / "train_vcae.py", *flags.split()]
    command += ["--data_file", stages / "frames.hdf5", "--save_to", tmp_path / "run"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode
    assert (
        "train_vcae.py: error: another process of this run has ended; continue with --resume"
        in ended.stderr
    )
    assert (
        "Traceback"
        not in ended.stderr.split("ChildFailedError")[0].split("train_vcae.py: error")[0]
    )
    assert len(checkpoint.load(tmp_path / "run" / "last.pt", VCAE)["history"]) == 1


@pytest.mark.parametrize("told", [[1], [0, 1]])
def test_told_to_stop_all_stop_at_the_same_step(start, stages, tmp_path, told):
    for name in ("one", "two"):
        shutil.copytree(stages, tmp_path / name)
    command = STAGES["lstm"] + TINY + " --batch_size 5"
    signal_at = ("training.loop.take_step", 3, signal.SIGTERM)
    one, two = (
        start(tmp_path / "one", command, 1),
        start(tmp_path / "two", command, 2, dict.fromkeys(told, signal_at)),
    )
    assert [finish(one), finish(two)] == [[0], [143, 143]]
    assert torch.load(tmp_path / "two" / "run" / "last.pt")["progress"]["step"] == 3
    assert finish(start(tmp_path / "two", command + " --resume", 2)) == [0, 0]
    one, two = (
        torch.load(tmp_path / name / "run" / "last.pt")["history"][-1] for name in ("one", "two")
    )
    assert one["valid_loss"] == pytest.approx(two["valid_loss"], rel=1e-4)


def test_more_processes_than_examples(start, stages, tmp_path):
    command = STAGES["lstm"] + TINY + " --batch_size 1"
    shutil.copytree(stages, tmp_path / "run")
    assert finish(start(tmp_path / "run", command, 2)) == [2, 2]
    assert (
        "--batch_size 1 gives 2 processes nothing to share"
        in (tmp_path / "run" / "said").read_text()
    )
