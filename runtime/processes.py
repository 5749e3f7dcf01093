"""This process among those that torchrun started: alone, without torchrun."""

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(
    minutes=30
)  # with a machine that no longer answers; a process that ends is noticed at once


def join(device):
    """Meet the others, if there are any; `device` is this one's."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        backends = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backends, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
        wait()  # lest one that is refused leaves while another still arrives


def rank():
    """The number of this process; 0 is the one that writes and tells."""
    return dist.get_rank() if dist.is_initialized() else 0


def count():
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rows(n):
    """The first and the end of this process's part of n things."""
    return rank() * n // count(), (rank() + 1) * n // count()


def all_reduce(values, by="sum"):
    """A list of numbers, each the sum, or the max, over all processes."""
    if count() == 1:
        return values
    values = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(values, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[by])
    return values.tolist()


def say(text):
    """Print a line, once."""
    if rank() == 0:
        print(text, flush=True)


def lost(error):
    """Whether the error is that another process is not there any more."""
    return count() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error))


def wait():
    """Until all are here."""
    all_reduce([0])
