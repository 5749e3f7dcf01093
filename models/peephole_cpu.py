"""Calls `peephole.cpp`, the steps of a peephole LSTM on a CPU, where it can be had."""

import ctypes
import functools
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from runtime import native, processes

LANES = 16  # units of a block forward, as in peephole.cpp
WIDTH = 4 * LANES  # columns of a block
ROWS = 128  # of a tile
C_TYPES = {int: ctypes.c_long, float: ctypes.c_float}


class Blocks:
    """The steps of sequences that share a layer's weights: a twin of `peephole.Steps`."""

    def __init__(self, weight_in, weight_hid, bias):
        self.weight_in = weight_in.detach()
        self.weight_hid = weight_hid.detach()
        self.bias = bias.detach()

    def forward(self, x, peepholes, hiddens, cells):
        steps, batch, inputs = x.shape
        if inputs != len(self.weight_in):  # C++ would read on
            raise ValueError(f"{inputs} inputs in place of {len(self.weight_in)}")
        gates = x.new_empty(steps, batch, len(self.bias))
        x = F.pad(x, (0, 1)) if inputs % 2 else x
        blocks = self.blocks_in, self.blocks_hid
        call("forward", gates, x.shape[2], x, *blocks, self.shared(peepholes), hiddens, cells)
        return gates

    def backward(self, gates, peepholes, cells, d_hiddens, dc, clip):
        da, dh = torch.empty_like(gates), torch.empty_like(dc)
        parts = dc.new_zeros(math.ceil(len(dc) / ROWS), 7, dc.shape[1])  # of each tile's rows
        given = self.blocks_back, self.shared(peepholes), cells, d_hiddens, float(clip)
        call("backward", gates, *given, dc, da, parts, dh)
        d_shared = parts.sum(0)
        return da, dh, d_shared[:4].flatten(), d_shared[4:]

    def shared(self, peepholes):
        """The biases of i, f, g and o, and the peepholes: (7, H)."""
        return torch.cat([self.bias.view(4, -1), peepholes.detach()])

    # Blocks have an even number of rows, the last of V may be zeros: in bfloat16 a block (K, N) is
    # (K / 2, N) words, each of two rows, as processors read it.

    @functools.cached_property
    def blocks_in(self):
        odd = len(self.weight_in) % 2
        return gates_in_blocks(F.pad(self.weight_in, (0, 0, 0, 1)) if odd else self.weight_in)

    @functools.cached_property
    def blocks_hid(self):
        return gates_in_blocks(self.weight_hid)

    @functools.cached_property
    def blocks_back(self):
        """W^T as (blocks, 4H, WIDTH); the last block ends with zeros, unless they are full."""
        missing = -len(self.weight_hid) % WIDTH
        rows = F.pad(self.weight_hid, (0, 0, 0, missing)) if missing else self.weight_hid
        words = rows.view(torch.int32) if rows.dtype == torch.bfloat16 else rows
        return words.unflatten(0, (-1, WIDTH)).transpose(1, 2).contiguous()


def gates_in_blocks(weights):
    """Weights (K, 4H) as (H / LANES, K, 4, LANES): a block has all gates of its units."""
    if weights.dtype == torch.bfloat16:
        pairs = torch.stack([weights[::2], weights[1::2]], -1)  # (K / 2, 4H, 2)
        weights = pairs.view(torch.int32).squeeze(-1)
    blocks = weights.unflatten(1, (4, -1, LANES))  # (rows, 4, H / LANES, LANES)
    return blocks.permute(2, 0, 1, 3).contiguous()


def call(name, gates, *rest):
    """Call peephole.cpp's function `name` for the type and sizes of `gates` (T, B, 4H)."""
    steps, batch, columns = gates.shape
    arguments = []
    for each in (steps, batch, columns // 4, gates, *rest):
        if isinstance(each, torch.Tensor):
            assert each.is_contiguous(), "a tensor with gaps"  # a pointer says nothing of strides
            arguments.append(ctypes.c_void_p(each.data_ptr()))
        else:
            arguments.append(C_TYPES[type(each)](each))
    ctypes.CFUNCTYPE(None)(getattr(functions(gates.dtype), name))(*arguments)


class Functions(ctypes.Structure):
    """The addresses of peephole.cpp's functions for one type."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("multiplies", "forward", "backward")]


@functools.cache
def functions(dtype):
    """Those for a type of torch's. Raises OSError or RuntimeError if they cannot be had here."""
    library = native.load(Path(__file__).with_name("peephole.cpp"))
    found = Functions.in_dll(library, str(dtype).removeprefix("torch."))
    if not ctypes.CFUNCTYPE(ctypes.c_bool)(found.multiplies)():
        raise RuntimeError(f"no products of {dtype} on this processor")
    return found


def takes(weight_hid, peepholes, eager):
    """Whether `Blocks` can be used in place of the class `eager`.

    It gives the same results, but in bfloat16 rounds less: neither b nor a_t.
    """
    return (
        weight_hid.device.type == "cpu"
        and weight_hid.dtype in (torch.float32, torch.bfloat16)
        and peepholes.dtype == torch.float32
        and len(weight_hid) % LANES == 0
        and works(weight_hid.dtype, eager)
    )


@functools.cache
def works(dtype, eager):
    """Whether peephole.cpp can be had here and gives what the class `eager` gives.

    If not, one line says so.
    """
    try:
        functions(dtype)
        check(dtype, eager)
    except (OSError, RuntimeError, AssertionError) as error:
        say_once(str(error).strip().splitlines()[0])
        return False
    return True


@functools.cache
def say_once(reason):
    if processes.rank() == 0:
        print(f"models/peephole.cpp is not used, LSTMs are slower: {reason}", file=sys.stderr)


@torch.no_grad()
def check(dtype, eager):
    """Compute a small case in both ways. Raises AssertionError if results differ."""
    with torch.autocast("cpu", enabled=False):
        results = [small_case(kind, dtype) for kind in (Blocks, eager)]
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2  # sums are rounded in another order
    for ours, theirs in zip(*results, strict=True):
        if not (ours - theirs).norm() <= tolerance * theirs.norm():
            raise AssertionError("its results are wrong")


def small_case(kind, dtype, steps=3, batch=5, inputs=7, units=6 * LANES):
    """All results of a sequence, forward and backward, of the class `kind`."""
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator)
    weight_in, weight_hid = (0.1 * draw(rows, 4 * units).to(dtype) for rows in (inputs, units))
    bias = draw(4 * units)
    peepholes = 0.1 * draw(3, units)
    x = draw(steps, batch, inputs).to(dtype)
    hiddens = draw(steps + 1, batch, units).to(dtype)
    cells = draw(steps + 1, batch, units)
    d_hiddens = draw(steps, batch, units).to(dtype)
    dc = draw(batch, units)
    part = kind(weight_in, weight_hid, bias)
    gates = part.forward(x, peepholes, hiddens, cells)
    gradients = part.backward(gates, peepholes, cells, d_hiddens, dc, 0.2)
    return [each.float() for each in (gates, hiddens, cells, dc, *gradients)]
