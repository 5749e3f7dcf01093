"""How far predicted frames are from true ones, and whether they still show what they should.

All measures take frames float32 in [0, 1], predicted and true, (V, T, channels, height, width), and
return one number per frame, (V, T), NaN where a measure is not defined.
"""

from functools import partial

import numpy as np
import torch
from skimage.feature import match_template
from skimage.metrics import structural_similarity
from tqdm import tqdm

PIXELS = (2, 3, 4)  # axes
CHUNK = 50  # videos predicted at a time
NEIGHBOURS = 500  # training frames compared at a time
TINY = 1e-4  # probabilities are kept this far from 0 and 1
FAINT = 0.02  # five grey levels of 255: compression leaves that much in a black or flat frame
FLAT = 1e-3  # range of grey levels in which no digit is looked for
DIM = 0.05  # less light is taken for black: even faint specks, where all else is black, correlate
WINDOW = 7  # px, of SSIM
INNER = 20 / 28  # of a digit's side: MNIST leaves 4 of 28 pixels empty on each side
CALIBRATED = 200  # videos on which the score of a digit is calibrated
# Coherent frames of digits, of films
SHARP = (0.5, 1.6)
MASS = (0.8, 1.2)
NEAR = 2  # px
SHARP_FILM = 0.4


def mse(predicted, true):
    """Squared error, summed over a frame's pixels."""
    return np.square(predicted - true).sum(PIXELS)


def mae(predicted, true):
    """Absolute error, summed over a frame's pixels."""
    return np.abs(predicted - true).sum(PIXELS)


def psnr(predicted, true):
    """Peak signal to noise ratio in dB, of peak 1; at most 100, where a frame is met exactly."""
    return -10 * np.log10(np.square(predicted - true).mean(PIXELS).clip(1e-10))


def bce(predicted, true):
    """-sum(x log p + (1 - x) log(1 - p)) over a frame's pixels, p clipped to [TINY, 1 - TINY]."""
    p = predicted.clip(TINY, 1 - TINY)
    return -(true * np.log(p) + (1 - true) * np.log1p(-p)).sum(PIXELS)


def ssim(predicted, true, data_range=1.0):
    """Structural similarity (Wang et al. 2004) by scikit-image, with a uniform window of 7x7.

    It is a mean over pixels and channels. data_range 1 is that of the frames; 2 is what OpenSTL,
    and with it most published tables, computes. NaN for frames smaller than the window.
    """
    if min(true.shape[3:]) < WINDOW:
        return np.full(true.shape[:2], np.nan)
    pairs = zip(flat(predicted), flat(true), strict=True)
    values = [
        structural_similarity(a, b, win_size=WINDOW, data_range=data_range, channel_axis=0)
        for a, b in pairs
    ]
    return np.reshape(values, predicted.shape[:2])


def sharpness(predicted, true):
    """Gradient energy relative to the true frame's: 1 is as sharp, 0 flat. NaN if that is flat."""
    is_defined = np.ptp(true, (3, 4)).max(2) > FAINT
    return relative(gradient_energy(predicted), gradient_energy(true), is_defined)


def mass(predicted, true):
    """Sum of pixels relative to the true frame's. NaN where the true frame is black."""
    return relative(predicted.sum(PIXELS), true.sum(PIXELS), not_black(true))


def lost(predicted, true):
    """1 where the squared error is above a third of the true frame's energy, else 0.

    It is as if one digit of two were missing. NaN where the true frame is black.
    """
    energy = mse(0, true)
    is_lost = mse(predicted, true) > energy / 3
    return np.where(not_black(true), is_lost, np.float32(np.nan))


def score(predicted, true):
    """All of the above: {name: (V, T)}."""
    functions = {
        "mse": mse,
        "mae": mae,
        "psnr": psnr,
        "ssim": ssim,
        "ssim_openstl": partial(ssim, data_range=2.0),
        "bce": bce,
        "sharpness": sharpness,
        "mass": mass,
        "lost": lost,
    }
    return {name: function(predicted, true) for name, function in functions.items()}


