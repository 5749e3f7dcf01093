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
    """As `Second`, for slots. Places are read in whole pixels, and looks are not.

    Where an object turns at a wall, and by how much its next step is rounded, depends on less than
    a pixel, which is a small part of a frame. So a place is also read as sines and cosines of
    several periods (Mildenhall et al. 2020, eq. 4). Digits are drawn at whole pixels, so that the
    fraction of a pixel in a place stays the same. It is taken off, because walls apply to a digit's
    square, not to its centre of mass. MNIST's squares of 28 px have their centre of mass in the
    same pixel, so the pixel that it lies in tells where the square is (of 32 px, on seven axes of
    eight). The fraction is read beside it, because near a half the pixel may be the wrong one.
    Looks are not read: by them the network would recognise objects of the training set, and learn
    their paths by heart.

    A prediction need not be a whole number of pixels from the first place, but is rounded to one
    before it is read: so in free running the network reads what it would read of true places. No
    gradient flows through rounding.
    """

    PERIODS = (2, 4, 8, 16, 32)  # pixels

    def pixels(self, mean):
        """The places of means (..., n) as rows and columns, (..., 2)."""
        return self.layout.to_pixels(self.layout.place(mean))

    def first_memory(self, mean):
        """The mean that was read last and, for good, the first fraction of a pixel (B*S, 1, 2)."""
        pixels = self.pixels(mean[:, :1])
        return mean[:, :1], pixels - pixels.round()

    def settle(self, latents, memory):
        mean = latents[:, :, 0]  # (B*S, T, n)
        _, fraction = memory
        pixels = (self.pixels(mean) - fraction).round() + fraction
        return torch.cat([mean[..., :-2], self.layout.from_pixels(pixels)], dim=-1)[:, :, None]

    def waves(self, pixels, period):
        """Sines and cosines (B*S, T, 4) of places (B*S, T, 2); both in pixels."""
        angle = 2 * torch.pi / period * pixels
        return torch.cat([angle.sin(), angle.cos()], dim=2)

    def numbers_read(self, rows):
        """Of the means alone: place, step, fraction and waves."""
        return 2 + 2 + 2 + 4 * len(self.PERIODS)

    def inputs(self, latents, memory):
        last, fraction = memory
        mean = latents[:, :, 0]
        step = self.layout.place(last_steps(mean, last)) / self.layout.pixel
        whole = self.pixels(mean) - fraction
        waves = [self.waves(whole, period) for period in self.PERIODS]
        place = self.layout.from_pixels(whole)
        return torch.cat([place, step, fraction.expand_as(place), *waves], dim=2)

    def advance(self, mean, memory):
        last, fraction = memory
        base, last = super().advance(mean, last)
        return base, (last, fraction)


RESIDUALS = {"none": Nothing, "first": First, "paced": Paced, "second": Second, "objects": Objects}


def last_steps(mean, mean_before):
    """The step that led to each mean (B*S, T, n); mean_before: (B*S, 1, n), before the first."""
    previous = torch.cat([mean_before, mean[:, :-1]], dim=1)  # (B*S, T, n)
    return mean - previous
