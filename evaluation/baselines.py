"""Predictors: trained LSTMs, and what they have to beat.

These are rules that learn nothing, and the best that the codec allows. A predictor is a function of
context frames (V, T, channels, height, width) and the true future (V, H, ...), float32 in [0, 1],
that returns predicted frames of the future's shape. It may return one more, first: the last context
frame as predicted from those before it.
"""

from functools import partial

import numpy as np
import torch
from skimage.registration import optical_flow_tvl1
from skimage.transform import warp

from evaluation import rule

CONTEXT_MEAN = "mean of the context"
COPY = "copy of the last frame"
FLOW = "motion goes on"
RULE = "the rule, fitted to each video"
HALF_FLOW = "motion goes on, half speed"
ATTACHMENT = 15  # of the flow to the frames: smaller is smoother


def collect(models, known, data, is_film, forget, samples, temperature):
    """All predictors to measure, {name: predictor}.

    models: a list of `Trained`; known: training frames (N, channels, height, width) uint8, or None;
    data: the attributes of the file of frames; is_film: also measure motion that goes on; forget:
    also without memory; samples: also the best of that many at the `temperature`, if any. Of films
    and slots the models are measured restored, too (`sample_video.py --restore`).
    """
    mean = None if known is None else known.mean(0, dtype=np.float32) / np.float32(255)
    predictors = in_pixels(mean)
    if is_film:
        motion = Motion()
        predictors[FLOW] = partial(motion.carry_on, 1.0)
        predictors[HALF_FLOW] = partial(motion.carry_on, 0.5)
    first_with = {model.codec.identity: model for model in reversed(models)}
    for model in first_with.values():
        note = f", codec of {model.name}" if len(first_with) > 1 else ""
        predictors |= in_latents(model.codec, note)
        _, height, width = model.codec.frame_shape
        is_known = data.get("physics") in rule.MOVES and height == width
        if model.codec.has_slots and is_known:
            predictors[f"{RULE}{note}"] = by_rule(model.codec, data)
    for model in models:
        predictors[model.name] = model.predict
        # A painter begins with the last true frame anyway.
        if model.codec.has_slots or (is_film and not model.film):
            predictors[f"{model.name}, restored"] = model.predict_restored
    if forget:
        predictors |= {f"{model.name}, state lost": model.forget for model in models}
    if samples:
        for model in models:
            name = f"{model.name}, best of {samples} samples"
            predictors[name] = partial(model.best_of, samples, temperature)
    return predictors


def name_compared(names, models):
    """Of the predictors' names those that a film's table shows: copy, motion, and every `Trained`.

    A model is shown in all its variants.
    """
    of_models = tuple(model.name for model in models)
    rules = (CONTEXT_MEAN, COPY, FLOW, HALF_FLOW)
    return [name for name in names if name in rules or name.startswith(of_models)]


def in_pixels(mean_frame):
    """{name: predictor}; mean_frame: (channels, height, width), of the training set, or None."""

    def black(context, future):
        return np.zeros_like(future)

    def training_mean(context, future):
        return np.broadcast_to(mean_frame, future.shape)

    def context_mean(context, future):
        return repeat(context.mean(1), future)

    def copy(context, future):
        return repeat(context[:, -1], future)

    means = {} if mean_frame is None else {"mean frame of the training set": training_mean}
    return {"black": black, **means, CONTEXT_MEAN: context_mean, COPY: copy}


def repeat(frames, future):
    """One frame per video, (V, channels, height, width), for as long as the future is."""
    return np.broadcast_to(frames[:, None], future.shape)


class Motion:
    """Motion that goes on: the last frame, moved further along its optical flow.

    The flow is that of the last two context frames (TV-L1, Zach et al. 2007). It is kept for the
    next call with the same context: predictors that differ in speed share it.
    """

    def __init__(self):
        self.context = None
        self.flows = []

    def carry_on(self, speed, context, future):
        """Frame h ahead: I_h(x) = I_0(x + speed * h * f(x)), where I_-1(x + f(x)) = I_0(x)."""
        if context is not self.context:
            self.context = context
            self.flows = [optical_flow(video[-2], video[-1]) for video in context]
        pixels = np.indices(context.shape[3:])  # (2, height, width)
        predicted = np.empty_like(future)
        for v, flow in enumerate(self.flows):
            for h in range(future.shape[1]):
                source = pixels + speed * (h + 1) * flow
                for c, channel in enumerate(context[v, -1]):
                    predicted[v, h, c] = warp(channel, source, order=1, mode="edge")
        return predicted


def optical_flow(previous, last):
    """Where each pixel of the last frame was in the one before, relative to it.

    Frames are (channels, height, width). The flow is (2, height, width), rows and columns, in
    pixels. Frames one pixel high or wide have no gradient, and no flow.
    """
    if min(last.shape[1:]) < 2:
        return np.zeros((2, *last.shape[1:]), np.float32)
    return optical_flow_tvl1(last.mean(0), previous.mean(0), attachment=ATTACHMENT)


def in_latents(codec, note=""):
    """{name + note: predictor}: the last latent, or its last step, repeated; the future encoded."""

    def last_latent(context, future):
        return along_last_step(codec, context, future, speed=0)

    def linear(context, future):
        return along_last_step(codec, context, future, speed=1)

    def reconstruct(context, future):
        return codec.decode(encode(codec, future)[:, :, 0]).cpu().numpy()

    return {
        f"last z repeated{note}": last_latent,
        f"linear in z{note}": linear,
        f"reconstruction of the true future{note}": reconstruct,
    }


def by_rule(codec, data):
    """The predictor of `rule.predict`; codec: with slots; data: as of `collect`."""
    physics = data["physics"]
    size = data["num_sz"]

    def predict(context, future):
        means = encode(codec, context)[:, :, 0]  # (V, T, z)
        return rule.predict(codec, means, physics, size, future.shape[1]).cpu().numpy()

    return predict


def along_last_step(codec, context, future, speed):
    """Frames decoded from z_t + speed * k * (z_t - z_{t-1}), k = 1, 2, ..., H."""
    means = encode(codec, context[:, -2:])[:, :, 0]  # (V, 2, z)
    previous, last = means.unbind(1)
    steps = speed * torch.arange(1, future.shape[1] + 1, device=last.device)[:, None]  # (H, 1)
    z = last[:, None] + steps * (last - previous)[:, None]  # (V, H, z)
    return codec.decode(z).cpu().numpy()


def restore(predicted, context, reconstructed):
    """Predicted frames plus what the codec loses of the last true frame.

    A loss that stays the same is undone. predicted: (V, T + H, ...), the first frame and
    predictions of those after it; context: (V, T, ...); reconstructed: the context through the
    codec, (V, T, ...). All are in [0, 1], as is the result.
    """
    last = (torch.arange(predicted.shape[1]) - 1).clamp(0, context.shape[1] - 1)
    loss = (context - reconstructed)[:, last]  # (V, T + H, ...)
    return (predicted + loss).clamp(0, 1)


def encode(codec, frames):
    """Latents (V, T, 2, z) of frames (V, T, C, H, W), float32 in [0, 1] that were uint8."""
    return codec.encode_videos(to_uint8(frames))


def to_uint8(frames):
    """A tensor of the uint8 that an array of frames in [0, 1] was made from."""
    return torch.from_numpy(frames).mul(255).round().to(torch.uint8)
