"""A VAE of frames that show a few objects on black: what each object is, and where.

After AIR (Eslami et al. 2016). A latent is one slot after another. A slot is z_what, the object's
look, and then its place: row and column of its centre of mass, in half frames from the frame's
centre. The networks themselves work with z_where, the middle of the square that the object is drawn
in. But that may lie anywhere in the object, so a wall would be at another distance for each look.
Known beforehand are the number of objects, about how large they are, and how they combine where
they overlap. The rest of a frame is black.

In shapes S is the number of slots, W the numbers of a z_what, n frames, V videos, T steps.
"""

import functools
import itertools

import torch
import torch.nn.functional as F
from torch import nn

from models.noise import normal_like
from models.vae import kl_to_standard_normal

# Ranges.
MAX_WHAT = 8.0  # the numbers of a standard normal do not come near it
MAX_WHERE = 1.3  # half frames: an object whose centre has left the frame may still show
LOG_SIGMA_RANGE = (-6.0, 2.0)  # of z_what
LOG_SIGMA_WHERE = -5.0  # z_where is a point; this is a fifth of a pixel in frames of 64

# The loss.
EARLIER_WEIGHT = 0.3  # of a frame that was drawn before the last correction

# Initial weights: objects begin as a blob of light, and corrections begin small.
BLOB_PEAK = 0.55  # brightness in its middle
BLOB_SPREAD = 0.064  # twice its variance, in squared sizes: a deviation of 0.18 sizes
BLOB_RANGE = (0.01, 0.99)  # so that its logit is finite
GLYPH_GAIN = 0.3  # what a last layer's weights are multiplied by
PLACE_GAIN = 0.3
LOOK_GAIN = 0.5
INITIAL_LOG_SIGMA = -1.0  # of z_what

# Detection and correction: the networks read and put out numbers of about 1.
SHARPNESS = 4.0  # of the softmax that detects
MARGIN = 4  # px: a place is corrected by a glimpse wider than the object, which may be off centre
PLACE_SCALE = 0.25  # half frames per unit of the network's output
STEP_SCALE = 8.0  # of a place's step, where the look's correction reads it

# Following objects over time.
FIRST_PASSES = 8  # over the first frame
LOOK_WEIGHT = 0.003  # in matching: two random looks of 14 numbers count as much as 0.3 half frames
FIRST_STEPS = 1  # of Gauss-Newton, while looks are still poor
STEPS = 4  # once they are good
DAMPING = 0.3  # of these, which would be infinite for an object that is hidden
MAX_STEP = 2.0  # px, of one of these: slopes hold nearby only


