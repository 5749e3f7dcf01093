"""Bouncing digits: how they move (one function per benchmark's physics) and how they are drawn.

Places are (row, column) of a digit's top-left corner, in pixels. V videos, T frames, D digits.
"""

import numpy as np
from PIL import Image

PHYSICS = ("2016", "srivastava", "svg", "svg-stochastic")
# Pixels that a digit needs to move in. In 2016 physics, whose digits turn before a wall, a smaller box would be left.
ROOM = {"2016": 8, "srivastava": 1, "svg": 1, "svg-stochastic": 1}


def move_2016(position, velocity, steps, limit):
    """tencia/video_predict (2016): a frame is emitted, then the digit moves; it may pass a wall by up to 2 px.

    position, velocity: (V, D, 2), px and px/frame; limit: frame size minus digit size, scalar or (2,).
    An axis whose next place would leave [-2, limit + 2] is negated first and then added. Returns (V, T, D, 2).
    """
    path = np.empty((len(position), steps, *position.shape[1:]))
    for t in range(steps):
        path[:, t] = position
        ahead = position + velocity
        velocity = np.where((ahead < -2) | (ahead > limit + 2), -velocity, velocity)
        position = position + velocity
    return path


def move_srivastava(position, velocity, steps, limit):
    """Srivastava et al. 2015, "Unsupervised Learning of Video Representations using LSTMs", the field's benchmark.

    Same arguments and result as `move_2016`. The unit box is used inside: step, clamp to the wall and flip, record.
    """
    position, velocity = position / limit, velocity / limit
    path = np.empty((len(position), steps, *position.shape[1:]))
    for t in range(steps):
        position = position + velocity
        velocity = np.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = np.clip(position, 0, 1)
        path[:, t] = limit * position
    return path


def move_svg(position, velocity, steps, limit, redrawn=None):
    """Denton & Fergus 2018, "Stochastic Video Generation with a Learned Prior": whole px, clamp and reverse.

    Same arguments and result as `move_2016`; the last place is limit - 1 as in their code. With `redrawn`
    (V, T, D, 2, 2) a wall redraws both velocities: [..., a, 0] is the speed 1..4 away from the wall of axis a,
    [..., a, 1] the velocity -4..4 along it.
    """
    position, velocity = position.copy(), velocity.copy()
    path = np.empty((len(position), steps, *position.shape[1:]))
    for t in range(steps):
        for axis in (0, 1):
            low, high = position[..., axis] < 0, position[..., axis] >= limit
            hit = low | high
            position[..., axis] = np.clip(position[..., axis], 0, limit - 1)
            if redrawn is None:
                velocity[..., axis] = np.where(hit, -velocity[..., axis], velocity[..., axis])
            else:
                away, along = redrawn[:, t, :, axis, 0], redrawn[:, t, :, axis, 1]
                velocity[..., axis] = np.where(hit, np.where(low, away, -away), velocity[..., axis])
                velocity[..., 1 - axis] = np.where(hit, along, velocity[..., 1 - axis])
        path[:, t] = position
        position = position + velocity
    return path


def draw(glyphs, corners, frame_size, combine):
    """Paint digits on black frames.

    glyphs: (V, D, s, s) uint8; corners: (V, T, D, 2) int, may lie outside the frame; frame_size: (height, width);
    combine: "sum" (saturates at 255) or "max". Returns (V, T, 1, height, width) uint8.
    """
    videos, steps, digits = corners.shape[:3]
    size = glyphs.shape[-1]
    # A margin around the frame takes what overhangs, so that every digit is pasted whole.
    margin = max(0, -corners.min(initial=0), (corners.max((0, 1, 2), initial=0) + size - frame_size).max())
    height, width = frame_size[0] + 2 * margin, frame_size[1] + 2 * margin
    frame = np.arange(videos * steps)
    frames = None
    for d in range(digits):
        canvas = np.zeros((videos * steps, height, width), np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(canvas, (size, size), (1, 2), writeable=True)
        row, column = corners[:, :, d].reshape(-1, 2).T + margin
        windows[frame, row, column] = np.repeat(glyphs[:, d], steps, axis=0)
        if frames is None:
            frames = canvas
        elif combine == "max":
            np.maximum(frames, canvas, out=frames)
        else:
            frames += np.minimum(canvas, 255 - frames)
    frames = frames[:, margin : height - margin, margin : width - margin]
    return frames.reshape(videos, steps, 1, *frame_size)


def resize(digits, size):
    """Digits (n, 28, 28) uint8 at another size, bilinear: (n, size, size) uint8."""
    if digits.shape[1:] == (size, size):
        return digits
    return np.stack([np.asarray(Image.fromarray(d).resize((size, size), Image.Resampling.BILINEAR)) for d in digits])


def to_pixels(positions, physics):
    """The pixels at which digits at `positions` (..., 2) are drawn: the nearest, or those with the fraction cut off."""
    return (np.rint(positions) if physics == "2016" else np.trunc(positions)).astype(np.int64)


def make_videos(images, labels, videos, seed, *, physics, frame_size, seq_len, nums_per_image):
    """Videos of bouncing digits; video i depends on (seed, i) alone, so any chunking gives the same bytes.

    images: (n, s, s) uint8 and labels: (n,), the digits to draw from; videos: the indices i of the videos to make;
    seed: a list of ints; physics: one of PHYSICS. Returns frames (V, T, 1, frame_size, frame_size) uint8, labels
    (V, D) uint8 and positions (V, T, D, 2) float32 as simulated (drawn at the nearest pixel in "2016" physics, at
    the whole part in the others).
    """
    limit = frame_size - images.shape[-1]
    picked = np.empty((len(videos), nums_per_image), np.int64)
    position = np.empty((len(videos), nums_per_image, 2))
    velocity = np.empty_like(position)
    redrawn = np.empty((len(videos), seq_len, nums_per_image, 2, 2), np.int64)
    for v, i in enumerate(videos):
        rng = np.random.default_rng([*seed, i])
        picked[v] = rng.integers(len(images), size=nums_per_image)
        if physics in ("2016", "srivastava"):
            position[v] = rng.random((nums_per_image, 2)) * limit
            angle = rng.random(nums_per_image) * 2 * np.pi
            # 2016: whole px/frame; srivastava: a tenth of the box, 3.6 px/frame at the default sizes
            speed = rng.integers(2, 7, nums_per_image) if physics == "2016" else limit / 10
            velocity[v, :, 0], velocity[v, :, 1] = speed * np.sin(angle), speed * np.cos(angle)
        else:
            position[v] = rng.integers(limit, size=(nums_per_image, 2))
            velocity[v] = rng.integers(-4, 5, (nums_per_image, 2))
            if physics == "svg-stochastic":
                redrawn[v, ..., 0] = rng.integers(1, 5, redrawn.shape[1:-1])
                redrawn[v, ..., 1] = rng.integers(-4, 5, redrawn.shape[1:-1])
    if physics == "2016":
        positions = move_2016(position, velocity, seq_len, limit)
    elif physics == "srivastava":
        positions = move_srivastava(position, velocity, seq_len, limit)
    else:
        positions = move_svg(position, velocity, seq_len, limit, redrawn if physics == "svg-stochastic" else None)
    combine = "max" if physics == "srivastava" else "sum"
    frames = draw(images[picked], to_pixels(positions, physics), (frame_size, frame_size), combine)
    return frames, labels[picked], positions.astype(np.float32)
