"""The 2016 LSTM cell (Lasagne's) over a whole sequence, as one operation with a backward of its own."""

import functools

import torch
import torch.nn.functional as F
from torch import nn


class PeepholeSequence(torch.autograd.Function):
    r"""A peephole LSTM over a whole sequence, with its backward written out (Graves 2013, eqs 7-11).

    With a_t = V x_t + W h_{t-1} + b, stacked in the order i, f, g, o (input, forget gate, cell input, output gate):
        i = s(a_i + p_i c_{t-1})    f = s(a_f + p_f c_{t-1})    g = tanh(a_g)    c_t = f c_{t-1} + i g
        o = s(a_o + p_o c_t)        h_t = o tanh(c_t)
    Backward, with dh and dc the gradients that reach h_t and c_t:
        do = dh tanh(c_t) o(1-o)    dc += dh o (1 - tanh^2 c_t) + do p_o
        di = dc g i(1-i)            df = dc c_{t-1} f(1-f)      dg = dc i (1-g^2)
        da = clip(di, df, dg, do)   dc_{t-1} = dc f + di p_i + df p_f      dh_{t-1} = W^T da
    Only da is clipped, elementwise: the peepholes' gradients are not.

    The products are in the type of x, V, W and b; cells and all that is elementwise in float32 (or float64). All V x_t
    are one product. Then each step is one product and one elementwise kernel, backward as forward; backward keeps the
    gates (in place of a_t), c_t and h_t. The weights come from `Gathered`, which makes their gradients at the end.
    """

    @staticmethod
    def forward(ctx, x, weight_in, weight_hid, bias, peepholes, hidden, cell, clip, kernels, tape):
        """x (T, B, inputs), weight_in (4H, inputs), weight_hid (4H, H), bias (4H,), peepholes (3, H), hidden and
        cell (B, H) -> h_1 to h_T (T, B, H) in the type of x, and c_T (B, H).

        kernels: `step` and `step_back`, or what a compiler makes of them; tape: that of the weights.
        """
        step, _ = kernels
        gates = F.linear(x, weight_in, bias)
        hiddens, cells = gates.new_empty(len(x) + 1, *hidden.shape), cell.new_empty(len(x) + 1, *cell.shape)
        hiddens[0], cells[0] = hidden, cell
        for t in range(len(x)):
            gates[t].addmm_(hiddens[t], weight_hid.t())
            step(*gates[t].chunk(4, 1), cells[t], peepholes, cells[t + 1], hiddens[t + 1])
        ctx.save_for_backward(x, weight_in, weight_hid, peepholes, gates, hiddens, cells)
        ctx.clip, ctx.kernels, ctx.tape, ctx.hidden_type = clip, kernels, tape, hidden.dtype
        return hiddens[1:], cells[-1]

    @staticmethod
    def backward(ctx, d_hiddens, dc):
        # Detached: a compiled kernel is made anew for what seems to need a gradient.
        x, weight_in, weight_hid, peepholes, gates, hiddens, cells = (each.detach() for each in ctx.saved_tensors)
        _, step_back = ctx.kernels
        dh, dc, da = torch.zeros_like(hiddens[0]), dc.clone(), torch.empty_like(gates)
        d_hiddens = d_hiddens.contiguous()
        d_peepholes = [torch.zeros_like(dc) for _ in range(3)]
        for t in reversed(range(len(gates))):
            step_t = *gates[t].chunk(4, 1), cells[t], cells[t + 1], peepholes
            step_back(*step_t, d_hiddens[t], dh, dc, ctx.clip, *da[t].chunk(4, 1), *d_peepholes)
            dh = da[t] @ weight_hid
        ctx.tape.append((da, x, hiddens[:-1]))
        d_x = (da.flatten(0, 1) @ weight_in).view_as(x) if ctx.needs_input_grad[0] else None
        d_peepholes = torch.stack([each.sum(0) for each in d_peepholes]).to(peepholes.dtype)
        return d_x, None, None, None, d_peepholes, dh.to(ctx.hidden_type), dc, None, None, None


class Gathered(torch.autograd.Function):
    """The weights of a layer for one or many `PeepholeSequence`s: the gradient of each is one product over all steps.

    Each sequence's backward leaves da_t, x_t and h_{t-1} on the tape. This one runs after all of theirs.
    """

    @staticmethod
    def forward(ctx, tape, weight_in, weight_hid, bias):
        ctx.tape = tape
        ctx.set_materialize_grads(False)
        return weight_in.view_as(weight_in), weight_hid.view_as(weight_hid), bias.view_as(bias)

    @staticmethod
    def backward(ctx, *_):
        da, x, before = (parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*ctx.tape, strict=True))
        ctx.tape.clear()
        da = da.flatten(0, 1)
        return None, da.t() @ x.flatten(0, 1), da.t() @ before.flatten(0, 1), da.sum(0)


