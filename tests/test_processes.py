"""Several processes train what one does."""

import shutil
import socket

import h5py
import pytest
import torch
from conftest import new_process

# Without batch norm, whose statistics on a CPU are each process's own.
STAGES = {
    "vcae": "train_vcae --data_file frames.hdf5 --nfilts 2 --n_hid 8 --z_dim 4 --lr 1e-3",
    "slots": "train_vcae --data_file frames.hdf5 --arch slots --n_hid 8 --z_dim 10 --max_per_epoch 4",
    "cae": "train_cae --data_file frames.hdf5 --specstr d-.2,2-5,p-2,2-3,2-3,4 --batch_size 7 --lr 1e-3",
    "deconv": "train_deconv --cae cae/best.pt --split_layer conv4 --lr 1e-3",
    "vae": "train_vae_on_convs --cae cae/best.pt --deconv deconv/best.pt --n_hid 4 --z_dim 4 --crops 1 --lr 1e-3",
    "lstm": "train_lstm --data_file vcae/latents.hdf5 --seq_length 4 --lstm_n_hid 6 --rollout 1 --lr 1e-3",
}
TINY = " --device cpu --num_epochs 2 --save_to run --grad_clip 5"


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
            torch.testing.assert_close(other["model"][name], weight, rtol=1e-5, atol=1e-7)
        for row, theirs in zip(one["history"], other["history"], strict=True):
            del row["seconds"], row["waited"]
            assert {name: theirs[name] for name in row} == pytest.approx(row, rel=1e-4)
    if (tmp_path / "one" / "run" / "latents.hdf5").exists():
        with h5py.File(tmp_path / "one/run/latents.hdf5") as a, h5py.File(tmp_path / "two/run/latents.hdf5") as b:
            for split in ("train", "valid", "test"):
                ours, theirs = (torch.from_numpy(file[split]["latents"][:]) for file in (a, b))
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
