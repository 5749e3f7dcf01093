"""Bouncing digits: how they move (one function per benchmark's physics) and how they are drawn.

Positions are (row, column) of a digit's top-left corner, in pixels. V videos, T frames, D digits.
"""

import numpy as np
from PIL import Image

PHYSICS = ("2016", "srivastava", "svg", "svg-stochastic")
# Pixels that a digit needs to move in. In 2016 physics digits turn before they reach a wall: a
# smaller box would be left.
ROOM = {"2016": 8, "srivastava": 1, "svg": 1, "svg-stochastic": 1}
OVERHANG = 2  # px: how far a digit may pass a wall in 2016 physics
SPEEDS_2016 = (2, 7)  # px/frame, the last one excluded
FRAMES_PER_BOX = 10  # srivastava: to cross it; 3.6 px/frame at the default sizes
SVG_SPEED = 4  # px/frame at most, per axis


def move_2016(position, velocity, steps, limit):
    """tencia/video_predict (2016): a frame is emitted, then the digit moves, a bit past a wall.

    position, velocity: (V, D, 2), px and px/frame; limit: frame size minus digit size, scalar or
    (2,). Where the next position on an axis would lie outside of [-2, limit + 2], the velocity is
    negated first, then added. Returns (V, T, D, 2).
    """
    path = np.empty((len(position), steps, *position.shape[1:]))
    for t in range(steps):
        path[:, t] = position
        ahead = position + velocity
        is_outside = (ahead < -OVERHANG) | (ahead > limit + OVERHANG)
        velocity = np.where(is_outside, -velocity, velocity)
        position = position + velocity
    return path


def move_srivastava(position, velocity, steps, limit):
    """Srivastava et al. 2015, "Unsupervised Learning of Video Representations using LSTMs".

    The field's benchmark. Same arguments and result as `move_2016`. Inside, the box is the unit
    square: step, clamp to the wall and flip, record.
    """
    position = position / limit
    velocity = velocity / limit
    path = np.empty((len(position), steps, *position.shape[1:]))
    for t in range(steps):
        position = position + velocity
        velocity = np.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = np.clip(position, 0, 1)
        path[:, t] = limit * position
    return path


def move_svg(position, velocity, steps, limit, redrawn=None):
    """Denton & Fergus 2018, "Stochastic Video Generation with a Learned Prior".

    Whole pixels; clamp and reverse. Same arguments and result as `move_2016`; the last position is
    limit - 1, as in their code. With `redrawn` (V, T, D, 2, 2) a wall redraws both velocities:
    [..., a, 0] is the speed 1..4 away from the wall of axis a, [..., a, 1] the velocity -4..4 along
    it.
    """
    position = position.copy()
    velocity = velocity.copy()
    path = np.empty((len(position), steps, *position.shape[1:]))
    for t in range(steps):
        for axis in (0, 1):
            other = 1 - axis
            is_low = position[..., axis] < 0
            hit = is_low | (position[..., axis] >= limit)
            position[..., axis] = np.clip(position[..., axis], 0, limit - 1)
            if redrawn is None:
                velocity[..., axis] = np.where(hit, -velocity[..., axis], velocity[..., axis])
            else:
                away = redrawn[:, t, :, axis, 0]
                along = redrawn[:, t, :, axis, 1]
                bounced = np.where(is_low, away, -away)
                velocity[..., axis] = np.where(hit, bounced, velocity[..., axis])
                velocity[..., other] = np.where(hit, along, velocity[..., other])
        path[:, t] = position
        position = position + velocity
    return path


def draw(glyphs, corners, frame_size, combine):
    """Paint digits on black frames.

    glyphs: (V, D, s, s) uint8; corners: (V, T, D, 2) int, may lie outside the frame; frame_size:
    (height, width); combine: "sum" (saturates at 255) or "max". Returns (V, T, 1, height, width)
    uint8.
    """
    videos, steps, digits = corners.shape[:3]
    size = glyphs.shape[-1]
    # Margins around the frame take what overhangs, so that each digit can be pasted uncut.
    far = (corners.max((0, 1, 2), initial=0) + size - frame_size).max()
    margin = max(0, -corners.min(initial=0), far)
    height = frame_size[0] + 2 * margin
    width = frame_size[1] + 2 * margin
    frame = np.arange(videos * steps)
    frames = None
    for d in range(digits):
        canvas = np.zeros((videos * steps, height, width), np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(
            canvas, (size, size), (1, 2), writeable=True
        )
        row, column = corners[:, :, d].reshape(-1, 2).T + margin  # (V*T,) each
        windows[frame, row, column] = np.repeat(glyphs[:, d], steps, axis=0)  # (V*T, s, s)
        if frames is None:
            frames = canvas
        elif combine == "max":
            np.maximum(frames, canvas, out=frames)
        else:
            frames += np.minimum(canvas, 255 - frames)
    frames = frames[:, margin : height - margin, margin : width - margin]
    return frames.reshape(videos, steps, 1, *frame_size)  # (V, T, 1, height, width)


def resize(digits, size):
    """Digits (n, 28, 28) uint8 at another size, bilinear: (n, size, size) uint8."""
    if digits.shape[1:] == (size, size):
        return digits
    bilinear = Image.Resampling.BILINEAR
    return np.stack([Image.fromarray(digit).resize((size, size), bilinear) for digit in digits])


def to_pixels(positions, physics):
    """The pixels at which digits are drawn, (..., 2): rounded in 2016, else truncated."""
    whole = np.rint(positions) if physics == "2016" else np.trunc(positions)
    return whole.astype(np.int64)


def make_videos(images, labels, videos, seed, *, physics, frame_size, seq_len, nums_per_image):
    """Videos of bouncing digits.

    Video i depends on (seed, i) alone, so any division into batches gives the same bytes.
    images: (n, s, s) uint8 and labels: (n,), the digits to draw from; videos: the indices i to
    make; seed: a list of ints; physics: one of PHYSICS. Returns frames (V, T, 1, frame_size,
    frame_size) uint8, labels (V, D) uint8 and positions (V, T, D, 2) float32 as simulated;
    `to_pixels` says where they are drawn.
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
            speed = limit / FRAMES_PER_BOX
            if physics == "2016":
                speed = rng.integers(*SPEEDS_2016, nums_per_image)
            velocity[v, :, 0] = speed * np.sin(angle)
            velocity[v, :, 1] = speed * np.cos(angle)
        else:
            position[v] = rng.integers(limit, size=(nums_per_image, 2))
            velocity[v] = rng.integers(-SVG_SPEED, SVG_SPEED + 1, (nums_per_image, 2))
            if physics == "svg-stochastic":
                hits = redrawn.shape[1:-1]  # (T, D, 2)
                redrawn[v, ..., 0] = rng.integers(1, SVG_SPEED + 1, hits)
                redrawn[v, ..., 1] = rng.integers(-SVG_SPEED, SVG_SPEED + 1, hits)
    if physics == "2016":
        positions = move_2016(position, velocity, seq_len, limit)
    elif physics == "srivastava":
        positions = move_srivastava(position, velocity, seq_len, limit)
    elif physics == "svg":
        positions = move_svg(position, velocity, seq_len, limit)
    else:
        positions = move_svg(position, velocity, seq_len, limit, redrawn)
    combine = "max" if physics == "srivastava" else "sum"
    corners = to_pixels(positions, physics)
    frames = draw(images[picked], corners, (frame_size, frame_size), combine)
    return frames, labels[picked], positions.astype(np.float32)
