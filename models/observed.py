"""What the frames of a video show of each object, to improve its look and place, and to draw it.

A look is a few numbers, and loses detail that the frames have.
"""

import torch
import torch.nn.functional as F

from models.slots import MAX_WHAT, triangles

HIDDEN = 0.08  # brightness that others draw, from which on a pixel tells little of an object
DECODED = 0.1  # weight of the decoder's picture, beside 1 of a frame's

LOOK_STEPS = 3  # of Gauss and Newton
SLOPE_STEP = 0.2  # of each number, to either side
MAX_LOOK_STEP = 1.0  # of each number
CENTRE_WEIGHT = 30.0  # of a squared pixel between centres of mass, beside squared errors
CHANGE_WEIGHT = 0.01  # of a look's squared change


class ObservedObjects:
    """The objects of V videos as frames showed them, to be drawn where latents have them.

    vae: a `SlotVAE`; frames: (V, T, 1, height, width) in [0, 1]; latents: (V, T, z_dim), the means
    of their latents, with one look per object. Digits are drawn at whole pixels, so frames show one
    picture of an object, only elsewhere. That picture is

        g = (0.1 glyph + sum_t w_t x_t) / (0.1 + sum_t w_t),    w_t = exp(-(o_t / 0.08)^2)

    where x_t is what a frame shows in the object's square of whole pixels, o_t the most that others
    draw at a pixel or beside it (what they show may differ from that), and glyph what the decoder
    makes of the last look, moved by less than a pixel to that square. Outside the frame w_t is 0.
    """

    def __init__(self, vae, frames, latents):
        self.vae = vae
        looks, places = vae.split(latents)  # (V, T, S, W), (V, T, S, 2)
        glyphs = vae.glyph(looks[:, -1])  # (V, S, size, size)
        z_where = at_whole_steps(vae, places - vae.centre_of_mass(glyphs)[:, None])
        drawn = vae.paste(glyphs[:, None], z_where)  # (V, T, S, height, width)
        others = vae.overlay_others(drawn.flatten(0, 1)).view_as(drawn)
        # A square of whole pixels, and by how many the decoder's is off it, from -1/2 to 1/2.
        corner = vae.to_pixels(z_where[:, 0]) + vae.offsets[0]
        offset = corner - corner.round()  # (V, S, 2)
        self.middle = z_where - offset[:, None] / vae.half_frame
        moved = (offset - vae.offsets[0])[:, :, None]  # the decoder's middle in it, (V, S, 1, 2)
        self.down = triangles(moved[..., :1], vae.size, vae.offsets)  # (V, S, 1, size, size)
        self.across = triangles(moved[..., 1:], vae.size, vae.offsets)
        down, across = vae.interpolation(self.middle, vae.offsets)
        seen = down.mT @ frames @ across  # (V, T, S, size, size)
        hidden = (down.mT @ others @ across).flatten(0, 1)  # (V*T, S, size, size)
        hidden = F.max_pool2d(hidden, 3, stride=1, padding=1).view_as(seen)
        inside = down.sum(-2)[..., None] * across.sum(-2)[..., None, :]  # the frame: 1, else 0
        weight = inside * torch.exp(-((hidden / HIDDEN) ** 2))
        decoded = self.moved(glyphs[:, :, None])[:, :, 0]
        self.glyphs = (DECODED * decoded + (weight * seen).sum(1)) / (DECODED + weight.sum(1))

    def moved(self, glyphs):
        """The decoder's glyphs (V, S, n, size, size) as the square of whole pixels shows them."""
        return self.down @ glyphs @ self.across.mT

    def places(self):
        """Where the objects' own centres of mass are, (V, T, S, 2)."""
        return self.middle + self.vae.centre_of_mass(self.glyphs)[:, None]

    def draw(self, latents):
        """Frames (V, T, 1, height, width) of latents (V, T, z_dim), whose looks are not used."""
        _, places = self.vae.split(latents)
        z_where = places - self.vae.centre_of_mass(self.glyphs)[:, None]
        drawn = self.vae.paste(self.glyphs[:, None], z_where)
        frames = self.vae.overlay(drawn.flatten(0, 1))  # (V*T, height, width)
        return frames.view(*latents.shape[:2], 1, *frames.shape[1:])


def at_whole_steps(vae, z_where):
    """z_where (V, T, S, 2), moved until those of an object differ by whole pixels.

    The fraction of a pixel that they then share is the mean of theirs, on a circle.
    """
    pixels = vae.to_pixels(z_where)
    angle = 2 * torch.pi * pixels
    turn = torch.atan2(angle.sin().mean(1, True), angle.cos().mean(1, True))  # (V, 1, S, 2)
    fraction = turn / (2 * torch.pi)
    return vae.from_pixels((pixels - fraction).round() + fraction)


@torch.no_grad()
def improve_looks(vae, frames, latents):
    """Latents (V, T, 2, z_dim) of videos, with looks and places nearer to what their frames show.

    vae, frames: as of `ObservedObjects`; latents: mean and log-sigma, with one look per object. The
    look z minimises, by Gauss-Newton steps from the given z_0,

        |glyph(z) - g|^2 + 30 |centre(glyph(z)) - centre(g)|^2 + 0.01 |z - z_0|^2

    where g is the object's picture, and centre its centre of mass in pixels. The place becomes that
    of g. By the look alone it would be a few tenths of a pixel off: enough for a turn at a wall to
    seem a frame early or late.
    """
    observed = ObservedObjects(vae, frames, latents[:, :, 0])
    looks, _ = vae.split(latents[:, :, 0])  # (V, T, S, W)

    def features(glyphs):
        """Of glyphs (V, S, n, size, size) all pixels and, times sqrt(30), the centre of mass."""
        centre = vae.centre_of_mass(glyphs) * vae.half_frame
        return torch.cat([glyphs.flatten(-2), CENTRE_WEIGHT**0.5 * centre], -1)

    def decoded(looks):
        """The features of looks (V, S, n, W)."""
        return features(observed.moved(vae.glyph(looks)))

    target = features(observed.glyphs[:, :, None])  # (V, S, 1, m)
    start = looks[:, -1, :, None]  # (V, S, 1, W)
    one = torch.eye(vae.what_dim, device=start.device)  # of each number
    look = start
    for _ in range(LOOK_STEPS):
        ahead, behind = (decoded(look + step * one) for step in (SLOPE_STEP, -SLOPE_STEP))
        slopes = (ahead - behind) / (2 * SLOPE_STEP)  # (V, S, W, m)
        misfit = target - decoded(look)  # (V, S, 1, m)
        gradient = misfit @ slopes.mT + CHANGE_WEIGHT * (start - look)  # (V, S, 1, W)
        curvature = slopes @ slopes.mT + CHANGE_WEIGHT * one  # symmetric
        step = torch.linalg.solve(curvature, gradient.mT).mT
        look = look + step.clamp(-MAX_LOOK_STEP, MAX_LOOK_STEP)
        look = look.clamp(-MAX_WHAT, MAX_WHAT)
    means = torch.cat([look[:, None, :, 0].expand_as(looks), observed.places()], -1).flatten(2)
    return torch.stack([means, latents[:, :, 1]], 2)
