"""Frames to latents and back, whichever networks that takes.

This is all that later stages need to know of an autoencoder.
"""

import torch

from models.cae import CAE, Deconvoluter
from models.observed import improve_looks
from models.slots import SlotVAE
from runtime.device import fast_bfloat16, in_threads

VIDEOS = 25  # whose objects a CPU's thread follows at a time, at most
PIXELS = 25 * 30 * 2 * 64 * 64  # of them, drawn by slots, at most; on a GPU ten times as many
BADLY = 0.15  # of a frame's squared brightness is not explained


def unit_scale(frames):
    """Frames uint8 as float32 in [0, 1]."""
    return frames.float() / 255


def batch_size(device):
    """Frames at a time: a CPU is quickest with what fits into its caches."""
    return 64 if torch.device(device).type == "cpu" else 1024


class Direct:
    """The VAE of frames does it alone."""

    def __init__(self, vae):
        self.vae = vae
        self.frame_shape = tuple(vae.config["frame_shape"])

    def read(self, frames):
        """What the VAE encodes of frames uint8."""
        return unit_scale(frames)

    def encode(self, frames):
        return self.vae.encode(self.read(frames))

    def decode(self, z):
        return self.vae.decode(z)


class ByFeatures:
    """Frames to a CAE's features to latents, and back through the deconvoluter.

    Raises ValueError if the networks do not fit together.
    """

    def __init__(self, vae, cae, deconv):
        self.vae = vae
        self.cae = cae
        self.deconv = deconv
        self.split_layer = deconv.config["split_layer"]
        self.frame_shape = (cae.config["channels"], cae.config["side"], cae.config["side"])
        if not fits_together(vae.config, cae.config, deconv.config):
            raise ValueError("the VAE, its cae and its deconv do not fit together")

    def read(self, frames):
        """What the VAE encodes of frames uint8."""
        features = self.cae.features(self.cae.shifted(frames), self.split_layer)
        return self.vae.normalised(features)

    def encode(self, frames):
        return self.vae.encode(self.read(frames))

    def decode(self, z):
        return self.deconv.paint(self.vae.features(z)) + self.deconv.pxsh

    @torch.no_grad()
    def stages(self, frames):
        """What is left of frames after each network: {name: frames in [0, 1]}.

        frames: (n, channels, side, side) uint8.
        """
        shifted = self.cae.shifted(frames)
        features = self.cae.features(shifted, self.split_layer)
        made = {
            "reconstruction by the CAE": self.cae.reconstruct(shifted) + self.cae.pxsh,
            "painted from the true features": self.deconv.paint(features) + self.deconv.pxsh,
            "through the latents and back": self.decode(self.encode(frames)[0]),
        }
        return {name: painted.clamp(0, 1) for name, painted in made.items()}


def fits_together(vae, cae, deconv):
    """Whether networks of these configurations pass on features and frames of the same shapes."""
    frames = (1, cae["channels"], cae["side"], cae["side"])
    with torch.device("meta"):
        try:
            features = CAE(**cae).features(torch.empty(frames), deconv["split_layer"])
            painted = Deconvoluter(**deconv).paint(features)
        except Exception:  # no such layer, or no such number of maps
            return False
    return features.shape[1:] == tuple(vae["feature_shape"]) and painted.shape == frames


