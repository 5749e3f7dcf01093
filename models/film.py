"""The LSTM of a film's latents and the painter as one network, trained on the pixels to come."""

import torch
import torch.nn.functional as F
from torch import nn

from models.lstm import LatentLSTM
from models.painter import Painter

NOISE = 0.001  # added to a copy's error, per value: eight grey levels, squared
COARSE = 4  # px: errors are also measured of frames that are made so much smaller
LATENT_WEIGHT = 0.1
SMOOTHNESS = 0.01


class FilmPredictor(nn.Module):
    """Predicts a film's frames: the LSTM says how latents go on, the painter what that looks like.

    The autoencoder stays as it is.

    lstm:     the LSTM's configuration, of a grid of latents; its `free` latents at a window's end
              are predicted in free running
    channels: of a frame
    shown:    predicted frames per window that are painted in training, chosen at random

    Raises ValueError if the LSTM's latents have no grid.
    """

    def __init__(self, lstm, channels, shown=4):
        super().__init__()
        self.config = {"lstm": lstm, "channels": channels, "shown": shown}
        self.lstm = LatentLSTM(**lstm)
        if not self.lstm.config["grid"]:
            raise ValueError("the LSTM's latents have no grid")
        self.painter = Painter(channels, self.lstm.layout.width)
        self.shown = shown

    def compile(self):
        self.lstm.compile()

    def forward(self, frames, latents):
        """The loss for windows (B, T, channels, height, width) in [0, 1], and its parts.

        latents: (B, T, 2, z_dim), as the codec encodes them. The first T - P frames are the
        context, the last P = `free` + 1 are predicted. x_h is the frame predicted h steps ahead,
        z_h its predicted latents, mu_h its encoded ones, x_0 the last frame of the context. E(x) is
        the squared error of x, per value, as a prediction of the true frame; E_4 the same of frames
        a quarter as large. With means over the frames painted

        loss = mean (E(x_h) + E_4(x_h)) / (E(x_0) + NOISE)
               + LATENT_WEIGHT mean (z_h - mu_h)^2 + SMOOTHNESS mean |grad flow_h|

        An error counts in proportion to that of a copy: to be still where nothing moves is worth as
        much as to follow what does. Also returned are the squared errors of the prediction and of
        the copy x_0, summed over a frame.
        """
        count = self.lstm.free + 1  # P
        past = frames.shape[1] - count
        outputs = self.lstm.unroll(latents[:, :past], self.lstm.free)
        z_ahead = self.lstm.latent(outputs[:, -count:])[:, :, 0]  # (B, P, z_dim)
        steps = self.choose(count, frames.device)
        z_ahead = z_ahead[:, steps]
        true = frames[:, past:][:, steps]
        last = frames[:, past - 1]
        looks = self.painter.look(frames[:, :past])
        painted, flow = self.paint(last, looks, latents[:, past - 1, 0], z_ahead, steps + 1)

        error = squared_error(painted, true)  # (B, steps)
        coarse_error = squared_error(shrink(painted), shrink(true))
        copy_error = squared_error(last[:, None], true)
        relative = ((error + coarse_error) / (copy_error + NOISE)).mean()
        latent_error = (z_ahead - latents[:, past:, 0][:, steps]).square().mean()
        loss = relative + LATENT_WEIGHT * latent_error + SMOOTHNESS * roughness(flow)
        values = frames[0, 0].numel()
        return {
            "loss": loss,
            "squared_error": values * error.mean(),
            "copy": values * copy_error.mean(),
            "latent_error": latent_error,
        }

    def choose(self, count, device):
        """The steps to paint: in training a few at random, in evaluation all."""
        if not self.training:
            return torch.arange(count, device=device)
        return torch.randperm(count, device=device)[: self.shown]

    def paint(self, last, looks, z_last, z_ahead, ahead):
        """Frames (B, H, channels, height, width), and the flows (B*H, 2, height, width) to them.

        last: the last true frames, (B, ...); looks: `Painter.look` of them; z_last: their latents,
        (B, z_dim); z_ahead: of the frames to paint, (B, H, z_dim); ahead: how far ahead, (H,).
        """
        batch, count = z_ahead.shape[:2]

        def repeat(x):  # for each of the frames ahead
            return x.repeat_interleave(count, dim=0)  # (B*H, ...)

        painted, flow = self.painter(
            repeat(last),
            [repeat(look) for look in looks],
            repeat(self.as_map(z_last)),
            self.as_map(z_ahead.flatten(0, 1)),
            ahead.repeat(batch),
        )
        return painted.unflatten(0, (batch, count)), flow

    def as_map(self, z):
        """Latents (n, z_dim) as maps (n, numbers, rows, columns)."""
        return z.unflatten(1, (self.lstm.layout.width, *self.lstm.layout.shape))

    @torch.no_grad()
    def rollout(self, context, latents, steps, temperature=None, first=0):
        """Each frame of the context predicted from those before it, then `steps` in free running.

        context: (B, T, channels, height, width) in [0, 1]; latents: of it, (B, T, 2, z_dim).
        first: the frame to begin with, of the context. Returns (B, T + steps - first, ...) in
        [0, 1]; frame 0 is the context's.
        """
        length = context.shape[1]
        means = self.lstm.rollout(latents, steps, temperature)  # (B, T + steps, z_dim)
        frames = [] if first else [context[:, :1]]
        one = torch.ones(1, device=context.device)
        for t in range(max(first, 1), length + steps):
            seen = min(t, length) - 1  # the last true frame before t
            if t <= length:
                looks = self.painter.look(context[:, : seen + 1])
            z_ahead = means[:, t : t + 1]
            ahead = (t - seen) * one
            painted, _ = self.paint(context[:, seen], looks, latents[:, seen, 0], z_ahead, ahead)
            frames.append(painted)
        return torch.cat(frames, dim=1)


def squared_error(painted, true):
    """The mean over values, (B, H), of frames (B, H, channels, height, width)."""
    return (painted - true).square().mean((2, 3, 4))


def shrink(frames):
    """Frames (B, H, channels, height, width), COARSE times smaller. What is left over counts."""
    small = F.avg_pool2d(frames.flatten(0, 1), COARSE, ceil_mode=True)  # (B*H, channels, ...)
    return small.unflatten(0, frames.shape[:2])


def roughness(flow):
    """The mean difference of neighbours in flows (n, 2, height, width), pixels."""
    down = (flow[:, :, 1:] - flow[:, :, :-1]).abs().mean()
    right = (flow[..., 1:] - flow[..., :-1]).abs().mean()
    return down + right
