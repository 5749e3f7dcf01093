"""Paints the frames to come from the last true ones and predicted latents.

A frame ahead is the last true frame, moved, and new colours where that is not enough:

    x_h(p) = (1 - m(p)) x_0(p + h v(p)) + m(p) c(p)

v is a velocity in pixels per frame, h how many frames ahead, m a mask in [0, 1], c colours. All
depend on the predicted latents, and so on h. At first v is small and m nearly zero: the painter
begins as a copy of the last frame. x_0 is sampled once, whatever h is, so frames stay sharp.

Flow and mask are as of Vondrick & Torralba 2017 and of SLAMP (Akan et al. 2021); how two frames
match is read off a cost volume, as of PWC-Net (Sun et al. 2018).

In shapes n is the number of frames, k the maps of a layer, z the numbers of a place of the grid.
Numbers in names are the scale: at `look4` a map is a quarter as high and wide as a frame.
"""

import torch
import torch.nn.functional as F
from torch import nn

REACH = 3  # cells: a piece of the last frame is looked for so far away in the one before it
FIRST_MASK = -6.0  # its logit: a mask of 1/400
FIRST_VELOCITY = 0.03  # deviation of the weights that give it
CHANGE_SCALE = 2.0  # of a predicted change of the latents, as it is read
LONGEST = 10.0  # frames ahead that are read as 1


class Painter(nn.Module):
    """A U-Net of the last frame, of how it matches the one before, and of a grid of latents.

    channels: of a frame; z: numbers per place of the grid.
    """

    def __init__(self, channels, z):
        super().__init__()
        window = (2 * REACH + 1) ** 2
        self.look2 = convolution(channels, 24, size=5, stride=2)
        self.look4 = nn.Sequential(convolution(24, 40, stride=2), convolution(40, 40))
        self.look8 = convolution(40, 64, stride=2)
        self.key2 = nn.Conv2d(24, 8, 1)
        self.key4 = nn.Conv2d(40, 16, 1)
        self.match2 = convolution(window + 24, 32)
        self.match4 = convolution(window + 40, 48)
        self.match8 = convolution(48, 48, stride=2)
        self.paint8 = nn.Sequential(convolution(64 + 48 + 2 * z + 1, 96), convolution(96, 96))
        self.paint4 = convolution(96 + 40 + 48, 64)
        self.paint2 = convolution(64 + 24 + 32, 48)
        self.velocity8 = nn.Conv2d(96, 2, 3, padding=1)
        self.velocity4 = nn.Conv2d(64, 2, 3, padding=1)
        self.output2 = nn.Conv2d(48, 2 + 1 + channels, 3, padding=1)  # velocity, mask, colours
        for layer in (self.velocity8, self.velocity4, self.output2):
            nn.init.normal_(layer.weight, std=FIRST_VELOCITY)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.output2.bias[2], FIRST_MASK)
        self.to(memory_format=torch.channels_last)

    def look(self, previous, last):
        """What is seen in two consecutive frames (n, channels, height, width): six maps."""
        before2 = self.look2(previous)
        before4 = self.look4(before2)
        last2 = self.look2(last)
        last4 = self.look4(last2)
        last8 = self.look8(last4)
        cost2 = cost_volume(self.key2(last2), self.key2(before2))
        cost4 = cost_volume(self.key4(last4), self.key4(before4))
        match2 = self.match2(torch.cat([cost2, last2], dim=1))
        match4 = self.match4(torch.cat([cost4, last4], dim=1))
        return last2, last4, last8, match2, match4, self.match8(match4)

    def forward(self, last, looks, z_last, z_ahead, ahead):
        """Frames (n, channels, height, width), and the flow (n, 2, height, width) that led there.

        last: the last true frames; looks: `look` of them; z_last, z_ahead: the latents of the last
        frame and of the one to be painted, (n, z, rows, columns); ahead: h, (n,).
        """
        last2, last4, last8, match2, match4, match8 = looks
        ahead = ahead.view(-1, 1, 1, 1).float()  # (n, 1, 1, 1)
        ahead_map = (ahead / LONGEST).expand(-1, 1, *z_last.shape[2:])  # (n, 1, rows, columns)
        change = CHANGE_SCALE * (z_ahead - z_last)
        latents = torch.cat([z_last, change, ahead_map], dim=1)  # (n, 2*z + 1, rows, columns)
        paint8 = self.paint8(torch.cat([resize(latents, last8), last8, match8], dim=1))
        paint4 = self.paint4(torch.cat([resize(paint8, last4), last4, match4], dim=1))
        paint2 = self.paint2(torch.cat([resize(paint4, last2), last2, match2], dim=1))
        fine = resize(self.output2(paint2).float(), last)  # (n, 3 + channels, height, width)
        velocity = fine[:, :2]
        velocity = velocity + resize(self.velocity4(paint4).float(), last)
        velocity = velocity + resize(self.velocity8(paint8).float(), last)
        flow = ahead * velocity
        mask = fine[:, 2:3].sigmoid()
        colours = fine[:, 3:].sigmoid()
        return (1 - mask) * warp(last, flow) + mask * colours, flow


def convolution(maps_in, maps, size=3, stride=1):
    return nn.Sequential(nn.Conv2d(maps_in, maps, size, stride, padding=size // 2), nn.SiLU())


def resize(maps, like):
    """Maps (n, k, rows, columns) as high and wide as those of `like`."""
    return F.interpolate(maps, size=like.shape[2:], mode="bilinear")


def cost_volume(keys, others):
    """How well each cell of `keys` (n, k, rows, columns) matches the cells near it in `others`.

    Returns (n, (2 REACH + 1)^2, rows, columns): cosines of the angles between the two.
    """
    keys = F.normalize(keys.float(), dim=1)
    others = F.normalize(others.float(), dim=1)
    padded = F.pad(others, (REACH,) * 4, mode="replicate")
    near = F.unfold(padded, 2 * REACH + 1)  # (n, k*window, rows*columns)
    near = near.view(*keys.shape[:2], -1, *keys.shape[2:])  # (n, k, window, rows, columns)
    return (keys[:, :, None] * near).sum(1)


def warp(frames, flow):
    """Frames (n, channels, height, width), each pixel taken from where the flow leads from it.

    flow: (n, 2, height, width), to the right and down, in pixels. Beyond the edge is the edge.
    """
    height, width = frames.shape[2:]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]  # (n, height, width)
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    # grid_sample has the frame from -1 to 1, and pixels' centres half a pixel inside.
    grid = torch.stack([2 * (columns + 0.5) / width - 1, 2 * (rows + 0.5) / height - 1], dim=-1)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)
