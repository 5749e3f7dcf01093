"""What is added to the means that the LSTM puts out, by name.

Nothing, the last mean, where its last step leads, or where an object gets to that bounces off
walls.

A residual has a memory, which is part of the LSTM's state: of most, the mean that was read last.
In shapes B is the batch, S the slots or places (1 for a vector), T steps, n the numbers of one.
"""

import torch
from torch import nn


class Nothing(nn.Module):
    """The output is the next latent."""

    def __init__(self, layout, n_hid):
        super().__init__()
        self.layout = layout
        # Of each number, whether the network may change what is added, (n,).
        self.register_buffer("free", torch.ones(layout.width), persistent=False)

    def start_from(self, means):
        """Set what begins with the data's own values; means (N, T, z_dim), of training windows."""

    def pieces(self, latents):
        """Latents (B*S, T, rows, n) in pieces, each of which the network can read at once."""
        return [latents]

    def first_memory(self, mean):
        """The memory before the first of the means (B*S, T, n). Nothing has moved yet."""
        return mean[:, :1]  # (B*S, 1, n)

    def numbers_read(self, rows):
        """How many numbers `inputs` has of each latent, of which `rows` rows are read."""
        return rows * self.layout.width

    def inputs(self, latents, memory):
        """What the network reads (B*S, T, numbers_read) of latents (B*S, T, rows, n).

        memory: from before the first of them.
        """
        return latents.flatten(2)  # (B*S, T, rows*n)

    def advance(self, mean, memory, hidden):
        """What is added to the means that the network puts out, and the memory after the last.

        hidden: (B*S, T, n_hid), what the network made of `inputs`. What is added is
        (B*S, T, n), or None for nothing.
        """
        return None, mean[:, -1:]


class First(Nothing):
    """The output is the difference from the last mean."""

    def advance(self, mean, memory, hidden):
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

    def __init__(self, layout, n_hid):
        super().__init__(layout, n_hid)
        self.free = layout.moves

    def advance(self, mean, memory, hidden):
        step = self.layout.moves * last_steps(mean, memory)
        return mean + step, mean[:, -1:]


