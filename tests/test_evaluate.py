"""Metrics on frames of known error, the field's reference figures, and the whole evaluation on tiny
data.
"""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import run
from skimage.filters import gaussian

import evaluate
import moving_mnist
from data import hdf5, pictures
from evaluation import baselines, metrics, tables
from evaluation.windows import is_video_first, read_windows
from models.codec import Codec
from runtime import files
from runtime.errors import UserError
from training.trained import Trained


def test_metrics_of_frames_of_known_error():
    true = np.zeros((1, 2, 1, 8, 8), np.float32)
    predicted = true.copy()
    predicted[0, 1, 0, :2] = 0.5
    assert metrics.mse(predicted, true).tolist() == [[0, 16 * 0.25]]
    assert metrics.mae(predicted, true).tolist() == [[0, 16 * 0.5]]
    assert metrics.psnr(predicted, true)[0, 1] == pytest.approx(-10 * np.log10(0.25 / 4), rel=1e-5)
    assert metrics.bce(predicted, true)[0, 1] == pytest.approx(16 * np.log(2) + 48 * 1e-4, rel=1e-3)
    assert metrics.ssim(predicted, true)[0, 0] == 1 > metrics.ssim(predicted, true)[0, 1]


def test_sharpness_and_mass_of_a_blurred_and_a_faded_frame():
    rng = np.random.default_rng(0)
    true = rng.random((1, 1, 1, 32, 32), np.float32)
    blurred = (true + np.roll(true, 1, 3) + np.roll(true, 1, 4) + np.roll(true, (1, 1), (3, 4))) / 4
    assert metrics.sharpness(true, true) == metrics.mass(true, true) == 1
    assert metrics.sharpness(blurred, true) < 0.5
    assert metrics.mass(blurred, true) == pytest.approx(1, rel=1e-3)
    assert metrics.mass(true / 2, true) == pytest.approx(0.5)
    assert metrics.sharpness(true / 2, true) == pytest.approx(0.25)


def test_a_frame_is_lost_with_a_third_of_it():
    true = np.ones((1, 3, 1, 3, 3), np.float32)
    predicted = true.copy()
    predicted[0, 1, 0, 0] = 0
    predicted[0, 2, 0, 0], predicted[0, 2, 0, 1, 0] = 0, 0
    assert metrics.lost(predicted, true).tolist() == [[0, 0, 1]]


TEXTURE = np.random.default_rng(0).random((1, 8, 8), np.float32)
NOISE = np.float32(2 / 255) * TEXTURE.round()  # what is left in a black frame by compression


@pytest.mark.parametrize(
    ("frame", "defined"),
    [
        (TEXTURE, {"sharpness", "mass", "lost"}),
        (0 * TEXTURE, set()),
        (NOISE, set()),
        (0 * TEXTURE + 0.5, {"mass", "lost"}),
        (NOISE + 0.5, {"mass", "lost"}),
    ],
    ids=["texture", "black", "nearly black", "flat", "nearly flat"],
)
def test_a_ratio_to_nothing_is_not_defined(frame, defined):
    """The truth itself gets the best value wherever there is one, and any other frame a finite one."""
    true = frame[None, None]
    for name, best in (("sharpness", 1), ("mass", 1), ("lost", 0)):
        measure = getattr(metrics, name)
        np.testing.assert_equal(
            measure(true, true).tolist(), [[best if name in defined else np.nan]]
        )
        assert np.isnan(measure(true + 0.25 * TEXTURE, true)).item() != (name in defined)


def test_an_exact_frame_is_coherent_where_measures_are_not_defined():
    future = np.stack([TEXTURE, 0 * TEXTURE, 0 * TEXTURE + 0.5, TEXTURE])[None]
    scores = {"exact": metrics.score(future, future), "black": metrics.score(0 * future, future)}
    digits = {"identity": np.ones((1, 4)), "distance": np.zeros((1, 4))}
    of_digits = metrics.count_coherent_digits(
        {name: rows | digits for name, rows in scores.items()}, 0.5
    )
    of_film = metrics.count_coherent_film(scores, "exact")
    for name, count in (("exact", 4), ("black", 0)):
        assert (
            of_digits[name]["coherent"]
            == of_digits[name]["tracked"]
            == of_film[name]["coherent"]
            == count
        )


