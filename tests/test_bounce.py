"""Places that move between walls: `residuals.Bounce`."""

import numpy as np
import pytest
import torch

from data.bouncing import PHYSICS, move_2016, move_srivastava, move_svg
from models.lstm import LatentLSTM
from training.checkpoint_checks import check_config

SIZE = 36.0  # px that a digit has to move in
TO_PX = 32.0  # px of half a frame
MOVES = {"2016": move_2016, "srivastava": move_srivastava, "svg": move_svg}
# Of each physics: where an object turns and stops, low and high, in px; and (a, b).
WALLS = {
    "2016": ((-2, SIZE + 2), (0, 0), (0, 2)),
    "srivastava": ((0, SIZE), (0, SIZE), (1, 0)),
    "svg": ((-0.5, SIZE - 0.5), (0, SIZE - 1), (1, 0)),
}


def new_lstm(**config):
    torch.manual_seed(0)
    config = {"z_dim": 10, "n_hid": 8, "layers": 1, "dropout": 0.0, "loss": "mse", **config}
    return LatentLSTM(**config, residual="bounce", slots=2).eval()


def to_latents(paths):
    """Latents (V, T, 2, 10) with paths (V, T, 2, 2) in px, of the corner, for places."""
    places = torch.as_tensor(np.asarray(paths), dtype=torch.float32) / TO_PX - 0.5
    looks = torch.linspace(-1, 1, 6).view(2, 3).expand(*places.shape[:2], 2, 3)
    mean = torch.cat([looks, places], dim=-1).flatten(2)  # (V, T, 10)
    return torch.stack([mean, torch.full_like(mean, -5.0)], dim=2)


def to_paths(means):
    """Paths (V, T, 2, 2) in px of the means (V, T, 10) of latents."""
    return (means.unflatten(-1, (2, 5))[..., 3:] + 0.5) * TO_PX


def follow_exactly(lstm, turn, stop, rebound):
    """A network that takes over each place that it reads; walls in px."""
    residual = lstm.residual
    torch.nn.init.zeros_(residual.head.weight)
    torch.nn.init.zeros_(lstm.project.weight)
    with torch.no_grad():
        residual.head.bias[:4] = 30  # k_p and k_v of both axes
        residual.walls.zero_()
        for wall, ends in ((residual.turn, turn), (residual.stop, stop)):
            wall.copy_((torch.tensor(ends)[:, None] / TO_PX - 0.5) / residual.PIXEL)
        residual.rebound.copy_(torch.tensor(rebound))


def test_a_place_goes_on_and_the_look_stays():
    lstm = new_lstm()
    follow_exactly(lstm, (-1e3, 1e3), (-1e3, 1e3), (1, 0))
    velocity = torch.tensor([[1.5, -0.5], [0.25, 2.0]])
    paths = 10 + velocity * torch.arange(12.0)[:, None, None]  # (T, 2, 2)
    latents = to_latents(paths[None])
    means = lstm.rollout(latents[:, :4], 8)
    torch.testing.assert_close(to_paths(means)[0, 2:], paths[2:])
    torch.testing.assert_close(
        means.unflatten(-1, (2, 5))[..., :3], latents[:, :, 0].unflatten(-1, (2, 5))[..., :3]
    )


def test_a_silent_network_fits_a_line():
    """Far from walls, and with noise, what is predicted is the least-squares line's."""
    lstm = new_lstm()
    torch.nn.init.zeros_(lstm.residual.head.weight)
    torch.nn.init.zeros_(lstm.project.weight)
    follow = torch.arange(8.0)
    paths = 18 + 0.5 * follow[:, None, None] + 0.3 * torch.randn(8, 2, 2)  # (T, 2, 2)
    predicted = to_paths(lstm.rollout(to_latents(paths[None]), 3)).detach()[0, 8:]
    for axis in range(2):
        line = np.polyfit(follow, paths[:, 0, axis], 1)
        np.testing.assert_allclose(predicted[:, 0, axis], np.polyval(line, [8, 9, 10]), atol=0.1)


@pytest.mark.parametrize("physics", WALLS)
def test_every_physics_can_be_followed_exactly(physics):
    """With the right walls a rollout is the true path, from two places seen."""
    position = np.array([[[10.0, 20.0], [16.0, 12.0]], [[20.0, 16.0], [9.0, 25.0]]])
    velocity = np.array([[[3.0, -2.0], [1.0, 4.0]], [[-4.0, 2.0], [-2.0, -3.0]]])
    if physics != "svg":  # there pixels are whole, here no path ends just at a wall
        velocity = 1.03 * velocity
    paths = MOVES[physics](position, velocity, 60, SIZE)
    lstm = new_lstm()
    follow_exactly(lstm, *WALLS[physics])
    means = lstm.rollout(to_latents(paths[:, :3]), 57)
    np.testing.assert_allclose(to_paths(means).detach()[:, 2:], paths[:, 2:], atol=0.02)


