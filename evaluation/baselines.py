"""Predictors: a trained LSTM, and what it has to beat: rules that learn nothing, and the best that its codec allows.

A predictor is a function of context frames (V, T, channels, height, width) and the true future (V, H, ...), float32 in
[0, 1], that gives predicted frames of the future's shape; one more, first, is the last context frame as predicted from
those before it.
"""

import numpy as np
import torch

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
