"""What the LSTM is trained on, by name.

Each loss says what is predicted, and how far it is from the next latent.

mu and sigma are the mean and deviation of the next frame's posterior, as the codec encodes it; m
and s are those that the LSTM predicts. A formula says over what it sums and averages; a sum that
says nothing is over time and the numbers of a latent. In shapes B is the batch, S the slots (1 for
a vector), T steps, n the numbers of one slot.
"""

import torch
from torch import nn
from torch.distributions import Categorical, Normal


class Mse:
    """mean over batch, time and z of (m - mu)^2"""

    rows = 1  # of a latent that are read and predicted: 1, the mean; 2, also the log-sigma
    is_mean = True  # over batch, time and z; False: a sum, averaged over the batch (`gate_clip`)
    can_be_sampled = False

    def __init__(self, mixtures, layout):
        pass

    def output_shape(self, z_dim):
        """The shape of what the network puts out for a latent of z_dim numbers."""
        return self.rows, z_dim

    def initialise(self, bias, z_dim):
        """Set the bias with which the network's output begins."""
        nn.init.zeros_(bias)

    def latent(self, output, temperature=None):
        """The predicted latents (B, T, rows, z_dim) that an output (B, T, *output_shape) gives."""
        return output

    def add_to_means(self, output, base, free):
        """The output (B*S, T, ...) with base (B*S, T, n) added to its means.

        free: (n,), 0 for the numbers of which base alone remains, else 1.
        """
        means = free * output[:, :, :1] + base[:, :, None]  # (B*S, T, 1, n)
        return torch.cat([means, output[:, :, 1:]], dim=2)

    def __call__(self, output, squared_error, mean, log_sigma, layout):
        """The loss of an output (B, T, *output_shape).

        squared_error: of its means, (B, T, z_dim); mean, log_sigma: the posterior's, (B, T, z_dim).
        """
        return squared_error.mean()


class Kl(Mse):
    """mean over sequences of sum log(s / sigma) + (sigma^2 + (mu - m)^2) / (2 s^2) - 1/2,

    which is KL(N(mu, sigma^2) || N(m, s^2)) in nats.
    """

    rows = 2
    is_mean = False

    def __call__(self, output, squared_error, mean, log_sigma, layout):
        return kl_divergence(mean, log_sigma, *output.unbind(2)).sum() / len(output)


class Weighted(Mse):
    """mean over sequences of sum (m - mu)^2 / (2 sigma^2)

    The same KL with s fixed to sigma: an error counts less where the encoder was unsure.
    """

    is_mean = False

    def __call__(self, output, squared_error, mean, log_sigma, layout):
        return (0.5 * squared_error * torch.exp(-2 * log_sigma)).sum() / len(output)


class Distance(Mse):
    """mean over sequences of sum over slots of 8 sqrt(1 + d_place^2 / 64) + sqrt(1 + d_look^2) / 10

    d^2 = sum (m - mu)^2 / sigma^2 over the numbers of a slot's place, and of its look. Up to 8
    deviations, which are 1.7 px in frames of 64, an error counts squared: where two nearby places
    are possible, the one between them is predicted. A missed bounce counts less than squared.
    """

    is_mean = False
    NEAR = 8.0  # deviations

    def __call__(self, output, squared_error, mean, log_sigma, layout):
        in_deviations = layout.split(squared_error * torch.exp(-2 * log_sigma))  # (B, T, S, n)
        place = (in_deviations * layout.moves).sum(-1)  # (B, T, S)
        look = (in_deviations * (1 - layout.moves)).sum(-1)
        place = self.NEAR * (1 + place / self.NEAR**2).sqrt()
        look = 0.1 * (1 + look).sqrt()
        return (place + look).sum() / len(output)