class Bounce(Nothing):
    """A slot's place moves on at a velocity that is remembered, and turns at walls. Looks stay.

    The network steers a filter. Of each axis, p and v are the place and the velocity that were
    expected of the latent that is read, and o is the place that it has:

        e = o - p
        p' = p + k_p e + d_p
        v' = v + k_v e + d_v
        q = p' + v'
        hit = (q - middle) sign(v') > half          beyond the wall that is ahead
        p = q - hit (a (q - stop) + b v')
        v = v' - 2 hit v'

    The next place is p and what the network adds to it. In free running that is e; with a mixture,
    the direction after a wall is drawn there. The network's are also d_p, d_v, and what is added to
    the logits of k_p and k_v. Without it these are the gains 2 (2n - 1) / (n (n + 1)) and
    6 / (n (n + 1)) at the n-th place read: p and v are then the least-squares line through all.

    Learned are a, b, and of each axis the two walls where it turns and the two where it stops, and
    how a look shifts them. All begin as the training places have them. (a, b) is (1, 0) if a wall
    stops an object for one frame, (2, 0) if it mirrors its path, (0, 2) if it turns a frame before
    the wall. Half a hit would stop an object for good, so a hit is 0 or 1; the walls have the
    gradient of a sigmoid (straight-through, Bengio et al. 2013). q has none of it: through several
    hits it would explode.
    """

    CONTROLS = 4  # k_p, k_v, d_p, d_v
    PIXEL = 1 / 32  # half frames, in frames of 64: errors are read in these
    CORRECTION = 0.01  # half frames per unit of d
    MEMORY = 10  # n at most: what happens now always counts
    MAX_GAIN = 0.99  # a logit is finite
    TAIL = 0.005  # of the training places, beyond each wall at first
    WALL_SCALE = 4.0  # of distances to walls, as they are read
    SOFTNESS = 0.3 / 32  # half frames: about how well a place is known

    def __init__(self, layout, n_hid):
        super().__init__(layout, n_hid)
        self.free = layout.moves
        self.head = nn.Linear(n_hid, self.CONTROLS * 2)
        nn.init.xavier_uniform_(self.head.weight, gain=layout.initial_scale)
        nn.init.zeros_(self.head.bias)
        walls = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])  # low and high, of rows and columns
        self.register_buffer("walls", walls)
        self.turn = nn.Parameter(torch.zeros(2, 2))  # px from these, as is `stop`
        self.stop = nn.Parameter(torch.zeros(2, 2))
        self.shift = nn.Linear(layout.width - 2, 2, bias=False)  # of the walls, by look
        nn.init.zeros_(self.shift.weight)
        self.rebound = nn.Parameter(torch.tensor([1.0, 0.0]))  # a, b

    @torch.no_grad()
    def start_from(self, means):
        """Walls from the training places, and a and b from the steps that would lead beyond them.

        These are fitted by least squares, q - p_next = a (q - stop) + b v.
        """
        places = self.layout.place(self.layout.split(means))  # (N, T, S, 2)
        tails = torch.tensor([self.TAIL, 1 - self.TAIL])
        walls = torch.quantile(places.flatten(0, 2), tails, dim=0)  # (2, 2)
        self.walls.copy_(walls)

        place = places[:, 1:-1]
        velocity = place - places[:, :-2]
        step = places[:, 2:] - place
        wall = torch.where(velocity < 0, *walls)
        beyond = place + velocity - wall
        # An object at the wall already has been stopped there: its last step is no velocity. Walls
        # are a pixel further out for some looks.
        hit = beyond * velocity.sign() > self.PIXEL
        hit &= (wall - place) * velocity.sign() > 2 * self.PIXEL
        cases = torch.stack([beyond[hit], velocity[hit]], dim=1).double()  # (hits, 2)
        if len(cases) > len(self.rebound):
            fitted = torch.linalg.lstsq(cases, (velocity - step)[hit, None].double())
            self.rebound.copy_(fitted.solution[:, 0])

    def pieces(self, latents):
        """One step each: what is expected of a latent depends on what the network put out."""
        return latents.split(1, dim=1)

    def first_memory(self, mean):
        """Place, velocity and hit, (B*S, 1, 2), and n, (B*S, 1, 1), as expected of the first."""
        place = self.layout.place(mean[:, :1])
        still = torch.zeros_like(place)
        count = torch.ones_like(place[..., :1])
        return place, still, still, count

    def numbers_read(self, rows):
        return 5 * 2

    def inputs(self, latents, memory):
        """Of both axes e, v, the last hit and the distances to the walls. Looks do not matter."""
        place, velocity, hit, _ = memory
        low, high = self.walls
        observed = self.layout.place(latents[:, :, 0])
        inputs = [
            (observed - place) / self.PIXEL,
            self.layout.speed_scale * velocity,
            hit,
            self.WALL_SCALE * (observed - low),
            self.WALL_SCALE * (high - observed),
        ]
        return torch.cat(inputs, dim=2)  # (B*S, 1, 10)

    def advance(self, mean, memory, hidden):
        place, velocity, _, n = memory
        controls = self.head(hidden).float().chunk(self.CONTROLS, dim=2)  # each (B*S, 1, 2)
        d_place, d_velocity = (self.CORRECTION * control for control in controls[2:])
        gain_place = 2 * (2 * n - 1) / (n * (n + 1))
        gain_velocity = 6 / (n * (n + 1))
        error = self.layout.place(mean) - place
        place = place + self.shifted(gain_place, controls[0]) * error + d_place
        velocity = velocity + self.shifted(gain_velocity, controls[1]) * error + d_velocity
        shift = self.shift(self.layout.look(mean)).float()  # (B*S, 1, 2)
        place, velocity, hit = self.bounce(place, velocity, shift)
        n = (n + 1).clamp_max(self.MEMORY)
        return self.layout.with_place(mean, place), (place, velocity, hit, n)

    def shifted(self, gain, logit):
        """A gain (B*S, 1, 1) with `logit` (B*S, 1, 2) added to its own."""
        return torch.sigmoid(gain.clamp_max(self.MAX_GAIN).logit() + logit)

    def bounce(self, place, velocity, shift):
        """One step: place, velocity, and whether there was a wall, all (B*S, 1, 2)."""
        place = place + velocity
        low, high = self.walls + self.PIXEL * self.turn
        middle = (low + high) / 2 + shift
        beyond = (place.detach() - middle) * velocity.sign() - (high - low) / 2
        soft_hit = torch.sigmoid(beyond / self.SOFTNESS)
        hit = (beyond > 0).float() + (soft_hit - soft_hit.detach())  # 0 or 1
        low, high = self.walls + self.PIXEL * self.stop
        stop = torch.where(velocity < 0, low, high) + shift
        a, b = self.rebound
        place = place - hit * (a * (place - stop) + b * velocity)
        velocity = velocity - 2 * hit * velocity
        return place, velocity, hit


RESIDUALS = {"none": Nothing, "first": First, "paced": Paced, "second": Second, "bounce": Bounce}


def last_steps(mean, mean_before):
    """The step that led to each mean (B*S, T, n); mean_before: (B*S, 1, n), before the first."""
    previous = torch.cat([mean_before, mean[:, :-1]], dim=1)  # (B*S, T, n)
    return mean - previous
