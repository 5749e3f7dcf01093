"""Frames to latents and back, whichever networks that takes: all that later stages need to know of an autoencoder."""

import torch

from cli import UserError
from models import checkpoint
from models.vae import VCAE


def unit_scale(frames):
    """Frames uint8 as float32 in [0, 1]."""
    return frames.float() / 255


class Codec:
    """The trained autoencoder of a checkpoint, ready to encode and decode.

    identity: the checkpoint's id, which latents carry. Raises UserError if there is no such checkpoint, or if it has
    another id than `expected`: then it was trained anew, and the latents at hand are not its own.
    """

    def __init__(self, path, device, expected=None):
        content = checkpoint.load(path, VCAE)
        self.identity = checkpoint.identity(content)
        if expected not in (None, self.identity):
            raise UserError(
                f"{path} is not the codec that these latents come from: run train_lstm.py on its new latents"
            )
        self.model = checkpoint.build(content, VCAE).to(device)
        self.frame_shape, self.z_dim, self.device = (
            tuple(self.model.config["frame_shape"]),
            self.model.config["z_dim"],
            device,
        )

    @torch.no_grad()
    def encode(self, frames, batch_size=256):
        """Posterior mean and log-sigma, each (n, z_dim), of frames (n, channels, height, width) uint8."""
        parts = [self.model.encode(unit_scale(part.to(self.device))) for part in frames.split(batch_size)]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    @torch.no_grad()
    def decode(self, z, batch_size=256):
        """Frames (..., channels, height, width) in [0, 1] for latents (..., z_dim)."""
        parts = [self.model.decode(part) for part in z.reshape(-1, self.z_dim).split(batch_size)]
        return torch.cat(parts).reshape(*z.shape[:-1], *self.frame_shape)
