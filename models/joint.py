"""Autoencoder and LSTM as one network, trained on the pixels of what it predicts."""

import torch
import torch.nn.functional as F
from torch import nn

from models.lstm import LatentLSTM
from models.vae import VCAE, kl_to_standard_normal
from training.noise import normal_like


class Joint(nn.Module):
    """The VAE of frames and the LSTM on its latents, from frames to predicted frames.

    vcae, lstm: their configurations; lstm's `free` says how many frames at a video's end are predicted in free running.
    shown: so many predicted frames of a video, drawn at random, are painted in training, and half as many
    reconstructions: painting is what costs.
    """

    def __init__(self, vcae, lstm, shown=4):
        super().__init__()
        self.config = {"vcae": vcae, "lstm": lstm, "shown": shown}
        self.vcae, self.lstm, self.shown = VCAE(**vcae), LatentLSTM(**lstm), shown

    def compile(self):
        for part in (self.lstm, self.vcae.encoder, self.vcae.decoder):
            part.compile()

    def forward(self, frames):
        """The loss for videos (B, T, channels, height, width) in [0, 1], in nats a frame, and squared errors.

        All but the last `free` + 1 frames are encoded, and these predicted. The loss is -log p of predicted frames and
        the VAE's own bound for frames that were encoded, so that it stays an autoencoder.
        """
        free = self.lstm.free + 1
        past, future = frames[:, :-free], frames[:, -free:]
        mu, log_sigma = (t.float().unflatten(0, past.shape[:2]) for t in self.vcae.encode(past.flatten(0, 1)))
        outputs = self.lstm.unroll(torch.stack([mu, log_sigma], dim=2), self.lstm.free)
        predicted = self.lstm.latent(outputs[:, -free:])[:, :, 0]
        noise = normal_like(mu) * torch.exp(log_sigma) if self.training else 0
        predicted, future = self.draw(predicted, future, self.shown)
        again, past = self.draw(mu + noise, past, self.shown // 2)

        # All are painted at once: batch norm should see both kinds together, as its running means do.
        painted = self.vcae.decoder(torch.cat([predicted, again], dim=1).flatten(0, 1)).float()
        painted = painted.unflatten(0, (len(frames), -1)).split([predicted.shape[1], again.shape[1]], dim=1)
        (nll, squared_error), (nll_past, squared_error_past) = map(self.errors, painted, (future, past))
        kl = kl_to_standard_normal(mu, log_sigma) / mu[..., 0].numel()
        return {
            "loss": nll + nll_past + self.vcae.beta * kl,
            "squared_error": squared_error,
            "reconstruction": squared_error_past,
            "kl": kl,
        }

    def draw(self, latents, frames, count):
        """In training, `count` of the time steps, the same of all videos; in evaluation, all of them."""
        if not self.training:
            return latents, frames
        steps = torch.randperm(latents.shape[1], device=latents.device)[:count]
        return latents[:, steps], frames[:, steps]

    def errors(self, output, frames):
        """-log p of frames (B, T, ...) given the decoder's output, and the squared error; means."""
        output, frames = output.flatten(0, 1), frames.flatten(0, 1)
        squared_error = F.mse_loss(self.vcae.mean(output), frames, reduction="sum") / len(frames)
        return self.vcae.nll(output, frames) / len(frames), squared_error