def test_tables_leave_out_what_is_not_defined(tmp_path, capsys):
    columns = dict.fromkeys(
        ["mse", "mae", "psnr", "ssim", "ssim_openstl", "bce", "sharpness", "lost"], np.ones((2, 2))
    )
    columns["mass"] = np.array([[1, np.nan], [3, np.nan]])
    columns["sharpness"] = np.full((2, 2), np.nan)
    scores = {"a|b": columns}
    summary = tables.summarise(scores, {"a|b": {}}, lambda values: None)
    assert summary["a|b"]["mass"] == 2
    tables.write_json(tmp_path / "m.json", {}, summary, {})
    json.loads(
        (tmp_path / "m.json").read_text(), parse_constant=pytest.fail
    )  # NaN and Infinity are not JSON
    tables.write_csv(tmp_path / "m.csv", scores, {})
    with open(tmp_path / "m.csv") as file:
        assert [(row["mass"], row["sharpness"]) for row in csv.DictReader(file)] == [
            ("2", ""),
            ("", ""),
        ]
    tables.print_table(summary)
    header, _, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split(" | "), row.replace("a\\|b", "name").split(" | "), strict=True))
    assert (cells["mass"], cells["sharpness"], cells["lost"]) == ("2.00", "", "100.0%")


def test_runs_end_at_the_first_frame_that_is_not_good():
    good = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]], bool)
    assert metrics.run_length(good).tolist() == [2, 0, 4]


def test_bootstrap_covers_the_mean():
    values = np.random.default_rng(1).normal(5, 1, 400)
    low, high = metrics.bootstrap(values, np.arange(400))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert metrics.bootstrap(values[:1], [7]) is None


def test_windows_of_one_video_are_drawn_together():
    values = np.random.default_rng(1).normal(5, 1, 400)
    once = metrics.bootstrap(values, np.arange(400))
    thrice = metrics.bootstrap(values.repeat(3), np.arange(400).repeat(3))
    assert thrice == pytest.approx(once)
    assert metrics.bootstrap(values, np.zeros(400)) is None


def test_nearest_training_frame():
    known = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), np.uint8)
    frames = known[[3, 1]][None] / np.float32(255) + np.float32(0.01)
    np.testing.assert_allclose(metrics.nearest(frames, known), 16 * 1e-4, rtol=1e-2)


def regenerated(path, mnist):
    """Videos by the rules of the field's benchmark: a thousand, of test digits."""
    flags = [
        "--physics",
        "srivastava",
        "--nums_per_image",
        2,
        "--seq_len",
        20,
        "--seqs",
        1100,
        "--split",
        "5/5/100",
    ]
    run(moving_mnist, "--mnist", mnist, "--dest", path, *flags)
    return path


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return regenerated(tmp_path_factory.mktemp("benchmark") / "b.hdf5", "sample")


def check_reference_figures(path):
    """What is measured on mnist_test_seq.npy: copying the last frame 280, a black frame 170, the
    mean frame 150.
    """
    frames, *_ = read_windows(path, "test", 20)
    past, future = np.split(frames / np.float32(255), 2, axis=1)
    rules = baselines.in_pixels(future.mean((0, 1)))
    figures = {
        name: metrics.mse(predict(past, future), future).mean() for name, predict in rules.items()
    }
    assert figures[baselines.COPY] == pytest.approx(280, rel=0.04)
    assert figures["black"] == pytest.approx(170, rel=0.04)
    assert figures["mean frame of the training set"] == pytest.approx(150, rel=0.04)
    assert metrics.bce(future, future).mean() == pytest.approx(86.5, rel=0.04)


def test_the_fields_reference_figures(benchmark):
    check_reference_figures(benchmark)


@pytest.mark.skipif(
    not Path("data/mnist/t10k-images-idx3-ubyte.gz").exists(), reason="MNIST in full is not there"
)
def test_the_fields_reference_figures_of_mnist_in_full(tmp_path):
    check_reference_figures(regenerated(tmp_path / "b.hdf5", "data/mnist"))


