"""The 2016 LSTM cell (Lasagne's) over a whole sequence, as one operation with its own backward."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from models import peephole_cpu

TRANSPOSED = 128  # rows at once


class PeepholeSequence(torch.autograd.Function):
    """A peephole LSTM over a sequence, with its backward written out (Graves 2013, eqs 7-11).

    With a_t = x_t V + h_{t-1} W + b, stacked in the order i, f, g, o (input gate, forget gate,
    cell input, output gate):
        i = s(a_i + p_i c_{t-1})    f = s(a_f + p_f c_{t-1})    g = tanh(a_g)
        c_t = f c_{t-1} + i g       o = s(a_o + p_o c_t)        h_t = o tanh(c_t)
    Backward, with dh and dc the gradients that reach h_t and c_t:
        do = dh tanh(c_t) o(1-o)    dc += dh o (1 - tanh^2 c_t) + do p_o
        di = dc g i(1-i)            df = dc c_{t-1} f(1-f)      dg = dc i (1-g^2)
        da = clip(di, df, dg, do)   dc_{t-1} = dc f + di p_i + df p_f      dh_{t-1} = da W^T
    Only da is clipped, elementwise. The gradients of the peepholes are not.

    Products are in the type of x, V and W. Cells and everything elementwise are in float32 (or
    float64). `steps` does the steps, forward and backward. For backward the gates, c_t and h_t are
    kept. The weights come from `SharedWeights`, which computes their gradients at the end.
    """

    @staticmethod
    def forward(ctx, x, weight_in, peepholes, h_0, c_0, clip, steps, saved_steps):
        """h_1 to h_T (T, B, H), in the type of x, and c_T (B, H).

        x: (T, B, inputs); weight_in: (inputs, 4H); peepholes: (3, H), of i, f and o;
        h_0, c_0: (B, H)
        clip: limit on each entry of da
        steps: a `Steps` or its twin `peephole_cpu.Blocks`; it has V, W and b
        saved_steps: the list that came with the weights from `SharedWeights`
        """
        shape = len(x) + 1, x.shape[1], peepholes.shape[1]
        hiddens = x.new_empty(shape)  # (T + 1, B, H)
        cells = peepholes.new_empty(shape)  # (T + 1, B, H)
        hiddens[0] = h_0
        cells[0] = c_0
        gates = steps.forward(x, peepholes, hiddens, cells)  # (T, B, 4H)
        ctx.save_for_backward(x, weight_in, peepholes, gates, hiddens, cells)
        ctx.clip = clip
        ctx.steps = steps
        ctx.saved_steps = saved_steps
        return hiddens[1:], cells[-1]

    @staticmethod
    def backward(ctx, d_hiddens, dc):
        """Gradients of x, the peepholes, h_0 and c_0; what those of the weights need is saved."""
        # Detached: a kernel would be compiled again for inputs that seem to need a gradient.
        saved = (tensor.detach() for tensor in ctx.saved_tensors)
        x, weight_in, peepholes, gates, hiddens, cells = saved
        d_hiddens = d_hiddens.contiguous()
        dc = dc.clone(memory_format=torch.contiguous_format)
        da, dh, d_bias, d_peepholes = ctx.steps.backward(
            gates, peepholes, cells, d_hiddens, dc, ctx.clip
        )
        ctx.saved_steps.append((da, d_bias, x, hiddens[:-1]))
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (da.flatten(0, 1) @ weight_in.t()).view_as(x)  # (T, B, inputs)
        return d_x, None, d_peepholes, dh, dc, None, None, None


class Steps:
    """The steps of sequences that share a layer's weights.

    weight_in: (inputs, 4H); weight_hid: (H, 4H); bias: (4H,)
    kernels: `step` and `step_back`, or these compiled
    """

    def __init__(self, weight_in, weight_hid, bias, kernels=None):
        self.weight_in = weight_in.detach()
        self.weight_hid = weight_hid.detach()
        self.bias = bias.detach().to(weight_in.dtype)
        self.kernels = kernels or (step, step_back)

    def forward(self, x, peepholes, hiddens, cells):
        """The gates (T, B, 4H) of x (T, B, inputs); writes all c_t and h_t.

        peepholes: (3, H); hiddens, cells: (T + 1, B, H), of which the first are given
        """
        step, _ = self.kernels
        gates = F.linear(x, self.weight_in.t(), self.bias)  # a_t - h_{t-1} W
        for t in range(len(gates)):
            gates[t].addmm_(hiddens[t], self.weight_hid)
            step(gates[t].chunk(4, 1), cells[t], peepholes, cells[t + 1], hiddens[t + 1])
        return gates

    def backward(self, gates, peepholes, cells, d_hiddens, dc, clip):
        """All da_t, as gates, dh_0 (B, H), the bias's gradient (4H,) and the peepholes' (3, H).

        d_hiddens: (T, B, H); dc: (B, H), of c_T, which becomes that of c_0, in place
        """
        _, step_back = self.kernels
        dh = torch.zeros_like(d_hiddens[0])  # (B, H): what reaches h_t from step t + 1
        da = torch.empty_like(gates)  # (T, B, 4H)
        d_peepholes = tuple(torch.zeros_like(dc) for _ in range(3))  # each (B, H): summed over time
        for t in reversed(range(len(gates))):
            gates_t = gates[t].chunk(4, 1)  # four views (B, H)
            da_t = da[t].chunk(4, 1)
            c_prev = cells[t]
            c = cells[t + 1]
            step_back(gates_t, c_prev, c, peepholes, d_hiddens[t], dh, dc, clip, da_t, d_peepholes)
            dh = da[t] @ self.weight_hid.t()
        d_bias = da.flatten(0, 1).sum(0)  # (4H,)
        return da, dh, d_bias, torch.stack([each.sum(0) for each in d_peepholes])


class SharedWeights(torch.autograd.Function):
    """A layer's weights for one or more `PeepholeSequence`s, with one product per gradient for all.

    Each sequence's backward appends its da_t, their sum, x_t and h_{t-1} to `saved_steps`; the
    backward here multiplies and adds them. Sequences return None for the weights, yet autograd
    still runs this node only after all of them: it waits for the nodes that used an output,
    whatever they return.
    """

    @staticmethod
    def forward(ctx, saved_steps, weight_in, weight_hid, bias):
        ctx.saved_steps = saved_steps
        ctx.set_materialize_grads(False)  # the gradients that arrive are None and stay so
        return weight_in.view_as(weight_in), weight_hid.view_as(weight_hid), bias.view_as(bias)

    @staticmethod
    def backward(ctx, *_):
        da, d_biases, x, h_prev = zip(*ctx.saved_steps, strict=True)
        da, x, h_prev = map(joined, (da, x, h_prev))
        ctx.saved_steps.clear()
        da = da.flatten(0, 1)  # (T*B, 4H)
        x = x.flatten(0, 1)  # (T*B, inputs)
        h_prev = h_prev.flatten(0, 1)  # (T*B, H)
        return None, transposed_product(x, da), transposed_product(h_prev, da), sum(d_biases)


def joined(parts):
    """The parts, each (T_k, B, n), one after the other; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def transposed_product(a, b):
    """a^T b, (m, n), of a (N, m) and b (N, n)."""
    if a.is_cuda or a.dtype != torch.bfloat16:
        return a.t() @ b
    # oneDNN takes long to transpose a, and PyTorch does it faster in parts, which fit a cache.
    return torch.cat([part.t() for part in a.split(TRANSPOSED)], 1) @ b


