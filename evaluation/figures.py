"""The pictures that an evaluation leaves: videos beside predictions, and what slots see."""

import numpy as np
import torch

from data import pictures
from models.codec import unit_scale
from models.slots import SlotVAE

SHOWN = 4  # videos: the first ones, and in strips as many of the others


def save_strips(path, models, frames, context, seed):
    """Save a PNG of some videos, the truth above each model's prediction.

    models: `Trained`; frames: (V, T, channels, height, width) uint8, `context` of them fed in;
    seed: of the choice of videos after the first.
    """
    first = range(min(SHOWN, len(frames)))
    others = np.random.default_rng(seed).permutation(np.arange(SHOWN, len(frames)))
    chosen = [*first, *others[:SHOWN]]
    past, future = np.split(frames[chosen] / np.float32(255), [context], axis=1)
    horizon = future.shape[1]
    predicted = {model.name: model.predict(past, future)[:, -horizon:] for model in models}
    pictures.save_strips(path, chosen, past, future, predicted)


def has_slots(model):
    """Whether a `Trained` predicts latents with slots."""
    return isinstance(model.codec.networks.vae, SlotVAE)


@torch.no_grad()
def save_slots(path, model, frames, context):
    """Save a PNG of the first videos: what each slot draws and sees, and where it goes.

    The frame shown is the last one fed in; from there on lead the paths, true and predicted. model:
    a `Trained` with slots; frames: (V, T, 1, height, width) uint8, `context` of them fed in.
    """
    vae = model.codec.networks.vae
    frames = torch.from_numpy(frames[:SHOWN])
    horizon = frames.shape[1] - context
    last = context - 1

    latents = model.codec.encode_videos(frames)  # (V, T, 2, z)
    looks, places = vae.what_and_where(latents[:, :, 0])  # (V, T, S, look), (V, T, S, 2)
    predicted = model.lstm.rollout(latents[:, :context], horizon)  # (V, T, z)
    _, predicted_places = vae.what_and_where(predicted)

    shown = unit_scale(frames[:, last, 0]).to(looks.device)  # (V, height, width)
    drawn = vae.draw(looks[:, last], places[:, last])  # (V, S, height, width)
    unexplained = shown[:, None] - vae.overlay_others(drawn)
    crops = vae.glimpse(unexplained, places[:, last], vae.offsets)  # (V, S, size, size)
    true_path = vae.to_pixels(places[:, last:]).transpose(1, 2)  # (V, S, 1 + H, 2)
    predicted_path = vae.to_pixels(predicted_places[:, last:]).transpose(1, 2)  # (V, S, 1 + H, 2)
    tensors = (shown, drawn, crops, true_path, predicted_path)
    pictures.save_slots(path, *(tensor.cpu().numpy() for tensor in tensors))