def test_digits_are_found_where_they_are(benchmark):
    frames, sources, corners, data, _ = read_windows(benchmark, "test", 20, count=40)
    frames = frames / np.float32(255)
    digits = metrics.Digits(frames, sources, corners, data["num_sz"])
    assert 0.4 < digits.threshold < 0.8
    assert digits.error < 0.05
    score, distance = digits.find(frames, np.arange(40))
    assert np.median(score) > 0.9
    assert np.median(distance) == 0
    moved = np.roll(frames[:, -5:], 6, axis=4)
    assert np.median(digits.find(moved, np.arange(40))[1]) > 4
    assert (digits.find(0 * moved, np.arange(40))[0] == 0).all()
    blurred = sum(np.roll(frames, shift, axis=4) for shift in range(4)) / 4
    faint = 0.03 * np.roll(frames, 32, axis=3)  # sharp, but nearly black
    for made in (blurred, np.maximum(blurred, faint)):
        assert (digits.find(made, np.arange(40))[1] <= 2).mean() > 0.8


def test_a_prediction_that_is_the_truth_is_coherent_and_a_black_one_is_not(benchmark):
    frames, sources, corners, data, _ = read_windows(benchmark, "test", 20, count=40)
    frames = frames / np.float32(255)
    digits, future = metrics.Digits(frames, sources, corners, data["num_sz"]), frames[:, 10:]
    scores = {}
    for name, made in (("truth", future), ("black", 0 * future)):
        score, distance = digits.find(made, np.arange(40))
        scores[name] = {
            "sharpness": metrics.sharpness(made, future),
            "mass": metrics.mass(made, future),
        }
        scores[name] |= {"identity": score, "distance": distance}
    runs = metrics.count_coherent_digits(scores, digits.threshold)
    assert np.median(runs["truth"]["coherent"]) == 10
    assert (runs["black"]["coherent"] == 0).all()


