"""Variational autoencoders (Kingma & Welling 2014): frames to latents and back."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from models.grid import grid_networks, grid_of
from models.noise import Dropout, normal_like


class VariationalAutoencoder(nn.Module):
    """What the VAEs of frames and of features share.

    A diagonal Gaussian posterior, and the bound on the likelihood.

    Subclasses give `encoder` (x to hidden units), `mu` and `log_sigma` (hidden units to latents),
    `decoder` (latents to an output) and `mean` (an output to the mean of x); and `L`, `binary` and
    `beta`, see `VCAE`.
    """

    def encode(self, x):
        """Posterior mean and log-sigma, each (n, z_dim), of a batch x."""
        hidden = self.encoder(x)
        return self.mu(hidden), self.log_sigma(hidden)

    def decode(self, z):
        """The mean of x for latents (n, z_dim)."""
        return self.mean(self.decoder(z).float())

    def resize_grid(self, x):
        """Take maps as high and wide as those of x from now on. Only of arch "grid"."""
        self.grid = tuple(self.encoder(x).shape[2:])
        self.decoder[0].shape = self.grid

    def forward(self, x):
        """The negative evidence lower bound in nats per example, and what it consists of.

        Beside its two parts there is the squared error, summed over x. A latent is drawn from the
        posterior L times in training; in evaluation it is the posterior mean.
        """
        mu, log_sigma = (t.float() for t in self.encode(x))
        n = len(x)
        samples = self.L if self.training else 1
        z = mu
        target = x
        if self.training:
            # All samples in one batch: the decoder's weights are read once, and so is their
            # gradient made.
            z, deviation, target = (
                t.repeat_interleave(samples, 0) for t in (mu, torch.exp(log_sigma), x)
            )
            z = z + normal_like(z) * deviation
        output = self.decoder(z).float()
        nll = self.nll(output, target) / samples
        squared_error = F.mse_loss(self.mean(output.detach()), target, reduction="sum") / samples
        kl = kl_to_standard_normal(mu, log_sigma)
        return {
            "loss": (nll + self.beta * kl) / n,
            "nll": nll / n,
            "kl": kl / n,
            "squared_error": squared_error / n,
        }

    def nll(self, output, x):
        """-log p(x | output) in nats, summed over the batch."""
        if self.binary:
            return F.binary_cross_entropy_with_logits(output, x, reduction="sum")
        return gaussian_nll(self.mean(output), floor_log_sigma(output.chunk(2, dim=1)[1]), x)


class VCAE(VariationalAutoencoder):
    """The convolutional VAE of frames in [0, 1].

    arch "2016": one convolution on the input, one on the output, dense layers between. arch "deep":
    four strided convolutions each way, batch norm, SiLU; any frame size (padded to a multiple of 16
    inside). arch "grid": latents by place, see `grid.grid_networks`. frame_shape: (channels,
    height, width); L: posterior samples per frame in training;
    binary: Bernoulli pixels, else Gaussian with a linear mean and a learned deviation; beta: weight
    of the KL term (Higgins et al. 2017).
    """

    def __init__(
        self,
        frame_shape,
        z_dim=32,
        n_hid=1024,
        arch="2016",
        nfilts=32,
        fsize=3,
        L=2,
        binary=True,
        beta=1.0,
    ):
        super().__init__()
        self.config = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        self.config["frame_shape"] = list(frame_shape)
        self.grid = grid_of(*frame_shape[1:]) if arch == "grid" else ()
        self.L = L
        self.binary = binary
        self.beta = beta
        maps_out = frame_shape[0] * (1 if binary else 2)
        if arch == "2016":
            activation = nn.Tanh() if binary else nn.Softplus()
            self.encoder, self.decoder = shallow(
                frame_shape, maps_out, z_dim, n_hid, nfilts, fsize, activation
            )
        elif arch == "deep":
            self.encoder, self.decoder = deep(frame_shape, maps_out, z_dim, n_hid, nfilts)
        if arch == "grid":
            networks = grid_networks(frame_shape, maps_out, z_dim, nfilts)
            self.encoder, self.mu, self.log_sigma, self.decoder = networks
        else:
            self.mu = nn.Linear(n_hid, z_dim)
            self.log_sigma = nn.Linear(n_hid, z_dim)
        if arch == "2016":
            self.apply(glorot)
        else:
            self.to(memory_format=torch.channels_last)

    def mean(self, output):
        return torch.sigmoid(output) if self.binary else output.chunk(2, dim=1)[0]


class VAE(VariationalAutoencoder):
    """The VAE of a CAE's features, which are Gaussian.

    arch "2016": one hidden dense layer each way, softplus, a learned deviation of each feature.
    arch "deep", "grid": those of `VCAE`, one deviation for all features. feature_shape: (maps,
    height, width). The features are normalised by each map's mean and standard deviation, which
    the model stores (`normalise_by`). bounded: the mean goes through tanh, as in 2016, and cannot
    reach features beyond it. z_dim, n_hid, nfilts, L, beta: as of `VCAE`.
    """

    def __init__(
        self,
        feature_shape,
        z_dim=256,
        n_hid=1500,
        arch="2016",
        nfilts=64,
        L=2,
        bounded=False,
        beta=1.0,
    ):
        super().__init__()
        self.config = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        self.config["feature_shape"] = list(feature_shape)
        self.arch = arch
        self.grid = grid_of(*feature_shape[1:]) if arch == "grid" else ()
        self.L = L
        self.binary = False
        self.bounded = bounded
        self.beta = beta
        maps, height, width = feature_shape
        if arch == "2016":
            self.encoder = nn.Sequential(
                nn.Flatten(), nn.Linear(math.prod(feature_shape), n_hid), nn.Softplus()
            )
            self.decoder = nn.Sequential(
                nn.Linear(z_dim, n_hid),
                nn.Softplus(),
                nn.Linear(n_hid, 2 * math.prod(feature_shape)),
                nn.Unflatten(1, (2 * maps, height, width)),
            )
        elif arch == "deep":
            self.encoder, self.decoder = deep(feature_shape, maps, z_dim, n_hid, nfilts)
        if arch == "grid":
            networks = grid_networks(feature_shape, maps, z_dim, nfilts)
            self.encoder, self.mu, self.log_sigma, self.decoder = networks
        else:
            self.mu = nn.Linear(n_hid, z_dim)
            self.log_sigma = nn.Linear(n_hid, z_dim)
        if arch == "2016":
            self.apply(glorot)
        else:
            self.to(memory_format=torch.channels_last)
        self.register_buffer("feature_mean", torch.zeros(maps, 1, 1))
        self.register_buffer("feature_std", torch.ones(maps, 1, 1))

    def normalise_by(self, features):
        """Store the mean and standard deviation of each map of example features.

        features: (n, maps, height, width).
        """
        self.feature_mean.copy_(features.mean((0, 2, 3)).view(-1, 1, 1))
        self.feature_std.copy_(features.std((0, 2, 3)).clamp_min(1e-6).view(-1, 1, 1))

    def normalised(self, features):
        return (features - self.feature_mean) / self.feature_std

    def features(self, z):
        """Mean features (n, maps, height, width) in their own units, for latents (n, z_dim)."""
        return self.decode(z) * self.feature_std + self.feature_mean

    def mean(self, output):
        mean = output.chunk(2, dim=1)[0] if self.arch == "2016" else output
        return torch.tanh(mean) if self.bounded else mean

    def nll(self, output, x):
        if self.arch == "2016":
            return super().nll(output, x)
        # The likeliest deviation of the batch weighs error against KL (Rybkin et al. 2021, eq. 5).
        return gaussian_nll(self.mean(output), 0.5 * F.mse_loss(self.mean(output), x).log(), x)


def shallow(frame_shape, maps_out, z_dim, n_hid, nfilts, fsize, activation):
    """Encoder and decoder of 2016.

    At 64x64, nearly all of the 269 M weights are in the two dense layers next to the maps.
    """
    channels, height, width = frame_shape
    encoder = nn.Sequential(
        Dropout(0.3),
        nn.Conv2d(channels, nfilts, fsize, padding="same"),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(nfilts * height * width, n_hid),
        activation,
    )
    decoder = nn.Sequential(
        nn.Linear(z_dim, n_hid),
        activation,
        nn.Linear(n_hid, nfilts * height * width),
        nn.Tanh(),
        nn.Unflatten(1, (nfilts, height, width)),
        nn.Conv2d(nfilts, maps_out, fsize, padding="same"),
    )
    return encoder, decoder


def deep(frame_shape, maps_out, z_dim, n_hid, nfilts):
    """Encoder and decoder of four strided convolutions.

    nfilts is the width of the outermost; each further one is twice as wide.
    """
    channels, height, width = frame_shape
    # at least 32 px: batch norm needs more than one value per channel, even of a batch of one
    pad_height = max(-height % 16, 32 - height)
    pad_width = max(-width % 16, 32 - width)
    widths = [nfilts, 2 * nfilts, 4 * nfilts, 8 * nfilts]
    top = (widths[-1], (height + pad_height) // 16, (width + pad_width) // 16)

    down = [nn.ZeroPad2d((0, pad_width, 0, pad_height))]
    for maps_in, maps in zip([channels, *widths], widths, strict=False):
        down += [
            nn.Conv2d(maps_in, maps, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(maps),
            nn.SiLU(),
        ]
    up = []
    for maps_in, maps in zip(widths[::-1], widths[-2::-1], strict=False):
        up += [
            nn.ConvTranspose2d(maps_in, maps, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(maps),
            nn.SiLU(),
        ]

    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(top), n_hid), nn.SiLU())
    decoder = nn.Sequential(
        nn.Linear(z_dim, n_hid),
        nn.SiLU(),
        nn.Linear(n_hid, math.prod(top)),
        nn.SiLU(),
        nn.Unflatten(1, top),
        *up,
        nn.ConvTranspose2d(nfilts, maps_out, 4, stride=2, padding=1),
        nn.ZeroPad2d((0, -pad_width, 0, -pad_height)),
    )
    return encoder, decoder


def glorot(module):
    """Glorot-uniform weights and zero biases, as Lasagne begins."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def kl_to_standard_normal(mu, log_sigma):
    """KL(N(mu, sigma^2) || N(0, 1)) in nats, summed over all entries.

    Kingma & Welling 2014, appendix B.
    """
    return -0.5 * (1 + 2 * log_sigma - mu**2 - torch.exp(2 * log_sigma)).sum()


def gaussian_nll(mu, log_sigma, x):
    """-log N(x; mu, sigma^2) in nats, summed over all entries."""
    return (
        0.5 * math.log(2 * math.pi) + log_sigma + 0.5 * ((x - mu) * torch.exp(-log_sigma)) ** 2
    ).sum()


def floor_log_sigma(log_sigma):
    """log-sigma kept from falling below -10, where a pixel that never changes would send it."""
    return F.relu(log_sigma + 10) - 10
