"""The LSTM that reads a sequence of latents and predicts the next one."""

import itertools
import math

import torch
from torch import nn

from models import noise
from models.layouts import layout_of
from models.losses import LOSSES
from models.peephole import PeepholeLSTM
from models.residuals import RESIDUALS


class LatentLSTM(nn.Module):
    """Predicts the next latent of a sequence.

    A latent is (rows, z_dim): its mean and, with some losses, its log-sigma. Where two rows are
    given and one is needed, the first is used. An output is a predicted latent or what `latent`
    takes one from (a mixture, say).

    z_dim:     numbers of a latent
    n_hid:     units of each layer
    layers:    how many
    dropout:   on each layer's input
    loss:      what is predicted, and how far off it is: a name in `LOSSES`
    mixtures:  Gaussians of the mixture loss
    diffs:     read and predict differences of consecutive latents
    peepholes: the 2016 cell, else `torch.nn.LSTM`
    clip:      gate-gradient clipping of the 2016 cell
    free:      how many latents at the end of a training window are predicted in free running, as
               when sampling; 0: teacher forcing, as in the original
    residual:  what is added to the means that the network puts out: a name in `residuals.RESIDUALS`
    slots:     number of objects in a latent, one after another, with equally many numbers each
               (`layouts.Slots`); 0: none
    grid:      rows and columns of the places in a latent (`layouts.Grid`); (): none
    frame_shape: (channels, height, width) of the frames, in whose pixels slots move
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
        grid=(),
        frame_shape=(1, 64, 64),
    ):
        super().__init__()
        self.config = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        self.z_dim = z_dim
        self.dropout = dropout
        self.diffs = diffs
        self.peepholes = peepholes
        self.clip = clip
        self.free = free
        self.layout = layout_of(z_dim, slots, grid, frame_shape)
        self.loss = LOSSES[loss](mixtures, self.layout)
        self.residual = RESIDUALS[residual](self.layout)
        self.rows = self.loss.rows

        width = self.layout.width
        numbers_read = self.residual.numbers_read(self.rows)
        sizes = [numbers_read * self.layout.neighbours] + [n_hid] * layers
        self.layers = nn.ModuleList(self.new_layer(*pair) for pair in itertools.pairwise(sizes))
        self.output_shape = self.loss.output_shape(width)
        self.project = nn.Linear(n_hid, math.prod(self.output_shape))
        nn.init.xavier_uniform_(self.project.weight, gain=self.layout.initial_scale)
        self.loss.initialise(self.project.bias, width)

    def new_layer(self, inputs, units):
        if self.peepholes:
            return PeepholeLSTM(inputs, units)
        return nn.LSTM(inputs, units, batch_first=True)

    def compile(self):
        """Fuse the elementwise part of a step, for GPUs; CPUs have `peephole.cpp` anyway.

        (All steps, unrolled, take a compiler minutes.)
        """
        for layer in self.layers if self.peepholes else ():
            layer.fuse()

    def forward(self, latents):
        """The loss of predicting each latent of (B, T, 2, z_dim) from those before it.

        Beside it the squared error of the predicted means (with diffs: of their differences),
        summed over z_dim, a mean over frames.
        """
        sequence = difference(latents) if self.diffs else latents
        mean = sequence[:, 1:, 0]  # (B, T - 1, z)
        log_sigma = sequence[:, 1:, -1]
        output = self.unroll(sequence[:, : mean.shape[1] - self.free], self.free)
        squared_error = (self.latent(output)[:, :, 0] - mean).square()
        loss = self.loss(output, squared_error, mean, log_sigma, self.layout)
        return {"loss": loss, "squared_error": squared_error.sum(-1).mean()}

    def unroll(self, context, steps):
        """The outputs after each latent of context (B, T, rows, z_dim) and `steps` free ones."""
        weights = self.cast(context.device.type)
        output, state = self.read_sequence(context, None, weights)
        outputs = [output]
        for _ in range(steps):
            output, state = self.read_sequence(self.latent(output[:, -1:]), state, weights)
            outputs.append(output)
        return torch.cat(outputs, dim=1)

    def cast(self, device):
        """The weights for many steps, cast once; None if the layers are `torch.nn.LSTM`."""
        return [layer.cast(device) for layer in self.layers] if self.peepholes else None

    def read_sequence(self, sequence, state=None, weights=None):
        """Read a sequence (B, T, rows, z_dim) -> the output after each step (B, T, ...), the state.

        The state is that of each layer and, after them, the residual's memory. weights: of each
        layer, `cast` beforehand.
        """
        latents = self.layout.fold(sequence)  # (B*S, T, rows, n)
        *states, memory = state or self.first_state(latents)
        latents = self.residual.settle(latents, memory)
        inputs = self.residual.inputs(latents[:, :, : self.rows], memory)
        hidden, states = self.run_layers(self.layout.with_neighbours(inputs), states, weights)
        base, memory = self.residual.advance(latents[:, :, 0], memory)
        return self.layout.unfold(self.make_output(hidden, base)), [*states, memory]

    def first_state(self, latents):
        """The state before the first of latents (B*S, T, rows, n): none of each layer."""
        return [None] * len(self.layers) + [self.residual.first_memory(latents[:, :, 0])]

    def run_layers(self, x, states, weights):
        """x (B*S, T, inputs), each layer's state -> hiddens (B*S, T, n_hid), states after them."""
        clip = self.gate_clip(len(x))
        states = list(states)
        for i, layer in enumerate(self.layers):
            x = noise.dropout(x, self.dropout, self.training)
            more = (clip, weights and weights[i]) if self.peepholes else ()
            x, states[i] = layer(x, states[i], *more)
        return x, states

    def gate_clip(self, sequences):
        """The limit on gradients at the gates, where the layers read `sequences` of them.

        The original clipped the gradients of its own losses. Where it took a sum over the batch,
        our mean over B sequences has gradients B times smaller, and so is the limit. Where it took
        a mean, the limit stays. Of several processes each takes the mean over its part of the
        batch: those gradients are larger by batch / part, and so is the limit.
        """
        if self.loss.is_mean:
            first, end, batch = noise.batch_part
            return self.clip * (batch / max(end - first, 1))
        return self.clip * (self.layout.count / sequences)

    def make_output(self, hidden, base):
        """The output (B*S, T, *output_shape) of hiddens (B*S, T, n_hid).

        base, (B*S, T, n) or None, is added to its means.
        """
        output = self.project(hidden).float().unflatten(2, self.output_shape)
        if base is None:
            return output
        return self.loss.add_to_means(output, base, self.residual.free)

    def latent(self, output, temperature=None):
        """The predicted latents (B, T, rows, z_dim) that an output gives.

        temperature: as of `losses.Mdn.latent`.
        """
        return self.loss.latent(output, temperature)

    def predict(self, latent, state=None, temperature=None, weights=None):
        """One step: the next latent, and the state after it.

        latent: (B, rows, z_dim); state: so far, None at first; weights: as `cast` gives them.

        With diffs the first latent gives no difference yet: the prediction is that nothing moves.
        """
        if not self.diffs:
            output, state = self.read_sequence(latent[:, None], state, weights)
            return self.latent(output, temperature)[:, 0], state
        latent = latent[:, : self.rows]
        if state is None:
            return latent, (None, latent)
        state, last = state
        output, state = self.read_sequence(
            difference(torch.stack([last, latent], dim=1)), state, weights
        )
        return integrate(latent, self.latent(output, temperature)[:, 0]), (state, latent)

    @torch.no_grad()
    def rollout(self, context, steps, temperature=None):
        """Latent means (B, T + steps, z_dim): T of the context, then `steps` in free running.

        context: (B, T, rows, z_dim). Row 0 is the first posterior mean; rows 1 to T - 1 are
        predictions from the true latents before them; the rest are predictions from the model's
        own. temperature: as of `latent`, for the rest. Raises ValueError if there is a temperature
        and no mixture.
        """
        if temperature is not None and not self.loss.can_be_sampled:
            raise ValueError(
                f"a temperature is for samples of a mixture, not of {self.config['loss']}"
            )
        means = [context[:, 0, 0]]
        state = latent = None
        primed = context.shape[1] - 1
        weights = self.cast(context.device.type)
        for t in range(primed + steps):
            latent = context[:, t] if t <= primed else latent
            latent, state = self.predict(
                latent, state, temperature if t >= primed else None, weights
            )
            means.append(latent[:, 0])
        return torch.stack(means, dim=1)


def difference(latents):
    """Differences of consecutive latents (B, T, rows, z_dim) -> (B, T - 1, rows, z_dim).

    Two posteriors err independently, so their variances add: the log-sigma of a difference is the
    sum's.
    """
    mean = latents[:, 1:, :1] - latents[:, :-1, :1]
    log_sigma = latents[:, :, 1:]
    return torch.cat(
        [mean, 0.5 * torch.logaddexp(2 * log_sigma[:, 1:], 2 * log_sigma[:, :-1])], dim=2
    )


def integrate(latent, step):
    """The latent that `step` leads to from `latent`, both (B, rows, z_dim).

    The difference of the two is `step`. A variance that would have to be negative for that is set
    to nearly none.
    """
    mean = latent[:, :1] + step[:, :1]
    variance = torch.exp(2 * step[:, 1:]) - torch.exp(2 * latent[:, 1:])
    return torch.cat([mean, 0.5 * torch.log(variance.clamp_min(1e-6))], dim=1)
