"""How the numbers of a latent are laid out: as one vector, a grid of places, or slots of objects.

In shapes B is the batch, S the slots or places (1 for a vector), T steps, n the numbers of one.
`rows` after T are a latent's mean and log-sigma; `rows` beside `columns` are those of the grid.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Vector(nn.Module):
    """All numbers together, (B, T, rows, z_dim).

    `moves` (z_dim,) is 1 for each: all may continue at their last speed.
    """

    count = 1
    neighbours = 1  # latents that are read for one, itself included
    initial_scale = 1.0  # of the output's weights
    speed_scale = 1.0  # of speeds as they are read

    def __init__(self, z_dim):
        super().__init__()
        self.width = z_dim  # numbers that the network sees at once
        self.register_buffer("moves", torch.ones(z_dim), persistent=False)

    def fold(self, sequence):
        """Sequences (B, T, rows, z_dim) as the network reads them."""
        return sequence

    def unfold(self, output):
        """The network's output as of latents (B, T, ...)."""
        return output

    def with_neighbours(self, inputs):
        """What the network reads, (B*S, T, neighbours * k), of the (B*S, T, k) of each latent."""
        return inputs


class Grid(Vector):
    """Places of a frame, rows x columns, that share the network. Each also reads its neighbours.

    A latent is the map (numbers, rows, columns) of `grid.grid_networks`, flattened.
    """

    SIDE = 5  # places across, of a neighbourhood
    neighbours = SIDE**2
    initial_scale = 0.1  # to begin near what the residual adds
    speed_scale = 4.0

    def __init__(self, z_dim, rows, columns):
        super().__init__(z_dim // (rows * columns))
        self.shape = (rows, columns)  # may be changed, for frames of another size

    @property
    def count(self):
        return math.prod(self.shape)

    def fold(self, sequence):
        by_place = sequence.unflatten(3, (self.width, self.count))  # (B, T, rows, n, S)
        return by_place.movedim(4, 1).flatten(0, 1)  # (B*S, T, rows, n)

    def unfold(self, output):
        by_place = output.unflatten(0, (-1, self.count))  # (B, S, T, rows, n)
        return by_place.movedim(1, 4).flatten(3)  # (B, T, rows, n*S)

    def with_neighbours(self, inputs):
        """Outside the frame there are zeros."""
        steps = inputs.shape[1]
        maps = inputs.unflatten(0, (-1, *self.shape))  # (B, rows, columns, T, k)
        maps = maps.permute(0, 3, 4, 1, 2).flatten(0, 1)  # (B*T, k, rows, columns)
        near = F.unfold(maps, self.SIDE, padding=self.SIDE // 2)  # (B*T, k*neighbours, S)
        near = near.unflatten(0, (-1, steps))  # (B, T, k*neighbours, S)
        return near.movedim(3, 1).flatten(0, 1)  # (B*S, T, k*neighbours)


class Slots(Vector):
    """`count` objects, one after the other in a latent.

    An object is its look (z_what) and its place, the last two numbers. Objects share the network,
    each as a sequence of its own. Only places move: objects keep their look. `pixel` (2,) is the
    height and width of a pixel of frames of `frame_shape`, in half frames, as places are.
    """

    # To begin near what the residual adds: an untrained LSTM runs away with a place.
    initial_scale = 0.1
    speed_scale = 32.0  # pixels in half a frame of 64

    def __init__(self, z_dim, count, frame_shape):
        super().__init__(z_dim // count)
        self.count = count
        self.register_buffer("pixel", 2 / torch.tensor(frame_shape[1:]), persistent=False)
        is_place = torch.arange(self.width) >= self.width - 2
        self.moves.copy_(is_place)

    def split(self, latents):
        """Latents (..., z_dim) by slot: (..., S, n)."""
        return latents.unflatten(-1, (self.count, self.width))

    def fold(self, sequence):
        by_slot = self.split(sequence).movedim(3, 1)  # (B, S, T, rows, n)
        return by_slot.flatten(0, 1)  # (B*S, T, rows, n)

    def unfold(self, output):
        by_slot = output.unflatten(0, (-1, self.count))  # (B, S, T, rows, n)
        return by_slot.movedim(1, 3).flatten(3)  # (B, T, rows, S*n)

    def place(self, slots):
        """The places (..., 2) of slots (..., n)."""
        return slots[..., -2:]

    def to_pixels(self, place):
        """Rows and columns, in pixels, of places (..., 2)."""
        return (place + 1) / self.pixel - 0.5

    def from_pixels(self, pixels):
        """What `to_pixels` is given, of what it returns."""
        return (pixels + 0.5) * self.pixel - 1


def layout_of(z_dim, slots, grid, frame_shape):
    """The layout of latents: slots, a grid (rows, columns) or, with 0 and (), a vector.

    frame_shape: (channels, height, width); slots alone need it.
    """
    if slots:
        return Slots(z_dim, slots, frame_shape)
    if grid:
        return Grid(z_dim, *grid)
    return Vector(z_dim)