class SlotVAE(nn.Module):
    """Encodes a frame: detects one object after the other, then corrects each beside the others.

    frame_shape: (1, height, width)
    z_dim:   numbers per frame, at least 3 for each slot
    slots:   objects per frame
    size:    of an object, px
    combine: "sum" (saturates at 1) or "max", where objects overlap
    n_hid:   width of the networks
    passes:  corrections of all slots, at least one
    beta:    weight of the KL term against the squared error

    Frames are in [0, 1], z_what in [-8, 8], z_where in [-1.3, 1.3]. z_what has a Gaussian posterior
    and a standard normal prior; z_where is a point, without a prior. No gradient flows through what
    a correction reads, much as RAFT (Teed & Deng 2020) detaches its estimate: each correction is
    trained by the frame that is drawn after it. That is faster, and more stable, than a gradient
    through all of them.
    """

    def __init__(
        self,
        frame_shape,
        z_dim=32,
        slots=2,
        size=28,
        combine="max",
        n_hid=256,
        passes=3,
        beta=0.05,
    ):
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.config["frame_shape"] = list(frame_shape)
        self.slots = slots
        self.size = size
        self.combine = combine
        self.passes = passes
        self.beta = beta
        self.what_dim = z_dim // slots - 2  # W
        self.wide_size = 2 * (size // 2) + MARGIN  # px, even: it is halved
        _, height, width = frame_shape

        # The decoder of one object: z_what -> its picture.
        self.glyph = nn.Sequential(
            nn.Linear(self.what_dim, 128), nn.SiLU(),
            nn.Linear(128, n_hid), nn.SiLU(),
            nn.Linear(n_hid, size**2), nn.Sigmoid(),
            nn.Unflatten(-1, (size, size)),
        )  # fmt: skip
        # The detector: frame, what is explained of it, row and column -> a score for each place.
        self.seek = nn.Sequential(
            nn.Conv2d(4, 16, 5, stride=2, padding=2), nn.SiLU(),
            nn.Conv2d(16, 16, 5, padding=2), nn.SiLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.SiLU(),
            nn.Conv2d(32, 1, 1, bias=False),  # the softmax that follows would cancel it
        )  # fmt: skip
        # The correction of a place: a wide glimpse and what is known -> a step.
        known = (self.wide_size // 2) ** 2 + self.what_dim + 2
        self.move = nn.Sequential(
            nn.Linear(self.wide_size**2 + known, n_hid), nn.SiLU(),
            nn.Linear(n_hid, 128), nn.SiLU(),
            nn.Linear(128, 2),
        )  # fmt: skip
        # The correction of a look: a glimpse, what is known, the place's step -> change, log-sigma.
        self.change = nn.Sequential(
            nn.Linear(size**2 + known + 2, 3 * n_hid // 2), nn.SiLU(),
            nn.Linear(3 * n_hid // 2, n_hid), nn.SiLU(),
            nn.Linear(n_hid, 2 * self.what_dim),
        )  # fmt: skip

        self.register_buffer("half_frame", torch.tensor([height, width]) / 2, persistent=False)
        self.register_buffer("offsets", centred_offsets(size), persistent=False)
        self.register_buffer("wide_offsets", centred_offsets(self.wide_size), persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """Let objects begin as a blob, which pulls places towards light from the first step on."""
        squared_distance = self.offsets[:, None] ** 2 + self.offsets**2  # (size, size)
        blob = BLOB_PEAK * torch.exp(-squared_distance / (BLOB_SPREAD * self.size**2))
        last_linear = self.glyph[4]
        last_linear.weight.mul_(GLYPH_GAIN)
        last_linear.bias.copy_(torch.logit(blob.clamp(*BLOB_RANGE)).flatten())
        self.move[-1].weight.mul_(PLACE_GAIN)
        self.move[-1].bias.zero_()
        self.change[-1].weight.mul_(LOOK_GAIN)
        self.change[-1].bias[: self.what_dim] = 0
        self.change[-1].bias[self.what_dim :] = INITIAL_LOG_SIGMA

    def forward(self, x):
        """The loss of frames x (n, 1, height, width) and its parts, each a mean over frames.

        loss = ||frame - x||^2 + 0.3 sum_k ||earlier_k - x||^2 + beta KL(q(z_what) || N(0, 1))

        earlier_k: the frames drawn before the last correction.
        """
        x = x[:, 0]  # (n, height, width)
        z_what, z_where, log_sigma, earlier_frames = self.infer(x, self.passes)
        sample = z_what
        if self.training:
            sample = z_what + normal_like(z_what) * log_sigma.exp()
        frames = self.overlay(self.draw(sample, z_where))
        squared_error = error_per_frame(frames, x)
        earlier = sum(error_per_frame(each, x) for each in earlier_frames)
        kl = kl_to_standard_normal(z_what, log_sigma) / len(x)
        loss = squared_error + EARLIER_WEIGHT * earlier + self.beta * kl
        return {"loss": loss, "squared_error": squared_error, "earlier": earlier, "kl": kl}

    def encode(self, x, passes=None):
        """Posterior mean and log-sigma, each (n, z_dim), of frames x (n, 1, height, width).

        passes: corrections of all slots; if not given, as many as in training.
        """
        z_what, z_where, log_sigma, _ = self.infer(x[:, 0], passes or self.passes)
        return self.to_latents(z_what, z_where, log_sigma).unbind(1)

    def decode(self, z):
        """Frames (n, 1, height, width) for latents (n, z_dim)."""
        frames = self.overlay(self.draw(*self.what_and_where(z)))
        return frames.unsqueeze(1).float()

    # Latents

    def what_and_where(self, z):
        """z_what (..., S, W) and z_where (..., S, 2) of latents z (..., z_dim)."""
        z_what, place = self.split(z)
        return z_what, place - self.centre_of_mass(self.glyph(z_what))

    def split(self, z):
        """z_what (..., S, W) and the places (..., S, 2) of latents z (..., z_dim)."""
        return z.unflatten(-1, (self.slots, -1)).split([self.what_dim, 2], dim=-1)

    def centre_of_mass(self, glyphs):
        """Of glyphs (..., size, size), from their middle, in half frames: (..., 2)."""
        glyphs = glyphs.float()
        row = (glyphs.sum(-1) * self.offsets).sum(-1)  # (...,)
        column = (glyphs.sum(-2) * self.offsets).sum(-1)
        mass = glyphs.sum((-2, -1)).clamp_min(1e-6)[..., None]
        return torch.stack([row, column], -1) / mass / self.half_frame

    def to_latents(self, z_what, z_where, log_sigma):
        """Latents (n, 2, z_dim), mean and log-sigma; the latter of z_what is given."""
        place = z_where + self.centre_of_mass(self.glyph(z_what))
        mean = torch.cat([z_what, place], -1)  # (n, S, W + 2)
        log_sigma = F.pad(log_sigma, (0, 2), value=LOG_SIGMA_WHERE)  # (n, S, W + 2)
        return torch.stack([mean, log_sigma], 1).flatten(2)  # (n, 2, S*(W + 2))

    # Drawing

    def draw(self, z_what, z_where):
        """Each slot alone, (n, S, height, width), of z_what (n, S, W) and z_where (n, S, 2)."""
        return self.paste(self.glyph(z_what), z_where)

    def paste(self, glyphs, z_where):
        """Glyphs (n, S, size, size), each alone on black at z_where (..., n, S, 2), bilinearly."""
        down, across = self.interpolation(z_where, self.offsets)
        return down @ glyphs @ across.mT  # (..., n, S, height, width)

    def overlay(self, drawn):
        """Frames (n, height, width) of slots drawn alone (n, S, height, width)."""
        return self.overlay_each(drawn.unbind(1))

    def overlay_each(self, slots):
        """Frames (n, height, width) of slots, each (n, height, width), drawn alone on black."""
        if self.combine == "sum":
            return functools.reduce(torch.add, slots).clamp(max=1)
        return functools.reduce(torch.maximum, slots)

    def visible(self, drawn, frame):
        """Where slots drawn alone (n, S, height, width) decide on the frame (n, height, width)."""
        if self.combine == "sum":
            return (frame < 1)[:, None]  # (n, 1, height, width): not saturated
        return drawn == frame[:, None]  # (n, S, height, width): in front

    def overlay_others(self, drawn):
        """For each slot the frame that the others make, (n, S, height, width); black if none."""
        slots = drawn.unbind(1)  # (n, height, width) each
        if len(slots) == 1:
            return torch.zeros_like(drawn)
        others = [slots[:s] + slots[s + 1 :] for s in range(len(slots))]
        return torch.stack([self.overlay_each(each) for each in others], 1)

    def to_pixels(self, z_where):
        """Rows and columns, in pixels, of z_where (..., 2)."""
        return z_where * self.half_frame + self.half_frame - 0.5

    def from_pixels(self, pixels):
        """What `to_pixels` is given, of what it returns."""
        return (pixels + 0.5 - self.half_frame) / self.half_frame

    def interpolation(self, z_where, offsets):
        """How much of each pixel lies at offsets (m,), px, from z_where (..., 2), down and across.

        Weights (..., height, m) and (..., width, m) of a triangular kernel: bilinear interpolation
        as two products of matrices (spatial transformer, Jaderberg et al. 2015, eq. 5).
        """
        centres = self.to_pixels(z_where.float())
        _, height, width = self.config["frame_shape"]
        down = triangles(centres[..., :1], height, offsets)
        across = triangles(centres[..., 1:], width, offsets)
        return down, across

    def glimpse(self, pictures, z_where, offsets):
        """What pictures (..., height, width) show at offsets (m,) px from z_where: (..., m, m)."""
        down, across = self.interpolation(z_where, offsets)
        return down.mT @ pictures @ across

    # Inference

    def infer(self, x, passes):
        """z_what, z_where, z_what's log-sigma and earlier drawings of frames x (n, height, width).

        1. Detect one object after the other, each in what those before it leave unexplained.
        2. Correct all of them, `passes` times, each in what the others leave of the frame.
        """
        z_what, z_where, drawn, earlier_frames = self.detect_all(x)
        for step in range(passes):
            if step:
                drawn = self.draw(z_what, z_where)
                earlier_frames.append(self.overlay(drawn))
            others = self.overlay_others(drawn.detach())
            z_what, z_where, log_sigma = self.correct(x, z_what, z_where, others)
        return z_what, z_where, log_sigma, earlier_frames

    def detect_all(self, x):
        """z_what (n, S, W), z_where (n, S, 2), slots drawn alone, and every frame drawn so far."""
        whats = []
        wheres = []
        slots = []  # each drawn alone, (n, height, width)
        earlier_frames = []
        blank = x.new_zeros(len(x), 1, self.what_dim)
        explained = torch.zeros_like(x)  # (n, height, width)
        for _ in range(self.slots):
            explained = explained.detach()
            z_where = self.detect(x, explained)
            detected = self.draw(blank, z_where)[:, 0]
            earlier_frames.append(self.overlay_each([explained, detected]))
            z_what, z_where, _ = self.correct(x, blank, z_where, explained[:, None])
            slots.append(self.draw(z_what, z_where)[:, 0].float())
            explained = self.overlay_each([explained, slots[-1]])
            earlier_frames.append(explained)
            whats.append(z_what)
            wheres.append(z_where)
        return torch.cat(whats, 1), torch.cat(wheres, 1), torch.stack(slots, 1), earlier_frames

    def detect(self, x, explained):
        """z_where (n, 1, 2) of the object that most stands out from what is explained.

        x, explained: (n, height, width). The place is the mean under a softmax over the scores of
        all places.
        """
        small = F.avg_pool2d(torch.stack([x, explained], 1), 2)  # (n, 2, height/2, width/2)
        rows, columns = (torch.linspace(-1, 1, side, device=x.device) for side in small.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))  # (2, height/2, width/2)
        inputs = torch.cat([small, grid.expand(len(x), -1, -1, -1)], 1)
        score = SHARPNESS * self.seek(inputs)[:, 0].float()  # (n, height/4, width/4)
        attention = score.flatten(1).softmax(1).view_as(score)
        rows, columns = (cell_centres(side, x.device) for side in score.shape[1:])
        row = (attention.sum(2) * rows).sum(1)  # (n,)
        column = (attention.sum(1) * columns).sum(1)
        return torch.stack([row, column], 1)[:, None]

    def correct(self, x, z_what, z_where, others):
        """Corrected z_what and z_where, and z_what's log-sigma, of k slots.

        x: (n, height, width); others: (n, k, height, width), the frames that the others make;
        z_what: (n, k, W); z_where: (n, k, 2). The place is corrected first; the look is then read
        at the new place.
        """
        z_what = z_what.detach()
        z_where = z_where.detach()
        rest = x[:, None] - others  # (n, k, height, width)
        with torch.no_grad():
            down, across = self.interpolation(z_where, self.wide_offsets)  # of both glimpses
            hidden = down.mT @ others @ across  # (n, k, wide, wide)
            hidden = F.avg_pool2d(hidden, 2).flatten(2)  # (n, k, (wide/2)^2)
            known = torch.cat([hidden, z_what, z_where], -1)
            glimpse = (down.mT @ rest @ across).flatten(2)  # (n, k, wide^2)
        step = PLACE_SCALE * self.move(torch.cat([glimpse, known], -1)).float()  # (n, k, 2)
        z_where = (z_where + step).clamp(-MAX_WHERE, MAX_WHERE)
        change, log_sigma = self.look_correction(rest, z_where, known, step.detach())
        z_what = (z_what + change).clamp(-MAX_WHAT, MAX_WHAT)
        return z_what, z_where, log_sigma.clamp(*LOG_SIGMA_RANGE)

    def look_correction(self, rest, z_where, known, step):
        """The change of z_what and its log-sigma, each (n, k, W); step: the one z_where took."""
        with torch.no_grad():
            glimpse = self.glimpse(rest, z_where, self.offsets).flatten(2)  # (n, k, size^2)
        inputs = torch.cat([glimpse, known, STEP_SCALE * step], -1)
        return self.change(inputs).float().chunk(2, -1)

    # Videos

    @torch.no_grad()
    def encode_each(self, frames):
        """Latents (V, T, 2, z_dim), mean and log-sigma, of each frame of videos by itself.

        frames: (V, T, 1, height, width). The first, with which `follow` begins, is corrected more
        often than the others.
        """
        videos, steps = frames.shape[:2]
        passes = max(FIRST_PASSES, self.passes)
        first = torch.stack(self.encode(frames[:, 0], passes), 1)  # (V, 2, z_dim)
        others = torch.stack(self.encode(frames[:, 1:].flatten(0, 1)), 1)  # (V*(T - 1), 2, z_dim)
        return torch.cat([first[:, None], others.unflatten(0, (videos, steps - 1))], 1)

    @torch.no_grad()
    def follow(self, latents, frames):
        """Latents (V, T, 2, z_dim) of videos in which each slot stays with one object.

        latents: as `encode_each` returns them for frames (V, T, 1, height, width). For each frame
        after the first:

        1. Extrapolate: each place moves on at its last speed.
        2. Detect and match: the places in the frame's own latent, its slots in the order that fits
           the extrapolated places and the looks so far.
        3. Locate: each slot is where 1 or where 2 has it. Of the 2^S combinations the one that
           draws the frame best is refined.
        4. Average looks: the look is read again at that place, and z_what is the mean of all looks
           read so far, because objects keep theirs.

        A second pass goes back to the first frame, with the last looks: each slot is where it was
        located, or where the places after it lead. Where objects overlap at first, only later
        frames tell them apart. So each latent depends on all frames of its video.
        """
        z_what, place = self.split(latents[:, 0, 0])
        places = [place]
        log_sigmas = [latents[:, 0, 1]]
        for t in range(1, latents.shape[1]):
            x = frames[:, t, 0]
            extrapolated = extrapolate(*places[-2:])
            detected = match_slots(latents[:, t], z_what, extrapolated)
            place = self.locate(x, self.glyph(z_what), FIRST_STEPS, extrapolated, detected)
            places.append(place)
            look, log_sigma = self.read_look(x, z_what, place)
            z_what = z_what + (look - z_what) / (t + 1)
            log_sigmas.append(log_sigma)
        glyphs = self.glyph(z_what)
        for t in reversed(range(latents.shape[1] - 1)):
            extrapolated = extrapolate(*reversed(places[t + 1 : t + 3]))
            x = frames[:, t, 0]
            places[t] = self.locate(x, glyphs, FIRST_STEPS, extrapolated, places[t])
        means = [torch.cat([z_what, place], -1).flatten(1) for place in places]
        return torch.stack([torch.stack(means, 1), torch.stack(log_sigmas, 1)], 2)

    @torch.no_grad()
    def follow_again(self, latents, frames):
        """Latents (V, T, 2, z_dim) as `follow` returns them, with places for their present looks.

        All frames at once: an object is located from where it was, or from midway between its
        places in the frames before and after.
        """
        z_what, place = self.split(latents[:, :, 0])  # (V, T, S, W), (V, T, S, 2)
        midway = place.clone()
        midway[:, 1:-1] = (place[:, :-2] + place[:, 2:]) / 2
        x = frames.flatten(0, 2)  # (V*T, height, width)
        glyphs = self.glyph(z_what[:, -1]).repeat_interleave(place.shape[1], 0)  # (V*T, S, ...)
        guesses = [guess.flatten(0, 1) for guess in (place, midway)]  # (V*T, S, 2) each
        place = self.locate(x, glyphs, STEPS, *guesses).view_as(place)
        means = torch.cat([z_what, place], -1).flatten(2)
        return torch.stack([means, latents[:, :, 1]], 2)

    def locate(self, x, glyphs, steps, *guesses):
        """The places (n, S, 2) of glyphs in frames x (n, height, width), refined from guesses."""
        middle = self.centre_of_mass(glyphs)
        guesses = torch.stack(guesses) - middle  # (guesses, n, S, 2)
        drawn = combinations(self.paste(glyphs, guesses))  # S times (n, height, width) each
        error, best = torch.stack([self.errors(each, x) for each in drawn]).min(0)  # (n,) each
        starts = torch.stack([torch.stack(each, 1) for each in combinations(guesses)])
        # starts: (combinations, n, S, 2)
        start = starts.take_along_dim(best[None, :, None, None], 0)[0]
        refined = self.refine(x, glyphs, start, steps)
        is_better = self.errors(self.paste(glyphs, refined).unbind(1), x) < error
        return torch.where(is_better[:, None, None], refined, start) + middle

    def errors(self, slots, x):
        """|frame - x| of each frame (n,) that slots, (n, height, width) each, make together."""
        return torch.linalg.vector_norm(self.overlay_each(slots) - x, dim=(1, 2))

    def read_look(self, x, z_what, place):
        """z_what and its log-sigma (V, z_dim), as frames x show objects at place (V, S, 2)."""
        glyphs = self.glyph(z_what)
        z_where = place - self.centre_of_mass(glyphs)
        others = self.overlay_others(self.paste(glyphs, z_where))
        look, _, log_sigma = self.correct(x, z_what, z_where, others)
        return look, F.pad(log_sigma, (0, 2), value=LOG_SIGMA_WHERE).flatten(1)

    def refine(self, x, glyphs, z_where, steps):
        """z_where (n, S, 2) moved to where glyphs explain frames x (n, height, width) best.

        Damped Gauss-Newton steps on the squared error (Lucas & Kanade 1981), in pixels:

            step = (J J^T + 0.3 I)^-1 J (x - frame)
        """
        pixel = 1 / self.half_frame  # (2,): one pixel down and across, in half frames
        for _ in range(steps):
            frame, slopes = self.frame_and_slopes(glyphs, z_where, pixel)
            curvature = slopes @ slopes.mT  # (n, 2*S, 2*S)
            curvature = curvature + DAMPING * torch.eye(slopes.shape[1], device=x.device)
            error = (x - frame).flatten(1)[..., None]  # (n, height*width, 1)
            step = torch.linalg.solve(curvature, slopes @ error).view_as(z_where)
            z_where = z_where + step.clamp(-MAX_STEP, MAX_STEP) * pixel
            z_where = z_where.clamp(-MAX_WHERE, MAX_WHERE)
        return z_where

    def frame_and_slopes(self, glyphs, z_where, pixel):
        """The frame (n, height, width) and J (n, 2*S, height*width), its slopes along z_where.

        Slopes are per pixel, from half a pixel behind to half a pixel ahead.
        """
        here_ahead_behind = torch.stack([z_where, z_where + pixel / 2, z_where - pixel / 2])
        downs, acrosses = self.interpolation(here_ahead_behind, self.offsets)
        down, down_ahead, down_behind = downs  # (n, S, height, size) each
        across, across_ahead, across_behind = acrosses  # (n, S, width, size) each
        rows = down @ glyphs  # (n, S, height, size)
        drawn = rows @ across.mT  # (n, S, height, width)
        frame = self.overlay(drawn)
        visible = self.visible(drawn, frame).float()  # once: two products take it
        slope_down = (down_ahead - down_behind) @ glyphs @ across.mT  # (n, S, height, width)
        slope_across = rows @ (across_ahead - across_behind).mT
        slopes = torch.stack([slope_down * visible, slope_across * visible], 2)
        return frame, slopes.flatten(1, 2).flatten(2)


def error_per_frame(frames, x):
    """The squared error of frames (n, height, width), summed over each, a mean over all."""
    return F.mse_loss(frames.float(), x, reduction="sum") / len(x)


def centred_offsets(count):
    """How far each of `count` pixels lies from the middle of them."""
    return torch.arange(count) - (count - 1) / 2


def triangles(centre, side, offsets):
    """1 - |pixel - offset - centre|, or 0 where that is negative: (..., side, m).

    centre: (..., 1), px; offsets: (m,), px, one apart. A number is made once for each difference of
    pixel and offset.
    """
    pixels = torch.arange(side + len(offsets) - 1, device=centre.device)
    by_difference = F.relu(1 - (pixels - offsets[-1] - centre).abs())  # (..., side + m - 1)
    return by_difference.unfold(-1, side, 1).flip(-2).mT


def cell_centres(count, device):
    """The centres of `count` equal cells of [-1, 1]."""
    return torch.linspace(-1, 1, count, device=device) * (1 - 1 / count)


def combinations(options):
    """All ways to choose one of options (m, n, S, ...) for each slot: S tensors (n, ...)."""
    return itertools.product(*options.unbind(2))


def extrapolate(*places):
    """The next place (V, S, 2) after one, which stays, or two, at their speed."""
    return (2 * places[-1] - places[0]).clamp(-MAX_WHERE, MAX_WHERE)


def match_slots(latents, z_what, place):
    """Of latents (V, 2, z_dim) the places (V, S, 2) of z_what (V, S, W), which are near `place`.

    Slots are taken in the order that has the least sum (place - its)^2 + 0.003 sum (z_what -
    its)^2.
    """
    count = z_what.shape[1]
    slots = latents[:, 0].unflatten(-1, (count, -1))  # (V, S, W + 2)
    orders = torch.tensor(list(itertools.permutations(range(count))), device=latents.device)
    slots = slots[:, orders]  # (V, orders, S, W + 2)
    cost = (slots[..., -2:] - place[:, None]).square().sum((2, 3))  # (V, orders)
    cost += LOOK_WEIGHT * (slots[..., :-2] - z_what[:, None]).square().sum((2, 3))
    nearest = cost.argmin(1)[:, None, None, None]  # (V, 1, 1, 1)
    return slots[..., -2:].take_along_dim(nearest, dim=1)[:, 0]