class PeepholeLSTM(nn.Module):
    """One layer: peepholes, a learned initial state, clipped gate gradients.

    Weights begin as N(0, 0.1), biases and the initial state as 0.
    """

    def __init__(self, inputs, units):
        super().__init__()
        self.weight_in = nn.Parameter(0.1 * torch.randn(inputs, 4 * units))
        self.weight_hid = nn.Parameter(0.1 * torch.randn(units, 4 * units))
        self.bias = nn.Parameter(torch.zeros(4 * units))
        self.peepholes = nn.Parameter(0.1 * torch.randn(3, units))
        self.hid_init = nn.Parameter(torch.zeros(units))
        self.cell_init = nn.Parameter(torch.zeros(units))
        self.kernels = None

    def forward(self, x, state=None, clip=float("inf"), weights=None):
        """x (B, T, inputs) -> hiddens (B, T, units) and the last state (h, c), each (B, units).

        clip: limit on each entry of the loss's gradient at the gates' pre-activations, at each step
        weights: from `cast`, where the layer is called many times
        """
        if state is None:
            h_0 = self.hid_init.expand(len(x), -1)  # (B, units)
            c_0 = self.cell_init.expand(len(x), -1).contiguous()  # (B, units)
        else:
            h_0, c_0 = state
        weight_in, steps, saved_steps = weights or self.cast(x.device.type)
        x = x.transpose(0, 1).to(weight_in.dtype).contiguous()  # (T, B, inputs)
        hiddens, cell = PeepholeSequence.apply(
            x, weight_in, self.peepholes, h_0, c_0, clip, steps, saved_steps
        )
        return hiddens.transpose(0, 1), (hiddens[-1], cell)

    def cast(self, device):
        """V in autocast's type, the steps, which have all weights, and the list that all share.

        Autocast does not reach into a Function, so they are cast here.
        """
        weights = self.weight_in, self.weight_hid
        if torch.is_autocast_enabled(device):
            weights = (weight.to(torch.get_autocast_dtype(device)) for weight in weights)
        saved_steps = []
        weights = SharedWeights.apply(saved_steps, *weights, self.bias)
        weight_in, weight_hid, _ = weights
        if peephole_cpu.takes(weight_hid, self.peepholes, Steps):
            steps = peephole_cpu.Blocks(*weights)
        else:
            steps = Steps(*weights, self.kernels)
        return weight_in, steps, saved_steps

    def fuse(self):
        """Compile the elementwise part of a step into one kernel forward and one backward.

        On a CPU that is used only where `peephole.cpp` is not.
        """
        self.kernels = fused()


