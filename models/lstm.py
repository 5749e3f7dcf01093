"""The LSTM that reads a sequence of latents and predicts the next one, with the 2016 cell (Lasagne's)."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from cli import UserError


class PeepholeSequence(torch.autograd.Function):
    r"""A peephole LSTM over a whole sequence, with its backward written out (Graves 2013, eqs 7-11).

    With a_t = x_t + W h_{t-1}, stacked in the order i, f, g, o (input gate, forget gate, cell input, output gate):
        i = s(a_i + p_i c_{t-1})    f = s(a_f + p_f c_{t-1})    g = tanh(a_g)    c_t = f c_{t-1} + i g
        o = s(a_o + p_o c_t)        h_t = o tanh(c_t)
    Backward, with dh and dc the gradients that reach h_t and c_t:
        do = dh tanh(c_t) o(1-o)    dc += dh o (1 - tanh^2 c_t) + do p_o
        di = dc g i(1-i)            df = dc c_{t-1} f(1-f)      dg = dc i (1-g^2)
        da = clip(di, df, dg, do)   dc_{t-1} = dc f + di p_i + df p_f      dh_{t-1} = W^T da
    Only da is clipped, elementwise: the peepholes' gradients are not. The products run in the type of W and x, state
    and gates in float32 (or float64). The weights' gradient is one product over all steps at the end.
    """

    @staticmethod
    def forward(ctx, x, weight, peepholes, hidden, cell, clip):
        """x (T, B, 4H), weight (4H, H), peepholes (3, H), hidden and cell (B, H) -> hiddens, cells, each (T, B, H)."""
        steps, batch, units = x.shape[0], x.shape[1], x.shape[2] // 4
        state = cell.dtype
        hiddens = torch.empty(steps + 1, batch, units, dtype=x.dtype, device=x.device)
        cells = torch.empty(steps + 1, batch, units, dtype=state, device=x.device)
        gates = torch.empty(steps, 4, batch, units, dtype=state, device=x.device)
        hiddens[0], cells[0] = hidden, cell
        weight_t = weight.t().contiguous()
        p_i, p_f, p_o = peepholes.to(state)
        for t in range(steps):
            a_i, a_f, a_g, a_o = torch.addmm(x[t], hiddens[t], weight_t).to(state).chunk(4, dim=1)
            i, f, g, o = gates[t]
            torch.sigmoid(torch.addcmul(a_i, p_i, cells[t]), out=i)
            torch.sigmoid(torch.addcmul(a_f, p_f, cells[t]), out=f)
            torch.tanh(a_g, out=g)
            torch.addcmul(f * cells[t], i, g, out=cells[t + 1])
            torch.sigmoid(torch.addcmul(a_o, p_o, cells[t + 1]), out=o)
            hiddens[t + 1] = o * torch.tanh(cells[t + 1])
        ctx.save_for_backward(hiddens, cells, gates, weight, peepholes)
        ctx.clip = clip
        return hiddens[1:].to(state), cells[1:].clone()

    @staticmethod
    def backward(ctx, d_hiddens, d_cells):
        hiddens, cells, gates, weight, peepholes = ctx.saved_tensors
        steps, _, batch, units = gates.shape
        p_i, p_f, p_o = peepholes.to(cells.dtype)
        da = torch.empty(steps, batch, 4 * units, dtype=weight.dtype, device=weight.device)
        dh, dc = torch.zeros_like(cells[0]), torch.zeros_like(cells[0])
        d_peepholes = torch.zeros(3, units, dtype=cells.dtype, device=cells.device)
        for t in reversed(range(steps)):
            i, f, g, o = gates[t]
            tanh_c = torch.tanh(cells[t + 1])
            dh = dh + d_hiddens[t]
            do = dh * tanh_c * o * (1 - o)
            dc = dc + d_cells[t] + dh * o * (1 - tanh_c**2) + do * p_o
            di, df, dg = dc * g * i * (1 - i), dc * cells[t] * f * (1 - f), dc * i * (1 - g**2)
            d_peepholes += torch.stack([(di * cells[t]).sum(0), (df * cells[t]).sum(0), (do * cells[t + 1]).sum(0)])
            dc = dc * f + di * p_i + df * p_f
            da[t] = torch.cat([di, df, dg, do], dim=1).clamp_(-ctx.clip, ctx.clip)
            dh = (da[t] @ weight).to(cells.dtype)
        d_weight = da.flatten(0, 1).t() @ hiddens[:-1].flatten(0, 1)
        return da, d_weight, d_peepholes.to(peepholes.dtype), dh, dc, None


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

    def forward(self, x, state=None, clip=float("inf")):
        """x (B, T, inputs) -> hiddens (B, T, units) and the state after them, (hidden, cell), each (B, units).

        clip: limit on each entry of the loss's gradient at the gates' pre-activations, at every step.
        """
        if state is None:
            state = self.hid_init.expand(len(x), -1), self.cell_init.expand(len(x), -1)
        # Autocast gives the products' type; its rules do not reach into a Function, so the casts are made here.
        gates = F.linear(x.transpose(0, 1).contiguous(), self.weight_in, self.bias)
        hiddens, cells = PeepholeSequence.apply(gates, self.weight_hid.to(gates.dtype), self.peepholes, *state, clip)
        return hiddens.transpose(0, 1), (hiddens[-1], cells[-1])


class LatentLSTM(nn.Module):
    """Predicts the next latent of a sequence.

    loss: "kl", KL(posterior || prediction), with log-sigmas read and predicted beside the means; "weighted", the
    squared error of the means over the posterior variance, which is the same KL if the deviation is taken as known;
    "mse", the mean squared error of the means; "distance", for slots, a pseudo-Huber loss: of each slot sqrt(1 + d^2)
    of its place and a tenth of that of its look, with d the error in posterior deviations; "mdn", -log p of the mean
    under a predicted mixture of `mixtures` diagonal Gaussians (Bishop 1994; Graves 2013, eqs 19-25). diffs: differences
    of consecutive latents are read and predicted. peepholes: the 2016 cell, else `torch.nn.LSTM`. clip: gate-gradient
    clipping of the 2016 cell. free: so many of a training window's last latents are predicted in free running, as they
    are when sampling; 0 is the original's teacher forcing. residual: what is added to the means that the network puts
    out: "none"; "first", the last mean; "second", the last mean and the last difference, which is read, too.
    slots: so many objects, of as many numbers each, follow one another in a latent (models/slots.py); 0: it has no such
    parts. They share the network, each with a state of its own. With "second", what is put out is added to where a
    slot's place leads at its last speed, and its look stays: objects keep theirs.

    A latent is (rows, z_dim): its mean and, with "kl", its log-sigma. Where two rows are given and one is needed, the
    first is used. An output is a predicted latent or, with "mdn", (mixtures, 2 z_dim + 1): `latent` takes one from it.
    """

    def __init__(
        self,
        z_dim,
        n_hid=1024,
        layers=2,
        dropout=0.3,
        loss="kl",
        mixtures=5,
        diffs=False,
        peepholes=True,
        clip=10.0,
        free=0,
        residual="none",
        slots=0,
    ):
        super().__init__()
        self.config = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self.rows, self.z_dim, self.dropout, self.loss = 2 if loss == "kl" else 1, z_dim, dropout, loss
        self.diffs, self.peepholes, self.clip, self.free, self.residual = diffs, peepholes, clip, free, residual
        self.slots, z_dim = slots or 1, z_dim // (slots or 1)
        # What goes on at its last speed: of a slot its place alone, the last two numbers.
        goes_on = (torch.arange(z_dim) >= z_dim - 2).float() if slots else torch.ones(z_dim)
        self.register_buffer("goes_on", goes_on, persistent=False)
        sizes = [(self.rows + (residual == "second")) * z_dim] + [n_hid] * layers
        layer = PeepholeLSTM if peepholes else lambda i, h: nn.LSTM(i, h, batch_first=True)
        self.layers = nn.ModuleList(layer(i, h) for i, h in itertools.pairwise(sizes))
        self.output_shape = (mixtures, 2 * z_dim + 1) if loss == "mdn" else (self.rows, z_dim)
        self.project = nn.Linear(n_hid, math.prod(self.output_shape))
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        if slots:  # to begin near what `residual` adds: an untrained LSTM runs away with a place
            self.project.weight.data.mul_(0.1)
        if loss == "mdn":  # Gaussians that begin alike stay alike
            nn.init.normal_(self.project.bias.data.view(self.output_shape)[:, :z_dim], std=0.1)

    def forward(self, latents):
        """The loss of predicting each latent of (B, T, 2, z_dim) from those before it.

        "mse" is a mean; the others, in nats but for "distance", are summed over time and z_dim (slots), a mean over
        sequences. Beside it the squared error of the predicted means (with diffs: of their differences), summed over
        z_dim, a mean over frames.
        """
        sequence = difference(latents) if self.diffs else latents
        mean, log_sigma = sequence[:, 1:, 0], sequence[:, 1:, -1]
        output = self.unroll(sequence[:, : mean.shape[1] - self.free], self.free)
        predicted = self.latent(output)
        squared_error = (predicted[:, :, 0] - mean).square()
        if self.loss == "kl":
            loss = kl_divergence(mean, log_sigma, *predicted.unbind(2)).sum() / len(latents)
        elif self.loss == "weighted":
            loss = (0.5 * squared_error * torch.exp(-2 * log_sigma)).sum() / len(latents)
        elif self.loss == "distance":
            deviations = (squared_error * torch.exp(-2 * log_sigma)).unflatten(-1, (self.slots, -1))
            place, look = ((deviations * part).sum(-1) for part in (self.goes_on, 1 - self.goes_on))
            loss = ((place + 1).sqrt() + 0.1 * (look + 1).sqrt()).sum() / len(latents)
        elif self.loss == "mdn":
            loss = -mixture(output).log_prob(mean).sum() / len(latents)
        else:
            loss = squared_error.mean()
        return {"loss": loss, "squared_error": squared_error.sum(-1).mean()}

    def unroll(self, context, steps):
        """The outputs after each latent of context (B, T, rows, z_dim), then `steps` in free running."""
        output, state = self.run(context)
        outputs = [output]
        for _ in range(steps):
            output, state = self.run(self.latent(output[:, -1:]), state)
            outputs.append(output)
        return torch.cat(outputs, dim=1)

    def run(self, sequence, state=None):
        """Read a sequence (B, T, rows, z_dim) at once -> the output after each step (B, T, ...), and the state.

        The state is that of each layer and, after them, the last mean read.
        """
        sequence = sequence.unflatten(3, (self.slots, -1)).movedim(3, 1).flatten(0, 1)
        x, mean = sequence[:, :, : self.rows].flatten(2), sequence[:, :, 0]
        *states, before = state or [None] * len(self.layers) + [mean[:, :1]]  # before the first nothing has moved
        base = mean
        if self.residual == "second":
            step = self.goes_on * (mean - torch.cat([before, mean[:, :-1]], dim=1))
            base = mean + step
            # Of a slot, speeds are read in eighths of a half frame; its look has none.
            x = torch.cat([x, 8 * step if self.config["slots"] else step], dim=2)
        # The original's loss with kl is a sum over the batch; ours is a mean, and so are its gradients.
        clip = self.clip if self.loss == "mse" else self.clip * self.slots / len(x)
        for i, layer in enumerate(self.layers):
            x = F.dropout(x, self.dropout, self.training)
            x, states[i] = layer(x, states[i], clip) if self.peepholes else layer(x, states[i])
        output = self.project(x).float().unflatten(2, self.output_shape)
        if self.residual == "second" and self.config["slots"]:
            output[:, :, 0] *= self.goes_on
        if self.residual != "none":
            others = (0, 0, 0, self.rows - 1) if self.loss != "mdn" else (0, mean.shape[2] + 1)  # all but the means
            output = output + F.pad(base[:, :, None], others)
        if self.slots > 1:
            output = output.unflatten(0, (-1, self.slots)).movedim(1, 3).flatten(3)
        return output, [*states, mean[:, -1:]]

    def latent(self, output, temperature=None):
        """The predicted latents (B, T, rows, z_dim) that an output gives.

        Of a mixture it is the mean or, with a temperature, a sample: weights are taken to the power 1/temperature,
        variances times temperature (Ha & Eck 2018, eq. 8), so that 0 gives the likeliest Gaussian's mean.
        """
        if self.loss != "mdn":
            return output
        if temperature is None:
            return mixture(output).mean[:, :, None]
        gaussians, weights = output[..., :-1], output[..., -1]
        weights = weights / temperature if temperature else weights.masked_fill(weights < weights.amax(-1, True), -1e9)
        chosen = Categorical(logits=weights).sample()[..., None, None]
        mean, log_sigma = gaussians.take_along_dim(chosen, dim=2).chunk(2, dim=-1)
        return mean + temperature**0.5 * floor(log_sigma).exp() * torch.randn_like(mean)

    def predict(self, latent, state=None, temperature=None):
        """One step: latent (B, rows, z_dim) and the state so far -> the next latent and the state after it.

        With diffs the first latent gives no difference yet: the prediction is that nothing moves.
        """
        if not self.diffs:
            output, state = self.run(latent[:, None], state)
            return self.latent(output, temperature)[:, 0], state
        latent = latent[:, : self.rows]
        if state is None:
            return latent, (None, latent)
        state, last = state
        output, state = self.run(difference(torch.stack([last, latent], dim=1)), state)
        return integrate(latent, self.latent(output, temperature)[:, 0]), (state, latent)

    def rollout(self, context, steps, temperature=None):
        """Prime with context (B, T, rows, z_dim), then run freely for `steps` -> latent means (B, T + steps, z_dim).

        Row 0 is the first posterior mean; rows 1 to T - 1 are predictions from the true latents before them; the rest
        are predictions from the model's own. temperature: as of `latent`, for the rest. Raises UserError if there is
        a temperature and no mixture.
        """
        if temperature is not None and self.loss != "mdn":
            raise UserError(f"--temperature samples a mixture: train with --loss mdn, not {self.loss}")
        means, state, latent = [context[:, 0, 0]], None, None
        primed = context.shape[1] - 1
        for t in range(primed + steps):
            latent = context[:, t] if t <= primed else latent
            latent, state = self.predict(latent, state, temperature if t >= primed else None)
            means.append(latent[:, 0])
        return torch.stack(means, dim=1)


def mixture(output):
    """The mixture of diagonal Gaussians (..., z_dim) of an output (..., K, 2 z_dim + 1): means, log-sigmas, logits."""
    mean, log_sigma = output[..., :-1].chunk(2, dim=-1)
    gaussians = Independent(Normal(mean, floor(log_sigma).exp()), 1)
    return MixtureSameFamily(Categorical(logits=output[..., -1]), gaussians)


def floor(log_sigma):
    """log-sigma of at least -5: a Gaussian that falls upon a single latent would have any likelihood it likes."""
    return log_sigma.clamp_min(-5)


def difference(latents):
    """Differences of consecutive latents (B, T, rows, z_dim) -> (B, T - 1, rows, z_dim).

    Two posteriors err independently, so their variances add: the log-sigma of a difference is the sum's.
    """
    mean = latents[:, 1:, :1] - latents[:, :-1, :1]
    log_sigma = latents[:, :, 1:]
    return torch.cat([mean, 0.5 * torch.logaddexp(2 * log_sigma[:, 1:], 2 * log_sigma[:, :-1])], dim=2)


def integrate(latent, step):
    """The latent that `step` leads to from `latent`, both (B, rows, z_dim), such that their difference is `step`.

    A variance that would have to be negative for that is set to nearly none.
    """
    mean = latent[:, :1] + step[:, :1]
    variance = torch.exp(2 * step[:, 1:]) - torch.exp(2 * latent[:, 1:])
    return torch.cat([mean, 0.5 * torch.log(variance.clamp_min(1e-6))], dim=1)


def kl_divergence(mu_q, log_sigma_q, mu_p, log_sigma_p):
    """KL(N(mu_q, sigma_q^2) || N(mu_p, sigma_p^2)) in nats, elementwise."""
    variances = torch.exp(2 * (log_sigma_q - log_sigma_p)) + ((mu_q - mu_p) * torch.exp(-log_sigma_p)) ** 2
    return log_sigma_p - log_sigma_q + 0.5 * (variances - 1)
