"""The random numbers of training: each example's are the same, however a batch is divided among processes."""

import torch
from torch import nn

share = (0, 1, 1)  # first row, end and all rows of the batch that is divided: this process has rows first to end


def normal_like(x):
    """Draws from N(0, 1) in the shape, type and device of x, whose first axis has one or more rows an example."""
    return mine(lambda rows: torch.randn(rows, *x.shape[1:], dtype=x.dtype, device=x.device), len(x))


def dropout(x, p, training=True):
    """x (rows, ...) with each entry zero with probability p, known to 1/65536, and the others larger by 1 / (1 - p).

    Sixteen bits an entry decide: drawing a float for each costs a CPU five times as much.
    """
    if not training or not p:
        return x
    row = x[0].numel()

    def draw(rows):
        if x.device.type == "mps":  # which draws no such integers
            return torch.empty(rows, *x.shape[1:], dtype=torch.int16, device=x.device).random_(-(2**15), 2**15)
        bits = torch.empty(-(-rows * row // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        return bits.view(torch.int16)[: rows * row].view(rows, *x.shape[1:])

    keep = mine(draw, len(x)).ge_(round(p * 2**16) - 2**15)
    return x * keep.to(x.dtype).mul_(1 / (1 - p))


class Dropout(nn.Dropout):
    """`dropout` as a layer."""

    def forward(self, x):
        return dropout(x, self.p, self.training)


def mine(draw, rows):
    """This process's `rows` of what draw(all rows) gives."""
    first, end, count = share
    each = rows // max(end - first, 1)  # rows an example; a process whose share is none draws for one
    return draw(each * count)[each * first : each * first + rows]