@functools.cache
def fused():
    """`step` and `step_back`, compiled at their first call, once for all layers."""
    # Inductor would rather store what is long to compute and used twice, and start another kernel.
    one_kernel = {
        "realize_opcount_threshold": 1000,
        "realize_reads_threshold": 1000,
        "realize_acc_reads_threshold": 1000,
    }
    compiled = functools.partial(torch.compile, dynamic=False, options=one_kernel)
    return compiled(step), compiled(step_back)


# Both kernels take gates as four views, each (B, H), and write into them. If they cut these out of
# one tensor themselves, Inductor would write to buffers first and copy those.


def step(gates, c_prev, peepholes, c, h):
    """One step forward: turn a_t into the gates, in place, and write c_t into c and h_t into h.

    gates: a_i, a_f, a_g and a_o; peepholes: (3, H); all others (B, H)
    """
    a_i, a_f, a_g, a_o = (a.to(c.dtype) for a in gates)
    p_i, p_f, p_o = peepholes.to(c.dtype)
    i = torch.sigmoid(a_i + p_i * c_prev)
    f = torch.sigmoid(a_f + p_f * c_prev)
    g = tanh(a_g)
    new_c = f * c_prev + i * g
    o = torch.sigmoid(a_o + p_o * new_c)
    new_h = o * tanh(new_c)
    copy_each(gates, (i, f, g, o))
    c.copy_(new_c)
    h.copy_(new_h)


def step_back(gates, c_prev, c, peepholes, dh_above, dh_next, dc, clip, da, d_peepholes):
    """One step backward: write da_t, add to d_peepholes, and turn dc into dc_{t-1}, in place.

    gates: i, f, g and o; peepholes: (3, H); all others (B, H)
    dh_above, dh_next: what reaches h_t from the layer above and from step t + 1
    dc: what reaches c_t from step t + 1
    da: four parts, as gates; d_peepholes: three parts, not yet summed over the batch
    """
    i, f, g, o = (gate.to(dc.dtype) for gate in gates)
    p_i, p_f, p_o = peepholes.to(dc.dtype)
    dp_i, dp_f, dp_o = d_peepholes
    dh = dh_above.to(dc.dtype) + dh_next
    tanh_c = tanh(c)
    do = dh * tanh_c * o * (1 - o)
    dc_all = dc + dh * o * (1 - tanh_c * tanh_c) + do * p_o
    di = dc_all * g * i * (1 - i)
    df = dc_all * c_prev * f * (1 - f)
    dg = dc_all * i * (1 - g * g)
    copy_each(da, (d.clamp(-clip, clip) for d in (di, df, dg, do)))
    dp_i += di * c_prev
    dp_f += df * c_prev
    dp_o += do * c
    dc.copy_(dc_all * f + di * p_i + df * p_f)


def copy_each(targets, sources):
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def tanh(x):
    """By way of the exponential, which is vectorised better; off by 2e-7 at most."""
    return 2 * torch.sigmoid(2 * x) - 1
