"""The batches of an epoch: how many there are, and reading each while the one before it is used."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import torch

from runtime import processes


def count_batches(examples, args):
    """How many batches a pass over that many examples has."""
    return len(starts(examples, args))


def starts(examples, args):
    """Where each batch begins: a range, not a list, which would grow with the dataset."""
    return range(0, examples, args.batch_size)[: args.max_per_epoch]


def read_ahead(dataset, order, args, first=0):
    """Yield the batches of a pass from number `first` on.

    Each is this process's part of the batch, and how many rows the whole batch has. order: (N,) the
    indices of all examples, shuffled. A thread reads each batch while the one before it is used.
    """

    def read(indices):
        begin, end = processes.local_rows(len(indices))
        part = indices[begin : max(end, begin + 1)]  # never nothing
        batch = dataset.__getitems__(part.tolist())
        if torch.cuda.is_available():
            batch = batch.pin_memory()
        return batch, len(indices)

    with ThreadPoolExecutor(1) as thread:
        waiting = deque()
        for start in starts(len(order), args)[first:]:
            waiting.append(thread.submit(read, order[start : start + args.batch_size]))
            if len(waiting) == 2:
                yield waiting.popleft().result()
        for batch in waiting:
            yield batch.result()
