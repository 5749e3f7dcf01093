"""Slots whose places go on at their last speed: `residuals.Objects`."""

import pytest
import torch

from models.lstm import LatentLSTM
from training.checkpoint_checks import check_config


def new_lstm(**config):
    torch.manual_seed(0)
    config = {"z_dim": 10, "n_hid": 8, "layers": 1, "dropout": 0.0, "loss": "mse", **config}
    return LatentLSTM(**config, residual="objects", slots=2).eval()


def silent(lstm):
    """The network adds nothing."""
    torch.nn.init.zeros_(lstm.project.weight)
    torch.nn.init.zeros_(lstm.project.bias)
    return lstm


def random_latents(videos=3, steps=6):
    """Places are whole pixels from the first one."""
    mean = torch.rand(videos, 1, 10) - 0.5
    mean = mean + torch.randint(-8, 9, (videos, steps, 10)) / 32
    return torch.stack([mean, torch.full_like(mean, -5.0)], dim=2)


def looks_and_places(means):
    """Looks (..., 2, 3) and places (..., 2, 2) of means (..., 10)."""
    return means.unflatten(-1, (2, 5)).split([3, 2], dim=-1)


@torch.no_grad()
def test_a_place_goes_on_and_the_look_stays():
    latents = random_latents()
    means = silent(new_lstm()).rollout(latents, 4)
    looks, places = looks_and_places(means[:, 5:])  # of the last frame read, and after it
    _, before = looks_and_places(latents[:, 4:6, 0])
    speed = before[:, 1] - before[:, 0]
    for ahead in range(1, 5):
        torch.testing.assert_close(places[:, ahead], before[:, 1] + ahead * speed)
    last_looks, _ = looks_and_places(latents[:, 5, 0])
    torch.testing.assert_close(looks[:, 1:], last_looks[:, None].expand(-1, 4, -1, -1))


@torch.no_grad()
def test_walls_apply_to_the_pixel_that_a_place_lies_in():
    """Of two digits drawn at the same pixels, places may differ by a fraction of one."""
    lstm = new_lstm()
    steps = torch.randint(-8, 9, (3, 6, 10)) / 32
    pixel = torch.randint(20, 44, (3, 1, 10))

    def read(fraction):
        mean = (pixel + fraction + 0.5) / 32 - 1 + steps
        return what_is_read(lstm, torch.stack([mean, mean], dim=2))

    one, two, beyond = (read(fraction) for fraction in (0.1, -0.4, 0.6))
    is_fraction = torch.isin(torch.arange(one.shape[-1]), torch.tensor([4, 5]))
    torch.testing.assert_close(one[..., ~is_fraction], two[..., ~is_fraction])
    torch.testing.assert_close(one[..., is_fraction], torch.full((6, 6, 2), 0.1))
    assert not torch.allclose(one[..., ~is_fraction], beyond[..., ~is_fraction])


@torch.no_grad()
def test_places_are_read_at_whole_pixels_from_the_first():
    lstm = new_lstm()
    latents = random_latents(steps=9)
    off = latents.clone()
    off[:, 1:, 0, [3, 4, 8, 9]] += 0.49 / 32 * (2 * torch.rand(3, 8, 4) - 1)
    expected, _ = lstm.read_sequence(latents)
    outputs, _ = lstm.read_sequence(off)
    torch.testing.assert_close(outputs, expected)
    further = latents.clone()
    further[:, 1:, 0, 3] += 0.51 / 32
    assert not torch.allclose(lstm.read_sequence(further)[0], expected)


@torch.no_grad()
def test_a_pixel_is_one_of_the_frames():
    """The same pixels are read alike in frames of any size, but for the place in half frames."""
    square, wide = (new_lstm(frame_shape=(1, *size)) for size in ((64, 64), (32, 48)))
    latents = random_latents()
    off = 0.4 / 32 * torch.rand(3, 5, 2, 2)  # places of `latents` are whole pixels
    latents[:, 1:, 0].unflatten(-1, (2, 5))[..., 3:] += off
    same = latents.clone()
    places = same[:, :, 0].unflatten(-1, (2, 5))[..., 3:]
    places.copy_((places + 1) * torch.tensor([64 / 32, 64 / 48]) - 1)  # as far from the corner
    read = [what_is_read(lstm, each) for lstm, each in ((square, latents), (wide, same))]
    torch.testing.assert_close(read[0][..., 2:], read[1][..., 2:], atol=1e-4, rtol=0)


def what_is_read(lstm, latents):
    by_slot = lstm.layout.fold(latents)
    memory = lstm.residual.first_memory(by_slot[:, :, 0])
    return lstm.residual.inputs(lstm.residual.settle(by_slot, memory), memory)


@torch.no_grad()
def test_the_fraction_is_that_of_the_first_place():
    """One step at a time gives what a whole sequence gives: the state carries the fraction."""
    lstm = new_lstm()
    latents = random_latents(steps=9)
    outputs, _ = lstm.read_sequence(latents)
    for pieces in (latents.split(1, dim=1), latents.split(4, dim=1)):
        state = None
        in_pieces = []
        for piece in pieces:
            output, state = lstm.read_sequence(piece, state)
            in_pieces.append(output)
        torch.testing.assert_close(torch.cat(in_pieces, dim=1), outputs)
    unrolled = lstm.latent(lstm.unroll(latents, 4))[:, :, 0]
    torch.testing.assert_close(unrolled, lstm.rollout(latents, 5)[:, 1:])


@torch.no_grad()
def test_looks_do_not_change_places():
    lstm = new_lstm()
    latents = random_latents()
    other = latents.clone()
    other[:, :, 0, [0, 1, 2, 5, 6, 7]] += 1.0
    _, places = looks_and_places(lstm.rollout(latents, 4))
    _, same = looks_and_places(lstm.rollout(other, 4))
    torch.testing.assert_close(places, same)


@torch.no_grad()
def test_slots_are_treated_alike():
    lstm = new_lstm()
    latents = random_latents()
    swapped = latents.unflatten(-1, (2, 5)).flip(3).flatten(3)
    one = lstm.rollout(latents, 4)
    two = lstm.rollout(swapped, 4)
    torch.testing.assert_close(two, one.unflatten(-1, (2, 5)).flip(2).flatten(2))


def test_objects_are_slots():
    config = new_lstm().config
    check_config(config)
    with pytest.raises(ValueError, match="objects are slots"):
        check_config(config | {"slots": 0})


@torch.no_grad()
def test_a_mixture_draws_a_direction_for_each_slot():
    """Samples of two slots differ; looks stay."""
    lstm = new_lstm(loss="mdn", mixtures=3)
    latents = random_latents(4)
    torch.manual_seed(0)
    one, two = (lstm.rollout(latents, 3, temperature=1.0)[:, 6:] for _ in range(2))
    _, apart = looks_and_places((one - two).abs())
    assert (apart > 0).all()
    looks, _ = looks_and_places(one[:, 0])
    last_looks, _ = looks_and_places(latents[:, 5, 0])
    torch.testing.assert_close(looks, last_looks)


def test_the_mixture_of_slots_is_one_for_each():
    """-log p of two slots is the sum of each slot's own."""
    both = new_lstm(loss="mdn", mixtures=3)
    one = LatentLSTM(**both.config | {"z_dim": 5, "slots": 1}).eval()
    one.load_state_dict(both.state_dict())
    latents = random_latents(4)
    apart = [one(slot)["loss"] for slot in latents.split(5, dim=-1)]
    torch.testing.assert_close(both(latents)["loss"], sum(apart))