class Mdn(Mse):
    """mean over sequences of sum over time and slots of -log sum_k w_k N(mu; m_k, s_k^2)

    A mixture density network (Bishop 1994; Graves 2013, eqs 19-25), one for each slot: over its
    place, as its look stays. The output of one is (mixtures, 2 n + 1): means, log-sigmas, and the
    log of w.
    """

    is_mean = False
    can_be_sampled = True

    def __init__(self, mixtures, layout):
        self.mixtures = mixtures
        self.layout = layout

    def output_shape(self, z_dim):
        return self.mixtures, 2 * z_dim + 1

    def initialise(self, bias, z_dim):
        nn.init.zeros_(bias)
        means = bias.data.view(self.output_shape(z_dim))[:, :z_dim]
        nn.init.normal_(means, std=0.1)  # Gaussians that begin alike stay alike

    def latent(self, output, temperature=None):
        """The mixture's mean or, with a temperature, a sample from it.

        Weights are taken to the power 1/temperature, variances times temperature (Ha & Eck 2018,
        eq. 8), so that 0 gives the likeliest Gaussian's mean.
        """
        mean, log_sigma, logits = self.gaussians(output)
        if temperature is None:
            weights = logits.softmax(-1)[..., None]  # (B, T, S, K, 1)
            return (weights * mean).sum(3).flatten(2)[:, :, None]  # (B, T, 1, z)
        if temperature:
            logits = logits / temperature
        else:
            logits = logits.masked_fill(logits < logits.amax(-1, True), -1e9)
        chosen = Categorical(logits=logits).sample()[..., None, None]  # (B, T, S, 1, 1)
        mean = mean.take_along_dim(chosen, dim=3)[:, :, :, 0]  # (B, T, S, n)
        sigma = log_sigma.take_along_dim(chosen, dim=3)[:, :, :, 0].exp()
        noise = temperature**0.5 * sigma * torch.randn_like(mean)
        z = mean + self.layout.moves * noise
        return z.flatten(2)[:, :, None]  # (B, T, 1, z)

    def gaussians(self, output):
        """Means and log-sigmas (B, T, S, K, n) and logits (B, T, S, K) of the mixtures.

        log-sigma is at least -5: a Gaussian that narrows down upon a single latent would have any
        likelihood it likes.
        """
        by_slot = output.unflatten(-1, (self.layout.count, -1))  # (B, T, K, S, 2n + 1)
        by_slot = by_slot.transpose(2, 3)  # (B, T, S, K, 2n + 1)
        mean, log_sigma = by_slot[..., :-1].chunk(2, dim=-1)
        return mean, log_sigma.clamp_min(-5), by_slot[..., -1]

    def add_to_means(self, output, base, free):
        width = base.shape[-1]  # n
        means = free * output[..., :width] + base[:, :, None]  # (B*S, T, K, n)
        return torch.cat([means, output[..., width:]], dim=-1)

    def __call__(self, output, squared_error, mean, log_sigma, layout):
        return -self.log_prob(output, mean).sum() / len(output)

    def log_prob(self, output, z):
        """log p (B, T, S) of latents z (B, T, z_dim)."""
        mean, log_sigma, logits = self.gaussians(output)
        z = z.unflatten(-1, (self.layout.count, 1, -1))  # (B, T, S, 1, n)
        # Validation would make a GPU wait at every step, and cannot be recorded.
        each = Normal(mean, log_sigma.exp(), validate_args=False).log_prob(z)  # (B, T, S, K, n)
        return ((self.layout.moves * each).sum(-1) + logits.log_softmax(-1)).logsumexp(-1)


LOSSES = {"mse": Mse, "kl": Kl, "weighted": Weighted, "distance": Distance, "mdn": Mdn}


def kl_divergence(mu_q, log_sigma_q, mu_p, log_sigma_p):
    """KL(N(mu_q, sigma_q^2) || N(mu_p, sigma_p^2)) in nats, elementwise."""
    variances = (
        torch.exp(2 * (log_sigma_q - log_sigma_p)) + ((mu_q - mu_p) * torch.exp(-log_sigma_p)) ** 2
    )
    return log_sigma_p - log_sigma_q + 0.5 * (variances - 1)
