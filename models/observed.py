"""What the frames of a video show of each object, to improve its look, and to draw it with.

A look is a few numbers, and loses detail that the frames have.
"""

import torch

from models.slots import MAX_WHAT

HIDDEN = 0.08  # brightness that others draw at a pixel, from which on it tells little of an object
STEPS = 3  # of conjugate gradients
TINY = 1e-12  # where nothing is left to explain

LOOK_STEPS = 3  # of Gauss and Newton
SLOPE_STEP = 0.2  # of each number, to either side
MAX_LOOK_STEP = 1.0  # of each number
CENTRE_WEIGHT = 300.0  # of a squared pixel between centres of mass, beside squared errors
CHANGE_WEIGHT = 0.01  # of a look's squared change


class ObservedObjects:
    """The objects of V videos as frames showed them, to be drawn where latents have them.

    vae: a `SlotVAE`; frames: (V, T, 1, height, width) in [0, 1]; latents: (V, T, z_dim), the means
    of their latents. The picture g (size, size) of each object minimises

        sum_t w_t |x_t - D_t g|^2 + |g - glyph|^2,    w_t = exp(-(o_t / 0.08)^2)

    where x_t is a frame, D_t pastes g where the object is, o_t is what the others draw, and glyph
    is what the decoder makes of the last look.
    """

    def __init__(self, vae, frames, latents):
        self.vae = vae
        looks, places = vae.split(latents)  # (V, T, S, W), (V, T, S, 2)
        glyphs = vae.glyph(looks[:, -1])  # (V, S, size, size)
        self.middle = vae.centre_of_mass(glyphs)[:, None]  # (V, 1, S, 2)
        down, across = vae.interpolation(places - self.middle, vae.offsets)
        drawn = down @ glyphs[:, None] @ across.mT  # (V, T, S, height, width)
        others = vae.overlay_others(drawn.flatten(0, 1)).view_as(drawn)
        weight = torch.exp(-((others / HIDDEN) ** 2))

        def gather(pictures):
            """sum_t D_t^T w_t of pictures (V, T, S, height, width)."""
            return (down.mT @ (weight * pictures) @ across).sum(1)  # (V, S, size, size)

        def apply(g):
            return gather(down @ g[:, None] @ across.mT) + g

        # Not clamped: between pixels an edge overshoots, and is sharp where it is drawn again.
        self.glyphs = glyphs + conjugate_gradients(apply, gather(frames - drawn))

    def draw(self, latents):
        """Frames (V, T, 1, height, width) of latents (V, T, z_dim), whose looks are not used."""
        _, places = self.vae.split(latents)
        drawn = self.vae.paste(self.glyphs[:, None], places - self.middle).clamp(0, 1)
        frames = self.vae.overlay(drawn.flatten(0, 1))  # (V*T, height, width)
        return frames.view(*latents.shape[:2], 1, *frames.shape[1:])


@torch.no_grad()
def improve_looks(vae, frames, latents):
    """Latents (V, T, 2, z_dim) of videos, with looks nearer to what their frames show.

    vae, frames: as of `ObservedObjects`; latents: mean and log-sigma, with one look per object. The
    look z minimises, by Gauss-Newton steps from the given z_0,

        |glyph(z) - g|^2 + 300 |centre(glyph(z)) - centre(g)|^2 + 0.01 |z - z_0|^2

    where g is the object's picture, and centre its centre of mass in pixels. So the place, which is
    a centre of mass, becomes that of the object's own pixels. The look by itself would put it a few
    tenths of a pixel off: enough for a turn at a wall to seem a frame early or late.
    """
    looks, places = vae.split(latents[:, :, 0])  # (V, T, S, W), (V, T, S, 2)
    observed = ObservedObjects(vae, frames, latents[:, :, 0])
    target = features(vae, observed.glyphs)  # (V, S, m)
    start = looks[:, -1]  # (V, S, W)
    one = torch.eye(vae.what_dim, device=start.device)  # of each number
    look = start
    for _ in range(LOOK_STEPS):
        ahead, behind = (
            features(vae, vae.glyph(look[..., None, :] + step * one))
            for step in (SLOPE_STEP, -SLOPE_STEP)
        )
        slopes = (ahead - behind) / (2 * SLOPE_STEP)  # (V, S, W, m)
        misfit = target - features(vae, vae.glyph(look))  # (V, S, m)
        gradient = slopes @ misfit[..., None] + CHANGE_WEIGHT * (start - look)[..., None]
        step = torch.linalg.solve(slopes @ slopes.mT + CHANGE_WEIGHT * one, gradient)[..., 0]
        look = look + step.clamp(-MAX_LOOK_STEP, MAX_LOOK_STEP)
        look = look.clamp(-MAX_WHAT, MAX_WHAT)
    places = places - observed.middle + vae.centre_of_mass(vae.glyph(look))[:, None]
    means = torch.cat([look[:, None].expand_as(looks), places], -1).flatten(2)
    return torch.stack([means, latents[:, :, 1]], 2)


def features(vae, glyphs):
    """Of glyphs (..., size, size) all pixels and, times sqrt(300), the centre of mass, px."""
    centre = vae.centre_of_mass(glyphs) * vae.half_frame
    return torch.cat([glyphs.flatten(-2), CENTRE_WEIGHT**0.5 * centre], -1)


def conjugate_gradients(apply, target):
    """The x for which apply(x) = target, each (V, S, size, size) (Hestenes & Stiefel 1952).

    apply is linear, symmetric and positive definite, for each of the V*S by itself.
    """

    def dot(a, b):
        return (a * b).sum((-2, -1), keepdim=True)

    x = torch.zeros_like(target)
    residual = target
    direction = target
    energy = dot(residual, residual)
    for _ in range(STEPS):
        image = apply(direction)
        length = energy / dot(direction, image).clamp_min(TINY)
        x = x + length * direction
        residual = residual - length * image
        previous = energy
        energy = dot(residual, residual)
        direction = residual + energy / previous.clamp_min(TINY) * direction
    return x
