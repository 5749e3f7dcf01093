"""Predictors: a trained LSTM, and what it has to beat: rules that learn nothing, and the best that its codec allows.

A predictor is a function of context frames (V, T, channels, height, width) and the true future (V, H, ...), float32 in
[0, 1], that gives predicted frames of the future's shape; one more, first, is the last context frame as predicted from
those before it.
"""

import os

import numpy as np
import torch

from runtime.errors import UserError
from training import checkpoint
from models.codec import Codec
from models.lstm import LatentLSTM

COPY = "copy of the last frame"


def in_pixels(mean_frame):
    """{name: predictor}; mean_frame: (channels, height, width), that of the training set."""
    return {
        "black": lambda context, future: np.zeros_like(future),
        "mean frame of the training set": lambda context, future: np.broadcast_to(mean_frame, future.shape),
        "mean of the context": lambda context, future: repeat(context.mean(1), future),
        COPY: lambda context, future: repeat(context[:, -1], future),
    }


def repeat(frames, future):
    """One frame a video, for as long as the future is."""
    return np.broadcast_to(frames[:, None], future.shape)


def in_latents(codec, note=""):
    """{name + note: predictor}: the last latent again, the last step in Z again and again, the true future encoded."""

    def ahead(speed):
        def predict(context, future):
            before, last = encode(codec, context[:, -2:])[:, :, 0].unbind(1)
            steps = speed * torch.arange(1, future.shape[1] + 1, device=last.device)[:, None]
            return codec.decode(last[:, None] + steps * (last - before)[:, None]).cpu().numpy()

        return predict

    def reconstruct(_, future):
        return codec.decode(encode(codec, future)[:, :, 0]).cpu().numpy()

    rules = {"last z repeated": ahead(0), "linear in z": ahead(1), "reconstruction of the true future": reconstruct}
    return {name + note: rule for name, rule in rules.items()}


def restore(painted, context, again):
    """Add what the codec loses of the last true frame to predicted ones: a loss that stays the same is none.

    painted: (V, T + H, ...), the first frame and predictions of those after it; context (V, T, ...) and again, its
    reconstruction. All in [0, 1], as is the result.
    """
    last = (torch.arange(painted.shape[1]) - 1).clamp(0, context.shape[1] - 1)
    return (painted + (context - again)[:, last]).clamp(0, 1)


def encode(codec, frames):
    """Latents (V, T, 2, z_dim) of frames (V, T, channels, height, width), float32 in [0, 1] that were uint8."""
    return codec.encode_videos(torch.from_numpy(frames).mul(255).round().to(torch.uint8))


class Trained:
    """The LSTM of a checkpoint, with its codec."""

    def __init__(self, path, device):
        content = checkpoint.load(path, LatentLSTM)
        self.name = os.fsencode(path).decode(errors="replace")  # a file's name need not be text
        self.lstm = checkpoint.build(content, LatentLSTM).to(device)
        self.skip, self.data_file = content["args"]["frame_skip"], checkpoint.parent_path(path, content, "frames")
        codec_id = content["parents"]["codec"]["id"]
        self.codec = Codec(checkpoint.parent_path(path, content, "codec"), device, expected=codec_id)
        if self.codec.z_dim != self.lstm.z_dim:
            raise UserError(
                f"{path} predicts {self.lstm.z_dim} numbers, its codec has {self.codec.z_dim}: train it anew"
            )

    def require_mixture(self, flag):
        """Raise UserError, which names the flag that asks for samples, if the LSTM predicts nothing to sample from."""
        if self.lstm.loss != "mdn":
            loss = self.lstm.loss
            raise UserError(f"{flag} draws from a mixture, {self.name} has none: train with --loss mdn, not {loss}")

    @torch.no_grad()
    def predict(self, context, future):
        z = self.lstm.rollout(encode(self.codec, context), future.shape[1])
        return self.codec.decode(z[:, context.shape[1] - 1 :]).cpu().numpy()

    @torch.no_grad()
    def predict_restored(self, context, future):
        latents = encode(self.codec, context)
        painted = self.codec.decode(self.lstm.rollout(latents, future.shape[1]))
        again = self.codec.decode(latents[:, :, 0])
        return restore(painted.cpu(), torch.from_numpy(context), again.cpu())[:, context.shape[1] :].numpy()

    @torch.no_grad()
    def forget(self, context, future):
        """As the 2016 code sampled (its first fault): the state is lost at every frame, each knows the last alone."""
        latent, means = encode(self.codec, context[:, -1:])[:, 0], []
        for _ in range(future.shape[1]):
            latent, _ = self.lstm.predict(latent)
            means.append(latent[:, 0])
        return self.codec.decode(torch.stack(means, dim=1)).cpu().numpy()

    @torch.no_grad()
    def best_of(self, samples, temperature, context, future):
        """Of so many samples of each video's future, the one with the least squared error."""
        latents, steps = encode(self.codec, context), future.shape[1]
        drawn = [self.lstm.rollout(latents, steps, temperature)[:, -steps:] for _ in range(samples)]
        made = np.stack([self.codec.decode(z).cpu().numpy() for z in drawn])
        best = np.square(made - future).sum((2, 3, 4, 5)).argmin(0)
        return made[best, np.arange(len(future))]