def measure(predictors, frames, context, digits, known, keep, more):
    """Score predictors on videos: {predictor: {metric: (V, H)}}.

    predictors: as in baselines.py; frames: (V, T, channels, height, width) uint8, of which
    `context` are fed in; digits: the `Digits` of the videos, or None; known: training frames (N,
    channels, height, width) uint8, of which the nearest is found, or None; keep(V, name, videos,
    frames) is called with all predictions, and with the "truth"; more: {metric: function} as of
    `score`.
    """
    batches = {name: [] for name in predictors}
    firsts = range(0, len(frames), CHUNK)
    for first in tqdm(firsts, desc="videos", unit=f"{CHUNK} videos", disable=None):
        videos = np.arange(first, min(first + CHUNK, len(frames)))
        past, future = np.split(frames[videos] / np.float32(255), [context], axis=1)
        horizon = future.shape[1]
        keep(len(frames), "truth", videos, future)
        for name, predict in predictors.items():
            last_context, predicted = np.split(predict(past, future), [-horizon], axis=1)
            keep(len(frames), name, videos, predicted)
            measured = score(predicted, future)
            measured |= {key: function(predicted, future) for key, function in more.items()}
            if known is not None:
                measured["nearest"] = nearest(predicted, known)
            if digits:
                measured["identity"], measured["distance"] = digits.find(predicted, videos)
            if last_context.shape[1]:
                measured["primed"] = mse(last_context, past[:, -1:])
            batches[name].append(measured)
    return {name: concatenated(measured) for name, measured in batches.items()}


def concatenated(batches):
    """[{metric: (V1, H)}, ...] as one {metric: (V, H)}."""
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def relative(value, true_value, defined):
    """The ratio where it is `defined`, else NaN: all (V, T)."""
    return np.divide(value, true_value, out=np.full_like(value, np.nan), where=defined)


def not_black(frames):
    return frames.max(PIXELS) > FAINT


def gradient_energy(frames):
    across = np.square(np.diff(frames, axis=-1)).sum(PIXELS)
    down = np.square(np.diff(frames, axis=-2)).sum(PIXELS)
    return across + down


def flat(frames):
    return frames.reshape(-1, *frames.shape[2:])  # (V*T, channels, height, width)


def nearest(frames, known):
    """Squared error of each frame to the nearest of `known` (N, channels, height, width) uint8."""
    queries = torch.tensor(frames).flatten(2).flatten(0, 1)  # (V*T, pixels)
    parts = torch.from_numpy(known).flatten(1).split(NEIGHBOURS)  # (NEIGHBOURS, pixels) each
    distances = [torch.cdist(queries, part.float() / 255).amin(1) for part in parts]
    smallest = torch.stack(distances).amin(0)  # (V*T,)
    return smallest.square().numpy().reshape(frames.shape[:2])  # (V, T)


