"""What frames showed of each object, to draw it with where it is predicted.

A look is a few numbers, and loses detail. The frames that were fed in have it.
"""

import torch

HIDDEN = 0.08  # brightness that others draw at a pixel, from which on it tells little of an object
STEPS = 8  # of conjugate gradients
TINY = 1e-12  # where nothing is left to explain


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

        change = conjugate_gradients(apply, gather(frames - drawn))
        self.glyphs = (glyphs + change).clamp(0, 1)

    def draw(self, latents):
        """Frames (V, T, 1, height, width) of latents (V, T, z_dim), whose looks are not used."""
        _, places = self.vae.split(latents)
        drawn = self.vae.paste(self.glyphs[:, None], places - self.middle)
        frames = self.vae.overlay(drawn.flatten(0, 1))  # (V*T, height, width)
        return frames.view(*latents.shape[:2], 1, *frames.shape[1:])


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
