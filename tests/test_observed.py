"""Objects as frames showed them, and the rule by which they move."""

import numpy as np
import pytest
import torch

from data.bouncing import make_videos, to_pixels
from evaluation import rule
from models.observed import ObservedObjects
from models.slots import SlotVAE

SIZE = 10


def tiny(combine="max"):
    torch.manual_seed(0)
    return SlotVAE((1, 32, 32), z_dim=12, slots=2, size=SIZE, combine=combine, n_hid=16).eval()


def moving_pictures(vae):
    """Glyphs that no look can draw, the latents of their places, and frames that show them."""
    glyphs = (torch.rand(3, 1, 2, SIZE, SIZE) > 0.5).float().expand(-1, 6, -1, -1, -1)
    looks = torch.randn(3, 1, 2, 4).expand(-1, 6, -1, -1)
    start = torch.tensor([[-0.4, -0.3], [0.4, 0.35]])
    velocity = torch.tensor([[0.07, 0.11], [-0.13, -0.05]])
    z_where = start + velocity * torch.arange(6.0)[:, None, None]  # (T, S, 2)
    z_where = z_where.expand(3, -1, -1, -1)
    place = z_where + vae.centre_of_mass(vae.glyph(looks))
    frames = vae.overlay(vae.paste(glyphs, z_where).flatten(0, 1)).view(3, 6, 1, 32, 32)
    return torch.cat([looks, place], -1).flatten(2), frames


@pytest.mark.parametrize("combine", ["max", "sum"])
@torch.no_grad()
def test_what_was_seen_is_drawn_again(combine):
    """Three quarters less error than the decoder's own drawing, in frames not seen, too."""
    vae = tiny(combine)
    latents, frames = moving_pictures(vae)
    objects = ObservedObjects(vae, frames[:, :5], latents[:, :5])
    drawn = objects.draw(latents)
    assert drawn.shape == frames.shape
    decoded = vae.decode(latents.flatten(0, 1)).view_as(frames)
    for shown in (slice(0, 5), slice(5, 6)):
        error = (drawn - frames)[:, shown].square().mean()
        assert error < 0.25 * (decoded - frames)[:, shown].square().mean()


@pytest.mark.parametrize("physics", rule.MOVES)
def test_the_rule_continues_its_own_paths(physics):
    """From ten places, in whole pixels: within two pixels, most within one."""
    glyph = np.zeros((1, 28, 28), np.uint8)
    label = np.zeros(1, np.uint8)
    _, _, positions = make_videos(
        glyph, label, range(40), [0], physics=physics, frame_size=64, seq_len=15, nums_per_image=1
    )
    corners = to_pixels(positions, physics)
    sequences = corners[:, :, 0].transpose(0, 2, 1).reshape(-1, 15).astype(np.float64)
    ahead = rule.continue_paths(sequences[:, :10], physics, 36, 5)
    error = np.abs(ahead - sequences[:, 10:])
    assert np.median(error) < 0.6
    assert (error < 2).mean() > 0.9
