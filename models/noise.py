"""The random numbers of training.

Each example's are the same, however a batch is divided among processes.
"""

from contextlib import contextmanager

import torch
from torch import nn

from runtime import processes

# Of the batch at hand: this process's first row, the row after its last, and how many there are.
batch_part = (0, 1, 1)


@contextmanager
def batch_of(rows):
    """In the block the batch at hand has `rows` rows.

    Gives (first, end), those that are this process's.
    """
    global batch_part
    first, end = processes.local_rows(rows)
    batch_part = (first, end, rows)
    try:
        yield first, end
    finally:
        batch_part = (0, 1, 1)


def normal_like(x):
    """Draws from N(0, 1) in the shape, type and device of x.

    The first axis of x has one or more rows per example.
    """

    def draw(rows):
        return torch.randn(rows, *x.shape[1:], dtype=x.dtype, device=x.device)

    return local_part(draw, len(x))


def dropout(x, p, training=True):
    """x (rows, ...) with each entry zero with probability p, the others divided by 1 - p.

    Sixteen bits decide on an entry, so p is rounded to 1/65536. Drawing a float for each would cost
    a CPU five times as much.
    """
    if not training or not p:
        return x
    entries = x[0].numel()

    def draw(rows):
        if x.device.type == "mps":  # which draws no 64-bit integers
            return torch.empty(rows, *x.shape[1:], dtype=torch.int16, device=x.device).random_(
                -(2**15), 2**15
            )
        words = -(-rows * entries // 4)  # of four entries each, rounded up
        bits = torch.empty(words, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        return bits.view(torch.int16)[: rows * entries].view(rows, *x.shape[1:])

    keep = local_part(draw, len(x)).ge_(round(p * 2**16) - 2**15)
    return x * keep.to(x.dtype).mul_(1 / (1 - p))


class Dropout(nn.Dropout):
    """`dropout` as a layer."""

    def forward(self, x):
        return dropout(x, self.p, self.training)


def local_part(draw, rows):
    """This process's `rows` of what draw(rows of the whole batch) gives."""
    first, end, count = batch_part
    per_example = rows // max(end - first, 1)  # a process that has no rows draws for one
    return draw(per_example * count)[per_example * first : per_example * first + rows]
