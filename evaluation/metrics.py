"""How far predicted frames are from true ones, and whether they still show what they should: one number a frame.

All take frames float32 in [0, 1], predicted and true, (V, T, channels, height, width), and give (V, T), NaN where a
measure is not defined.
"""

from functools import partial

import numpy as np
import torch
from skimage.feature import match_template
from skimage.metrics import structural_similarity
from tqdm import tqdm

CHUNK = 50  # videos predicted at a time
TINY = 1e-4  # probabilities are kept this far from 0 and 1
FAINT = 0.02  # five grey levels of 255: compression leaves that much in a black or flat frame
WINDOW = 7  # px, of SSIM


def mse(predicted, true):
    """Squared error, summed over a frame's pixels."""
    return np.square(predicted - true).sum((2, 3, 4))


def mae(predicted, true):
    """Absolute error, summed over a frame's pixels."""
    return np.abs(predicted - true).sum((2, 3, 4))


def psnr(predicted, true):
    """Peak signal to noise ratio in dB, of peak 1; at most 100, where a frame is met exactly."""
    return -10 * np.log10(np.square(predicted - true).mean((2, 3, 4)).clip(1e-10))


def bce(predicted, true):
    """Binary cross-entropy in nats, summed over a frame's pixels; predictions are clipped to [TINY, 1 - TINY]."""
    p = predicted.clip(TINY, 1 - TINY)
    return -(true * np.log(p) + (1 - true) * np.log1p(-p)).sum((2, 3, 4))


def ssim(predicted, true, data_range=1.0):
    """Structural similarity (Wang et al. 2004) by scikit-image: 7x7 uniform window, a mean over pixels and channels.

    data_range 1 is that of the frames; 2 is what OpenSTL, and with it most published tables, computes. NaN for frames
    smaller than the window.
    """
    if min(true.shape[3:]) < WINDOW:
        return np.full(true.shape[:2], np.nan)
    pairs = zip(flat(predicted), flat(true), strict=True)
    values = [structural_similarity(a, b, win_size=WINDOW, data_range=data_range, channel_axis=0) for a, b in pairs]
    return np.reshape(values, predicted.shape[:2])


def sharpness(predicted, true):
    """Gradient energy relative to the true frame's: 1 is as sharp, 0 is flat. NaN where the true frame is flat."""
    return relative(gradient_energy(predicted), gradient_energy(true), np.ptp(true, (3, 4)).max(2) > FAINT)


def mass(predicted, true):
    """Sum of pixels relative to the true frame's. NaN where the true frame is black."""
    return relative(predicted.sum((2, 3, 4)), true.sum((2, 3, 4)), not_black(true))


def lost(predicted, true):
    """1 where the squared error is above a third of the true frame's energy, as if one digit of two were missing.

    NaN where the true frame is black.
    """
    return np.where(not_black(true), mse(predicted, true) > mse(0, true) / 3, np.float32(np.nan))


def score(predicted, true):
    """All of the above: {name: (V, T)}."""
    functions = {"mse": mse, "mae": mae, "psnr": psnr, "ssim": ssim, "ssim_openstl": partial(ssim, data_range=2.0)}
    functions |= {"bce": bce, "sharpness": sharpness, "mass": mass, "lost": lost}
    return {name: function(predicted, true) for name, function in functions.items()}


def measure(predictors, frames, context, digits, known, keep):
    """Score predictors on videos: {predictor: {metric: (V, H)}}.

    predictors: as of models/predictors.py; frames: (V, T, channels, height, width) uint8, of which `context` are fed
    in; digits: those of the videos, or None; known: training frames (N, channels, height, width) uint8, to look for
    the nearest; keep(V, name, videos, frames) is called with all that is predicted, and with the "truth".
    """
    scores = {name: [] for name in predictors}
    for first in tqdm(range(0, len(frames), CHUNK), desc="videos", unit=f"{CHUNK} videos", disable=None):
        videos = np.arange(first, min(first + CHUNK, len(frames)))
        past, future = np.split(frames[videos] / np.float32(255), [context], axis=1)
        keep(len(frames), "truth", videos, future)
        for name, predict in predictors.items():
            primed, made = np.split(predict(past, future), [-future.shape[1]], axis=1)
            keep(len(frames), name, videos, made)
            row = score(made, future) | {"nearest": nearest(made, known)}
            if digits:
                row["identity"], row["distance"] = digits.find(made, videos)
            if primed.shape[1]:
                row["primed"] = mse(primed, past[:, -1:])
            scores[name].append(row)
    return {name: {key: np.concatenate([r[key] for r in rows]) for key in rows[0]} for name, rows in scores.items()}


def relative(value, true_value, defined):
    """The ratio where it is `defined`, else NaN: all (V, T)."""
    return np.divide(value, true_value, out=np.full_like(value, np.nan), where=defined)


def not_black(frames):
    return frames.max((2, 3, 4)) > FAINT


def gradient_energy(frames):
    return np.square(np.diff(frames, axis=-1)).sum((2, 3, 4)) + np.square(np.diff(frames, axis=-2)).sum((2, 3, 4))


