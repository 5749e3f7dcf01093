"""Autoencoder and LSTM as one network, trained on the pixels of the frames that it predicts."""

import torch
import torch.nn.functional as F
from torch import nn

from models.lstm import LatentLSTM
from models.noise import normal_like
from models.vae import VCAE, kl_to_standard_normal


class Joint(nn.Module):
    """The VAE of frames and the LSTM on its latents, from frames to predicted frames.

    vcae:  the VAE's configuration
    lstm:  the LSTM's; its `free` latents at a video's end are predicted in free running
    shown: predicted frames per video that are decoded in training, chosen at random, and half as
           many reconstructions: decoding is what costs
    """

    def __init__(self, vcae, lstm, shown=4):
        super().__init__()
        self.config = {"vcae": vcae, "lstm": lstm, "shown": shown}
        self.vcae = VCAE(**vcae)
        self.lstm = LatentLSTM(**lstm)
        self.shown = shown

    def compile(self):
        for part in (self.lstm, self.vcae.encoder, self.vcae.decoder):
            part.compile()

    def forward(self, frames):
        """The loss for videos (B, T, channels, height, width) in [0, 1], and its parts.

        The first T - P frames, the past, are encoded; the last P = `free` + 1, the future, are
        predicted from their latents. In nats per frame,

        loss = -log p(future | predicted z) - log p(past | z) + beta KL(q(z | past) || N(0, 1))

        The last two terms are the VAE's own, so that it stays an autoencoder.
        """
        count = self.lstm.free + 1  # P
        past = frames[:, :-count]
        future = frames[:, -count:]
        mu, log_sigma = self.encode(past)
        predicted = self.predict(mu, log_sigma, count)
        z = mu
        if self.training:
            z = mu + normal_like(mu) * torch.exp(log_sigma)
        predicted, future = self.choose(predicted, future, self.shown)
        z, past = self.choose(z, past, self.shown // 2)
        output_future, output_past = self.decode(predicted, z)
        nll, squared_error = self.errors(output_future, future)
        nll_past, reconstruction = self.errors(output_past, past)
        kl = kl_to_standard_normal(mu, log_sigma) / mu[..., 0].numel()
        return {
            "loss": nll + nll_past + self.vcae.beta * kl,
            "squared_error": squared_error,
            "reconstruction": reconstruction,
            "kl": kl,
        }

    def encode(self, past):
        """Posterior mean and log-sigma, each (B, T - P, z_dim), of frames (B, T - P, ...)."""
        shape = past.shape[:2]
        mu, log_sigma = self.vcae.encode(past.flatten(0, 1))  # (B*(T - P), z)
        return mu.float().unflatten(0, shape), log_sigma.float().unflatten(0, shape)

    def predict(self, mu, log_sigma, count):
        """The means of the next `count` latents, (B, count, z_dim)."""
        outputs = self.lstm.unroll(torch.stack([mu, log_sigma], dim=2), self.lstm.free)
        return self.lstm.latent(outputs[:, -count:])[:, :, 0]

    def choose(self, latents, frames, count):
        """In training `count` steps at random, the same for all videos; in evaluation all steps."""
        if not self.training:
            return latents, frames
        steps = torch.randperm(latents.shape[1], device=latents.device)[:count]
        return latents[:, steps], frames[:, steps]

    def decode(self, *latents):
        """The decoder's outputs (B, steps, ...) for latents, each (B, steps, z_dim).

        All at once: batch norm should see every kind together, as its running means do.
        """
        steps = [each.shape[1] for each in latents]
        z = torch.cat(latents, dim=1)  # (B, sum of steps, z)
        outputs = self.vcae.decoder(z.flatten(0, 1)).float()
        return outputs.unflatten(0, z.shape[:2]).split(steps, dim=1)

    def errors(self, output, frames):
        """-log p(frames | output) and the squared error, means over frames (B, steps, ...)."""
        output = output.flatten(0, 1)  # (B*steps, ...)
        frames = frames.flatten(0, 1)
        nll = self.vcae.nll(output, frames)
        squared_error = F.mse_loss(self.vcae.mean(output), frames, reduction="sum")
        return nll / len(frames), squared_error / len(frames)
