import importlib
import multiprocessing
import os
import resource
import shutil

import pytest
import torch

import cli
import moving_mnist
import train_cae
import train_deconv
import train_lstm
import train_vcae


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny networks are faster on one thread, and their results do not depend on how many the machine has."""
    torch.set_num_threads(1)


def run(stage, *argv):
    """Run a stage in-process: its `main` on the flags given."""
    stage.main(stage.flags().parse_args([str(arg) for arg in argv]))


def new_process(folder, command, environment=(), file_size=None):
    """A started process that runs a stage's command line in `folder`, where it leaves what it says as "said".

    Its memory is free of what tests made. file_size: bytes to which a file can grow, as if the disk were full then.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "torch._dynamo", "torch.distributed.nn", "h5py", "av", "skimage.metrics", "matplotlib.figure"]
    )
    process = context.Process(target=work, args=(folder, dict(environment), file_size, *command.split()))
    process.start()
    return process


def work(folder, environment, file_size, stage, *flags):
    os.chdir(folder)
    os.environ.update(environment)
    with open("said", "a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    torch.set_num_threads(1)
    stage = importlib.import_module(stage)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    cli.run(stage.main, stage.flags(), flags)


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """A folder in which every MNIST stage has run on tiny data."""
    root = tmp_path_factory.mktemp("chain")
    frames, vcae, lstm = root / "frames.hdf5", root / "vcae", root / "lstm"
    run(
        moving_mnist,
        "--mnist",
        "sample",
        "--dest",
        frames,
        "--seqs",
        20,
        "--seq_len",
        8,
        "--split",
        "60/20/20",
        "--nums_per_image",
        2,
    )
    small = ["--num_epochs", 2, "--batch_size", 5, "--device", "cpu"]
    run(train_vcae, "--data_file", frames, "--save_to", vcae, "--arch", "deep", "--nfilts", 4, "--z_dim", 6, *small)
    small += ["--seq_length", 6, "--lstm_n_hid", 8]
    run(train_lstm, "--data_file", vcae / "latents.hdf5", "--save_to", lstm, *small)
    return root


@pytest.fixture(scope="session")
def stages(chain, tmp_path_factory):
    """A folder with what each training stage reads, from tiny runs of the stages before it."""
    root = tmp_path_factory.mktemp("stages")
    for name in ("frames.hdf5", "vcae", "lstm"):
        (shutil.copytree if (chain / name).is_dir() else shutil.copy)(chain / name, root / name)
    small = ["--device", "cpu", "--num_epochs", 1, "--max_per_epoch", 2]
    spec = "d-.2,2-5,p-2,2-3,2-3,4"
    run(train_cae, "--data_file", root / "frames.hdf5", "--specstr", spec, "--save_to", root / "cae", *small)
    flags = ["--cae", root / "cae" / "best.pt", "--split_layer", "conv4", "--save_to", root / "deconv"]
    run(train_deconv, *flags, *small)
    return root
