"""How the numbers of a latent are laid out: as one vector, or as slots, one per object.

In shapes B is the batch, S the slots (1 for a vector), T steps, n the numbers of one slot.
"""

import torch
from torch import nn


class Vector(nn.Module):
    """All numbers together, (B, T, rows, z_dim).

    `moves` (z_dim,) is 1 for each: all may continue at their last speed.
    """

    count = 1
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

    def only_moving(self, output):
        """The output with the means of what does not move zero."""
        return output


class Slots(nn.Module):
    """`count` objects, one after the other in a latent.

    An object is its look (z_what) and, the last two numbers, its place (z_where). They share the
    network, each as a sequence of its own. What moves is the place: objects keep their look.
    """

    # To begin near what the residual adds: an untrained LSTM runs away with a place.
    initial_scale = 0.1
    speed_scale = 8.0  # speeds are read in eighths of a half frame

    def __init__(self, z_dim, count):
        super().__init__()
        self.count = count
        self.width = z_dim // count
        is_place = torch.arange(self.width) >= self.width - 2
        self.register_buffer("moves", is_place.float(), persistent=False)

    def split(self, latents):
        """Latents (..., z_dim) by slot: (..., S, n)."""
        return latents.unflatten(-1, (self.count, self.width))

    def fold(self, sequence):
        by_slot = self.split(sequence).movedim(3, 1)  # (B, S, T, rows, n)
        return by_slot.flatten(0, 1)  # (B*S, T, rows, n)

    def unfold(self, output):
        by_slot = output.unflatten(0, (-1, self.count))  # (B, S, T, rows, n)
        return by_slot.movedim(1, 3).flatten(3)  # (B, T, rows, S*n)

    def only_moving(self, output):
        """Zero, in place, the means of looks in an output (B*S, T, rows, n)."""
        output[:, :, 0] *= self.moves  # (B*S, T, n)
        return output


def layout_of(z_dim, slots):
    """The layout of latents of z_dim numbers in `slots` slots; 0: a vector."""
    return Slots(z_dim, slots) if slots else Vector(z_dim)
