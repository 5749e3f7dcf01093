"""The LSTM that reads a sequence of latents and predicts the next one, with the 2016 cell (Lasagne's)."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from models.peephole import PeepholeLSTM
from training import noise


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

    def compile(self):
        """Fuse the elementwise part of each step: the steps, unrolled, would take a compiler minutes."""
        for layer in self.layers if self.peepholes else ():
            layer.fuse()

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
        weights = self.cast(context.device.type)
        output, state = self.run(context, None, weights)
        outputs = [output]
        for _ in range(steps):
            output, state = self.run(self.latent(output[:, -1:]), state, weights)
            outputs.append(output)
        return torch.cat(outputs, dim=1)

    def cast(self, device):
        """The weights of many steps, cast once, where a layer is ours."""
        return [layer.cast(device) for layer in self.layers] if self.peepholes else None

    def run(self, sequence, state=None, weights=None):
        """Read a sequence (B, T, rows, z_dim) at once -> the output after each step (B, T, ...), and the state.

        The state is that of each layer and, after them, the last mean read. weights: of each layer, `cast` beforehand.
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
        first, end, rows = noise.batch_part  # one process's mean is of its share
        clip = self.clip * (rows / max(end - first, 1) if self.loss == "mse" else self.slots / len(x))
        for i, layer in enumerate(self.layers):
            x = noise.dropout(x, self.dropout, self.training)
            more = (clip, weights and weights[i]) if self.peepholes else ()
            x, states[i] = layer(x, states[i], *more)
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

    def predict(self, latent, state=None, temperature=None, weights=None):
        """One step: latent (B, rows, z_dim) and the state so far -> the next latent and the state after it.

        With diffs the first latent gives no difference yet: the prediction is that nothing moves.
        """
        if not self.diffs:
            output, state = self.run(latent[:, None], state, weights)
            return self.latent(output, temperature)[:, 0], state
        latent = latent[:, : self.rows]
        if state is None:
            return latent, (None, latent)
        state, last = state
        output, state = self.run(difference(torch.stack([last, latent], dim=1)), state, weights)
        return integrate(latent, self.latent(output, temperature)[:, 0]), (state, latent)

    def rollout(self, context, steps, temperature=None):
        """Prime with context (B, T, rows, z_dim), then run freely for `steps` -> latent means (B, T + steps, z_dim).

        Row 0 is the first posterior mean; rows 1 to T - 1 are predictions from the true latents before them; the rest
        are predictions from the model's own. temperature: as of `latent`, for the rest. Raises ValueError if there is
        a temperature and no mixture.
        """
        if temperature is not None and self.loss != "mdn":
            raise ValueError(f"a temperature is for samples of a mixture, not of {self.loss}")
        means, state, latent = [context[:, 0, 0]], None, None
        primed, weights = context.shape[1] - 1, self.cast(context.device.type)
        for t in range(primed + steps):
            latent = context[:, t] if t <= primed else latent
            latent, state = self.predict(latent, state, temperature if t >= primed else None, weights)
            means.append(latent[:, 0])
        return torch.stack(means, dim=1)


def mixture(output):
    """The mixture of diagonal Gaussians (..., z_dim) of an output (..., K, 2 z_dim + 1): means, log-sigmas, logits."""
    mean, log_sigma = output[..., :-1].chunk(2, dim=-1)
    unchecked = {"validate_args": False}  # validation would make a GPU wait at every step, and cannot be recorded
    gaussians = Independent(Normal(mean, floor(log_sigma).exp(), **unchecked), 1, **unchecked)
    return MixtureSameFamily(Categorical(logits=output[..., -1], **unchecked), gaussians, **unchecked)


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