class Digits:
    """The digits of generated videos, cut out of them, to be found again in predictions.

    frames: (V, T, 1, height, width); sources: the video that each is a window of, (V,), at least
    two; corners: (V, T, D, 2), rows and columns of the pixels of the digits' top-left corners;
    size: px. A digit alone is the minimum over time of each of its pixels: what passes over it only
    adds light.
    threshold: the score that separates best frames that show a video's digits from frames that show
    another video's; error: how often it is wrong about these.
    """

    def __init__(self, frames, sources, corners, size):
        inner = round(size * INNER)
        self.corners = corners + (size - inner) // 2
        margins = ((0, 0), (0, 0), (inner, inner), (inner, inner))
        padded = np.pad(frames[:, :, 0], margins)  # (V, T, height, width), with margins
        shape = (len(frames), corners.shape[2], inner, inner)
        self.templates = np.ones(shape, np.float32)  # (V, D, inner, inner)
        for v, t, d in np.ndindex(self.corners.shape[:3]):
            top, left = self.corners[v, t, d] + inner
            template = self.templates[v, d]
            visible = padded[v, t, top : top + inner, left : left + inner]
            np.minimum(template, visible, out=template)
        videos = np.arange(len(frames))[:CALIBRATED]
        others = [np.argmax(np.roll(sources, -v) != sources[v]) for v in videos]  # places on
        others = (videos + others) % len(frames)  # the next window of another video
        own, _ = self.find(frames[videos], videos)
        other, _ = self.find(frames[videos], videos, others)
        thresholds = np.linspace(0, 1, 201)
        errors = [((own < c).mean() + (other >= c).mean()) / 2 for c in thresholds]
        self.threshold = float(thresholds[np.argmin(errors)])
        self.error = float(min(errors))

    def find(self, frames, videos, shown=None):
        """The score of each frame's worst-found digit, and the largest distance of any, (V, T).

        The score is a digit's best normalised cross-correlation anywhere in the frame, the distance
        is from there to its true position, in pixels. A flat frame correlates with nothing: the
        score is 0, the distance NaN. frames: the last ones of `videos` (V,), true or predicted;
        shown: the videos whose digits are looked for, if not their own.
        """
        score = np.ones(frames.shape[:2])
        distance = np.zeros(frames.shape[:2])
        corners = self.corners[videos][:, -frames.shape[1] :]
        templates = self.templates[videos if shown is None else shown]
        lit = np.where(frames < DIM, 0, frames)
        for v, t, d in np.ndindex(corners.shape[:3]):
            if np.ptp(frames[v, t]) < FLAT:
                score[v, t] = 0
                distance[v, t] = np.nan
                continue
            correlation = match_template(lit[v, t, 0], templates[v, d])
            position = np.unravel_index(correlation.argmax(), correlation.shape)
            score[v, t] = min(score[v, t], correlation[position])
            distance[v, t] = max(distance[v, t], np.hypot(*(position - corners[v, t, d])))
        return score, distance


def count_coherent_digits(scores, threshold):
    """Frames in a row that still show the video: {predictor: {"coherent": (V,), "tracked": (V,)}}.

    scores: {predictor: {metric: (V, H)}}; threshold: that of `Digits`. A frame is coherent if its
    sharpness and mass are within SHARP and MASS and every digit is found, tracked if each is also
    within NEAR pixels of its true position.
    """
    runs = {}
    for name, measured in scores.items():
        distorted = outside(measured["sharpness"], SHARP) | outside(measured["mass"], MASS)
        coherent = ~distorted & (measured["identity"] >= threshold)
        tracked = coherent & (measured["distance"] <= NEAR)
        runs[name] = {"coherent": run_length(coherent), "tracked": run_length(tracked)}
    return runs


def count_coherent_film(scores, copy):
    """The same for films: {predictor: {"coherent": (V,)}}.

    copy: the predictor that copies the last frame. A frame is coherent if its PSNR is at least that
    of `copy` and its sharpness at least SHARP_FILM.
    """
    runs = {}
    for name, measured in scores.items():
        blurred = outside(measured["sharpness"], (SHARP_FILM, np.inf))
        coherent = (measured["psnr"] >= scores[copy]["psnr"]) & ~blurred
        runs[name] = {"coherent": run_length(coherent)}
    return runs


def outside(values, bounds):
    """Whether values are out of bounds. NaN, an undefined measure, is not."""
    low, high = bounds
    return (values < low) | (values > high)


def run_length(good):
    """How many frames are good before the first that is not, (V, T) bool -> (V,)."""
    return np.where(good.all(1), good.shape[1], (~good).argmax(1))


def bootstrap(values, sources, seed=0, draws=1000):
    """The 95 % interval of the mean of values (V,), by resampling videos; None if there is one.

    sources: the video that each value is of, (V,). Several windows of one are alike: they are drawn
    together.
    """
    _, video, counts = np.unique(sources, return_inverse=True, return_counts=True)
    if len(counts) == 1:
        return None
    sums = np.bincount(video, values)  # (videos,)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(counts), size=(draws, len(counts)))  # (draws, videos)
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)
