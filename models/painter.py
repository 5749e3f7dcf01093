"""Paints the frames to come from the last true ones and predicted latents.

A frame h ahead is the last true frame, moved, and new colours where that is not enough:

    x_h(p) = (1 - m(p)) x_0(p + h v(p)) + m(p) c(p)
      v(p) = g(p) f(p) + u(p)

f is the optical flow of the last two true frames: their motion goes on at the share g of its speed.
A network gives the gate g, the correction u, the mask m and the colours c. It reads the last frame,
its flow and how that has changed, the predicted change of the latents, and h. Before training, u
and m are nearly zero and g is small: the painter begins between copying the last frame and going
on with its motion. x_0 is sampled once, whatever h is, so frames stay sharp.

Flow and mask are as of Vondrick & Torralba 2017 and SLAMP (Akan et al. 2021).

In shapes n is the number of frames (in `look`, of windows), z the numbers of a place of the grid.
Numbers in names are the scale: a map of `look4` is a quarter as high and wide as a frame.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.flow import lucas_kanade, warp

FIRST_GATE = -1.0  # its logit: the share 0.27 of the speed
FIRST_MASK = -6.0  # its logit: a share of 1/400
FIRST_GAIN = 0.02  # deviation of the last layer's weights
LONGEST = 10.0  # frames ahead that are read as 1
# What the network reads should be about 1.
CHANGE_SCALE = 2.0  # of a predicted change of the latents
FLOW_SCALE = 0.25  # of pixels
ERROR_SCALE = 4.0  # of differences of frames


class Painter(nn.Module):
    """A U-Net of the last frame, of how it moves, and of a grid of latents.

    channels: of a frame; z: numbers per place of the grid.
    """

    def __init__(self, channels, z):
        super().__init__()
        self.channels = channels
        self.look2 = convolution(channels + 6, 24, size=5, stride=2)
        self.look4 = nn.Sequential(convolution(24, 40, stride=2), convolution(40, 40))
        self.look8 = convolution(40, 64, stride=2)
        self.paint8 = nn.Sequential(convolution(64 + 2 * z + 1, 96), convolution(96, 96))
        self.paint4 = convolution(96 + 40, 64)
        self.paint2 = convolution(64 + 24, 40)
        # gate, correction (2), mask, colours
        self.output = nn.Conv2d(40, 4 + channels, 3, padding=1)
        nn.init.normal_(self.output.weight, std=FIRST_GAIN)
        first = torch.tensor([FIRST_GATE, 0.0, 0.0, FIRST_MASK] + channels * [0.0])
        self.output.bias.data.copy_(first)
        self.to(memory_format=torch.channels_last)

    def look(self, frames):
        """What is seen in the last three of some frames (n, T, channels, height, width).

        Returns three maps, and the flow of the last two, (n, 2, height, width), see `lucas_kanade`.
        Before the first frame nothing has moved.
        """
        length = frames.shape[1]
        earlier, previous, last = (frames[:, max(length - k, 0)] for k in (3, 2, 1))
        with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
            flow = lucas_kanade(previous, last)
            acceleration = flow - warp(lucas_kanade(earlier, previous), flow)
            unexplained = (warp(previous, flow) - last).abs().mean(1, keepdim=True)
            changed = (previous - last).abs().mean(1, keepdim=True)
        motion = FLOW_SCALE * torch.cat([flow, acceleration], dim=1)  # (n, 4, height, width)
        errors = ERROR_SCALE * torch.cat([unexplained, changed], dim=1)  # (n, 2, height, width)
        last2 = self.look2(torch.cat([last, motion, errors], dim=1))
        last4 = self.look4(last2)
        return last2, last4, self.look8(last4), flow

    def forward(self, last, looks, z_last, z_ahead, ahead):
        """Frames (n, channels, height, width), and the flow (n, 2, height, width) that led there.

        last: the last true frames; looks: `look` of them; z_last, z_ahead: the latents of the last
        frame and of the one to be painted, (n, z, rows, columns); ahead: h, (n,).
        """
        last2, last4, last8, flow = looks
        ahead = ahead.view(-1, 1, 1, 1).float()  # (n, 1, 1, 1)
        ahead_map = (ahead / LONGEST).expand(-1, 1, *z_last.shape[2:])  # (n, 1, rows, columns)
        change = CHANGE_SCALE * (z_ahead - z_last)
        latents = torch.cat([z_last, change, ahead_map], dim=1)  # (n, 2*z + 1, rows, columns)
        paint8 = self.paint8(torch.cat([resize(latents, last8), last8], dim=1))
        paint4 = self.paint4(torch.cat([resize(paint8, last4), last4], dim=1))
        paint2 = self.paint2(torch.cat([resize(paint4, last2), last2], dim=1))
        output = resize(self.output(paint2).float(), last)  # (n, 4 + channels, height, width)
        gate, correction, mask, colours = output.split([1, 2, 1, self.channels], dim=1)
        flow = ahead * (gate.sigmoid() * flow + correction)
        mask = mask.sigmoid()
        # "bicubic" blurs less than "bilinear", but may leave the range
        moved = warp(last, flow, mode="bicubic").clamp(0, 1)
        return (1 - mask) * moved + mask * colours.sigmoid(), flow


def convolution(maps_in, maps, size=3, stride=1):
    """A convolution and SiLU."""
    return nn.Sequential(nn.Conv2d(maps_in, maps, size, stride, padding=size // 2), nn.SiLU())


def resize(maps, like):
    """Maps (n, k, rows, columns) as high and wide as those of `like`."""
    return F.interpolate(maps, size=like.shape[2:], mode="bilinear")