class Codec:
    """Trained networks on a device, ready to encode and decode.

    networks: `Direct` or `ByFeatures`; identity: an id of their weights, which latents carry.
    Where there are slots, those of a video's latents stay with their objects.
    """

    def __init__(self, networks, device, identity=""):
        self.networks = networks
        self.device = torch.device(device)
        self.identity = identity
        self.has_slots = isinstance(networks.vae, SlotVAE)
        self.frame_shape = networks.frame_shape
        self.z_dim = networks.vae.config["z_dim"]
        self.grid = getattr(networks.vae, "grid", ())  # rows and columns of places, if any
        self.batch_size = batch_size(device)

    def widen(self, height, width):
        """Take larger frames from now on: as much of (height, width) as the networks can give back.

        Only of a codec with a grid. It sets `frame_shape`, `grid` and `z_dim`.
        """
        _, least_height, least_width = self.frame_shape  # which fit
        heights = range(height, least_height, -1)
        widths = range(width, least_width, -1)
        height = next((h for h in heights if self.resize(h, least_width)), least_height)
        width = next((w for w in widths if self.resize(height, w)), least_width)
        self.resize(height, width)

    @torch.no_grad()
    def resize(self, height, width):
        """Take frames (height, width) from now on; return whether they come back as large.

        They do not if pooling or halving leaves a remainder: it is lost.
        """
        channels = self.frame_shape[0]
        frames = torch.zeros(1, channels, height, width, dtype=torch.uint8, device=self.device)
        self.networks.vae.resize_grid(self.networks.read(frames))
        mean, _ = self.networks.encode(frames)
        self.frame_shape = (channels, height, width)
        self.grid = self.networks.vae.grid
        self.z_dim = mean.shape[1]
        return self.networks.decode(mean).shape == frames.shape

    @torch.no_grad()
    def encode(self, frames):
        """Posterior mean and log-sigma, each (n, z_dim), of frames.

        frames: (n, channels, height, width) uint8. Raises ValueError if the frames have another
        shape than the codec's.
        """
        self.require_shape(frames.shape[1:])
        parts = [
            self.networks.encode(part.to(self.device)) for part in frames.split(self.batch_size)
        ]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def require_shape(self, shape):
        """Raise ValueError if frames of the shape (channels, height, width) are not the codec's."""
        if shape != self.frame_shape:
            raise ValueError(f"the codec is one of frames {self.frame_shape}, not {tuple(shape)}")

    def encode_videos(self, frames):
        """Latents (V, T, 2, z_dim), mean and log-sigma, of videos.

        frames: (V, T, channels, height, width) uint8. Raises ValueError as `encode` does.
        """
        if self.has_slots:
            self.require_shape(frames.shape[2:])
            return self.follow(frames)
        mean_and_log_sigma = self.encode(frames.flatten(0, 1))
        return torch.stack(mean_and_log_sigma, dim=1).unflatten(0, frames.shape[:2])

    def follow(self, frames):
        """Latents (V, T, 2, z_dim) of videos, in which each slot stays with one object.

        Where they explain a frame badly, objects may have been confused in the first frames. Then
        the video is followed from its last frame, too, and the better of the two is taken.
        """
        latents, error = self.follow_from_first(frames)
        bad = error.amax(1) > BADLY
        if bad.any():
            from_last, its_error = self.follow_from_first(frames[bad.cpu()].flip(1))
            is_better = (its_error.mean(1) < error[bad].mean(1))[:, None, None, None]
            latents[bad] = torch.where(is_better, from_last.flip(1), latents[bad])
        return latents

    def follow_from_first(self, frames):
        """Latents of videos, a few at a time, and how much of each frame they leave unexplained."""
        size = PIXELS // (self.networks.vae.slots * frames.shape[1:].numel())
        size = min(size, VIDEOS) if self.device.type == "cpu" else 10 * size
        parts = in_threads(self.follow_few, frames.split(max(size, 1)), self.device)
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    @torch.no_grad()
    def follow_few(self, frames):
        """Latents of videos, and the share of each frame's squared brightness that is unexplained.

        A black frame counts as one of brightness 1.

        Places are better known by better looks, and looks by better places: hence twice.
        """
        vae = self.networks.vae
        frames = unit_scale(frames.to(self.device))
        is_fast = fast_bfloat16(self.device)  # and close enough: places are refined in what follows
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_fast):
            latents = vae.encode_each(frames)
        latents = vae.follow(latents, frames)
        latents = vae.follow_again(improve_looks(vae, frames, latents), frames)
        latents = improve_looks(vae, frames, latents)
        drawn = vae.decode(latents[:, :, 0].flatten(0, 1)).view_as(frames)
        error, brightness = (each.square().sum((2, 3, 4)) for each in (drawn - frames, frames))
        return latents, error / brightness.clamp_min(1)

    @torch.no_grad()
    def decode(self, z):
        """Frames (..., channels, height, width) in [0, 1] for latents (..., z_dim)."""
        parts = [
            self.networks.decode(part).float().clamp(0, 1)
            for part in z.reshape(-1, self.z_dim).split(self.batch_size)
        ]
        return torch.cat(parts).reshape(*z.shape[:-1], *self.frame_shape)
