"""Frames to latents and back, whichever networks that takes: all that later stages need to know of an autoencoder."""

import torch

from runtime.errors import UserError
from training import checkpoint
from models.cae import CAE, Deconvoluter
from models.slots import SlotVAE
from models.vae import VAE, VCAE


def unit_scale(frames):
    """Frames uint8 as float32 in [0, 1]."""
    return frames.float() / 255


def batch_size(device):
    """Frames at a time: a CPU is quickest with what fits into its caches."""
    return 64 if torch.device(device).type == "cpu" else 1024


class Direct:
    """The VAE of frames does it alone."""

    def __init__(self, content, path, device):
        self.vae = checkpoint.build(content, VCAE, SlotVAE).to(device)
        self.frame_shape = tuple(content["config"]["frame_shape"])

    def encode(self, frames):
        return self.vae.encode(unit_scale(frames))

    def decode(self, z):
        return self.vae.decode(z)


class ByFeatures:
    """Frames to a CAE's features to latents; latents to features to what the deconvoluter paints from them."""

    def __init__(self, content, path, device):
        self.vae = checkpoint.build(content, VAE).to(device)
        cae, deconv = (
            load_parent(content, path, role, kind) for role, kind in (("cae", CAE), ("deconv", Deconvoluter))
        )
        self.cae, self.deconv = checkpoint.build(cae, CAE).to(device), checkpoint.build(deconv, Deconvoluter).to(device)
        self.split_layer = deconv["config"]["split_layer"]
        side = cae["config"]["side"]
        self.frame_shape = (cae["config"]["channels"], side, side)
        if not fits_together(content["config"], cae["config"], deconv["config"]):
            raise UserError(f"{path}: it, its cae and its deconv do not fit together; train it again on them")

    def encode(self, frames):
        features = self.cae.features(self.cae.shifted(frames), self.split_layer)
        return self.vae.encode(self.vae.normalised(features))

    def decode(self, z):
        return self.deconv.paint(self.vae.features(z)) + self.deconv.pxsh

    @torch.no_grad()
    def stages(self, frames):
        """What is left of frames (n, channels, side, side) uint8 after each network: {name: frames in [0, 1]}."""
        shifted = self.cae.shifted(frames)
        features = self.cae.features(shifted, self.split_layer)
        made = {
            "reconstruction by the CAE": self.cae.reconstruct(shifted) + self.cae.pxsh,
            "painted from the true features": self.deconv.paint(features) + self.deconv.pxsh,
            "through the latents and back": self.decode(self.encode(frames)[0]),
        }
        return {name: painted.clamp(0, 1) for name, painted in made.items()}


def fits_together(vae, cae, deconv):
    """Whether the networks of three configurations take and give features and frames of the same shapes."""
    frames = (1, cae["channels"], cae["side"], cae["side"])
    with torch.device("meta"):
        try:
            features = CAE(**cae).features(torch.empty(frames), deconv["split_layer"])
            painted = Deconvoluter(**deconv).paint(features)
        except Exception:  # no such layer, or no such number of maps
            return False
    return features.shape[1:] == tuple(vae["feature_shape"]) and painted.shape == frames


class Codec:
    """The trained autoencoder of a checkpoint, ready to encode and decode.

    identity: the checkpoint's id, which latents carry; follow: what makes the slots of videos' latents stay with their
    objects, None if there are no slots. Raises UserError if there is no such checkpoint, or if it has another id than
    `expected`: then it was trained anew, and the latents at hand are not its own.
    """

    def __init__(self, path, device, expected=None):
        content = checkpoint.load(path, VCAE, SlotVAE, VAE)
        self.path, self.identity = path, checkpoint.identity(content)
        if expected not in (None, self.identity):
            raise UserError(f"{path} is not the codec that these latents come from: train the LSTM on its new latents")
        self.networks = (ByFeatures if content["kind"] == "VAE" else Direct)(content, path, device)
        self.follow = self.follow_slots if isinstance(self.networks.vae, SlotVAE) else None
        self.frame_shape, self.z_dim, self.device = self.networks.frame_shape, content["config"]["z_dim"], device
        self.batch_size = batch_size(device)

    @torch.no_grad()
    def encode(self, frames):
        """Posterior mean and log-sigma, each (n, z_dim), of frames (n, channels, height, width) uint8.

        Raises UserError if the frames have another shape than the codec's.
        """
        if frames.shape[1:] != self.frame_shape:
            shape = tuple(frames.shape[1:])
            raise UserError(f"{self.path} is a codec of frames {self.frame_shape}, not {shape}: name its own")
        parts = [self.networks.encode(part.to(self.device)) for part in frames.split(self.batch_size)]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def encode_videos(self, frames):
        """Latents (V, T, 2, z_dim), mean and log-sigma, of frames (V, T, channels, height, width) uint8."""
        latents = torch.stack(self.encode(frames.flatten(0, 1)), dim=1).unflatten(0, frames.shape[:2])
        return self.follow(latents, frames) if self.follow else latents

    def follow_slots(self, latents, frames):
        """Latents (V, T, 2, z_dim) of which each slot stays with one object, of those of frames encoded one by one."""
        return self.networks.vae.follow(latents.to(self.device), unit_scale(frames.to(self.device)))

    @torch.no_grad()
    def decode(self, z):
        """Frames (..., channels, height, width) in [0, 1] for latents (..., z_dim)."""
        parts = [
            self.networks.decode(part).float().clamp(0, 1) for part in z.reshape(-1, self.z_dim).split(self.batch_size)
        ]
        return torch.cat(parts).reshape(*z.shape[:-1], *self.frame_shape)


def load_parent(content, path, role, kind):
    """The content of the checkpoint that the one at `path` was built on. Raises UserError if it was trained anew."""
    place = checkpoint.parent_path(path, content, role)
    loaded = checkpoint.load(place, kind)
    if checkpoint.identity(loaded) != content["parents"][role]["id"]:
        raise UserError(f"{place} is not what {path} was built on: train that again on it")
    return loaded
