"""A VAE of frames that show a few objects on black: of each, what it is and where (Eslami et al. 2016).

A latent is one slot after another; a slot is its look (z_what there) and then its place (z_where): row and column of
its centre, in half frames from the frame's centre. What is known beforehand: how many objects there are, about how
large, how they combine where they overlap, and that the rest is black.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from models.vae import kl_to_standard_normal
from training.noise import normal_like

SURE = -5.0  # log-sigma of a place: a fifth of a pixel in frames of 64


class SlotVAE(nn.Module):
    """Encodes each frame by finding one object after the other, and then refining all, given the others.

    frame_shape: (1, height, width); z_dim: numbers a frame, at least 3 for each of the slots; size: of an object, px;
    combine: "sum" (saturates at 1) or "max", where objects overlap; n_hid: width of the networks; passes: at least one,
    corrections of all slots; beta: weight of the KL term against the squared error.

    Frames are in [0, 1], looks in [-8, 8], places in [-1.3, 1.3]. Looks have a Gaussian posterior and a standard normal
    prior; places are points, without a prior. No gradient flows through what a correction is given, much as RAFT (Teed
    & Deng 2020) detaches its estimate: each is trained by the frame that is drawn after it. That is faster, and more
    stable, than a gradient through all of them.
    """

    def __init__(self, frame_shape, z_dim=32, slots=2, size=28, combine="max", n_hid=256, passes=3, beta=0.05):
        super().__init__()
        self.config = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self.config["frame_shape"] = list(frame_shape)
        self.slots, self.look, self.size, self.combine = slots, z_dim // slots - 2, size, combine
        self.passes, self.beta = passes, beta
        _, height, width = frame_shape
        self.glyph = nn.Sequential(
            nn.Linear(self.look, 128), nn.SiLU(), nn.Linear(128, n_hid), nn.SiLU(), nn.Linear(n_hid, size**2),
            nn.Sigmoid(), nn.Unflatten(-1, (size, size)),
        )  # fmt: skip
        self.seek = nn.Sequential(
            nn.Conv2d(4, 16, 5, stride=2, padding=2), nn.SiLU(),
            nn.Conv2d(16, 16, 5, padding=2), nn.SiLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.SiLU(),
            nn.Conv2d(32, 1, 1, bias=False),  # the softmax that follows would cancel it
        )  # fmt: skip
        self.window = 2 * (size // 2) + 4  # px: what a place is corrected by
        known = (self.window // 2) ** 2 + self.look + 2
        self.move = nn.Sequential(
            nn.Linear(self.window**2 + known, n_hid), nn.SiLU(), nn.Linear(n_hid, 128), nn.SiLU(), nn.Linear(128, 2)
        )
        self.change = nn.Sequential(
            nn.Linear(size**2 + known + 2, 3 * n_hid // 2), nn.SiLU(), nn.Linear(3 * n_hid // 2, n_hid), nn.SiLU(),
            nn.Linear(n_hid, 2 * self.look),
        )  # fmt: skip
        self.register_buffer("half_frame", torch.tensor([height, width]) / 2, persistent=False)
        self.register_buffer("rows", torch.arange(float(height)), persistent=False)
        self.register_buffer("columns", torch.arange(float(width)), persistent=False)
        self.register_buffer("offsets", centred(size), persistent=False)
        self.register_buffer("wide_offsets", centred(self.window), persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """Objects begin as a blob, which pulls places towards light from the first step on; corrections begin small."""
        blob = 0.55 * torch.exp(-(self.offsets[:, None] ** 2 + self.offsets**2) / (0.064 * self.size**2))
        self.glyph[4].weight.mul_(0.3)
        self.glyph[4].bias.copy_(torch.logit(blob.clamp(0.01, 0.99)).flatten())
        self.move[-1].weight.mul_(0.3)
        self.move[-1].bias.zero_()
        self.change[-1].weight.mul_(0.5)
        self.change[-1].bias.copy_((torch.arange(2 * self.look) < self.look).float() - 1)

    def forward(self, x):
        """The loss of frames x (n, 1, height, width), a mean over them, and what it is made of.

        The squared error is summed over a frame, and so are those of what was drawn on the way, each weighing 0.3.
        """
        x, n = x[:, 0], len(x)
        looks, places, log_sigma, on_the_way = self.infer(x)
        noise = normal_like(looks) * log_sigma.exp() if self.training else 0
        squared_error, *earlier = (
            F.mse_loss(frames.float(), x, reduction="sum") / n
            for frames in (self.combined(self.drawn(looks + noise, places)), *on_the_way)
        )
        kl, earlier = kl_to_standard_normal(looks, log_sigma) / n, sum(earlier)
        loss = squared_error + 0.3 * earlier + self.beta * kl
        return {"loss": loss, "squared_error": squared_error, "earlier": earlier, "kl": kl}

    def decode(self, z):
        """Frames (n, 1, height, width) for latents (n, z_dim)."""
        return self.combined(self.drawn(*self.parts(z))).unsqueeze(1).float()

    def parts(self, z):
        """Looks (..., slots, look) and places (..., slots, 2) of latents (..., z_dim)."""
        return z.unflatten(-1, (self.slots, -1)).split([self.look, 2], dim=-1)

    def drawn(self, looks, places):
        """Each slot alone, (n, slots, height, width), of looks (n, slots, look) and places (n, slots, 2)."""
        down, across = self.grids(places, self.offsets)
        return down @ self.glyph(looks) @ across.mT

    def combined(self, drawn):
        """Frames (n, height, width) of slots (n, slots, height, width)."""
        return drawn.sum(1).clamp(max=1) if self.combine == "sum" else drawn.amax(1)

    def pixels(self, places):
        """Rows and columns, in pixels, of places (..., 2)."""
        return places * self.half_frame + self.half_frame - 0.5

    def grids(self, places, offsets):
        """How much of each pixel lies at `offsets` (m,) from places (..., 2), px: (..., height, m) and (..., width, m).

        A triangular kernel: bilinear interpolation as two products of matrices (Jaderberg et al. 2015, eq. 5).
        """
        centres = self.pixels(places.float())
        rows, columns = (self.rows - centres[..., :1]), (self.columns - centres[..., 1:])
        return [F.relu(1 - (axis[..., None] - offsets).abs()) for axis in (rows, columns)]

    def crop(self, pictures, places, offsets):
        """What pictures (..., height, width) show at offsets (m,) from places (..., 2): (..., m, m)."""
        down, across = self.grids(places, offsets)
        return down.mT @ pictures @ across

    def encode(self, x):
        """Posterior mean and log-sigma, each (n, z_dim), of frames x; a place is taken to be known to SURE."""
        looks, places, log_sigma, _ = self.infer(x[:, 0])
        return self.joined(looks, places, log_sigma).unbind(1)

    def joined(self, looks, places, log_sigma):
        """Latents, mean and log-sigma, (n, 2, z_dim)."""
        sure = torch.full_like(places, SURE)
        return torch.stack([torch.cat([looks, places], -1), torch.cat([log_sigma, sure], -1)], 1).flatten(2)

    def infer(self, x):
        """Looks, places, log-sigmas of looks, and frames drawn on the way to them, of frames x (n, height, width)."""
        on_the_way, looks, places, drawn = [], [], [], x.new_zeros(len(x), 1, *x.shape[1:])
        nothing = x.new_zeros(len(x), 1, self.look)
        for _ in range(self.slots):  # one after the other, in what those before leave unexplained
            drawn = drawn.detach()
            explained = self.combined(drawn)[:, None]
            place = self.find(x, explained)
            on_the_way.append(self.combined(torch.cat([drawn, self.drawn(nothing, place)], 1)))
            look, place, _ = self.corrected(x[:, None] - explained, nothing, place, explained)
            looks, places = [*looks, look], [*places, place]
            drawn = torch.cat([drawn, self.drawn(look, place)], 1)
            on_the_way.append(self.combined(drawn))
        looks, places, drawn = torch.cat(looks, 1), torch.cat(places, 1), drawn[:, 1:]
        for step in range(self.passes):
            if step:
                drawn = self.drawn(looks, places)
                on_the_way.append(self.combined(drawn))
            others = self.others(drawn.detach())
            looks, places, log_sigma = self.corrected(x[:, None] - others, looks, places, others)
        return looks, places, log_sigma, on_the_way

    def others(self, drawn):
        """For each slot what the others draw together, black if there are none: (n, slots, height, width)."""
        kept = 1 - torch.eye(self.slots, dtype=drawn.dtype, device=drawn.device)[..., None, None]
        return torch.stack([self.combined(drawn * mask) for mask in kept], 1)

    def find(self, x, explained):
        """Where x (n, height, width) most shows what is not explained (n, 1, ...): a softmax's mean, (n, 1, 2)."""
        small = F.avg_pool2d(torch.cat([x[:, None], explained], 1), 2)
        rows, columns = (torch.linspace(-1, 1, side, device=x.device) for side in small.shape[2:])
        where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
        score = 4 * self.seek(torch.cat([small, where], 1))[:, 0].float()
        share = score.flatten(1).softmax(1).view_as(score)
        rows, columns = (torch.linspace(-1, 1, side, device=x.device) * (1 - 1 / side) for side in score.shape[1:])
        return torch.stack([(share.sum(2) * rows).sum(1), (share.sum(1) * columns).sum(1)], 1)[:, None]

    def corrected(self, rest, looks, places, others):
        """Looks, places and log-sigmas after a correction by what the others leave of the frame.

        rest, others: (n, k, height, width), the frame without the others, and these; looks, places: (n, k, ...). The
        place is corrected first, the look by what is seen at the new one.
        """
        looks, places = looks.detach(), places.detach()
        with torch.no_grad():
            seen, hidden = (self.crop(frames, places, self.wide_offsets) for frames in (rest, others))
            known = torch.cat([F.avg_pool2d(hidden, 2).flatten(2), looks, places], -1)
        step = 0.25 * self.move(torch.cat([seen.flatten(2), known], -1)).float()
        places = (places + step).clamp(-1.3, 1.3)
        with torch.no_grad():
            seen = self.crop(rest, places, self.offsets)
        change, log_sigma = self.change(torch.cat([seen.flatten(2), known, 8 * step.detach()], -1)).float().chunk(2, -1)
        return (looks + change).clamp(-8, 8), places, log_sigma.clamp(-6, 2)

    @torch.no_grad()
    def follow(self, latents, frames):
        """Latents (V, T, 2, z_dim) of videos, of which each slot stays with one object.

        latents: of the frames (V, T, 1, height, width), each encoded by itself. Looks become the mean of those seen so
        far, as objects keep theirs, and places those at which these explain the frame best: each slot's is where its
        last ones lead or where the frame's latent has it, in the order that fits; or what these are registered to.
        """
        looks, places = self.parts(latents[:, 0, 0])
        followed, before = [latents[:, 0]], places
        for t in range(1, latents.shape[1]):
            x, led = frames[:, t, 0], (2 * places - before).clamp(-1.3, 1.3)
            found = self.parts(in_order(latents[:, t], looks, led)[:, 0])[1]
            starts = itertools.product(*zip(led.unbind(1), found.unbind(1), strict=True))
            starts = [torch.stack(start, 1) for start in starts]
            tried = starts + [self.registered(x, looks, at) for at in starts]
            errors = [(self.combined(self.drawn(looks, at)) - x).square().sum((1, 2)) for at in tried]
            best = torch.stack(errors).argmin(0)[None, :, None, None]
            before, places = places, torch.stack(tried).take_along_dim(best, 0)[0]
            others = self.others(self.drawn(looks, places))
            seen, _, log_sigma = self.corrected(x[:, None] - others, looks, places, others)
            looks = looks + (seen - looks) / (t + 1)
            followed.append(self.joined(looks, places, log_sigma))
        return torch.stack(followed, 1)

    def registered(self, x, looks, places, steps=4):
        """Places (n, slots, 2) after steps to where looks explain frames x (n, height, width) best.

        The steps are damped Gauss-Newton ones on the squared error (Lucas & Kanade 1981), with slopes over a pixel.
        """
        glyphs, pixel = self.glyph(looks), 1 / self.half_frame
        for _ in range(steps):
            (down, across), ahead, behind = [self.grids(places + s * pixel, self.offsets) for s in (0, 0.5, -0.5)]
            drawn = (rows := down @ glyphs) @ across.mT
            frame = self.combined(drawn)
            seen = drawn == frame[:, None] if self.combine == "max" else (frame < 1)[:, None]
            slopes = (ahead[0] - behind[0]) @ glyphs @ across.mT, rows @ (ahead[1] - behind[1]).mT
            slopes = torch.stack([slope * seen for slope in slopes], 2).flatten(1, 2).flatten(2)
            curvature = slopes @ slopes.mT + 0.3 * torch.eye(slopes.shape[1], device=x.device)
            step = torch.linalg.solve(curvature, slopes @ (x - frame).flatten(1)[..., None]).view_as(places)
            places = (places + step.clamp(-2, 2) * pixel).clamp(-1.3, 1.3)
        return places


def centred(count):
    """Offsets of `count` pixels from their centre."""
    return torch.arange(count) - (count - 1) / 2


def in_order(latents, looks, places, look_weight=0.003):
    """Latents (V, 2, z_dim) with their slots in the order that is nearest to looks and places (V, slots, ...) expected.

    The distance is the places' squared one, in half frames, and look_weight times the looks'.
    """
    slots = latents.unflatten(-1, (looks.shape[1], -1))
    orders = torch.tensor(list(itertools.permutations(range(looks.shape[1]))), device=latents.device)
    means = slots[:, 0, orders]  # V, orders, slots, numbers
    cost = (means[..., -2:] - places[:, None]).square().sum((2, 3))
    cost += look_weight * (means[..., :-2] - looks[:, None]).square().sum((2, 3))
    return slots.take_along_dim(orders[cost.argmin(1)][:, None, :, None], dim=2).flatten(2)
