"""Trained networks back from their checkpoints.

A codec, and an LSTM with the codec whose latents it predicts.
"""

import os

import numpy as np
import torch

from evaluation.baselines import encode, restore, to_uint8
from models.cae import CAE, Deconvoluter
from models.codec import ByFeatures, Codec, Direct, unit_scale
from models.film import FilmPredictor
from models.lstm import LatentLSTM
from models.observed import ObservedObjects
from models.slots import SlotVAE
from models.vae import VAE, VCAE
from runtime import files
from runtime.errors import UserError
from training import checkpoint


def load_codec(path, device, expected=None):
    """The codec of the checkpoint at `path`.

    That is an autoencoder of frames, or the VAE at the end of a film's chain. Raises UserError if
    there is no such checkpoint, or if it has another id than `expected`: then it was trained anew,
    and the latents at hand are not its own.
    """
    content = checkpoint.load(path, VCAE, SlotVAE, VAE)
    identity = checkpoint.identity(content)
    if expected not in (None, identity):
        raise UserError(
            f"{path} is not the codec that these latents come from: train the LSTM on its new "
            "latents"
        )
    vae = checkpoint.build(content, VCAE, SlotVAE, VAE).to(device)
    if content["kind"] != "VAE":
        return Codec(Direct(vae), device, identity)
    cae = checkpoint.build(load_parent(content, path, "cae", CAE), CAE).to(device)
    deconv = checkpoint.build(load_parent(content, path, "deconv", Deconvoluter), Deconvoluter).to(
        device
    )
    try:
        return Codec(ByFeatures(vae, cae, deconv), device, identity)
    except ValueError as error:
        raise UserError(f"{path}: {error}; train it again on them") from None


def attributes_of_latents(run, codec, frames):
    """What a file of latents in the folder `run` says of the codec and the frames it is made of."""
    kept = {key: frames.attributes[key] for key in ("source", "frame_rate", "frame_skip")}
    if codec.grid:
        kept["grid_rows"], kept["grid_columns"] = codec.grid
    if codec.has_slots:
        kept["slots"] = codec.networks.vae.slots
        _, kept["frame_height"], kept["frame_width"] = codec.frame_shape
    data_file = files.relative(frames.path, run)
    return kept | {"codec": "best.pt", "codec_id": codec.identity, "data_file": data_file}


def load_parent(content, path, role, kind):
    """The content of the checkpoint that the one at `path` was built on.

    Raises UserError if that was trained again since.
    """
    place = checkpoint.parent_path(path, content, role)
    loaded = checkpoint.load(place, kind)
    if checkpoint.identity(loaded) != content["parents"][role]["id"]:
        raise UserError(f"{place} is not what {path} was built on: train that again on it")
    return loaded


