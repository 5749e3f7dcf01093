"""The rule by which digits move, fitted to the places in a video's context. No network predicts.

Each axis of each object is a sequence of its own. N sequences, K paths that are tried.
"""

import numpy as np
import torch

from data.bouncing import OVERHANG, move_2016, move_srivastava, move_svg

MOVES = {"2016": move_2016, "srivastava": move_srivastava, "svg": move_svg}  # what is predictable
FASTEST = 7.0  # px per frame
FIRST_STEPS = (0.25, 0.125)  # px, and px per frame, between the paths that are tried first
ROUNDS = 4  # of trying paths around the best one, each with steps a third as large
AROUND = np.arange(-3, 4)  # steps to either side
BLOCK = 200  # sequences at a time


def predict(codec, latents, physics, size, horizon):
    """The frames (V, horizon, 1, height, width) to which the rule leads, with the last looks.

    codec: with slots; latents: (V, T, z_dim), means; physics: a name in `MOVES`; size: of digits,
    px. Digits are drawn at whole pixels, and MNIST's of 28 px have their centre of mass at most
    half a pixel from (14, 14): so rounding a place finds the square. Of digits of 32 px it is a
    pixel off on a tenth of the axes.
    """
    vae = codec.networks.vae
    looks, places = vae.split(latents)  # (V, T, S, W), (V, T, S, 2)
    room = 2 * vae.half_frame[0].item() - size
    exact = vae.to_pixels(places) - size / 2
    corners = exact.round()
    sequences = corners.movedim(1, 3)  # (V, S, 2, T)
    ahead = continue_paths(sequences.flatten(0, 2).cpu().numpy(), physics, room, horizon)
    ahead = torch.from_numpy(ahead).to(places).view(*sequences.shape[:3], horizon).movedim(3, 1)
    off_centre = (exact - corners).mean(1, keepdim=True)  # (V, 1, S, 2)
    ahead = vae.from_pixels(ahead + off_centre + size / 2)  # (V, horizon, S, 2)
    looks = looks[:, -1:].expand(-1, horizon, -1, -1)
    return codec.decode(torch.cat([looks, ahead], dim=-1).flatten(2))


def continue_paths(places, physics, room, horizon):
    """The next places (N, horizon) of sequences of places (N, T), px.

    Start p and velocity v of each path x(p, v) minimise sum_t (place_t - x_t)^2.

    physics: a name in `MOVES`; room: px that the corner of an object has to move in.
    """
    parts = [places[i : i + BLOCK] for i in range(0, len(places), BLOCK)]
    return np.concatenate([continue_some(part, physics, room, horizon) for part in parts])


def continue_some(places, physics, room, horizon):
    count = places.shape[1]
    starts = np.arange(-OVERHANG, room + OVERHANG, FIRST_STEPS[0])
    speeds = np.arange(-FASTEST, FASTEST, FIRST_STEPS[1])
    tried = np.stack(np.meshgrid(starts, speeds), axis=-1).reshape(1, -1, 2)  # (1, K, 2)
    steps = np.array(FIRST_STEPS)
    for _ in range(1 + ROUNDS):
        paths = simulate(tried, physics, room, count)  # (N or 1, K, T)
        misfit = np.square(places[:, None] - paths).sum(-1)  # (N, K)
        tried = np.broadcast_to(tried, (len(places), *tried.shape[1:]))
        best = tried[np.arange(len(places)), misfit.argmin(1)]  # (N, 2)
        steps = steps / 3
        around = np.stack(np.meshgrid(AROUND, AROUND), axis=-1).reshape(1, -1, 2) * steps
        tried = best[:, None] + around  # (N, K, 2)
    return simulate(best, physics, room, count + horizon)[:, count:]


def simulate(tried, physics, room, steps):
    """Where objects are drawn, (..., K, steps) px, that start and move as tried (..., K, 2)."""
    both_axes = np.repeat(tried.reshape(-1, 1, 2, 1), 2, axis=3)  # (n, 1, 2, axes)
    path = MOVES[physics](both_axes[:, :, 0], both_axes[:, :, 1], steps, room)[:, :, 0, 0]
    if physics == "srivastava":  # drawn at whole pixels, half a pixel lower on average
        path = np.where((path <= 0) | (path >= room), path, path - 0.5)
    return path.reshape(*tried.shape[:-1], steps)
