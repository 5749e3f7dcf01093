"""Encoder and decoder whose latent is a grid: each place of the frame has numbers of its own.

There are no dense layers: a place is encoded from what is near it. So the networks learn what small
pieces of a picture look like, not scenes, and they take frames larger than those of training.
"""

import itertools
import math

import torch.nn.functional as F
from torch import nn

PLACES = 8  # along the shorter side


def padding_of(height, width):
    """How often a map is halved to become the grid, and the rows and columns to add before that.

    The shorter side then has PLACES places, the longer one as many as it takes.
    """
    halvings = max(math.ceil(math.log2(min(height, width) / PLACES)), 0)
    step = 2**halvings  # pixels per place
    shorter = PLACES * step
    pad_height = shorter - height if height <= width else -height % step
    pad_width = shorter - width if width <= height else -width % step
    return halvings, pad_height, pad_width


def grid_of(height, width):
    """Rows and columns of places of a map (height, width)."""
    halvings, pad_height, pad_width = padding_of(height, width)
    step = 2**halvings
    return (height + pad_height) // step, (width + pad_width) // step


def grid_networks(shape, maps_out, z_dim, nfilts):
    """The encoder, its two heads (means and log-sigmas) and the decoder of maps of `shape`.

    shape: (channels, height, width); maps_out: channels that the decoder puts out; nfilts: maps at
    64 pixels, three times as many at the grid. A latent (n, z_dim) is the grid (n, z_dim / places,
    rows, columns), flattened. Raises ValueError if z_dim does not divide into the places.
    """
    channels, height, width = shape
    halvings, pad_height, pad_width = padding_of(height, width)
    rows, columns = grid_of(height, width)
    if z_dim % (rows * columns):
        wanted = max(z_dim // (rows * columns), 1) * rows * columns
        raise ValueError(f"{z_dim} does not divide into {rows} x {columns} places: take {wanted}")
    numbers = z_dim // (rows * columns)
    top, left = pad_height // 2, pad_width // 2
    pad = (left, pad_width - left, top, pad_height - top)
    widths = [max(3 - halvings + i, 1) * nfilts for i in range(halvings + 1)]

    down = [nn.ReplicationPad2d(pad), *convolution(channels, widths[0])]
    up = []
    for outer, inner in itertools.pairwise(widths):
        down += convolution(outer, inner, 4, stride=2, padding=1)
        # Upsampling before a convolution: transposed convolutions leave checkerboards.
        up = [nn.Upsample(scale_factor=2, mode="bilinear"), *convolution(inner, outer), *up]
    widest = widths[-1]
    encoder = nn.Sequential(*down, Residual(widest))
    heads = [nn.Sequential(nn.Conv2d(widest, numbers, 1), nn.Flatten()) for _ in range(2)]
    decoder = nn.Sequential(
        ToGrid(numbers, rows, columns),
        *convolution(numbers, widest),
        Residual(widest),
        *up,
        nn.Conv2d(widths[0], maps_out, 3, padding=1),
        nn.ZeroPad2d([-p for p in pad]),
    )
    return encoder, *heads, decoder


def convolution(maps_in, maps, size=3, stride=1, padding=1):
    """The layers of a convolution with batch norm and SiLU."""
    return [
        nn.Conv2d(maps_in, maps, size, stride, padding, bias=False),
        nn.BatchNorm2d(maps),
        nn.SiLU(),
    ]


class Residual(nn.Module):
    """silu(x + two convolutions of x), of maps (n, maps, height, width) (He et al. 2016)."""

    def __init__(self, maps):
        super().__init__()
        second = convolution(maps, maps)[:-1]  # without its SiLU
        self.layers = nn.Sequential(*convolution(maps, maps), *second)

    def forward(self, x):
        return F.silu(x + self.layers(x))


class ToGrid(nn.Module):
    """Latents (n, z_dim) as maps (n, numbers, rows, columns). A wider frame has more columns."""

    def __init__(self, numbers, rows, columns):
        super().__init__()
        self.numbers = numbers
        self.shape = (rows, columns)

    def forward(self, z):
        return z.unflatten(1, (self.numbers, *self.shape))