def test_the_whole_evaluation(chain, tmp_path):
    model, saved = chain / "lstm/best.pt", tmp_path / "p.hdf5"
    lengths = ["--context", 4, "--horizon", 3]
    run(
        evaluate,
        "--model",
        model,
        *lengths,
        "--dest",
        tmp_path / "e",
        "--save_predictions",
        saved,
        "--device",
        "cpu",
    )
    content = json.loads((tmp_path / "e/metrics.json").read_text())
    table = content["predictors"]
    assert content["about"]["videos"] == 4
    assert table["reconstruction of the true future"]["mse"] > 0
    assert table["black"]["mass"] == 0
    assert {
        "mse",
        "mae",
        "psnr",
        "ssim",
        "ssim_openstl",
        "bce",
        "mse_interval",
        "coherent",
    } <= table[str(model)].keys()
    for name in ("horizon.png", "strips.png"):
        assert (tmp_path / "e" / name).stat().st_size > 0
    assert not (tmp_path / "e" / "slots.png").exists()
    with open(tmp_path / "e/metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["predictor"] == str(model)]
    assert [row["frame"] for row in rows] == ["1", "2", "3"]
    with h5py.File(saved) as file:  # anybody can compute the figures again
        again = np.square(file[str(model).strip("/")][:] - file["truth"][:]).sum((2, 3, 4)).mean()
    assert again == pytest.approx(table[str(model)]["mse"], rel=1e-5)


def test_the_fields_own_file(chain, tmp_path, capsys):
    videos = np.random.default_rng(0).integers(0, 255, (20, 3, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", videos)
    assert np.array_equal(
        read_windows(tmp_path / "mnist_test_seq.npy", "test", 6)[0][2, 5, 0], videos[5, 2]
    )
    flags = [
        "--data_file",
        tmp_path / "mnist_test_seq.npy",
        "--context",
        4,
        "--horizon",
        3,
        "--dest",
        tmp_path / "e",
    ]
    run(evaluate, "--model", chain / "lstm/best.pt", *flags, "--device", "cpu")
    assert json.loads((tmp_path / "e/metrics.json").read_text())["about"]["videos"] == 3
    said = capsys.readouterr().out
    assert "no training frames" not in said
    assert "mean frame of the training set" in said
    flags[-1] = tmp_path / "alone"
    run(evaluate, *flags)
    said = capsys.readouterr().out
    assert "no training frames: nothing is compared with them" in said
    assert "mean frame" not in said
    assert "copy of the last frame" in said
    np.save(tmp_path / "other.npy", videos[:, :, 0])
    with pytest.raises(UserError, match="not uint8"):
        run(evaluate, "--data_file", tmp_path / "other.npy")


def test_an_array_with_videos_before_time_is_refused(benchmark, tmp_path):
    frames = read_windows(benchmark, "test", 20, count=30)[0]  # (V, T, ...)
    np.save(tmp_path / "time_first.npy", frames[:, :, 0].swapaxes(0, 1))
    np.save(tmp_path / "video_first.npy", frames[:, :, 0])
    assert np.array_equal(read_windows(tmp_path / "time_first.npy", "test", 20)[0], frames)
    assert np.array_equal(
        read_windows(tmp_path / "time_first.npy", "test", 7, skip=3)[0], frames[:, :19:3]
    )
    with pytest.raises(
        UserError, match=r"video_first.npy \(30, 20, 64, 64\) seems to be .* array.swapaxes\(0, 1\)"
    ):
        read_windows(tmp_path / "video_first.npy", "test", 20)


def test_the_order_of_an_array_is_doubted_only_where_it_shows(benchmark):
    videos = read_windows(benchmark, "test", 20, count=20)[0][:, :, 0]
    assert is_video_first(videos)
    blank, still, same = (
        0 * videos,
        np.repeat(videos[:, :1], 20, axis=1),
        np.repeat(videos[:1], 20, axis=0),
    )
    film = same[0, np.clip(3 * np.arange(20) + np.arange(20)[:, None], 0, 19)]
    for unclear in (blank, still, same, videos[:1], videos[:, :1], film):
        assert not is_video_first(unclear)
        assert not is_video_first(unclear.swapaxes(0, 1))


def film(path, videos, names=None):
    """A file of videos (V, T, channels, height, width) uint8, the same in each split.

    names: of each video's film.
    """
    with hdf5.create(
        path, "frames", {"source": "film", "frame_rate": 10.0, "frame_skip": 1}
    ) as file:
        for split in hdf5.SPLITS:
            file[f"{split}/frames"] = videos.reshape(-1, *videos.shape[2:])
            file[f"{split}/starts"] = np.arange(len(videos) + 1) * videos.shape[1]
            if names:
                file[f"{split}/films"] = np.array(names, np.bytes_)
    return path


def test_frames_that_are_black_or_tiny_or_of_five_channels(tmp_path, capsys):
    """Still videos, so that a copy is exact; the third is black. Frames of 6 pixels are smaller
    than SSIM's window.
    """
    stills = np.random.default_rng(0).integers(100, 256, (3, 1, 5, 6, 6), dtype=np.uint8)
    stills[2] = 0
    path = film(tmp_path / "film.hdf5", stills.repeat(6, axis=1))
    run(
        evaluate,
        "--data_file",
        path,
        "--context",
        3,
        "--horizon",
        3,
        "--dest",
        tmp_path / "e",
        "--device",
        "cpu",
    )
    table = json.loads((tmp_path / "e/metrics.json").read_text(), parse_constant=pytest.fail)[
        "predictors"
    ]
    copy, mean = table[baselines.COPY], table["mean frame of the training set"]
    assert copy["mass"] == copy["sharpness"] == 1
    assert copy["lost"] == 0
    assert copy["coherent"]["median"] == 3
    assert mean["mass"] == pytest.approx(2 / 3, rel=0.1)
    assert mean["sharpness"] < 1
    assert copy["ssim"] is None
    assert (tmp_path / "e" / "strips.png").stat().st_size > 0


def test_one_video_has_no_other_to_tell_its_digits_from(chain, tmp_path, capsys):
    flags = [
        "--data_file",
        chain / "frames.hdf5",
        "--context",
        4,
        "--horizon",
        3,
        "--dest",
        tmp_path / "e",
    ]
    run(evaluate, *flags, "--n", 1, "--device", "cpu")
    content = json.loads((tmp_path / "e/metrics.json").read_text(), parse_constant=pytest.fail)
    assert content["about"]["videos"] == 1
    for table in content["predictors"].values():
        assert not {"identity", "distance", "coherent", "tracked"} & table.keys()
    assert "coherent and tracked frames are not counted" in capsys.readouterr().out


def moving_texture(path, steps, channels=1, size=(48, 64)):
    """Videos of a smooth texture that moves right by each of `steps`, px per frame."""
    height, width = size
    rng = np.random.default_rng(0)
    wide = rng.uniform(0, 255, (channels, height // 8, width // 4)).repeat(8, 1).repeat(8, 2)
    wide = gaussian(wide, (0, 3, 3)).astype(np.uint8)
    firsts = width // 2 - np.outer(steps, np.arange(8))  # (V, T)
    videos = np.array([[wide[..., x : x + width] for x in row] for row in firsts])
    return film(path, videos)


def table_of(path, dest, *flags):
    """What `evaluate.py` writes to metrics.json, of 4 frames fed in and 4 to predict."""
    lengths = ["--context", 4, "--horizon", 4, "--device", "cpu"]
    run(evaluate, "--data_file", path, "--dest", dest, *lengths, *flags)
    return json.loads((dest / "metrics.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(("channels", "size"), [(1, (48, 64)), (3, (96, 80))])
def test_motion_goes_on(tmp_path, channels, size):
    path = moving_texture(tmp_path / "film.hdf5", [2, 3], channels, size)
    table = table_of(path, tmp_path / "e")["predictors"]
    copied, full, half = (
        table[name]["mse"] for name in (baselines.COPY, baselines.FLOW, baselines.HALF_FLOW)
    )
    assert full < copied / 4
    assert full < half < copied


def test_where_nothing_moves_motion_that_goes_on_is_a_copy():
    stills = np.random.default_rng(0).random((2, 1, 3, 16, 16), np.float32)
    context = stills.repeat(4, axis=1)
    motion = baselines.Motion()
    for speed in (1.0, 0.5):
        assert np.array_equal(motion.carry_on(speed, context, context), context)
    line = context[..., :1, :]  # frames too small for a flow
    assert np.array_equal(motion.carry_on(1.0, line, line), line)


def test_both_speeds_share_one_flow_per_video(tmp_path, monkeypatch):
    videos = []

    def counted(*frames):
        videos.append(frames)
        return optical_flow(*frames)

    optical_flow = baselines.optical_flow
    monkeypatch.setattr(baselines, "optical_flow", counted)
    monkeypatch.setattr(metrics, "CHUNK", 2)
    table_of(moving_texture(tmp_path / "film.hdf5", [0, 1, 2]), tmp_path / "e")
    assert len(videos) == 3


def test_motion_is_a_rule_for_films_alone(chain, tmp_path):
    table = table_of(chain / "frames.hdf5", tmp_path / "e")["predictors"]
    assert not {baselines.FLOW, baselines.HALF_FLOW} & table.keys()


def brightening(steps, length=8):
    """Videos (V, length, 1, 4, 4) that grow by each of `steps` grey levels per frame."""
    levels = np.outer(steps, np.arange(length))  # (V, T)
    return np.broadcast_to(levels[..., None, None, None], (*levels.shape, 1, 4, 4)).astype(np.uint8)


def test_each_film_weighs_the_same(tmp_path, capsys):
    """Of frames that grow by s per frame, copying errs by 16 (h s / 255)^2 at frame h."""
    names = ["a/x.mp4", "a/x.mp4", "a/x.mp4", "b|y.mp4"]
    path = film(tmp_path / "film.hdf5", brightening([3, 6, 9, 12]), names)
    content = table_of(path, tmp_path / "e")

    grows = np.square(np.arange(1, 5)) * 16 / 255**2  # (H,), where s is 1
    first = (9 + 36 + 81) / 3 * grows
    second = 144 * grows
    copied = content["predictors"][baselines.COPY]
    mean = copied["mse_by_horizon_mean_over_films"]
    np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-4)
    assert copied["mse"] == pytest.approx((3 * first + second).mean() / 4, rel=1e-4)
    films = content["films"]
    assert [films[film]["windows"] for film in films] == [3, 1, 4]
    errors = [films[film]["mse"][baselines.COPY] for film in films]
    assert errors == pytest.approx([first.mean(), second.mean(), np.mean(mean)], rel=1e-4)

    with open(tmp_path / "e/metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["predictor"] == baselines.COPY]
    found = [float(row["mse, b|y.mp4"]) for row in rows]
    np.testing.assert_allclose(found, second, rtol=1e-4)
    found = [float(row["mse, mean over films"]) for row in rows]
    np.testing.assert_allclose(found, mean, rtol=1e-4)

    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    rules = [baselines.CONTEXT_MEAN, baselines.COPY, baselines.FLOW, baselines.HALF_FLOW]
    assert table[0] == f"| film | windows | {' | '.join(rules)} |"
    name, windows, _, copied, *_ = zip(*(line.split(" | ") for line in table[2:5]), strict=True)
    assert name == ("| a/x.mp4", r"| b\|y.mp4", "| mean over films")
    assert windows == ("3", "1", "4")
    assert copied == tuple(f"{error:.1f}" for error in (first.mean(), second.mean(), np.mean(mean)))


@pytest.mark.parametrize("names", [None, ["a.mp4"] * 2])
def test_one_film_has_no_table_by_film(names, tmp_path, capsys):
    path = film(tmp_path / "film.hdf5", brightening([3, 6]), names)
    content = table_of(path, tmp_path / "e")
    assert content.keys() == {"about", "predictors"}
    assert "mse_by_horizon_mean_over_films" not in content["predictors"][baselines.COPY]
    assert "film |" not in capsys.readouterr().out
    assert "films" not in (tmp_path / "e/metrics.csv").read_text()


def test_a_window_is_from_the_film_of_its_video(tmp_path):
    videos = brightening([1, 2, 3], length=10)
    path = film(tmp_path / "film.hdf5", videos, ["a", "b", "c"])
    frames, *_, films = read_windows(path, "test", 4, stride=3)
    steps = frames[:, 1, 0, 0, 0] - frames[:, 0, 0, 0, 0]
    assert films.tolist() == ["abc"[step - 1] for step in steps]
    assert len(films) == 9


def never(*_):
    pytest.fail("work was done first")


def test_what_cannot_be_had_is_told_before_the_work(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(Codec, "encode", never)
    (tmp_path / "file").write_text("")
    flags = [
        "--model",
        chain / "lstm" / "best.pt",
        "--context",
        4,
        "--horizon",
        3,
        "--device",
        "cpu",
    ]
    for dest in ("file", "file/below"):
        with pytest.raises(UserError, match=r"file.* is no folder that can be written to"):
            run(evaluate, *flags, "--dest", tmp_path / dest)
    with pytest.raises(UserError, match=r"p\.hdf5 cannot be written"):
        run(
            evaluate,
            *flags,
            "--dest",
            tmp_path / "e",
            "--save_predictions",
            tmp_path / "file" / "p.hdf5",
        )
    with pytest.raises(
        UserError, match=r"--samples draws from a mixture, .* train with --loss mdn, not mse"
    ):
        run(evaluate, *flags, "--dest", tmp_path / "e", "--samples", 2)
    (tmp_path / "busy").mkdir()
    with (
        files.lock(tmp_path / "busy" / ".lock", "not free"),
        pytest.raises(UserError, match="in use by another process"),
    ):
        run(evaluate, *flags, "--dest", tmp_path / "busy")


@pytest.mark.parametrize("name", ["_runs/best.pt", "$x$", "x$\\frac$"])
def test_names_in_curves_are_not_markup(name, tmp_path):
    """A name is drawn as it is: the legend shows it, and another name looks different."""
    drawn = {}
    for other in (name, name.replace("$", ""), ""):
        pictures.save_curves(tmp_path / "c.png", {other: np.ones(3)})
        drawn[other] = (tmp_path / "c.png").read_bytes()
    assert len(set(drawn.values())) == len(drawn)


def test_without_memory_a_prediction_knows_one_frame(chain):
    """What the 2016 code did when sampling, beside what it should have done."""
    frames = read_windows(chain / "frames.hdf5", "test", 8)[0] / np.float32(255)
    model = Trained(chain / "lstm" / "best.pt", torch.device("cpu"))
    other = np.concatenate([frames[:, 2:4], frames[:, 2:]], axis=1)
    for predict, remembers in ((model.forget, False), (model.predict, True)):
        one, two = (predict(f[:, :5], f[:, 5:])[:, -3:] for f in (frames, other))
        assert one.shape == frames[:, 5:].shape
        assert (np.abs(one - two).max() > 1e-7) == remembers


def test_what_the_codec_loses_is_restored_from_the_last_true_frame():
    """A loss that is the same in every frame is none then; for later frames that of the last true
    one is taken.
    """
    rng = np.random.default_rng(0)
    frames, lost = (
        torch.from_numpy(rng.uniform(0.3, 0.6, shape))
        for shape in ((2, 6, 1, 4, 4), (2, 1, 1, 4, 4))
    )
    context, painted = frames[:, :4], frames - lost + 0.25
    torch.testing.assert_close(baselines.restore(painted, context, context - lost + 0.25), frames)
    losses = 0.01 * torch.arange(4.0).view(1, 4, 1, 1, 1)
    restored = baselines.restore(painted, context, context - losses) - painted
    assert [round(100 * float(r)) for r in restored[0, :, 0, 0, 0]] == [0, 0, 1, 2, 3, 3]
