"""How digits move and are drawn: the original's trajectories and frames, and each physics' own
rules.
"""

from pathlib import Path

import numpy as np
import pytest

from data import bouncing
from data.bouncing import make_videos, move_2016, move_srivastava, move_svg

GOLDEN = np.load(Path(__file__).parent / "golden" / "moving_mnist.npz")
DIGITS = GOLDEN["digits_uint8"]
LABELS = np.arange(100, dtype=np.uint8) % 10


def make(videos=range(8), images=DIGITS, seed=0, **kwargs):
    options = {"physics": "2016", "frame_size": 64, "seq_len": 40, "nums_per_image": 2, **kwargs}
    return make_videos(images, LABELS, videos, [seed, 0], **options)


def test_2016_positions_are_the_originals_exactly():
    golden = GOLDEN["seed0_pos"]
    path = move_2016(golden[:, 0], GOLDEN["seed0_vel_before_step"][:, 0], 12, 36)
    assert np.array_equal(path, golden)
    assert np.array_equal(np.rint(path), GOLDEN["seed0_paste_xy"])


@pytest.mark.parametrize(
    ("key", "limit"),
    [
        ("seed2_traj_pos_60seq_60frames", 36),
        ("seed1_48x40_sz20_n3_pos", (28, 20)),
        ("seed3_30x30_traj_pos", 2),
    ],
)
def test_2016_long_trajectories(key, limit):
    golden = GOLDEN[key].astype(np.float64)
    limit, velocity = np.array(limit), golden[:, 1] - golden[:, 0]
    # A first step that ends outside was negated: its velocity pointed the other way.
    outside = (golden[:, 1] < -2) | (golden[:, 1] > limit + 2)
    path = move_2016(golden[:, 0], np.where(outside, -velocity, velocity), golden.shape[1], limit)
    assert np.abs(path - golden).max() < 1e-3


def test_frames_are_the_originals_but_saturate():
    """Fault 5 of the original: where digits overlap, grey levels wrapped modulo 256."""
    golden = GOLDEN["seed0_frames"].reshape(3, 12, 64, 64).swapaxes(2, 3)  # stored as (x, y)
    corners = GOLDEN["seed0_paste_xy"][..., ::-1].astype(np.int64)

    def alone(digits, corners, d):
        """Digits (n, 28, 28), each drawn alone along the path of digit d: (n, T, 64, 64)."""
        paths = np.repeat(corners[None, :, d : d + 1], len(digits), axis=0)
        return bouncing.draw(digits[:, None], paths, (64, 64), "sum")[:, :, 0]

    for v in range(3):
        # Which two of the 100 digits it was is not recorded: those that explain the first frame.
        first, second = (alone(DIGITS, corners[v, :1], d)[:, 0] for d in (0, 1))
        pairs = [
            [a, b]
            for a in range(100)
            for b in range(100)
            if np.array_equal(first[a] + second[b], golden[v, 0])
        ]
        assert len(pairs) == 1
        glyphs = DIGITS[pairs[0]]
        first, second = (alone(glyphs[d : d + 1], corners[v], d)[0].astype(int) for d in (0, 1))
        assert np.array_equal((first + second) % 256, golden[v])
        frames = bouncing.draw(glyphs[None], corners[v : v + 1], (64, 64), "sum")[0, :, 0]
        assert np.array_equal(frames, np.minimum(first + second, 255))


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_overlaps(combine):
    glyphs = np.array([[[[200]], [[100]]]], np.uint8)
    frame = bouncing.draw(glyphs, np.zeros((1, 1, 2, 2), np.int64), (2, 2), combine)[0, 0, 0]
    assert frame.tolist() == [[255 if combine == "sum" else 200, 0], [0, 0]]


def test_digits_may_overhang_every_edge():
    glyphs = np.full((1, 1, 3, 3), 9, np.uint8)
    corners = np.array([[-2, -2], [3, 3], [-5, 0]])[None, :, None]
    frames = bouncing.draw(glyphs, corners, (4, 4), "sum")[0, :, 0]
    assert [int(f.sum()) for f in frames] == [9, 9, 0]
    assert frames[0, 0, 0] == frames[1, 3, 3] == 9


