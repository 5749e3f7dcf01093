"""What is added to the means that the LSTM puts out, by name.

Nothing, the last mean, or where its last step leads.
"""

import torch


class Nothing:
    """The output is the next latent."""

    extra_rows = 0  # that the network reads beside the latent's

    def __init__(self, layout):
        self.layout = layout

    def extra_and_base(self, mean, mean_before):
        """What the network reads beside the latents, and what is added to the means it puts out.

        Each is (B, T, n), or None for nothing. mean: (B, T, n), the latents' means; mean_before:
        (B, 1, n), the one before the first of them.
        """
        return None, None

    def mask(self, output):
        """The output (B*S, T, ...), with zeros for the means that the network may not change."""
        return output


class First(Nothing):
    """The output is the difference from the last mean."""

    def extra_and_base(self, mean, mean_before):
        return None, mean


class Second(Nothing):
    """The output is the difference from going on at the last speed, which is read, too.

    Of what does not move (a slot's look) the last mean stays.
    """

    extra_rows = 1

    def extra_and_base(self, mean, mean_before):
        previous = torch.cat([mean_before, mean[:, :-1]], dim=1)  # (B, T, n)
        step = self.layout.moves * (mean - previous)
        return self.layout.speed_scale * step, mean + step

    def mask(self, output):
        return self.layout.only_moving(output)


RESIDUALS = {"none": Nothing, "first": First, "second": Second}