class Trained:
    """The LSTM of a checkpoint, with its codec, and a film's painter if there is one."""

    def __init__(self, path, device):
        content = checkpoint.load(path, LatentLSTM, FilmPredictor)
        self.name = os.fsencode(path).decode(errors="replace")  # a file's name need not be text
        model = checkpoint.build(content, LatentLSTM, FilmPredictor).to(device)
        self.film = model if content["kind"] == "FilmPredictor" else None
        self.lstm = self.film.lstm if self.film else model
        self.skip = content["args"]["frame_skip"]
        self.data_file = checkpoint.parent_path(path, content, "frames")
        self.frame_rate = content["parents"]["frames"].get("frame_rate")  # of pretrained ones
        codec_id = content["parents"]["codec"]["id"]
        self.codec = load_codec(
            checkpoint.parent_path(path, content, "codec"), device, expected=codec_id
        )
        if self.codec.z_dim != self.lstm.z_dim:
            raise UserError(
                f"{path} predicts {self.lstm.z_dim} numbers, its codec has {self.codec.z_dim}: "
                "train it anew"
            )
        of_frames = tuple(self.lstm.config["frame_shape"])
        if self.codec.has_slots and of_frames != self.codec.frame_shape:
            raise UserError(
                f"{path} is for slots in frames {of_frames}, its codec's are "
                f"{self.codec.frame_shape}: train it anew"
            )
        channels = self.codec.frame_shape[0]
        if self.film and self.film.config["channels"] != channels:
            raise UserError(f"{path} paints other channels than its codec has: train it anew")
        # With a grid of places networks are convolutional: they take larger frames, too.
        grid = tuple(self.lstm.config["grid"])
        self.has_places = grid != () and grid == self.codec.grid

    def own_frames(self):
        """The file of frames that it was trained on. Raises UserError if it is not there."""
        if not os.path.exists(self.data_file):
            raise UserError(
                f"{self.data_file}, the frames of {self.name}, is not there: make it, or name "
                "others with --data_file"
            )
        return self.data_file

    def widen(self, height, width):
        """Take larger frames from now on, see `Codec.widen`. Only of a model that `has_places`."""
        self.codec.widen(height, width)
        self.lstm.layout.shape = self.codec.grid

    def require_mixture(self, flag):
        """Raise UserError if the LSTM predicts nothing to sample from.

        flag: the one that asks for samples.
        """
        if not self.lstm.loss.can_be_sampled:
            loss = self.lstm.config["loss"]
            raise UserError(
                f"{flag} draws from a mixture, {self.name} has none: train with --loss mdn, not "
                f"{loss}"
            )

    @torch.no_grad()
    def rollout(self, context, steps, temperature=None, amp=False, restored=False):
        """Context and `steps` frames after it, as predicted, and the context through the codec.

        context: (V, T, channels, height, width) uint8; amp: in bfloat16; restored: undo what
        the codec loses (slots: after the context, objects are drawn as it showed them; else by
        `restore`). Returns frames (V, T + steps, ...) and (V, T, ...) on the CPU, in [0, 1]. The
        first frame is not predicted: it is the context's (without a painter, through the codec).
        """
        latents = self.codec.encode_videos(context)  # (V, T, 2, z)
        predicted = self.paint(context, latents, steps, 0, temperature, amp, restored)
        reconstructed = self.codec.decode(latents[:, :, 0]).cpu()
        if restored and not self.codec.has_slots:
            predicted = restore(predicted, unit_scale(context), reconstructed)
        return predicted, reconstructed

    def paint(self, context, latents, steps, first, temperature=None, amp=False, restored=False):
        """The frames of `rollout` from number `first` on, of context frames and their latents."""
        with torch.autocast(self.codec.device.type, torch.bfloat16, enabled=amp):
            if self.film:
                frames = unit_scale(context.to(self.codec.device))
                return self.film.rollout(frames, latents, steps, temperature, first).cpu()
            means = self.lstm.rollout(latents, steps, temperature)  # (V, T + steps, z)
            painted = self.codec.decode(means[:, first:]).cpu()
        if restored and self.codec.has_slots:
            frames = unit_scale(context.to(self.codec.device))
            objects = ObservedObjects(self.codec.networks.vae, frames, latents[:, :, 0])
            painted[:, -steps:] = objects.draw(means[:, -steps:]).cpu()
        return painted

    @torch.no_grad()
    def predict(self, context, future):
        latents = encode(self.codec, context)
        last = context.shape[1] - 1  # what comes before is not looked at
        predicted = self.paint(to_uint8(context), latents, future.shape[1], last)
        if self.codec.has_slots and last:
            # A video's slots are found in all of its frames: here the last one must not be known.
            known = context[:, :-1]
            predicted[:, :1] = self.paint(to_uint8(known), encode(self.codec, known), 1, last)
        return predicted.numpy()

    def predict_restored(self, context, future):
        steps = future.shape[1]
        predicted, _ = self.rollout(to_uint8(context), steps, restored=True)
        return predicted[:, -steps:].numpy()

    @torch.no_grad()
    def forget(self, context, future):
        """As the 2016 code sampled, its first fault.

        The state is lost at every frame: each knows the last alone.
        """
        latent = encode(self.codec, context[:, -1:])[:, 0]
        means = []
        for _ in range(future.shape[1]):
            latent, _ = self.lstm.predict(latent)
            means.append(latent[:, 0])
        return self.codec.decode(torch.stack(means, dim=1)).cpu().numpy()

    @torch.no_grad()
    def best_of(self, samples, temperature, context, future):
        """Of `samples` samples of each video's future, the one with the least squared error."""
        latents = encode(self.codec, context)
        steps = future.shape[1]
        drawn = [self.lstm.rollout(latents, steps, temperature)[:, -steps:] for _ in range(samples)]
        made = np.stack([self.codec.decode(z).cpu().numpy() for z in drawn])
        best = np.square(made - future).sum((2, 3, 4, 5)).argmin(0)
        return made[best, np.arange(len(future))]
