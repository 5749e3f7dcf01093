import importlib
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import signal
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

import moving_mnist
import train_cae
import train_deconv
import train_lstm
import train_vcae
from runtime import cli

ROOT = Path(__file__).parent.parent
CONTEXT = multiprocessing.get_context("forkserver")


def pytest_addoption(parser):
    parser.addoption(
        "--order",
        help="of test files, and of the tests in each: reversed, or a seed to shuffle them by",
    )


def pytest_collection_modifyitems(config, items):
    order = config.getoption("--order")
    if order == "reversed":
        items.reverse()
    elif order:
        rng = random.Random(order)
        files = {item.path: rng.random() for item in items}
        items.sort(key=lambda item: (files[item.path], rng.random()))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny networks are faster on one thread, and their results do not depend on how many the
    machine has.
    """
    torch.set_num_threads(1)


@pytest.fixture
def set_threads():
    """`torch.set_num_threads`, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def run(stage, *argv):
    """Run a stage in-process: its `main` on the flags given."""
    stage.main(stage.flags().parse_args([str(arg) for arg in argv]))


def new_process(folder, command, environment=(), file_size=None, signal_at=None):
    """A started process that runs a stage's command line in `folder`, where it leaves what it says
    as "said".

    Its memory is free of what tests made. file_size: bytes to which a file can grow, as if the disk
    were full then. signal_at: (function, call, signal): as that call of the function,
    "module.name", begins, the process sends itself the signal.
    """
    start_server()
    process = CONTEXT.Process(
        target=work, args=(folder, dict(environment), file_size, signal_at, *command.split())
    )
    process.daemon = True  # a test that fails leaves none behind
    process.start()
    return process


def start_server():
    """Have a server from which processes are forked, with all modules imported. It may be running
    already.
    """
    modules = (
        "torch._dynamo torch.distributed.nn h5py av skimage.metrics matplotlib.figure conftest"
    )
    CONTEXT.set_forkserver_preload(modules.split())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "tests"))))
        # The C library keeps freed memory for later, more or less by chance; large blocks go back
        # at once.
        patch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**22))
        forkserver.ensure_running()


def work(folder, environment, file_size, signal_at, stage, *flags):
    os.chdir(folder)
    os.environ.update(environment)
    with open("said", "a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    stage = importlib.import_module(stage)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if signal_at:
        send_signal_at(*signal_at)
    cli.run(stage.main, stage.flags(), flags)


def send_signal_at(function, call, number):
    """Replace the function "module.name" by one that sends this process a signal as that call of it
    begins.
    """
    module, name = function.rsplit(".", 1)
    module = importlib.import_module(module)
    original, calls = getattr(module, name), itertools.count(1)

    def counted(*args, **kwargs):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(module, name, counted)


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
    run(
        train_vcae,
        "--data_file",
        frames,
        "--save_to",
        vcae,
        "--arch",
        "deep",
        "--nfilts",
        4,
        "--z_dim",
        6,
        *small,
    )
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
    run(
        train_cae,
        "--data_file",
        root / "frames.hdf5",
        "--specstr",
        spec,
        "--save_to",
        root / "cae",
        *small,
    )
    flags = [
        "--cae",
        root / "cae" / "best.pt",
        "--split_layer",
        "conv4",
        "--save_to",
        root / "deconv",
    ]
    run(train_deconv, *flags, *small)
    return root
