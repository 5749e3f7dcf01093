"""One film, continued: which of its frames are fed in, whatever its format, and what is refused."""

import numpy as np
import pytest
from conftest import run
from PIL import Image
from test_errors import contents
from test_movie_frames import QUADRANTS, animation, film, levels, still

import sample_video
from data import clip
from data.pictures import BORDER, CAPTION
from runtime import cli
from runtime.errors import UserError


def read(path, start=None, skip=2, length=4, horizon=3, least=4):
    """The grey levels of the frames, and where they begin."""
    found = clip.find(path, (16, 16), start)
    frames, first = clip.read(found, (3, 16, 16), skip, start, length, horizon, least)
    return levels(frames.numpy()).tolist(), first


def test_the_last_frames_or_those_from_a_second_on(tmp_path):
    """Every second frame of ten per second, each with its number as its grey level."""
    path = film(tmp_path / "a.mkv", [still(i) for i in range(100)], rate=10)
    (numbers, first), (early, begin) = read(path), read(path, start=2)
    assert numbers == [93, 95, 97, 99]
    assert first == pytest.approx(9.3)
    assert early == list(range(20, 34, 2))
    assert begin == 2
    assert read(path, start=2.04)[0] == early
    assert len(read(path, start=9)[0]) == 5  # where the film ends, there is no more truth


def test_too_short_a_film_is_told_what_helps(tmp_path):
    path = film(tmp_path / "a.mkv", [still(i) for i in range(20)], rate=10)
    with pytest.raises(UserError, match=r"a\.mkv has 2 of the 4 .*lower --start or --context"):
        read(path, start=1.6)
    with pytest.raises(UserError, match=r"past the end"):
        read(path, start=2)
    with pytest.raises(UserError, match=r"10 of the 11 .*take a longer film, or lower --context"):
        read(path, least=11, length=11)
    assert read(path, least=3, length=11)[0] == list(range(1, 20, 2))


def test_a_folder_is_one_film_or_named(tmp_path):
    for i in range(12):
        Image.fromarray(still(10 * i)).save(tmp_path / f"{i}.png")
    assert read(tmp_path, skip=1)[0] == [80, 90, 100, 110]
    for name in ("a", "b"):
        (tmp_path / "films").mkdir(exist_ok=True)
        film(tmp_path / "films" / f"{name}.mkv", [still(0)] * 3)
    with pytest.raises(UserError, match="holds 2 films: name one, such as"):
        read(tmp_path / "films")


@pytest.fixture
def moving(tmp_path):
    """Pictures of something that moves."""
    wide = QUADRANTS.repeat(2, axis=1)
    return [np.roll(wide, 3 * i, axis=1)[:, :96] for i in range(30)]


@pytest.mark.parametrize("name", ["wide.mp4", "upright.mp4", "short.gif"])
def test_one_command_leaves_one_picture(tmp_path, moving, name):
    """By the packaged networks, of a film, one that stands upright, and an animation."""
    if name == "short.gif":
        path = animation(tmp_path / name, range(0, 250, 50), duration=125)
    else:
        upright = name == "upright.mp4"
        pictures = [p.swapaxes(0, 1).copy() for p in moving] if upright else moving
        path = film(tmp_path / name, pictures, codec="libx264", pixels="yuv444p", rate=24)
    run(sample_video, "--film", path, "--dest", tmp_path / "out", "--device", "cpu")
    (gif,) = (tmp_path / "out").iterdir()
    assert gif.name == path.stem + ".gif"
    fed_in = 5 if name == "short.gif" else 8
    with Image.open(gif) as image:
        assert image.n_frames == fed_in + 10
        width = (image.width - 3 * BORDER) // 2 // 3
        height = (image.height - CAPTION - 2 * BORDER) // 3
    assert (height, width) == {"wide": (64, 128), "upright": (128, 64), "short": (64, 80)}[
        path.stem
    ]


CASES = [
    ("--film @a.mkv --data_file @a.hdf5", "--film and --data_file are two sources"),
    ("--start 3", "--start is a second of a --film"),
    ("--film @nothing.mp4", "nothing.mp4 is not there"),
    ("--film @still.png", "still.png is a single picture"),
    ("--film @a.mkv", "a.mkv has 2 of the 3 frames to feed in"),
    ("--film @a.mkv --start 9", "--start 9 is past the end of"),
]


@pytest.mark.parametrize(("flags", "says"), CASES, ids=[flags for flags, _ in CASES])
def test_one_line_says_what_is_wrong(tmp_path, capsys, flags, says):
    film(tmp_path / "a.mkv", [still(0), still(9)])
    Image.fromarray(still(0)).save(tmp_path / "still.png")
    before = contents(tmp_path)
    argv = flags.replace("@", f"{tmp_path}/").split()
    with pytest.raises(SystemExit) as stop:
        cli.run(sample_video.main, sample_video.flags(), [*argv, "--dest", str(tmp_path / "out")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.rstrip("\n").split("\n")
    assert says in line
    assert contents(tmp_path) == before
