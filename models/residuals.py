"""What is added to the means that the LSTM puts out, by name.

Nothing, the last mean, or where its last step leads.

A residual has a memory, which is part of the LSTM's state: of most, the mean that was read last.
In shapes B is the batch, S the slots or places (1 for a vector), T steps, n the numbers of one.
"""

import torch
from torch import nn


class Nothing(nn.Module):
    """The output is the next latent."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        # Of each number, whether the network may change what is added, (n,).
        self.register_buffer("free", torch.ones(layout.width), persistent=False)

    def first_memory(self, mean):
        """The memory before the first of the means (B*S, T, n). Nothing has moved yet."""
        return mean[:, :1]  # (B*S, 1, n)

    def settle(self, latents, memory):
        """What is read of latents (B*S, T, rows, n), in as many rows or in the mean's alone.

        memory: from before the first of them.
        """
        return latents

    def numbers_read(self, rows):
        """How many numbers `inputs` has of each latent, of which `rows` rows are read."""
        return rows * self.layout.width

    def inputs(self, latents, memory):
        """What the network reads (B*S, T, numbers_read) of latents (B*S, T, rows, n).

        memory: from before the first of them.
        """
        return latents.flatten(2)  # (B*S, T, rows*n)

    def advance(self, mean, memory):
        """What is added to what the network puts out, and the memory after the last mean.

        Added to the means is (B*S, T, n), or None for nothing.
        """
        return None, mean[:, -1:]


class First(Nothing):
    """The output is the difference from the last mean."""

    def advance(self, mean, memory):
        return mean, mean[:, -1:]


class Paced(First):
    """As `First`; the last step is read, too."""

    def numbers_read(self, rows):
        return (rows + 1) * self.layout.width

    def inputs(self, latents, memory):
        step = last_steps(latents[:, :, 0], memory)
        step = self.layout.speed_scale * self.free * step
        return torch.cat([latents.flatten(2), step], dim=2)


class Second(Paced):
    """The output is the difference from going on at the last speed, which is read, too.

    Of what does not move (a slot's look) the last mean stays.
    """

    def __init__(self, layout):
        super().__init__(layout)
        self.free = layout.moves

    def advance(self, mean, memory):
        step = self.layout.moves * last_steps(mean, memory)
        return mean + step, mean[:, -1:]


class Objects(Second):
    """As `Second`, for slots. Places are read to a fraction of a pixel, too, and looks are not.

    Where an object turns at a wall, and by how much its next step is rounded, depends on less than
    a pixel, which is a small part of a frame. So a place is also read as sines and cosines of
    several periods (Mildenhall et al. 2020, eq. 4). Of the first place, the fraction of a pixel is
    read in the same way. Digits are drawn at whole pixels: the fraction stays the same, and tells
    where in its square a digit's centre of mass is (MNIST's: at most half a pixel from the middle).
    Walls apply to the square. Looks are not read: by them the network would recognise objects of
    the training set, and learn their paths by heart.

    A prediction need not be a whole number of pixels from the first place, but is rounded to one
    before it is read: so in free running the network reads what it would read of true places. No
    gradient flows through rounding.
    """

    PERIODS = (2, 4, 8, 16, 32)  # pixels

    def first_memory(self, mean):
        """The mean that was read last and, for good, the first one: each (B*S, 1, n)."""
        return mean[:, :1], mean[:, :1]

    def settle(self, latents, memory):
        mean = latents[:, :, 0]  # (B*S, T, n)
        _, first = memory
        first = self.layout.place(first)  # (B*S, 1, 2)
        pixel = self.layout.pixel
        whole = first + pixel * ((self.layout.place(mean) - first) / pixel).round()
        return torch.cat([mean[..., :-2], whole], dim=-1)[:, :, None]

    def waves(self, mean, period):
        """Sines and cosines (B*S, T, 4) of the places of means (B*S, T, n); period in pixels."""
        angle = 2 * torch.pi / (period * self.layout.pixel) * self.layout.place(mean)
        return torch.cat([angle.sin(), angle.cos()], dim=2)

    def numbers_read(self, rows):
        """Of the means alone: place, step, fraction and waves."""
        return 2 + 2 + 4 + 4 * len(self.PERIODS)

    def inputs(self, latents, memory):
        last, first = memory
        mean = latents[:, :, 0]
        place = self.layout.place(mean)
        step = self.layout.place(last_steps(mean, last)) / self.layout.pixel
        fraction = self.waves(first, 1).expand(-1, mean.shape[1], -1)
        waves = [self.waves(mean, period) for period in self.PERIODS]
        return torch.cat([place, step, fraction, *waves], dim=2)

    def advance(self, mean, memory):
        last, first = memory
        base, last = super().advance(mean, last)
        return base, (last, first)


RESIDUALS = {"none": Nothing, "first": First, "paced": Paced, "second": Second, "objects": Objects}


def last_steps(mean, mean_before):
    """The step that led to each mean (B*S, T, n); mean_before: (B*S, 1, n), before the first."""
    previous = torch.cat([mean_before, mean[:, :-1]], dim=1)  # (B*S, T, n)
    return mean - previous