class PeepholeLSTM(nn.Module):
    """One layer: peepholes, a learned initial state, and gate-gradient clipping; weights N(0, 0.1), biases 0."""

    def __init__(self, inputs, units):
        super().__init__()
        self.weight_in = nn.Parameter(0.1 * torch.randn(4 * units, inputs))
        self.weight_hid = nn.Parameter(0.1 * torch.randn(4 * units, units))
        self.bias = nn.Parameter(torch.zeros(4 * units))
        self.peepholes = nn.Parameter(0.1 * torch.randn(3, units))
        self.hid_init = nn.Parameter(torch.zeros(units))
        self.cell_init = nn.Parameter(torch.zeros(units))
        self.kernels = step, step_back

    def forward(self, x, state=None, clip=float("inf"), weights=None):
        """x (B, T, inputs) -> hiddens (B, T, units) and the state after them, (hidden, cell), each (B, units).

        clip: limit on each entry of the loss's gradient at the gates' pre-activations, at every step; weights: `cast`,
        where the layer is called many times.
        """
        if state is None:
            state = self.hid_init.expand(len(x), -1), self.cell_init.expand(len(x), -1).contiguous()
        *weights, tape = weights or self.cast(x.device.type)
        x = x.transpose(0, 1).to(weights[0].dtype).contiguous()
        hiddens, cell = PeepholeSequence.apply(x, *weights, self.peepholes, *state, clip, self.kernels, tape)
        return hiddens.transpose(0, 1), (hiddens[-1], cell)

    def cast(self, device):
        """The weights of products, and their tape, in the type that autocast wants, which does not reach Functions."""
        weights, tape = (self.weight_in, self.weight_hid, self.bias), []
        if torch.is_autocast_enabled(device):
            weights = (weight.to(torch.get_autocast_dtype(device)) for weight in weights)
        return *Gathered.apply(tape, *weights), tape

    def fuse(self):
        """Have the elementwise part of a step compiled into one kernel forward and one backward."""
        self.kernels = fused()


@functools.cache
def fused():
    """`step` and `step_back`, compiled at their first call, once for all layers."""
    # Inductor would rather store what is long to compute and used twice, and begin another kernel.
    whole = {"realize_opcount_threshold": 1000, "realize_reads_threshold": 1000, "realize_acc_reads_threshold": 1000}
    return tuple(torch.compile(kernel, dynamic=False, options=whole) for kernel in (step, step_back))


def step(i, f, g, o, before, peepholes, after, hidden):
    """Turn a_t's four parts, each (B, H), into the gates, and write c_t into `after` and h_t into `hidden`.

    before: c_{t-1}; peepholes: (3, H).
    """
    a_i, a_f, a_g, a_o, p_i, p_f, p_o = (each.to(before.dtype) for each in (i, f, g, o, *peepholes))
    new_i, new_f, new_g = torch.sigmoid(a_i + p_i * before), torch.sigmoid(a_f + p_f * before), tanh(a_g)
    cell = new_f * before + new_i * new_g
    new_o = torch.sigmoid(a_o + p_o * cell)
    for place, new in ((i, new_i), (f, new_f), (g, new_g), (o, new_o), (after, cell), (hidden, new_o * tanh(cell))):
        place.copy_(new)


def step_back(i, f, g, o, before, after, peepholes, dh_above, dh, dc, clip, da_i, da_f, da_g, da_o, dp_i, dp_f, dp_o):
    """Write da_t's four parts into `da_`, add to the peepholes' `dp_`, and turn `dc` into dc_{t-1}; each (B, H).

    before, after: c_{t-1} and c_t; dh_above, dh: what reaches h_t from its use above and in the next step.
    """
    i, f, g, o, dh_above, p_i, p_f, p_o = (each.to(dc.dtype) for each in (i, f, g, o, dh_above, *peepholes))
    tanh_c, dh = tanh(after), dh_above + dh
    do = dh * tanh_c * o * (1 - o)
    d = dc + dh * o * (1 - tanh_c * tanh_c) + do * p_o
    di, df, dg = d * g * i * (1 - i), d * before * f * (1 - f), d * i * (1 - g * g)
    for place, da in ((da_i, di), (da_f, df), (da_g, dg), (da_o, do)):
        place.copy_(da.clamp(-clip, clip))
    dp_i += di * before
    dp_f += df * before
    dp_o += do * after
    dc.copy_(d * f + di * p_i + df * p_f)


def tanh(x):
    """By way of the exponential, which is vectorised better; off by 2e-7 at most."""
    return 2 * torch.sigmoid(2 * x) - 1
