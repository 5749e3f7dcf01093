"""All stages in order, in-process, on tiny data: each reads what the one before it left."""

import json
import shutil
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
from conftest import run
from PIL import Image, ImageSequence

import evaluate
import sample_video
import train_lstm
from data.pictures import CAPTION, FREE, PRIMED, save_animation, to_uint8
from models.codec import Codec
from runtime.errors import UserError


def test_stages_leave_what_the_next_ones_need(chain):
    for run_folder in ("vcae", "lstm"):
        assert {"best.pt", "last.pt", "log.csv", "log.png"} <= {
            path.name for path in (chain / run_folder).iterdir()
        }
    assert (chain / "vcae" / "pictures" / "reconstructions.png").stat().st_size > 0
    with h5py.File(chain / "vcae" / "latents.hdf5") as file:
        assert file["train/latents"].shape == (1, 12 * 8, 2, 6)
        assert file["test/starts"][:].tolist() == [0, 8, 16, 24, 32]


@pytest.mark.parametrize(("run_folder", "scale"), [("vcae", 2), ("lstm", 1)])
def test_the_sheet_of_the_best_epoch_shows_validation_frames(chain, run_folder, scale):
    sheet = iio.imread(chain / run_folder / "pictures" / "best.png")
    side = 64 * scale
    first = sheet[CAPTION : CAPTION + side : scale, 2 : 2 + side : scale, 0]  # 2 px from the edge
    with h5py.File(chain / "frames.hdf5") as file:
        assert np.array_equal(first, file["valid/frames"][0, 0])
        rows = 2 if run_folder == "vcae" else 2 * len(file["valid/starts"][1:])
    below = sheet[sheet.shape[0] // rows :]
    assert below[:, -side:].std() > 0


def sample(chain, dest, *flags, model="lstm/best.pt"):
    run(
        sample_video,
        "--model",
        chain / model,
        "--dest",
        dest,
        "--device",
        "cpu",
        "--seed",
        1,
        *flags,
    )
    return sorted(dest.iterdir())


@pytest.mark.parametrize("form", ["gif", "mp4", "png"])
@pytest.mark.parametrize("plain", ["--no-plain", "--plain"])
def test_samples_render(chain, tmp_path, form, plain):
    files = sample(
        chain,
        tmp_path,
        "--format",
        form,
        plain,
        "--prime",
        6,
        "--predict",
        5,
        "--n",
        3,
        "--scale",
        2,
    )
    assert len(files) == 3
    if form == "png":
        picture = iio.imread(files[0])
        assert plain == "--no-plain" or picture.shape == (128, 11 * 128, 3)
    else:
        pictures = iio.imread(files[0], index=None, plugin="pyav" if form == "mp4" else "pillow")
        assert len(pictures) == 11
        assert (pictures.shape[1:3] == (128, 128)) == (plain == "--plain")
        picture = pictures[10]
    assert np.ptp(picture) > 0


def test_free_running_is_marked_and_ended_truth_is_blank(chain, tmp_path):
    """Videos have 8 frames: 6 are fed in, of the 5 predicted after them 2 can be compared."""
    (file,) = sample(chain, tmp_path, "--prime", 6, "--predict", 5, "--n", 1, "--scale", 2)
    pictures = iio.imread(file, index=None)
    height, width = pictures.shape[1:3]
    mark = pictures[:, height - 2, width - 2].astype(int)  # the frame around the prediction
    assert [int(np.abs(color - FREE).sum() < 60) for color in mark] == [0] * 6 + [1] * 5
    assert [int(np.abs(color - PRIMED).sum() < 60) for color in mark] == [1] * 6 + [0] * 5
    truth = pictures[:, CAPTION + 8 : height - 8, 8 : width // 2 - 8]
    assert [int(frame.max() > 100) for frame in truth] == [1] * 8 + [0] * 3


def test_a_gif_of_one_frame(chain, tmp_path):
    (file,) = sample(chain, tmp_path, "--prime", 1, "--predict", 1, "--n", 1, "--fps", 120)
    with Image.open(file) as image:
        assert image.n_frames == 1


@pytest.mark.parametrize(("prime", "predict"), [(1, 1), (8, 30)])
def test_more_videos_than_there_are_and_extreme_lengths(chain, tmp_path, prime, predict):
    assert len(sample(chain, tmp_path, "--prime", prime, "--predict", predict, "--n", 99)) == 4


def test_by_default_half_of_a_video_is_fed_in_and_the_rest_compared(chain, tmp_path, capsys):
    assert len(sample(chain, tmp_path, "--format", "png")) == 4
    said = capsys.readouterr().out
    assert "4 videos of the test split, 4 frames fed in" in said
    assert "no frames to compare" not in said


def test_a_folder_that_cannot_be_written_is_told_before_the_work(chain, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Codec, "encode", lambda *_: pytest.fail("work was done first"))
    for dest in ("file", "file/below"):
        with pytest.raises(UserError, match=r"file.* is no folder that can be written to"):
            run(
                sample_video,
                "--model",
                chain / "lstm" / "best.pt",
                "--dest",
                tmp_path / dest,
                "--device",
                "cpu",
            )


@pytest.mark.parametrize("fps", [7, 10, 24, 29.97, 30, 50, 60, 75, 120])
def test_gifs_keep_time(tmp_path, fps):
    """The sum of the delays is the video's duration, no delay is one that viewers do not keep, none
    is left out that need not be."""
    frames = (
        np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
        * 4
    )
    save_animation(tmp_path / "a.gif", frames, fps)
    with Image.open(tmp_path / "a.gif") as image:
        delays = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert min(delays) >= 20
    assert len(delays) == (60 if fps <= 50 else round(60 * 50 / fps))
    assert sum(delays) == pytest.approx(1000 * 60 / fps, abs=10)


@pytest.mark.parametrize(
    ("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])]
)
def test_frames_of_any_number_of_channels_can_be_drawn(channels, shown):
    frames = np.random.default_rng(0).integers(0, 256, (2, channels, 4, 6), np.uint8)
    assert np.array_equal(to_uint8(frames), frames[:, shown].transpose(0, 2, 3, 1))
    assert np.array_equal(to_uint8(frames / np.float32(255)), to_uint8(frames))


def test_run_folders_move_together_and_work_from_anywhere(chain, tmp_path, monkeypatch):
    moved = tmp_path / "moved"
    shutil.copytree(chain, moved)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sample(Path("..") / "moved", tmp_path / "out", "--prime", 4, "--n", 2)
    (moved / "frames.hdf5").unlink()  # it was the moved files that were read
    with pytest.raises(UserError, match="is not there"):
        sample(Path("..") / "moved", tmp_path / "out", "--prime", 4, "--n", 2)


def test_samples_are_the_same_for_the_same_seed(chain, tmp_path):
    first, second = (sample(chain, tmp_path / name, "--context", 5, "--n", 2) for name in "ab")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_samples_of_a_mixture(chain, tmp_path):
    """Sampled videos differ by the seed, and without a mixture there is nothing to sample."""
    flags = [
        "--data_file",
        chain / "vcae" / "latents.hdf5",
        "--save_to",
        tmp_path / "mdn",
        "--loss",
        "mdn",
    ]
    flags += [
        "--seq_length",
        6,
        "--lstm_n_hid",
        8,
        "--num_epochs",
        1,
        "--batch_size",
        5,
        "--device",
        "cpu",
    ]
    run(train_lstm, *flags)
    model, small = (
        tmp_path / "mdn" / "best.pt",
        ["--context", 4, "--horizon", 3, "--n", 1, "--format", "png"],
    )
    args = ["--model", model, "--temperature", 3, *small]
    for name in ("a", "b"):
        run(sample_video, *args, "--dest", tmp_path / name)
    run(sample_video, "--model", model, *small, "--dest", tmp_path / "mean")
    sheets = [iio.imread(next((tmp_path / name).iterdir())) for name in ("a", "b", "mean")]
    assert (sheets[0] == sheets[1]).all()
    assert (sheets[0] != sheets[2]).any()
    with pytest.raises(
        UserError, match=r"--temperature draws from a mixture, .* train with --loss mdn, not mse"
    ):
        run(sample_video, "--model", chain / "lstm" / "best.pt", "--temperature", 1, *small)
    run(
        evaluate, "--model", model, "--samples", 3, "--context", 4, "--horizon", 3, "--dest", tmp_path / "e", "--n", 2
    )  # fmt: skip
    rows = json.loads((tmp_path / "e" / "metrics.json").read_text())["predictors"]
    assert f"{model}, best of 3 samples" in rows


def test_restored_first_frame_is_the_true_one(chain, tmp_path):
    flags = ["--prime", 4, "--predict", 3, "--n", 1, "--format", "png", "--plain", "--scale", 1]
    (lost,), (restored,) = (
        sample(chain, tmp_path / name, *flags, name) for name in ("--no-restore", "--restore")
    )
    first = [iio.imread(path)[:, :64, 0].astype(int) for path in (lost, restored)]
    with h5py.File(chain / "frames.hdf5") as file:
        truth = file["test/frames"][8 * int(restored.stem.split("_")[1])][0].astype(int)
    assert np.abs(first[1] - truth).max() <= 1 < np.abs(first[0] - truth).max()
