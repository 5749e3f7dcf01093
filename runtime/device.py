"""The machine: which device, what it is fast at, how much memory it has, and its random numbers."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from runtime.errors import UserError

THREAD = "in_threads"  # what the names of its threads begin with


def choose_device(name=None):
    """The torch device: the one named, or else cuda, else mps, else cpu.

    Raises UserError if it cannot be used.
    """
    if name in (None, "cuda") and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"  # torchrun's processes have one each
    if name is None:
        name = "cpu"
        if torch.cuda.is_available():
            name = "cuda"
        elif torch.backends.mps.is_available():
            name = "mps"
    try:
        one = torch.ones(1, device=name)
        one.item()  # of some devices, such as "meta", there are shapes and no numbers
        if one.is_cuda:
            # Streams and graphs are the current device's.
            torch.cuda.set_device(torch.device(name).index or 0)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name} cannot be used on this machine; try cpu") from None
    return torch.device(name)


def fast_bfloat16(device):
    """Whether the device has instructions of its own for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def in_threads(function, parts, device):
    """[function(part) for part in parts], on a CPU in as many threads as one product would have.

    For thousands of small operations, which gain nothing from being divided among threads. Numbers
    do not depend on how many threads there are. What a thread has begun goes on after an exception,
    a Ctrl-C say, and its result is lost.
    """
    if device.type != "cpu":
        return [function(part) for part in parts]

    def prepare():
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)

    count = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, THREAD, prepare)
    try:
        return list(pool.map(function, parts))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        torch.set_num_threads(count)  # what threads that are started later have


def seed_all(*seeds):
    """Seed torch with several numbers: a run's seed, the epoch, the step."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]) >> 1
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a hundred times as long
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def try_compiler(device):
    """Raise UserError if torch.compile does not work here.

    Its own error has a hundred lines, and comes later.
    """
    size = int.from_bytes(os.urandom(2), "big") + 8  # a kernel of this size is in no cache
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(size, device=device))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"--compile does not work here ({reason:.100}): install a C++ compiler, or give "
            "--no-compile"
        ) from None


def new_network(kind, device, *args, **config):
    """A network of the class `kind`, built from the other arguments.

    Raises MemoryError, before anything is allocated, if training it takes more memory than the
    machine has.
    """
    with torch.device("meta"):
        weights = kind(*args, **config).parameters()
    needed = 4 * sum(weight.numel() * weight.itemsize for weight in weights)
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory
    else:
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > room:
        raise MemoryError(
            f"weights, gradients and Adam's moments take {needed / 1e9:.0f} GB of {room / 1e9:.0f}"
        )
    return kind(*args, **config)
