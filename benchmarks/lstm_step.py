"""Time of a training step of the latent LSTM.

Ours, torch.nn.LSTM, a cell called step by step, and the bare products.
"""

import sys
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))
import runtime.environment  # noqa: F401 (before torch)

import torch
from compare import compare
from torch import nn

from models.lstm import LatentLSTM
from models.peephole import transposed_product
from runtime import cli, limits, native
from runtime.device import choose_device
from runtime.errors import UserError
from training.loop import take_step
from training.step import Recorded, adam


class Cell(nn.Module):
    """The same cell, a Python loop under autograd: what a first port would write."""

    def __init__(self, inputs, units):
        super().__init__()
        self.gates = nn.Linear(inputs + units, 4 * units)
        self.peepholes = nn.Parameter(0.1 * torch.randn(3, units))

    def cast(self, device):
        """Its products are autocast's own."""

    def forward(self, x, state=None, clip=None, weights=None):
        zeros = torch.zeros(len(x), self.peepholes.shape[1], device=x.device)
        (hidden, cell) = state or (zeros, zeros)
        outputs = []
        for x_t in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([x_t, hidden], 1)).float().chunk(4, 1)
            i = torch.sigmoid(i + self.peepholes[0] * cell)
            f = torch.sigmoid(f + self.peepholes[1] * cell)
            cell = f * cell + i * torch.tanh(g)
            hidden = torch.sigmoid(o + self.peepholes[2] * cell) * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs, 1), (hidden, cell)


def products(inputs, units, layers, batch, steps, free, dtype, device):
    """The matrix products of a step, forward and backward, and nothing else.

    On a CPU, W is packed beforehand for its many small products. Of `free` steps in free running
    the input is not known beforehand, so that its products cannot be one.
    """
    sizes = (batch, units), (batch, 4 * units), (units, 4 * units)
    h, da, w = (torch.randn(*size, dtype=dtype, device=device) for size in sizes)
    by_w = multiply_by(w, batch)
    by_w_t = multiply_by(w.t().contiguous(), batch)
    widths = [inputs] + [units] * (layers - 1)
    blocks = [steps - free] + [1] * free
    known = [
        [torch.randn(n * batch, width, dtype=dtype, device=device) for n in blocks]
        for width in widths
    ]
    hiddens = [torch.randn(n * batch, units, dtype=dtype, device=device) for n in blocks]
    sloped = [torch.randn(n * batch, 4 * units, dtype=dtype, device=device) for n in blocks]
    weights = [torch.randn(width, 4 * units, dtype=dtype, device=device) for width in widths]

    def run(_):
        for layer, weight in enumerate(weights):
            for x, hidden, gates in zip(known[layer], hiddens, sloped, strict=True):
                x @ weight
                for _ in range(len(x) // batch):
                    by_w(h)
                for _ in range(len(x) // batch):
                    by_w_t(da)
                transposed_product(hidden, gates)
                transposed_product(x, gates)
                if layer or len(blocks) > 1:
                    gates @ weight.t()

    return run


def multiply_by(matrix, rows):
    """The function x (rows, K) -> x @ matrix (K, N), the fastest there is."""
    if matrix.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return partial(torch.matmul, other=matrix)
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix.t().contiguous(), rows)
    linear = torch.ops.mkldnn._linear_pointwise
    return partial(linear, W=packed, B=None, attr="none", scalars=[], algorithm="")


def eagerly(function):
    """The function, run without peephole.cpp."""

    def run():
        with mock.patch("models.peephole_cpu.takes", return_value=False):
            return function()

    return run


def processor(device):
    """The processor's name, as text; of a CPU also whether it has a matrix unit."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = native.processor().splitlines()
    model = next((line for line in lines if line.startswith("model name")), lines[0])
    amx = "AMX" if torch.cpu._is_amx_tile_supported() else "no AMX"
    return f"{model.split(':')[-1].strip()}, {amx}"


def main(args):
    if args.rollout > args.seq_length - 2:
        raise UserError(f"--rollout {args.rollout} leaves no context: raise --seq_length")
    device = choose_device(args.device)
    torch.set_flush_denormal(True)  # as training does
    dtype = torch.bfloat16 if args.amp else torch.float32
    torch.manual_seed(0)
    latents = torch.randn(args.batch_size, args.seq_length, 2, args.z_dim, device=device)

    args.grad_clip = 0

    def step(peepholes=True, fuse=False, layer=None):
        model = LatentLSTM(
            args.z_dim, args.units, args.layers, peepholes=peepholes, free=args.rollout
        )
        if layer:
            model.layers = nn.ModuleList(
                layer(len(each.weight_in), args.units) for each in model.layers
            )
        if fuse:
            model.compile()
        model.to(device).train()
        optimizer = adam(model, 1e-3, device)
        return partial(Recorded(partial(take_step, model, optimizer, args)), latents)

    steps = args.seq_length - 1
    sizes = 2 * args.z_dim, args.units, args.layers, args.batch_size, steps, args.rollout
    if device.type == "cpu":
        ours = {"ours": step(), "ours, eager": eagerly(step())}
    else:
        ours = {"ours, fused": step(fuse=True), "ours": step()}
    variants = {
        **ours,
        "torch.nn.LSTM (no peepholes)": step(peepholes=False),
        "a cell, step by step": step(layer=Cell),
        "products alone": partial(Recorded(products(*sizes, dtype, device)), latents),
    }
    print(
        f"{args.units} x {args.layers} units, z {args.z_dim}, batch {args.batch_size}, "
        f"{args.seq_length} frames, "
        f"{args.rollout} of them free, {'bfloat16' if args.amp else 'float32'}, "
        f"{torch.get_num_threads()} threads of {processor(device)}"
    )
    compare(variants, device, args.rounds)


if __name__ == "__main__":
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    for name, default, text in (
        ("units", 1024, "of each layer"),
        ("layers", 2, "one after another"),
        ("z_dim", 32, "numbers of a latent"),
        ("batch_size", 128, "sequences per step"),
        ("seq_length", 30, "frames per sequence"),
        ("rounds", 7, "that count"),
    ):
        add(f"--{name}", type=limits.at_least(1), default=default, help=text)
    add("--rollout", type=limits.at_least(0), default=0, help="last frames in free running")
    add("--amp", action=cli.Switch, default=False, help="products in bfloat16")
    add("--device", help="if not given: cuda, else mps, else cpu")
    cli.run(main, parser)