def test_a_mirror():
    """With (a, b) = (2, 0) the path is mirrored where the wall is."""
    lstm = new_lstm()
    follow_exactly(lstm, (0, SIZE), (0, SIZE), (2, 0))
    straight = 10 + 2.7 * torch.arange(60.0)
    paths = SIZE - (straight % (2 * SIZE) - SIZE).abs()
    paths = paths[None, :, None, None].expand(1, 60, 2, 2)
    means = lstm.rollout(to_latents(paths)[:, :3], 57)
    torch.testing.assert_close(to_paths(means)[:, 2:], paths[:, 2:], rtol=0, atol=0.02)


def test_one_step_at_a_time_and_in_pieces():
    """The state carries the filter: pieces of a sequence give what all of it gives."""
    lstm = new_lstm()
    latents = to_latents(torch.rand(3, 9, 2, 2) * SIZE)
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


def test_slots_are_treated_alike():
    lstm = new_lstm()
    latents = to_latents(torch.rand(3, 5, 2, 2) * SIZE)
    swapped = latents.unflatten(-1, (2, 5)).flip(3).flatten(3)
    one = lstm.rollout(latents, 4)
    two = lstm.rollout(swapped, 4)
    torch.testing.assert_close(two, one.unflatten(-1, (2, 5)).flip(2).flatten(2))


def test_walls_begin_at_the_edge_of_the_training_places():
    lstm = new_lstm()
    latents = to_latents(torch.rand(300, 5, 2, 2) * SIZE)
    lstm.residual.start_from(latents[:, :, 0])
    in_px = (lstm.residual.walls + 0.5) * TO_PX  # (2, 2)
    torch.testing.assert_close(in_px[0], torch.zeros(2), rtol=0, atol=0.5)
    torch.testing.assert_close(in_px[1], torch.full((2,), SIZE), rtol=0, atol=0.5)


@pytest.mark.parametrize("physics", MOVES)
def test_what_walls_do_is_seen_in_the_training_places(physics):
    """Before any training: the first a and b, and paths that turn and stop where they should."""
    rng = np.random.default_rng(0)
    position = rng.uniform(0, SIZE - 1, (300, 2, 2))
    velocity = rng.uniform(2, 5, (300, 2, 2)) * rng.choice([-1, 1], (300, 2, 2))
    lstm = new_lstm()
    lstm.residual.start_from(to_latents(MOVES[physics](position, velocity, 20, SIZE))[:, :, 0])
    *_, rebound = WALLS[physics]
    torch.testing.assert_close(
        lstm.residual.rebound, torch.tensor(rebound).float(), rtol=0, atol=0.15
    )


@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("loss", ["distance", "mse", "weighted", "kl"])
def test_everything_learns(loss, peepholes):
    """A gradient reaches walls, their effect, the gains and the recurrent network."""
    lstm = new_lstm(loss=loss, peepholes=peepholes, free=5)
    lstm.residual.start_from(to_latents(torch.rand(300, 5, 2, 2) * SIZE)[:, :, 0])
    rng = np.random.default_rng(0)
    position = rng.uniform(0, SIZE, (64, 2, 2))
    velocity = rng.choice([-3.1, 3.1], (64, 2, 2))  # to both walls
    paths = move_srivastava(position, velocity, 12, SIZE)
    lstm(to_latents(paths))["loss"].backward()
    learned = dict(lstm.residual.named_parameters()) | dict(lstm.layers.named_parameters())
    for name, weight in learned.items():
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name
    assert (lstm.residual.turn.grad != 0).all()
    assert (lstm.residual.stop.grad != 0).all()


def test_it_is_of_slots():
    config = new_lstm().config
    check_config(config)
    with pytest.raises(ValueError, match="bounce is of slots"):
        check_config(config | {"slots": 0})


def test_all_physics_are_here():
    assert WALLS.keys() == set(PHYSICS) - {"svg-stochastic"}, "there a new velocity is drawn"


def test_a_mixture_draws_a_direction_for_each_slot():
    """Samples of two slots differ, and each goes on from what was drawn."""
    lstm = new_lstm(loss="mdn", mixtures=3)
    latents = to_latents(torch.rand(4, 6, 2, 2) * SIZE)
    torch.manual_seed(0)
    one, two = (lstm.rollout(latents, 3, temperature=1.0)[:, 6:] for _ in range(2))
    apart = (one - two).unflatten(-1, (2, 5))[..., 3:].abs()  # (4, 3, 2, 2)
    assert (apart > 0).all()
    mean = lstm.rollout(latents, 3)
    looks = mean.unflatten(-1, (2, 5))[..., :3]
    torch.testing.assert_close(looks[:, 6], latents[:, 5, 0].unflatten(-1, (2, 5))[..., :3])
    lstm.train()
    lstm(latents)["loss"].backward()
    assert lstm.residual.head.weight.grad.any()


def test_the_mixture_of_slots_is_one_for_each():
    """-log p of two slots is the sum of each slot's own."""
    torch.manual_seed(0)
    both = new_lstm(loss="mdn", mixtures=3)
    one = LatentLSTM(**both.config | {"z_dim": 5, "slots": 1}).eval()
    one.load_state_dict(both.state_dict())
    latents = to_latents(torch.rand(4, 6, 2, 2) * SIZE)
    apart = [one(slot)["loss"] for slot in latents.split(5, dim=-1)]
    torch.testing.assert_close(both(latents)["loss"], sum(apart))