def test_srivastava_against_their_rules_step_by_step():
    rng = np.random.default_rng(0)
    start, angle = rng.random(2), rng.random() * 6.28
    place, velocity, expected = start.copy(), 0.1 * np.array([np.sin(angle), np.cos(angle)]), []
    for _ in range(50):
        for axis in (0, 1):
            place[axis] += velocity[axis]
            if place[axis] <= 0 or place[axis] >= 1:
                place[axis] = min(max(place[axis], 0), 1)
                velocity[axis] *= -1
        expected.append(36 * place)
    speed = 3.6 * np.array([np.sin(angle), np.cos(angle)])
    path = move_srivastava(36 * start[None, None], speed[None, None], 50, 36)[0, :, 0]
    np.testing.assert_allclose(path, expected, atol=1e-9)


def test_svg_clamps_and_reverses():
    path = move_svg(np.array([[[1.0, 29.0]]]), np.array([[[-2.0, 2.0]]]), 4, 32)[0, :, 0]
    assert path.tolist() == [[1, 29], [0, 31], [2, 31], [4, 29]]


def test_svg_stochastic_against_their_rules_step_by_step():
    rng = np.random.default_rng(0)
    redrawn = np.stack([rng.integers(1, 5, (300, 2)), rng.integers(-4, 5, (300, 2))], -1)
    place, velocity, expected, hits = [3, 30], [-4, 2], [], 0
    for t in range(300):
        for axis in (0, 1):
            away, along = redrawn[t, axis]
            if not 0 <= place[axis] <= 31:
                hits += 1
                velocity[axis] = away if place[axis] < 0 else -away
                velocity[1 - axis] = along
                place[axis] = min(max(place[axis], 0), 31)
        expected.append(list(place))
        place = [p + v for p, v in zip(place, velocity, strict=True)]
    path = move_svg(np.array([[[3, 30]]]), np.array([[[-4, 2]]]), 300, 32, redrawn[None, :, None])[
        0, :, 0
    ]
    assert path.tolist() == expected
    assert hits > 20


@pytest.mark.parametrize("physics", bouncing.PHYSICS)
def test_same_bytes_whatever_the_chunking(physics):
    images = bouncing.resize(DIGITS, 32 if physics.startswith("svg") else 28)
    whole = make(range(9), images, physics=physics)
    parts = [make(range(first, first + 3), images, physics=physics) for first in (6, 0, 3)]
    for k, array in enumerate(whole):
        assert np.array_equal(array, np.concatenate([parts[1][k], parts[2][k], parts[0][k]]))
    assert not np.array_equal(whole[0], make(range(9), images, physics=physics, seed=1)[0])


@pytest.mark.parametrize("physics", bouncing.PHYSICS)
def test_positions_and_labels_tell_the_truth(physics):
    """Redrawing the labelled digits at the given positions gives the frames."""
    images = np.zeros((10, 28, 28), np.uint8)
    for digit in range(10):
        images[digit, digit : digit + 5, 3:20] = 25 * (digit + 1)
    frames, labels, positions = make(images=images, physics=physics)
    corners = (np.rint(positions) if physics == "2016" else positions).astype(np.int64)
    combine = "max" if physics == "srivastava" else "sum"
    assert np.array_equal(bouncing.draw(images[labels], corners, (64, 64), combine), frames)


def test_speeds_are_whole_and_within_2_to_6():
    _, _, positions = make(range(50))
    # the largest step along a path is its speed: bounces change directions only
    speeds = np.linalg.norm(np.diff(positions, axis=1), axis=-1)
    np.testing.assert_allclose(speeds, np.rint(speeds), atol=1e-4)
    assert set(np.rint(speeds).astype(int).ravel()) == {2, 3, 4, 5, 6}
