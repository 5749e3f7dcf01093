"""Films to frames, on tiny films made here: what is kept, at which rate, in which shots, and what
is refused.
"""

import itertools
import os
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from conftest import run
from PIL import Image, features
from test_errors import contents
from tifffile import TiffWriter

import movie_frames
import moving_mnist
from data import footage, hdf5, shots
from data.movie import Film
from runtime import cli
from runtime.errors import UserError

RATE = 10
RNG = np.random.default_rng(0)
SCENES = (
    RNG.integers(40, 256, (12, 6, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
)  # 48 x 64 pixels, blocks of colour


def film(path, pictures, times=None, codec="ffv1", pixels=None, rate=RATE, aspect=None):
    """A film of `pictures` (height, width, colours); `times`: each one's milliseconds, if not at a
    constant rate.
    """
    form = {1: "gray", 3: "rgb24", 4: "rgba"}[pictures[0].shape[2]]
    options = (
        {"movflags": "faststart"} if str(path).endswith("mp4") else {}
    )  # the index first, for a part to be readable
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        height, width = pictures[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, pixels or "bgr0"
        if codec == "libx264":
            stream.options = {"qp": "0", "g": "5"}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(
                picture[..., 0] if form == "gray" else picture, format=form
            )
            frame.pts = i if times is None else times[i]
            frame.time_base = Fraction(1, rate) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def still(value, height=48, width=64):
    return np.full((height, width, 3), value, np.uint8)


def make(tmp_path, *argv):
    """Run the stage; the file's attributes and, of each split, frames and starts."""
    dest = tmp_path / "out" / "movie.hdf5"
    run(movie_frames, *argv, "--dest", dest, "--frame_size", 16, "--min_frames", 1)
    assert [path.name for path in dest.parent.iterdir()] == ["movie.hdf5"]
    with h5py.File(dest) as file:
        assert all(file[split]["frames"].chunks is None for split in hdf5.SPLITS)
        splits = {
            split: (file[split]["frames"][:], file[split]["starts"][:]) for split in hdf5.SPLITS
        }
        return dict(file.attrs), splits


ALL = ["--split", "100/0/0", "--no-detect_cuts"]


def frames_of(tmp_path, *argv):
    """All frames that the stage takes, (N, 3, height, width)."""
    return make(tmp_path, *argv, *ALL)[1]["train"][0]


def levels(frames):
    """The grey level of each of a film's frames."""
    return frames.mean((1, 2, 3)).round().astype(int)


def test_the_file_is_what_the_next_stage_reads(tmp_path, capsys):
    path = film(tmp_path / "a.mkv", [SCENES[i // 5] for i in range(30)])
    about, splits = make(tmp_path, path, "--split", "60/20/20")
    assert about["source"] == about["films"] == b"a.mkv"
    assert (about["frame_rate"], about["frame_skip"], about["detect_cuts"]) == (RATE, 3, True)
    frames = hdf5.Frames(tmp_path / "out" / "movie.hdf5", "train")
    assert frames.shape[1:] == (3, 16, 21)
    assert isinstance(frames.array, np.memmap)
    assert (
        "20 train frames (shots: 4), 5 valid frames (shots: 1), 5 test frames (shots: 1), 21x16"
        in capsys.readouterr().out
    )
    assert sum(len(rows) for rows, _ in splits.values()) == 30


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(48, 64, (16, 21)), (64, 48, (21, 16)), (33, 47, (16, 23))]
)
def test_short_edge_aspect_and_odd_sizes(tmp_path, height, width, shape):
    path = film(tmp_path / "a.mkv", [still(200, height, width)] * 3)
    frames = frames_of(tmp_path, path)
    assert frames.shape == (3, 3, *shape)
    assert abs(frames.astype(int) - 200).max() <= 1


def test_pixels_are_averaged_not_picked(tmp_path):
    checks = np.where(np.indices((96, 128)).sum(0) % 2, 255, 0).astype(np.uint8)
    frames = frames_of(tmp_path, film(tmp_path / "a.mkv", [checks[..., None].repeat(3, 2)] * 2))
    assert abs(frames.astype(int) - 127).max() <= 6


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "gray"])
def test_other_pixels_become_rgb(tmp_path, pixels):
    colour = (200, 200, 200) if pixels == "gray" else (220, 60, 30)
    frames = frames_of(tmp_path, film(tmp_path / "a.mkv", [still(colour)] * 2, pixels=pixels))
    assert abs(frames[0, :, 8, 10].astype(int) - colour).max() <= 3


def test_alpha_is_flattened_on_black_and_sixteen_bits_are_scaled(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.full((32, 32, 4), (200, 100, 50, 128), np.uint8)).save(folder / "0.png")
    Image.fromarray(np.full((32, 32, 4), (200, 100, 50, 0), np.uint8)).save(folder / "1.png")
    Image.fromarray(np.full((32, 32), 128 * 257, np.uint16)).save(folder / "2.png")
    Image.fromarray(np.full((32, 32), 77, np.uint8)).save(folder / "3.png")
    frames = frames_of(tmp_path, folder).astype(int)
    expected = [(100, 50, 25), (0, 0, 0), (128, 128, 128), (77, 77, 77)]
    assert abs(frames[:, :, 8, 8] - expected).max() <= 1


def test_pictures_come_in_natural_order_at_the_rate_given(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(1, 13):
        Image.fromarray(still(20 * i)).save(folder / f"frame{i}.png")
    (folder / "notes.txt").write_text("not a picture, and not named like one")
    about, splits = make(tmp_path, folder, "--fps", 6, *ALL)
    assert about["frame_rate"] == 6
    assert levels(splits["train"][0]).tolist() == [20 * i for i in range(1, 13)]


QUADRANTS = np.zeros((48, 64, 3), np.uint8)
QUADRANTS[:24, :32], QUADRANTS[:24, 32:], QUADRANTS[24:, :32] = (
    (220, 40, 40),
    (40, 220, 40),
    (40, 40, 220),
)
# EXIF's eight orientations: how Pillow sets each upright, and the matrix of a film that asks for
# the same.
ORIENTATIONS = {
    1: (None, (1, 0, 0, 1)),
    2: (Image.Transpose.FLIP_LEFT_RIGHT, (-1, 0, 0, 1)),
    3: (Image.Transpose.ROTATE_180, (-1, 0, 0, -1)),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, (1, 0, 0, -1)),
    5: (Image.Transpose.TRANSPOSE, (0, 1, 1, 0)),
    6: (Image.Transpose.ROTATE_270, (0, 1, -1, 0)),
    7: (Image.Transpose.TRANSVERSE, (0, -1, -1, 0)),
    8: (Image.Transpose.ROTATE_90, (0, -1, 1, 0)),
}
UNDONE = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}


def stored(orientation):
    """QUADRANTS as a camera stores them that notes this orientation."""
    how = ORIENTATIONS[orientation][0]
    picture = Image.fromarray(QUADRANTS)
    return picture if how is None else picture.transpose(UNDONE.get(how, how))


def assert_upright(frames):
    assert frames.shape[1:] == (3, 16, 21)
    for y, x in itertools.product((4, 12), (5, 16)):
        assert abs(frames[-1, :, y, x].astype(int) - QUADRANTS[3 * y, 3 * x]).max() < 12


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_pictures_are_set_upright(tmp_path, suffix):
    """All eight orientations, as the frames of one film."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for orientation in ORIENTATIONS:
        stored(orientation).save(
            folder / f"{orientation}.{suffix}", exif=exif(orientation), quality=95
        )
    frames = frames_of(tmp_path, folder)
    assert len(frames) == 8
    for i in range(8):
        assert_upright(frames[i : i + 1])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_films_are_set_upright(tmp_path, orientation):
    """A phone stores frames as its sensor lies, and a matrix beside them."""
    path = film(
        tmp_path / "a.mp4", [np.array(stored(orientation))] * 2, codec="libx264", pixels="yuv444p"
    )
    a, b, c, d = (number << 16 for number in ORIENTATIONS[orientation][1])
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert_upright(frames_of(tmp_path, path))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_wide_pixels_are_made_square(tmp_path):
    """DVDs store 4:3 and 16:9 in the same pixels."""
    path = film(
        tmp_path / "a.mp4",
        [still(9, 64, 64)] * 3,
        codec="libx264",
        pixels="yuv420p",
        aspect=Fraction(2, 1),
    )
    assert frames_of(tmp_path, path).shape == (3, 3, 16, 32)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("ffv1", "mkv"), ("libx264", "mp4"), ("libx264", "ts")]
)
def test_every_frame_once_at_the_films_own_rate(tmp_path, codec, suffix):
    pixels = None if codec == "ffv1" else "yuv444p"
    path = film(
        tmp_path / f"a.{suffix}",
        [still(8 * i) for i in range(30)],
        codec=codec,
        pixels=pixels,
        rate=24,
    )
    about, splits = make(tmp_path, path, *ALL)
    assert about["frame_rate"] == 24
    assert abs(levels(splits["train"][0]) - 8 * np.arange(30)).max() <= 3


def test_raw_streams_without_times(tmp_path):
    path = film(
        tmp_path / "a.h264", [still(8 * i) for i in range(30)], codec="libx264", pixels="yuv444p"
    )
    assert abs(levels(frames_of(tmp_path, path)) - 8 * np.arange(30)).max() <= 3


def test_times_out_of_order(tmp_path):
    """AVI has no room for the times of frames stored out of order."""
    path = film(
        tmp_path / "a.avi", [still(8 * i) for i in range(30)], codec="libx264", pixels="yuv444p"
    )
    got = levels(frames_of(tmp_path, path))
    assert len(got) == 30
    assert (np.diff(got[3:-3]) > 0).all()


def test_times_that_start_over(tmp_path):
    """A DVD's files, put end to end."""
    parts = [
        film(
            tmp_path / f"{i}.ts",
            [still(120 * i + 4 * j) for j in range(30)],
            codec="libx264",
            pixels="yuv444p",
        )
        for i in range(2)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    about, splits = make(tmp_path, path, *ALL)
    assert about["frame_rate"] == RATE
    assert abs(levels(splits["train"][0]) - 4 * np.arange(60)).max() <= 3


def test_colours_are_as_sharp_as_the_small_frame(tmp_path):
    red_and_blue = np.array([[[255, 0, 0], [0, 0, 255]] * 8], np.uint8).repeat(64, 0).repeat(4, 1)
    frames = frames_of(tmp_path, film(tmp_path / "a.mkv", [red_and_blue] * 2, pixels="yuv420p"))
    assert abs(frames[0].transpose(1, 2, 0).astype(int) - red_and_blue[:16, ::4]).max() <= 6


def test_a_lower_rate_takes_frames_by_time(tmp_path):
    path = film(tmp_path / "a.mkv", [still(8 * i) for i in range(30)])
    assert levels(frames_of(tmp_path, path, "--fps", 5)).tolist() == [16 * i + 8 for i in range(15)]


def test_variable_rate_is_taken_at_a_constant_one(tmp_path):
    """Ten frames in the first second, two in the next: each second gives as many."""
    times = [*range(0, 1000, 100), 1000, 1500, 2000]
    path = film(tmp_path / "a.mkv", [still(10 * (i + 1)) for i in range(13)], times)
    about, splits = make(tmp_path, path, "--fps", 4, *ALL)
    assert about["frame_rate"] == 4
    assert levels(splits["train"][0]).tolist() == [20, 40, 70, 90, 110, 110, 120, 120, 130]


def test_start_and_end_select_seconds(tmp_path):
    path = film(
        tmp_path / "a.mp4", [still(8 * i) for i in range(30)], codec="libx264", pixels="yuv444p"
    )
    got = levels(frames_of(tmp_path, path, "--start", 1.2, "--end", 2))
    assert abs(got - 8 * np.arange(12, 20)).max() <= 3


@pytest.mark.parametrize(
    "flags", ["--start 2.97", "--start 2.9999", "--start 1 --end 1.001", "--fps 0.001"]
)
def test_however_short_the_selection_it_has_a_frame(tmp_path, flags):
    path = film(
        tmp_path / "a.mp4", [still(8 * i) for i in range(30)], codec="libx264", pixels="yuv444p"
    )
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(30):
        Image.fromarray(still(8 * i)).save(folder / f"{i}.png")
    wanted = 8 * {"--start 2": 29, "--start 1": 10, "--fps 0.0": 29}[flags[:9]]
    assert abs(levels(frames_of(tmp_path, path, *flags.split())) - wanted).max() <= 3
    (tmp_path / "out" / "movie.hdf5").unlink()
    if "--fps" not in flags:  # which would be the pictures' own
        assert levels(frames_of(tmp_path, folder, *flags.split(), "--fps", 10)).tolist() == [wanted]


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4", "ts"])
def test_a_whole_file_that_begins_late_is_not_called_damaged(tmp_path, capsys, suffix):
    codec, pixels = ("libvpx", "yuv420p") if suffix == "webm" else ("libx264", "yuv444p")
    times = [5000 + 100 * i for i in range(40)]
    path = film(
        tmp_path / f"late.{suffix}", [still(6 * i) for i in range(40)], times, codec, pixels
    )
    assert len(frames_of(tmp_path, path)) == 40
    assert "damaged" not in capsys.readouterr().out


def test_packets_know_the_rate_better_than_the_header(tmp_path):
    times = [33 * i for i in range(60)]
    path = film(
        tmp_path / "a.mkv", [still(4 * i) for i in range(60)], times, "libx264", "yuv444p", rate=15
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 15
    about, splits = make(tmp_path, path, *ALL)
    assert abs(about["frame_rate"] - 1000 / 33) < 0.01
    assert abs(levels(splits["train"][0]) - 4 * np.arange(60)).max() <= 3


@pytest.mark.parametrize("rows", [True, False])
def test_crop_bars(tmp_path, rows):
    """Bars at the edges go, though some frames are black all over."""
    picture = still(3, 64, 64)
    picture[(slice(12, 52), slice(None)) if rows else (slice(None), slice(12, 52))] = 200
    path = film(tmp_path / "a.mkv", [still(0, 64, 64), *[picture] * 30])
    frames = frames_of(tmp_path, path, "--crop_bars")
    assert frames.shape == (31, 3, 16, 26) if rows else (31, 3, 26, 16)
    assert frames[1:].min() >= 199


def test_bright_lines_far_apart_are_not_cropped(tmp_path):
    picture = still(0, 480, 64)
    picture[[0, -1]] = 255
    assert frames_of(tmp_path, film(tmp_path / "a.mkv", [picture] * 3), "--crop_bars").shape[
        2:
    ] == (120, 16)


def test_a_black_film_is_not_cropped(tmp_path):
    assert frames_of(tmp_path, film(tmp_path / "a.mkv", [still(0)] * 3), "--crop_bars").shape == (
        3,
        3,
        16,
        21,
    )


def cuts_in(pictures):
    frames = np.stack(pictures).transpose(0, 3, 1, 2)
    differences = np.array(
        [0, *(shots.difference(a, b) for a, b in zip(frames[1:], frames, strict=False))]
    )
    return shots.find_cuts(frames, differences, frames.mean((1, 2, 3)))


def shaking(scene, count):
    """A scene with noise and a jerk in it."""
    return [np.roll(scene, i % 2, 1) for i in range(count)]


def test_cuts_are_found_where_they_are():
    lengths = [9, 30, 6, 20]
    pictures = [p for scene, n in zip(SCENES, lengths, strict=False) for p in shaking(scene, n)]
    assert cuts_in(pictures) == [9, 39, 45]


def test_no_cut_in_a_pan_a_flash_or_slow_frames():
    wide = np.concatenate(list(SCENES), 1)
    pan = [wide[:, 4 * i : 4 * i + 64] for i in range(60)]
    assert shots.difference(pan[0], pan[1]) > shots.FLOOR  # fast enough to tell something
    assert cuts_in(pan) == []
    assert cuts_in([wide[:, 8 * (i // 2) :][:, :64] for i in range(60)]) == []  # drawn on twos
    assert cuts_in([*[SCENES[0]] * 10, *[still(255)] * 3, *[SCENES[0]] * 10]) == []


def test_a_fade_through_black_is_a_cut_and_fades_at_the_ends_are_not():
    def fade(scene, levels):
        return [np.uint8(scene * level) for level in levels]

    down, up = np.linspace(1, 0, 20), np.linspace(0, 1, 20)
    pictures = [
        *fade(SCENES[0], up),
        *fade(SCENES[0], down),
        *fade(SCENES[1], up),
        *fade(SCENES[1], down),
    ]
    assert cuts_in(pictures) == [40]


def test_a_film_gives_a_video_for_each_shot(tmp_path):
    path = film(
        tmp_path / "a.mkv", [SCENES[i] for i, n in enumerate([8, 7, 12, 9]) for _ in range(n)]
    )
    _, splits = make(tmp_path, path, "--split", "1/1/1")
    assert [starts.tolist() for _, starts in splits.values()] == [[0, 8, 15], [0, 12], [0, 9]]
    for rows, starts in splits.values():
        for a, b in itertools.pairwise(starts):
            assert (rows[a:b] == rows[a]).all()


@pytest.mark.parametrize(
    "shares", [(80, 10, 10), (1, 1, 1), (0, 1, 1), (5, 0, 5), (1, 1, 0), (0, 0, 1)]
)
def test_no_shot_is_in_two_splits(shares):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        cuts = sorted(rng.choice(np.arange(3, 400), rng.integers(2, 20), replace=False).tolist())
        whole = [(a, b) for a, b in zip([0, *cuts], [*cuts, 400], strict=True) if b - a >= 5]
        spans = shots.divide(400, cuts, shares, 10, 5)
        if len(whole) >= 3:
            assert [
                span for split in hdf5.SPLITS for span in spans[split]
            ] == whole  # whole, once, in time order
            assert [len(spans[split]) > 0 for split in hdf5.SPLITS] == [
                share > 0 for share in shares
            ]


def test_bounds_are_the_nearest_cuts():
    spans = shots.divide(100, [10, 50, 78, 84, 91], (80, 10, 10), 10, 2)
    assert spans == {
        "train": [(0, 10), (10, 50), (50, 78)],
        "valid": [(78, 84), (84, 91)],
        "test": [(91, 100)],
    }


@pytest.mark.parametrize("flag", ["--detect_cuts", "--no-detect_cuts"])
def test_a_film_without_cuts_is_split_by_time_with_a_second_left_out(tmp_path, flag):
    path = film(tmp_path / "a.mkv", [still(2 * i) for i in range(100)])
    _, splits = make(tmp_path, path, flag, "--split", "60/20/20")
    times = {split: levels(rows) // 2 for split, (rows, _) in splits.items()}
    assert times["train"][0] == 0
    assert times["test"][-1] == 99
    for before, after in [("train", "valid"), ("valid", "test")]:
        assert times[after][0] - times[before][-1] == RATE + 1
    assert [len(starts) for _, starts in splits.values()] == [2, 2, 2]


def test_films_are_split_each_and_share_a_size_and_a_rate(tmp_path):
    first = film(tmp_path / "a.mkv", [SCENES[i // 10] for i in range(30)])
    second = film(tmp_path / "b.mkv", [SCENES[3 + i // 20] for i in range(60)], rate=20)
    about, splits = make(tmp_path, first, second, "--split", "1/1/1")
    assert (about["source"], about["frame_rate"]) == (b"a.mkv,b.mkv", RATE)
    for i, (rows, starts) in enumerate(splits.values()):
        assert starts.tolist() == [0, 10, 20]
        assert abs(rows[0].astype(int).mean() - SCENES[i].mean()) < 2
        assert abs(rows[10].astype(int).mean() - SCENES[3 + i].mean()) < 2


def test_each_shot_has_its_films_name(tmp_path):
    folder = tmp_path / "films"
    (folder / "walking").mkdir(parents=True)
    film(folder / "Kühe.mkv", [SCENES[i // 10] for i in range(30)])
    film(folder / "walking" / "a.mkv", [SCENES[3 + i // 10] for i in range(30)])
    make(tmp_path, folder, "--split", "2/1/0")
    dest = tmp_path / "out" / "movie.hdf5"
    names = ["Kühe.mkv", "walking/a.mkv"]
    assert hdf5.Frames(dest, "train").films().tolist() == [names[0]] * 2 + [names[1]] * 2
    assert hdf5.Frames(dest, "valid").films().tolist() == names
    with h5py.File(dest) as file:
        assert len(file["test/films"]) == 0


def test_films_of_one_name_in_two_folders_are_two(tmp_path):
    paths = [tmp_path / "one" / "a.mkv", tmp_path / "two" / "a.mkv"]
    for path in paths:
        path.parent.mkdir()
        film(path, [SCENES[0]] * 5)
    make(tmp_path, *paths, *ALL)
    names = hdf5.Frames(tmp_path / "out" / "movie.hdf5", "train").films()
    assert names.tolist() == ["one/a.mkv", "two/a.mkv"]


def animation(path, levels, **options):
    first, *rest = [Image.fromarray(still(level)) for level in levels]
    first.save(path, save_all=True, append_images=rest, **options)
    return path


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif", "tif"])
def test_every_frame_of_an_animation(tmp_path, suffix):
    if suffix == "avif" and "avif" not in features.get_supported():
        pytest.skip("this Pillow reads no AVIF")
    path = animation(tmp_path / f"a.{suffix}", range(0, 240, 20), duration=40)
    about, splits = make(tmp_path, path, *ALL)
    assert abs(about["frame_rate"] - (24 if suffix == "tif" else 25)) < 0.01
    assert abs(levels(splits["train"][0]) - range(0, 240, 20)).max() <= 1


def test_frames_of_an_animation_last_as_long_as_it_says(tmp_path):
    path = animation(tmp_path / "a.gif", [20, 90, 200], duration=[100, 400, 100])
    assert levels(frames_of(tmp_path, path, "--fps", 5)).tolist() == [90, 90, 200]
    (tmp_path / "out" / "movie.hdf5").unlink()
    assert levels(frames_of(tmp_path, path, "--fps", 5, "--start", 0.2)).tolist() == [90, 200]


def test_a_stand_in_and_a_thumbnail_are_no_frames(tmp_path):
    animation(tmp_path / "a.png", [250, 20, 40], default_image=True)
    with TiffWriter(tmp_path / "b.tif") as file:
        for level, kind in ((60, 0), (250, 1), (80, 0)):
            file.write(still(level), subfiletype=kind, metadata=None)
    assert levels(frames_of(tmp_path, tmp_path / "a.png", tmp_path / "b.tif")).tolist() == [
        20,
        40,
        60,
        80,
    ]


def test_what_decodes_of_a_truncated_animation_is_kept(tmp_path, capsys):
    path = tmp_path / "a.gif"
    first, *rest = [Image.fromarray(RNG.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(10)]
    first.save(path, save_all=True, append_images=rest)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 3 <= len(frames_of(tmp_path, path)) <= 6
    assert "a.gif is damaged or cut short" in capsys.readouterr().out


def test_a_preview_in_a_jpeg_is_no_frame(tmp_path):
    """Phones store a smaller picture, or how bright it is where, behind the picture."""
    (tmp_path / "pictures").mkdir()
    animation(tmp_path / "pictures" / "a.jpg", [100, 200], format="MPO")
    assert levels(frames_of(tmp_path, tmp_path / "pictures")).tolist() == [100]


def where(splits):
    """The grey levels of each split's videos, each of one level."""
    return {
        split: [round(float(rows[a:b].mean())) for a, b in itertools.pairwise(starts)]
        for split, (rows, starts) in splits.items()
    }


def clips(folder, count, length=3):
    """Films in two folders of classes, of pictures in a third and an animation; each has a grey
    level of its own.
    """
    paths = []
    for i in range(count):
        kind = ("a films", "b pictures", "c animations")[3 * i // count]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        paths.append(folder / kind / f"clip{i}{('.mkv', '', '.gif')[3 * i // count]}")
        if kind == "a films":
            film(paths[-1], [still(100 + i)] * length)
        elif kind == "b pictures":
            paths[-1].mkdir()
            for k in range(length):
                Image.fromarray(still(100 + i)).save(paths[-1] / f"{k}.png")
        else:
            picture = still(100 + i)
            picture[0, 0] = 0  # it moves: of frames that are the same Pillow would store one
            first, *rest = [Image.fromarray(np.roll(picture, k, 0)) for k in range(length)]
            first.save(paths[-1], save_all=True, append_images=rest)
    return paths


def test_a_folder_of_class_folders_is_dealt_by_film(tmp_path, capsys):
    folder = tmp_path / "data"
    clips(folder, 30)
    (folder / ".hidden.mkv").write_text("not looked at")
    (folder / "a films" / "readme.txt").write_text("passed over without a word")
    (folder / "a films" / "broken.mp4").write_text("passed over, and told")
    (folder / "a films" / "again").symlink_to(folder)
    about, splits = make(tmp_path, folder)
    assert about["split_by"] == b"film"
    videos = where(splits)
    assert sorted(itertools.chain(*videos.values())) == list(range(100, 130))  # each film once
    assert {split: len(found) for split, found in videos.items()} == {
        "train": 24,
        "valid": 3,
        "test": 3,
    }
    for found in videos.values():
        assert {(level - 100) // 10 for level in found} == {0, 1, 2}  # each class in each split
    out = capsys.readouterr().out
    assert f"passed over: 1; the first: {folder}/a films/broken.mp4 cannot be read as a film" in out
    assert "films: 24 train, 3 valid, 3 test" in out


def test_clips_too_short_to_be_divided_are_dealt_by_film(tmp_path):
    clips(tmp_path / "data", 6, length=4)
    about, splits = make(tmp_path, tmp_path / "data")
    assert about["split_by"] == b"film"
    assert sorted(itertools.chain(*where(splits).values())) == list(range(100, 106))
    assert all(len(starts) > 1 for _, starts in splits.values())


@pytest.mark.parametrize("shares", [(80, 10, 10), (1, 1, 1), (0, 1, 1), (98, 1, 1), (3, 0, 1)])
@pytest.mark.parametrize("count", [3, 7, 40, 101])
def test_dealing_gives_each_split_its_share_evenly(shares, count):
    films = [Film(Path(str(i))) for i in range(count)]
    footage.deal(films, shares)
    for split, share in zip(hdf5.SPLITS, shares, strict=True):
        places = [i for i, film in enumerate(films) if film.split == split]
        assert (len(places) > 0) == (share > 0)
        assert abs(len(places) - count * share / sum(shares)) <= 2  # the least is one
        if len(places) > 1:
            assert np.diff(places).max() <= 2 * count / len(places)


def test_shots_of_a_film_go_where_the_film_goes(tmp_path):
    paths = [
        film(tmp_path / f"{k}.mkv", [SCENES[2 * k + i // 8] for i in range(16)]) for k in range(3)
    ]
    _, splits = make(tmp_path, *paths, "--split_by", "film", "--split", "1/1/1")
    assert [starts.tolist() for _, starts in splits.values()] == [[0, 8, 16]] * 3


def test_a_list_says_where_films_go(tmp_path, capsys):
    folder = tmp_path / "my data"
    paths = clips(folder, 9)
    lines = ["# a comment", ""]
    lines += [
        f"{('train', 'valid', 'test')[i % 3]} {path.relative_to(folder)}"
        for i, path in enumerate(paths[:8])
    ]
    lists = tmp_path / "lists.txt"
    lists.write_text(
        "\n".join(
            [*lines, "train   " + str(paths[0]), "test\t" + str(paths[2].relative_to(tmp_path))]
        )
    )
    _, splits = make(tmp_path, folder, "--split_file", lists)
    assert where(splits) == {"train": [100, 103, 106], "valid": [101, 104, 107], "test": [102, 105]}
    assert "not in the list, and left out: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("trian clip0.mkv", "line 2: trian clip0.mkv is not train, valid or test, and a path"),
        ("train", "line 2: train is not"),
        ("train clip7.mkv", "line 2: clip7.mkv is none of the 1 films"),
        ("test clip0.mkv", "line 2: clip0.mkv is in train already"),
    ],
)
def test_a_list_that_is_wrong(tmp_path, line, says):
    path = film(tmp_path / "clip0.mkv", [still(9)] * 3)
    (tmp_path / "list").write_text(f"train clip0.mkv\n{line}\n")
    with pytest.raises(UserError, match=says):
        run(movie_frames, path, "--split_file", tmp_path / "list", "--dest", tmp_path / "new.hdf5")


def test_our_own_pictures_are_read_back_into_their_splits(tmp_path):
    flags = [
        "--mnist",
        "sample",
        "--seqs",
        6,
        "--seq_len",
        3,
        "--split",
        "1/1/1",
        "--frame_size",
        32,
        "--num_sz",
        14,
    ]
    run(moving_mnist, *flags, "--dest", tmp_path / "truth.hdf5")
    run(moving_mnist, *flags, "--dest", tmp_path / "pngs", "--filetype", "png")
    back = tmp_path / "back.hdf5"
    run(
        movie_frames,
        tmp_path / "pngs",
        "--dest",
        back,
        "--frame_size",
        32,
        "--grey",
        "--no-detect_cuts",
    )
    for split in hdf5.SPLITS:
        with h5py.File(tmp_path / "truth.hdf5") as truth, h5py.File(back) as file:
            assert np.array_equal(file[split]["frames"], truth[split]["frames"])
            assert np.array_equal(file[split]["starts"], truth[split]["starts"])


def test_the_fewer_of_films_and_pictures_in_a_folder_are_passed_over(tmp_path, capsys):
    for name, pictures, films in (("frames", 4, 1), ("films", 1, 2)):
        (tmp_path / name).mkdir()
        for i in range(pictures):
            Image.fromarray(still(10 + i)).save(tmp_path / name / f"{i}.png")
        for i in range(films):
            animation(tmp_path / name / f"preview{i}.gif", [100 + 10 * i, 105 + 10 * i])
    assert levels(frames_of(tmp_path, tmp_path / "frames")).tolist() == [10, 11, 12, 13]
    assert "preview0.gif lies beside more pictures" in capsys.readouterr().out
    (tmp_path / "out" / "movie.hdf5").unlink()
    assert levels(frames_of(tmp_path, tmp_path / "films")).tolist() == [100, 105, 110, 115]
    assert "0.png is a picture beside films" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "val", "testing")])
@pytest.mark.parametrize("kind", ["films", "pictures"])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_folders_that_name_splits(tmp_path, names, kind, one_by_one):
    """Films in them, or the pictures of one film; the folder above is named, or each of them."""
    root = tmp_path / "data"
    for level, name in enumerate(names):
        (root / name).mkdir(parents=True)
        if kind == "films":
            film(root / name / "a.mkv", [still(100 + level)] * 3)
        else:
            for i in range(3):
                Image.fromarray(still(100 + level)).save(root / name / f"{i}.png")
    _, splits = make(tmp_path, *([root / name for name in names] if one_by_one else [root]))
    assert where(splits) == {"train": [100], "valid": [101], "test": [102]}


def test_folders_named_again_add_nothing(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
        film(tmp_path / "data" / name / "x.mkv", [still(100)] * 3)
    _, splits = make(tmp_path, tmp_path / "data" / "a", tmp_path / "data", tmp_path / "data" / "b")
    assert sum(len(rows) for rows, _ in splits.values()) == 9


def test_an_animation_that_holds_its_last_picture(tmp_path):
    path = animation(tmp_path / "a.gif", range(0, 200, 20), duration=[40] * 9 + [5000])
    about, splits = make(tmp_path, path, *ALL)
    assert about["frame_rate"] == 25
    assert abs(levels(splits["train"][0]) - range(0, 200, 20)).max() <= 1


def test_pictures_of_several_shapes_among_films_are_dropped(tmp_path, capsys):
    clips(tmp_path / "data", 6)
    (tmp_path / "data" / "z").mkdir()
    for i in range(20):
        Image.new("RGB", (60, 40) if i < 10 else (40, 60)).save(
            tmp_path / "data" / "z" / f"{i}.png"
        )
    _, splits = make(tmp_path, tmp_path / "data")
    assert sum(len(starts) - 1 for _, starts in splits.values()) == 6
    assert "dropped: 1; the first:" in (said := capsys.readouterr().out)
    assert "the pictures change their shape" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_passed_over(tmp_path, capsys):
    clips(tmp_path / "data", 3)
    film(tmp_path / "data" / "closed.mkv", [still(9)] * 3).chmod(0)
    (tmp_path / "data" / "locked").mkdir(0)
    make(tmp_path, tmp_path / "data")
    assert "passed over: 2" in capsys.readouterr().out


def test_a_broken_picture_in_one_of_many_films_is_no_end(tmp_path, capsys):
    for name in ("good", "broken"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(still(10 * i)).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data" / "broken" / "2.png").write_text("no picture")
    assert levels(frames_of(tmp_path, tmp_path / "data")).tolist() == [0, 10, 10, 30, 0, 10, 20, 30]
    assert f"{tmp_path}/data/broken is damaged" in capsys.readouterr().out


def marked(height, width):
    """A picture with a white square in its centre."""
    picture = still(50, height, width)
    picture[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 250
    return picture


def test_films_of_several_shapes_are_cropped_around_the_centre(tmp_path, capsys):
    for name, size in {"wide": (32, 64), "narrow": (32, 48), "high": (64, 32)}.items():
        film(tmp_path / f"{name}.mkv", [marked(*size)] * 2)
    paths = [tmp_path / f"{name}.mkv" for name in ("wide", "narrow")]
    frames = frames_of(tmp_path, *paths)
    assert frames.shape == (4, 3, 16, 24)
    assert abs(frames[:, 0, 8, 12].astype(int) - 250).max() < 3
    assert "cropped around the centre to 24x16: 1 of 2 films" in capsys.readouterr().out
    (tmp_path / "out" / "movie.hdf5").unlink()
    assert frames_of(tmp_path, *paths, tmp_path / "high.mkv").shape == (6, 3, 16, 16)
    (tmp_path / "out" / "movie.hdf5").unlink()
    about, splits = make(
        tmp_path, *paths, tmp_path / "high.mkv", "--shape", "20x12", "--grey", *ALL
    )
    assert about["shape"] == b"20x12"
    frames = splits["train"][0]
    assert frames.shape == (6, 1, 12, 20)
    assert abs(frames[:, 0, 6, 10].astype(int) - 250).max() < 3


def test_grey_is_the_brightness(tmp_path):
    path = film(
        tmp_path / "a.mkv",
        [still(colour) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255), 255]],
    )
    assert levels(frames_of(tmp_path, path, "--grey")).tolist() == [76, 150, 29, 255]


def test_pictures_that_change_their_shape(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, size in enumerate([(40, 60), (40, 40)]):
        Image.fromarray(marked(*size)).save(folder / f"{i}.png")
    with pytest.raises(
        UserError, match="pictures: the pictures change their shape, from 24x16 to 16x16"
    ):
        frames_of(tmp_path, folder)
    assert frames_of(tmp_path, folder, "--shape", "16x16").shape == (2, 3, 16, 16)


def test_the_names_of_many_films_do_not_fill_the_attributes(tmp_path):
    for i in range(12):
        film(tmp_path / f"{'n' * 100}{i}.mkv", [still(i)] * 2)
    about, _ = make(tmp_path, *sorted(tmp_path.glob("*.mkv")))
    assert about["source"] == f"{'n' * 100}0.mkv and 11 others".encode()
    hdf5.Frames(tmp_path / "out" / "movie.hdf5", "train")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_what_decodes_of_a_truncated_film_is_kept(tmp_path, capsys, suffix):
    noise = [RNG.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(60)]
    whole = film(
        tmp_path / f"whole.{suffix}", noise, codec="libx264", pixels="yuv420p"
    ).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    frames = frames_of(tmp_path, path)
    assert 20 <= len(frames) <= 35
    if suffix != "ts":  # a transport stream has no length to fall short of
        assert (
            f"cut.{suffix} is damaged or cut short: the {len(frames)} frames that decode are kept\n"
            in capsys.readouterr().out
        )


def test_memory_does_not_grow_with_the_film(tmp_path):
    def peak(count):
        path = film(
            tmp_path / f"{count}.mkv",
            [still(i % 200) for i in range(count)],
            codec="libx264",
            pixels="yuv420p",
        )
        tracemalloc.start()
        run(movie_frames, path, "--dest", tmp_path / f"{count}.hdf5", "--frame_size", 48)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(100)  # imports and caches
    assert peak(900) < peak(300) + 1e6  # 600 frames are 5.5 MB


def test_memory_does_not_grow_with_the_number_of_films(tmp_path):
    original = film(tmp_path / "a.mkv", [still(9 * i) for i in range(24)])

    def peak(count):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        for i in range(count):
            (folder / f"{i}.mkv").hardlink_to(original)
        tracemalloc.start()
        run(
            movie_frames,
            folder,
            "--dest",
            tmp_path / f"{count}.hdf5",
            "--frame_size",
            48,
            "--split_by",
            "film",
        )
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(3)  # imports and caches
    assert peak(40) < peak(10) + 1e6  # 720 frames are 6.6 MB


@pytest.fixture
def place(tmp_path):
    """Good films beside things that are none."""
    film(tmp_path / "good.mkv", [SCENES[i // 10] for i in range(30)])
    film(tmp_path / "wide.mkv", [still(9, 48, 96)] * 30)
    film(tmp_path / "short.mkv", [still(9)] * 5)
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not what you think " * 50)
    (tmp_path / "text.txt").write_text("not what you think " * 50)
    (tmp_path / "head.mkv").write_bytes((tmp_path / "good.mkv").read_bytes()[:600])
    (tmp_path / "taken.hdf5").write_bytes(b"mine")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    for name in ("empty", "mixed", "fake"):
        (tmp_path / name).mkdir()
    for i, size in enumerate([(40, 40), (40, 60)]):
        Image.new("RGB", size).save(tmp_path / "mixed" / f"{i}.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "fake" / "0.png")
    (tmp_path / "fake" / "1.png").write_text("no picture")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "wide.list").write_text("train good.mkv", encoding="utf-16")
    return tmp_path


CASES = [
    ("@nothing.mp4", "nothing.mp4 is not there"),
    ("@zero.mp4", "zero.mp4 cannot be read as a film"),
    ("@text.mp4", "text.mp4 cannot be read as a film"),
    ("@text.txt", "text.txt has no video stream"),
    ("@sound.wav", "sound.wav has no video stream"),
    ("@head.mkv", "head.mkv"),
    ("@empty", "empty holds no pictures"),
    ("@fake/0.png", "0.png is a single picture: name the folder that holds its film"),
    ("@fake/1.png", "1.png is not a picture"),
    ("@loop.mp4", "loop.mp4 cannot be read"),
    ("@good.mkv --split_file @wide.list", "wide.list is no text in UTF-8"),
    ("@good.mkv @nothing.mp4", "nothing.mp4 is not there"),
    ("@short.mkv", "short.mkv is too short: 5 frames with 0 cuts"),
    ("@good.mkv --min_frames 11", "good.mkv is too short"),
    ("@good.mkv --start 4", "--start 4 is past the end"),
    ("@good.mkv --start 2 --end 1", "--end 1 is not after --start 2"),
    ("@good.mkv --fps 24", "has 10 frames per second; give at most that"),
    ("@good.mkv --fps 0", "--fps"),
    ("@good.mkv --fps 1e-10", "--fps"),
    ("@good.mkv --frame_size 4097", "--frame_size: takes a whole number from 2 to 4096"),
    ("@good.mkv --shape 4097x20", "--shape"),
    ("@good.mkv --shape 20", "--shape"),
    ("@good.mkv --split_by film", "3 splits have shares of --split, and there are 1 films"),
    ("@good.mkv --split_by folder", "good.mkv is in none of the folders train"),
    ("@good.mkv --split_by shot --split_file @text.txt", "leave out --split_by shot"),
    ("@good.mkv --split_file @nothing", "nothing"),
    ("@good.mkv --min_frames 31", "good.mkv is too short: 30 frames, fewer than --min_frames 31"),
    ("@good.mkv --split 80/20", "--split"),
    ("@good.mkv --frame_size 1", "--frame_size"),
    ("@good.mkv --crop_bars maybe", "--crop_bars"),
    ("@good.mkv --dest @taken.hdf5", "taken.hdf5 exists already"),
    ("", "FILM"),
]


@pytest.mark.parametrize(("flags", "says"), CASES, ids=[flags or "nothing" for flags, _ in CASES])
def test_one_line_and_nothing_left_behind(flags, says, place, capfd):
    before = contents(place)
    argv = [word.replace("@", f"{place}/") for word in f"--dest @new.hdf5 {flags}".split()]
    with pytest.raises(SystemExit) as stop:
        cli.run(movie_frames.main, movie_frames.flags(), argv)
    assert stop.value.code == 2
    lines = capfd.readouterr().err.rstrip("\n").split("\n")  # what ffmpeg itself prints counts too
    assert len(lines) == 1
    assert says in lines[0]
    assert contents(place) == before


def test_the_cover_of_a_song_is_no_film(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "cover.png")
    picture = b"\0image/png\0\x03\0" + (tmp_path / "cover.png").read_bytes()
    tag = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
    sound = b"\xff\xfb\x50\xc0" + bytes(204)  # an empty frame of an MP3
    (tmp_path / "song.mp3").write_bytes(b"ID3\x03\0\0" + size + tag + sound * 40)
    with av.open(str(tmp_path / "song.mp3")) as container:
        assert container.streams.video
    with pytest.raises(UserError, match="has no video stream"):
        run(movie_frames, tmp_path / "song.mp3", "--dest", tmp_path / "new.hdf5")


def test_an_interrupted_run_leaves_nothing(place, monkeypatch):
    before = contents(place)
    monkeypatch.setattr(shots, "find_cuts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(movie_frames, place / "good.mkv", "--dest", place / "new.hdf5")
    assert contents(place) == before
