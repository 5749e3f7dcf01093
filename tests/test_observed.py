"""Objects as frames showed them, and the rule by which they move."""

import numpy as np
import pytest
import torch

from data.bouncing import make_videos, to_pixels
from evaluation import rule
from models.observed import ObservedObjects, improve_looks
from models.slots import SlotVAE

SIZE = 10


def tiny(combine="max"):
    torch.manual_seed(0)
    return SlotVAE((1, 32, 32), z_dim=12, slots=2, size=SIZE, combine=combine, n_hid=16).eval()


def moving_pictures(vae):
    """Glyphs that no look can draw, the latents of their places, and frames that show them.

    They move by whole pixels.
    """
    glyphs = (torch.rand(3, 1, 2, SIZE, SIZE) > 0.5).float().expand(-1, 6, -1, -1, -1)
    looks = torch.randn(3, 1, 2, 4).expand(-1, 6, -1, -1)
    start = torch.tensor([[-0.4, -0.3], [0.4, 0.35]])
    pixels = torch.tensor([[1, 2], [-2, -1]]) * torch.arange(6)[:, None, None]  # (T, S, 2)
    z_where = start + pixels / 16
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


@pytest.mark.parametrize("combine", ["max", "sum"])
@torch.no_grad()
def test_places_become_those_of_what_is_seen(combine):
    """Of objects that partly leave the frame, too, and whole pixels apart."""
    vae = tiny(combine)
    glyphs = torch.zeros(4, 2, SIZE, SIZE)  # of two objects, with a black margin
    glyphs[..., 1:-1, 1:-1] = (torch.rand(4, 2, SIZE - 2, SIZE - 2) > 0.5).float()
    corners = torch.randint(-3, 32 - SIZE + 4, (4, 8, 2, 2))
    z_where = vae.from_pixels(corners + (SIZE - 1) / 2)
    frames = vae.overlay(vae.paste(glyphs[:, None], z_where).flatten(0, 1)).view(4, 8, 1, 32, 32)
    looks = torch.randn(4, 1, 2, 4).expand(-1, 8, -1, -1)
    off = 0.2 / 16 * (2 * torch.rand(4, 8, 2, 2) - 1)  # 0.2 px at most
    found = z_where + vae.centre_of_mass(vae.glyph(looks)) + off
    given = torch.cat([looks, found], -1).flatten(2)
    _, places = vae.split(improve_looks(vae, frames, torch.stack([given, given], 2))[:, :, 0])
    pixels = vae.to_pixels(places)
    true = vae.to_pixels(z_where + vae.centre_of_mass(glyphs)[:, None])
    assert (pixels - true).abs().max() < 0.15
    apart = pixels - pixels[:, :1]
    torch.testing.assert_close(apart, apart.round(), atol=1e-3, rtol=0)


@torch.no_grad()
def test_improved_looks_are_those_that_were_drawn():
    """Looks that are off, and with them centres of mass, come back; where objects are drawn stays."""
    vae = tiny()
    last = vae.glyph[-3]
    last.weight.mul_(100)  # looks that differ
    margin = torch.ones(SIZE, SIZE, dtype=torch.bool)
    margin[1:-1, 1:-1] = False
    last.weight[margin.flatten()] = 0
    last.bias[margin.flatten()] = -20  # black, as around digits
    true, _ = moving_pictures(vae)  # (V, T, z_dim)
    frames = vae.decode(true.flatten(0, 1)).unflatten(0, true.shape[:2])
    looks, places = vae.split(true)
    z_where = places - vae.centre_of_mass(vae.glyph(looks))
    off = looks + 0.3 * torch.randn(3, 1, 2, 4)
    given = torch.cat([off, z_where + vae.centre_of_mass(vae.glyph(off))], -1).flatten(2)
    log_sigma = torch.full_like(given, -1.0)
    improved = improve_looks(vae, frames, torch.stack([given, log_sigma], 2))
    assert torch.equal(improved[:, :, 1], log_sigma)

    def errors(means):
        _, places_of_it = vae.split(means)
        drawn = vae.decode(means.flatten(0, 1)).view_as(frames)
        return (drawn - frames).square().mean(), (places_of_it - places).square().mean()

    for before, after in zip(errors(given), errors(improved[:, :, 0]), strict=True):
        assert after < 0.2 * before
    _, z_where_after = vae.what_and_where(improved[:, :, 0])
    torch.testing.assert_close(z_where_after, z_where, rtol=0, atol=6e-4)  # 0.01 px


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
