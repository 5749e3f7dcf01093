"""Measures by networks that others trained: LPIPS of frames, Fréchet distance of videos.

Their weights do not come with this repository; docs/stages.md says where to get them. Frames are
float32 in [0, 1], (V, T, channels, height, width), and reach the networks as RGB in [-1, 1].
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from runtime.errors import UserError

FRAMES = 100  # that LPIPS compares at a time
CLIPS = 10  # that I3D sees at a time
SMALLEST = 31  # px: less does not pass through AlexNet's pooling
SIDE = 224  # px, of the clips that I3D sees
# Of the TorchScript file that most repositories use, where its forward takes them: we resize and
# scale ourselves, and take the features (400 logits), not the probabilities.
OPTIONS = {"rescale": False, "resize": False, "return_features": True}


def to_rgb(frames):
    """Frames (..., channels, height, width) in [0, 1] as a tensor (..., 3, height, width).

    It is in [-1, 1]. One or two channels: the first, three times. More than three: the first three.
    """
    frames = torch.from_numpy(np.ascontiguousarray(frames, np.float32)).clamp(0, 1)
    channels = frames.shape[-3]
    rgb = frames[..., :3, :, :] if channels >= 3 else frames[..., :1, :, :]
    return 2 * rgb.expand(*frames.shape[:-3], 3, *frames.shape[-2:]) - 1


class Lpips:
    """Learned perceptual distance of frames (Zhang et al. 2018), version 0.1, with AlexNet.

    Called with predicted and true frames it returns (V, T), 0 for equal ones; NaN for frames
    smaller than SMALLEST. Raises UserError if the packages or AlexNet's weights are not there.
    """

    def __init__(self, device):
        self.device = device
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package calls torchvision as it was in 2021
            try:
                import lpips
                from torchvision.models import AlexNet_Weights
            except Exception as error:  # a torchvision for another torch raises what it likes
                raise UserError(
                    f"--lpips: a package cannot be imported ({error!s:.100}): "
                    f"pip install -r requirements-lpips.txt torch=={torch.__version__}"
                ) from None
            url = AlexNet_Weights.IMAGENET1K_V1.url
            weights = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
            if not weights.exists():
                raise UserError(f"--lpips: {weights} is not there: fetch it from {url}")
            self.network = lpips.LPIPS(net="alex", verbose=False).to(device).eval()

    @torch.no_grad()
    def __call__(self, predicted, true):
        if min(true.shape[3:]) < SMALLEST:
            return np.full(true.shape[:2], np.nan)
        distances = []
        pairs = (to_rgb(frames).flatten(0, 1).split(FRAMES) for frames in (predicted, true))
        for a, b in zip(*pairs, strict=True):
            distance = self.network(a.to(self.device), b.to(self.device))  # (n, 1, 1, 1)
            distances.append(distance.flatten().cpu())
        return torch.cat(distances).numpy().reshape(true.shape[:2])


class VideoDistance:
    """Fréchet video distance (Unterthiner et al. 2018) of predictions to the true videos.

    path: an I3D network trained on Kinetics-400, as TorchScript. It takes clips (n, 3, T, 224, 224)
    in [-1, 1] and returns features (n, F). Clips are the predicted frames alone, resized
    bilinearly; `horizon` is their length. Raises UserError if the file is no such network.
    """

    def __init__(self, path, horizon, device):
        self.device = device
        self.batches = {}  # {name: [features (n, F), ...]}
        if not Path(path).exists():
            raise UserError(f"--i3d {path} is not there: docs/stages.md says what file it takes")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, which would rather have another format
                self.network = torch.jit.load(path, map_location=device).eval()
        except (RuntimeError, ValueError) as error:  # a folder is a ValueError
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"--i3d {path} is no TorchScript file ({reason:.100})") from None
        if not hasattr(self.network, "forward"):
            raise UserError(f"--i3d {path} is no network: it has no forward")
        arguments = [argument.name for argument in self.network.forward.schema.arguments]
        self.options = {name: OPTIONS[name] for name in OPTIONS if name in arguments}
        self.check(path, horizon)

    def check(self, path, horizon):
        """Raise UserError if the network does not take clips of `horizon` frames."""
        wanted = "I3D takes clips of at least 10 frames (--horizon), (n, 3, T, 224, 224)"
        try:
            features = self.features(np.zeros((1, horizon, 1, SIDE, SIDE), np.float32))
        except (RuntimeError, AttributeError) as error:  # of what is no tensor
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"--i3d {path} fails ({reason:.100}): {wanted}") from None
        if features.ndim != 2 or len(features) != 1:
            raise UserError(
                f"--i3d {path} returns {features.shape} for one clip, not (1, features): {wanted}"
            )
        if not np.isfinite(features).all():
            raise UserError(f"--i3d {path} returns numbers that are not finite: take another file")

    @torch.no_grad()
    def features(self, frames):
        """Features (V, F) of videos (V, T, channels, height, width)."""
        features = []
        for clips in to_rgb(frames).split(CLIPS):
            flat = clips.to(self.device).flatten(0, 1)  # (n*T, 3, height, width)
            flat = interpolate(flat, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
            clips = flat.unflatten(0, clips.shape[:2]).transpose(1, 2)  # (n, 3, T, SIDE, SIDE)
            features.append(self.network(clips.contiguous(), **self.options).cpu())
        return torch.cat(features).double().numpy()

    def keep(self, total, name, videos, frames):
        """Take in the frames that the predictor `name`, or the "truth", has.

        total: how many videos there are; videos: which of them these are. Neither is needed.
        """
        self.batches.setdefault(name, []).append(self.features(frames))

    def distance(self, name):
        """The distance of a predictor's videos to the true ones."""
        predicted, true = (np.concatenate(self.batches[key]) for key in (name, "truth"))
        return frechet_distance(predicted, true)


def frechet_distance(a, b):
    """|m_a - m_b|^2 + trace(S_a + S_b - 2 (S_a S_b)^(1/2)), of features (N, F) with N > 1.

    m and S are mean and covariance, with N - 1 as divisor. If S = R^T R, the last trace is the sum
    of the singular values of R_a R_b^T: no root of a matrix is taken.
    """
    root_a, root_b = covariance_root(a), covariance_root(b)
    means = np.square(a.mean(0) - b.mean(0)).sum()
    traces = np.square(root_a).sum() + np.square(root_b).sum()
    return float(means + traces - 2 * np.linalg.norm(root_a @ root_b.T, "nuc"))


def covariance_root(features):
    """R (min(N, F), F) with R^T R the covariance of features (N, F)."""
    deviations = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(deviations, mode="r")
