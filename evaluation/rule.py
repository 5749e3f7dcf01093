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
SHIFT_WEIGHT = 0.4  # of a shift's square, as that of one place
BLOCK = 200  # sequences at a time


def predict(codec, latents, physics, size, horizon):
    """The frames (V, horizon, 1, height, width) to which the rule leads, with the last looks.

    codec: with slots; latents: (V, T, z_dim), means; physics: a name in `MOVES`; size: of digits,
    px. A digit's centre of mass is the middle of its square.
    """
    vae = codec.networks.vae
    looks, places = vae.split(latents)  # (V, T, S, W), (V, T, S, 2)
    room = 2 * vae.half_frame[0].item() - size
    corners = vae.to_pixels(places) - size / 2
    sequences = corners.movedim(1, 3)  # (V, S, 2, T)
    ahead = continue_paths(sequences.flatten(0, 2).cpu().numpy(), physics, room, horizon)
    ahead = torch.from_numpy(ahead).to(places).view(*sequences.shape[:3], horizon).movedim(3, 1)
    ahead = vae.from_pixels(ahead + size / 2)  # (V, horizon, S, 2)
    looks = looks[:, -1:].expand(-1, horizon, -1, -1)
    return codec.decode(torch.cat([looks, ahead], dim=-1).flatten(2))


def continue_paths(places, physics, room, horizon):
    """The next places (N, horizon) of sequences of places (N, T), px.

    Start p and velocity v of each path x(p, v), and a constant shift s, as objects do not fill
    their squares, minimise

        sum_t (place_t - x_t - s)^2 + 0.4 s^2

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
        misfit, _ = compare(places, simulate(tried, physics, room, count))
        tried = np.broadcast_to(tried, (len(places), *tried.shape[1:]))
        best = tried[np.arange(len(places)), misfit.argmin(1)]  # (N, 2)
        steps = steps / 3
        around = np.stack(np.meshgrid(AROUND, AROUND), axis=-1).reshape(1, -1, 2) * steps
        tried = best[:, None] + around  # (N, K, 2)
    path = simulate(best[:, None], physics, room, count + horizon)  # (N, 1, T + horizon)
    _, shift = compare(places, path[:, :, :count])
    return path[:, 0, count:] + shift


def simulate(tried, physics, room, steps):
    """Where objects are drawn, (..., K, steps) px, that start and move as tried (..., K, 2)."""
    both_axes = np.repeat(tried.reshape(-1, 1, 2, 1), 2, axis=3)  # (n, 1, 2, axes)
    path = MOVES[physics](both_axes[:, :, 0], both_axes[:, :, 1], steps, room)[:, :, 0, 0]
    if physics == "srivastava":  # drawn at whole pixels, half a pixel lower on average
        path = np.where((path <= 0) | (path >= room), path, path - 0.5)
    return path.reshape(*tried.shape[:-1], steps)


def compare(places, paths):
    """The misfit (N, K) of paths (N or 1, K, T) to places (N, T), and the best shifts (N, K)."""
    off = places[:, None] - paths  # (N, K, T)
    shift = off.sum(-1) / (off.shape[-1] + SHIFT_WEIGHT)
    return np.square(off).sum(-1) - shift * off.sum(-1), shift
