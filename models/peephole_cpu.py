"""Calls `peephole.cpp`, the steps of a peephole LSTM on a CPU, where it can be had."""

import ctypes
import functools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from runtime import native, processes

LANES = 16  # units of a block forward, as in peephole.cpp
WIDTH = 4 * LANES  # columns of a block
C_TYPES = {int: ctypes.c_long, float: ctypes.c_float}


class Blocks:
    """The steps of sequences that share a layer's weights: a twin of `peephole.Steps`."""

    def __init__(self, weight_in, weight_hid, bias):
        self.weight_in = weight_in.detach()
        self.weight_hid = weight_hid.detach()
        self.bias = bias.detach()

    def forward(self, x, peepholes, hiddens, cells):
        gates = x.new_empty(*x.shape[:2], len(self.bias))
        shared = self.shared(peepholes)
        x = fill_up(x, -1, 2)  # as `in_blocks` the rows of V
        call("forward", gates, x.shape[2], x, *self.blocks_forward, shared, hiddens, cells)
        return gates

    def backward(self, gates, peepholes, cells, d_hiddens, dc, clip):
        shared = self.shared(peepholes)
        written = torch.empty_like(gates), torch.zeros_like(shared), torch.empty_like(dc)
        given = self.blocks_backward, shared, cells, d_hiddens, float(clip)
        call("backward", gates, *given, dc, *written)
        da, d_shared, dh = written
        return da, dh, d_shared[:4].flatten(), d_shared[4:]

    def shared(self, peepholes):
        """The biases of i, f, g and o, and the peepholes: (7, H)."""
        return torch.cat([self.bias.view(4, -1), peepholes.detach()])

    # In bfloat16 a block (K, N) is (K / 2, N) words, each of two rows: so processors read it.

    @functools.cached_property
    def blocks_forward(self):
        """V and W as (H / LANES, inputs or H, 4, LANES): a block has all gates of its units."""
        return [in_blocks(weight) for weight in (self.weight_in, self.weight_hid)]

    @functools.cached_property
    def blocks_backward(self):
        """W^T in blocks (4H, WIDTH) of units; the last one is filled up with zeros."""
        words = fill_up(self.weight_hid, 0, WIDTH)
        if words.dtype == torch.bfloat16:
            words = words.view(torch.int32)
        return words.unflatten(0, (-1, WIDTH)).transpose(1, 2).contiguous()


def in_blocks(weights):
    """Weights (K, 4H) as (H / LANES, K, 4, LANES), K even."""
    weights = fill_up(weights, 0, 2)
    if weights.dtype == torch.bfloat16:
        pairs = torch.stack([weights[::2], weights[1::2]], -1)  # (K / 2, 4H, 2)
        weights = pairs.view(torch.int32).squeeze(-1)
    blocks = weights.unflatten(1, (4, -1, LANES))  # (rows, 4, H / LANES, LANES)
    return blocks.permute(2, 0, 1, 3).contiguous()


def fill_up(x, dim, multiple):
    """x with zeros after its end along its first or last dimension, up to a multiple."""
    missing = -x.shape[dim] % multiple
    return F.pad(x, (0, missing) if dim == -1 else (0, 0, 0, missing)) if missing else x


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


def functions(dtype):
    return Functions.in_dll(library(), str(dtype).removeprefix("torch."))


def takes(weight_hid, peepholes, eager):
    """Whether `Blocks` can be used in place of the class `eager`, whose results it must give."""
    return (
        weight_hid.device.type == "cpu"
        and weight_hid.dtype in (torch.float32, torch.bfloat16)
        and peepholes.dtype == torch.float32
        and len(weight_hid) % LANES == 0
        and works(weight_hid.dtype, eager)
    )


@functools.cache
def works(dtype, eager):
    """Whether peephole.cpp can be built here and gives what the class `eager` gives.

    If not, one line says so.
    """
    try:
        if not ctypes.CFUNCTYPE(ctypes.c_bool)(functions(dtype).multiplies)():
            raise RuntimeError(f"no products of {dtype} on this processor")
        check(dtype, eager)
    except (OSError, RuntimeError, AssertionError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        if processes.rank() == 0:
            print(f"models/peephole.cpp is not used, LSTMs are slower: {reason}", file=sys.stderr)
        return False
    return True


@functools.cache
def library():
    return native.load(Path(__file__).with_name("peephole.cpp"))


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