def flat(frames):
    return frames.reshape(-1, *frames.shape[2:])


def nearest(frames, known):
    """Squared error to the nearest of the frames `known` (N, channels, height, width) uint8, for each of `frames`."""
    flat, parts = torch.tensor(frames).flatten(2).flatten(0, 1), torch.from_numpy(known).flatten(1).split(500)
    distances = [torch.cdist(flat, part.float() / 255).amin(1) for part in parts]
    return torch.stack(distances).amin(0).square().numpy().reshape(frames.shape[:2])


class Digits:
    """The digits of generated videos, cut out of them, to be found again in predictions.

    frames: (V, T, 1, height, width); corners: (V, T, D, 2), rows and columns of the pixels of their top-left corners;
    size: px. A digit alone is the darkest that each of its pixels gets over the video: what passes over it adds light.
    threshold: the score that tells best whether a digit is in a frame, between a video's own and the next video's;
    error: how often it is wrong about these.
    """

    def __init__(self, frames, corners, size):
        inner = round(size * 20 / 28)  # MNIST leaves 4 of 28 pixels empty on each side
        self.corners = corners + (size - inner) // 2
        room = np.pad(frames[:, :, 0], ((0, 0), (0, 0), (inner, inner), (inner, inner)))
        self.templates = np.ones((len(frames), corners.shape[2], inner, inner), np.float32)
        for v, t, d in np.ndindex(self.corners.shape[:3]):
            y, x = self.corners[v, t, d] + inner
            np.minimum(self.templates[v, d], room[v, t, y : y + inner, x : x + inner], out=self.templates[v, d])
        some = np.arange(len(frames))[:200]
        own, other = self.find(frames[some], some)[0], self.find(frames[some], some, other=1)[0]
        candidates = np.linspace(0, 1, 201)
        wrong = [((own < c).mean() + (other >= c).mean()) / 2 for c in candidates]
        self.threshold, self.error = float(candidates[np.argmin(wrong)]), float(min(wrong))

    def find(self, frames, videos, other=0):
        """The score of a frame's worst-found digit, and how far from its place any is found at most, each (V, T).

        The score is a digit's best normalised cross-correlation anywhere in the frame, the distance is in pixels.
        In a flat frame, which correlates with nothing, the score is 0 and the distance NaN.
        frames: the last ones of `videos` (V,), true or predicted; other: look for the digits of so many videos further.
        """
        score, distance = np.ones(frames.shape[:2]), np.zeros(frames.shape[:2])
        corners = self.corners[videos][:, -frames.shape[1] :]
        templates = self.templates[(videos + other) % len(self.templates)]
        for v, t, d in np.ndindex(corners.shape[:3]):
            if np.ptp(frames[v, t]) < 1e-3:
                score[v, t], distance[v, t] = 0, np.nan
                continue
            found = match_template(frames[v, t, 0], templates[v, d])
            place = np.unravel_index(found.argmax(), found.shape)
            score[v, t] = min(score[v, t], found[place])
            distance[v, t] = max(distance[v, t], np.hypot(*(place - corners[v, t, d])))
        return score, distance


def count_coherent_digits(scores, threshold):
    """Consecutive frames that still show the video: {predictor: {"coherent": (V,), "tracked": (V,)}}.

    scores: {predictor: {metric: (V, H)}}; threshold: that of `Digits`. Coherent: sharpness in [0.5, 1.6], mass in
    [0.8, 1.2] and every digit found; tracked: within 2 pixels of its place, too.
    """
    runs = {}
    for name, rows in scores.items():
        unlike = outside(rows["sharpness"], 0.5, 1.6) | outside(rows["mass"], 0.8, 1.2)
        coherent = ~unlike & (rows["identity"] >= threshold)
        tracked = coherent & (rows["distance"] <= 2)
        runs[name] = {"coherent": run_length(coherent), "tracked": run_length(tracked)}
    return runs


def count_coherent_film(scores, copy):
    """The same of films: {predictor: {"coherent": (V,)}}.

    copy: the predictor that copies the last frame. Coherent: PSNR at least that of `copy`, sharpness at least 0.4.
    """
    runs = {}
    for name, rows in scores.items():
        coherent = (rows["psnr"] >= scores[copy]["psnr"]) & ~outside(rows["sharpness"], 0.4, np.inf)
        runs[name] = {"coherent": run_length(coherent)}
    return runs


def outside(values, low, high):
    """Whether values are out of bounds; NaN, a measure that is not defined, is not."""
    return (values < low) | (values > high)


def run_length(good):
    """How many frames from the first on are good, (V, T) bool -> (V,)."""
    return np.where(good.all(1), good.shape[1], (~good).argmax(1))


def bootstrap(values, seed=0, draws=1000):
    """The 95 % interval of the mean of values (V,), by drawing videos anew; None of one, which tells of no spread."""
    if len(values) == 1:
        return None
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    return tuple(float(q) for q in np.percentile(means, [2.5, 97.5]))
