"""Films: a grid of places, the painter of frames, windows for training, the stages together."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from conftest import run
from test_movie_chain import ABOUT, write_movie
from torch.nn import functional as F

import evaluate
import sample_video
import train_jointly
import train_lstm
import train_vcae
from data import hdf5
from data.augmented import FilmWindows
from models.film import FilmPredictor, shrink
from models.flow import lucas_kanade, warp
from models.grid import grid_of
from models.painter import Painter
from models.vae import VCAE
from runtime.errors import UserError
from training import checkpoint

# The grid of the autoencoder


@pytest.mark.parametrize(
    ("size", "grid"),
    [((64, 64), (8, 8)), ((64, 112), (8, 14)), ((20, 30), (8, 8)), ((48, 100), (8, 13)),
     ((100, 48), (13, 8)), ((5, 9), (8, 9)), ((128, 200), (8, 13))],
)  # fmt: skip
def test_frames_of_any_size_come_back_in_it(size, grid):
    assert grid_of(*size) == grid
    z_dim = 2 * grid[0] * grid[1]
    model = VCAE((1, *size), z_dim, arch="grid", nfilts=2).eval()
    mean, log_sigma = model.encode(torch.rand(3, 1, *size))
    assert mean.shape == log_sigma.shape == (3, z_dim)
    assert model.decode(mean).shape == (3, 1, *size)


def test_a_place_of_the_grid_is_of_the_pixels_near_it():
    torch.manual_seed(0)
    model = VCAE((1, 64, 128), 2 * 8 * 16, arch="grid", nfilts=2).eval()
    frame = torch.rand(1, 1, 64, 128)
    changed = frame.clone()
    changed[..., :8] = 0  # the first column of places
    before, after = (model.encode(x)[0].unflatten(1, (2, 8, 16)) for x in (frame, changed))
    differs = (before != after).any(0).any(0).any(0)  # by column
    assert differs[0]
    assert not differs[9:].any()


# The painter


@pytest.mark.parametrize(("channels", "size"), [(3, (20, 30)), (1, (33, 17)), (1, (2, 3))])
def test_the_painter_begins_as_nearly_a_copy_where_nothing_moves(channels, size):
    torch.manual_seed(0)
    painter = Painter(channels, z=2)
    last = torch.rand(2, channels, *size)
    z_last, z_ahead = torch.randn(2, 2, 2, 3, 4)
    ahead = torch.tensor([1, 2])
    painted, flow = painter(last, painter.look(last[:, None]), z_last, z_ahead, ahead)
    assert painted.shape == last.shape
    assert flow.shape == (2, 2, *size)
    assert flow.abs().max() < 1
    assert F.mse_loss(painted, last) < 0.1 * last.var()


def test_flow_is_velocity_times_the_frames_ahead(monkeypatch):
    """But for what the networks make of that number: here they hardly read it."""
    monkeypatch.setattr("models.painter.LONGEST", 1e9)
    torch.manual_seed(0)
    painter = Painter(1, z=2)
    frames = torch.rand(1, 3, 1, 20, 30)
    last = frames[:, -1]
    z_last, z_ahead = torch.randn(2, 1, 2, 3, 4)
    flows = []
    for ahead in (1, 3):
        looks = painter.look(frames)
        flows.append(painter(last, looks, z_last, z_ahead, torch.tensor([ahead]))[1])
    assert flows[0].abs().max() > 0.001
    torch.testing.assert_close(flows[1], 3 * flows[0])


def test_warp_by_whole_pixels_shifts():
    frames = torch.rand(2, 3, 9, 14)
    torch.testing.assert_close(warp(frames, torch.zeros(2, 2, 9, 14)), frames)
    flow = torch.zeros(2, 2, 9, 14)
    flow[:, 0] = 3  # to the right
    flow[:, 1] = -2  # up
    warped = warp(frames, flow)
    torch.testing.assert_close(warped[..., 2:, :11], frames[..., :7, 3:])
    torch.testing.assert_close(warped[..., :2, :11], frames[..., :1, 3:].expand(-1, -1, 2, -1))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-1, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_optical_flow_finds_where_a_texture_came_from(down, right, channels):
    torch.manual_seed(0)
    texture = F.avg_pool2d(torch.rand(2, channels, 52, 60), 5, stride=1)
    previous = ((texture - 0.5) * 4 + 0.5).clamp(0, 1)
    last = previous.roll((-down, -right), (2, 3))  # last(p) = previous(p + displacement)
    flow = lucas_kanade(previous, last)
    assert flow.shape == (2, 2, *last.shape[2:])
    inner = flow[..., 10:-10, 10:-10].mean((0, 2, 3))  # where nothing came in from beyond the edge
    torch.testing.assert_close(inner, torch.tensor([right, down]).float(), rtol=0.1, atol=0.1)


def test_optical_flow_is_nothing_where_nothing_can_be_seen():
    flat = torch.full((1, 3, 20, 30), 0.4)
    assert lucas_kanade(flat, flat).abs().max() < 1e-6
    one_pixel = torch.rand(2, 1, 1, 1, 1)
    assert lucas_kanade(*one_pixel).isfinite().all()


# The painter and the LSTM as one network


def tiny(free=3, **config):
    torch.manual_seed(0)
    lstm = {"z_dim": 32, "n_hid": 8, "layers": 1, "dropout": 0.0, "loss": "mse", "free": free}
    return FilmPredictor(lstm | {"residual": "paced", "grid": [4, 4]} | config, channels=1)


def moving_texture(frames, videos=4, size=32):
    """Windows (B, T, 1, size, size) of smooth random textures that move two pixels per frame, and
    latents of them, (B, T, 2, 32): averages of the places, and of their right halves.
    """
    texture = F.avg_pool2d(torch.rand(videos, 1, size + 4, size + 4), 5, stride=1)
    texture = ((texture - 0.5) * 4 + 0.5).clamp(0, 1)
    film = torch.stack([texture.roll(2 * t, dims=3) for t in range(frames)], dim=1)
    halves = F.avg_pool2d(film.flatten(0, 1), (8, 4))  # (B*T, 1, 4, 8)
    numbers = torch.cat([halves[..., ::2], halves[..., 1::2]], dim=1)  # (B*T, 2, 4, 4)
    mean = numbers.flatten(1).unflatten(0, film.shape[:2])  # (B, T, 32)
    return film, torch.stack([mean, torch.full_like(mean, -3)], dim=2)


def test_every_weight_of_both_gets_a_gradient():
    model = tiny().train()
    model(*moving_texture(8))["loss"].backward()
    still = [name for name, weight in model.named_parameters() if not weight.grad.any()]
    assert still == []


def test_an_lstm_without_places_is_refused():
    with pytest.raises(ValueError, match="no grid"):
        tiny(grid=[])


def test_frames_to_predict_are_not_read():
    model = tiny().eval()
    film, latents = moving_texture(8)
    other = film.clone()
    other[:, 4:] = 0.5
    changed = latents.clone()
    changed[:, 4:] = 7
    copies = []
    for frames, z in ((film, latents), (other, changed)):
        painted = model.rollout(frames[:, :4], z[:, :4], 4)
        copies.append(painted)
    assert torch.equal(*copies)
    errors = [model(film, z)["squared_error"] for z in (latents, changed)]
    assert torch.equal(*errors)


def test_evaluation_paints_what_sampling_does():
    model = tiny().eval()
    with torch.no_grad():
        film, latents = moving_texture(8)
        painted = model.rollout(film[:, :4], latents[:, :4], 4)
        assert painted.shape == film.shape
        assert torch.equal(painted[:, 0], film[:, 0])
        error = (painted[:, 4:] - film[:, 4:]).square().sum((2, 3, 4)).mean()
        torch.testing.assert_close(model(film, latents)["squared_error"], error)


def test_one_frame_of_context_will_do():
    model = tiny(free=1).eval()
    film, latents = moving_texture(3)
    assert model.rollout(film[:, :1], latents[:, :1], 2).shape == film.shape
    hidden = film.clone()
    hidden[:, 1:] = 0.5
    copies = [model(x, latents)["copy"] for x in (film, hidden)]
    assert copies[0] != copies[1]
    seen = []
    look = model.painter.look
    model.painter.look = lambda *frames: seen.append(frames) or look(*frames)
    model(film, latents)
    assert torch.equal(seen[0][0], film[:, :1])  # not one of those to predict


def test_it_learns_to_move_a_texture():
    model = tiny(free=2).train()
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        loss = model(*moving_texture(6))["loss"]
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        measured = model.eval()(*moving_texture(6, videos=16))
    assert measured["squared_error"] < 0.4 * measured["copy"]


# Windows for training


def marked_film(path, lengths=(30, 9, 50), size=(10, 12), channels=3):
    """A film each of whose pixels tells its column; and each frame, by its first two rows, its
    number in the film. Colours are far from black and white, so that none is clipped.
    """
    count = sum(lengths)
    frames = np.empty((count, channels, *size), np.uint8)
    frames[:] = 60 + 10 * np.arange(size[1])
    frames[:, :, :2] = (60 + np.arange(count))[:, None, None, None]
    frames += np.arange(channels, dtype=np.uint8)[:, None, None]
    with hdf5.create(path, "frames", ABOUT) as file:
        for split in hdf5.SPLITS:
            file[f"{split}/frames"] = frames
            file[f"{split}/starts"] = np.cumsum([0, *lengths])
    return path


def windows(path, length=5, skip=3, shape=(3, 6, 8), seed=0, split="train"):
    return FilmWindows(path, split, length, skip, shape, seed)


def test_windows_without_a_seed_are_plain_and_centred(tmp_path):
    path = marked_film(tmp_path / "film.hdf5")
    made = windows(path, seed=None)
    with h5py.File(path) as file:
        frames = file["train/frames"][:]
    firsts = [0, 5, 10, 15]  # spans of 13 frames in a video of 30
    firsts += [39, 44, 49, 54, 59, 64, 69, 74]  # and in one of 50; one of 9 is too short
    assert len(made) == len(firsts)
    batch = made.__getitems__(range(12)).numpy()
    for window, first in zip(batch, firsts, strict=True):
        assert (window == frames[first : first + 13 : 3, :, 2:8, 2:10]).all()
    made.set_epoch(7)
    assert (made.__getitems__(range(12)).numpy() == batch).all()


def test_windows_are_those_of_their_seed_and_epoch(tmp_path):
    path = marked_film(tmp_path / "film.hdf5")
    made = windows(path)
    batches = []
    for epoch in (1, 2, 1):
        made.set_epoch(epoch)
        batches.append(made.__getitems__(range(len(made))))
    assert batches[0].dtype == torch.uint8
    assert batches[0].shape == (17, 5, 3, 6, 8)
    assert torch.equal(batches[0], batches[2])
    assert not torch.equal(batches[0], batches[1])
    made.set_epoch(1)
    assert torch.equal(made.__getitems__([4, 0]), batches[0][[4, 0]])
    other = windows(path, seed=1)
    other.set_epoch(1)
    assert not torch.equal(other.__getitems__(range(17)), batches[0])


def test_windows_are_changed_in_every_way_and_stay_in_their_video(tmp_path, monkeypatch):
    """But for the colours, which are left alone here, so that a frame tells its number."""
    monkeypatch.setattr("data.augmented.CONTRAST", (1, 1))
    monkeypatch.setattr("data.augmented.BRIGHTNESS", (0, 0))
    lengths = (30, 9, 50)
    made = windows(marked_film(tmp_path / "film.hdf5", lengths), shape=(3, 10, 8))
    starts = np.cumsum([0, *lengths])
    seen = {"steps": set(), "left": set(), "mirrored": set(), "order": set(), "video": set()}
    for epoch in range(60):
        made.set_epoch(epoch)
        for i, window in enumerate(made.__getitems__(range(len(made))).numpy().astype(int)):
            order = window[0, :, 0, 0] - window[0, :, 0, 0].min()
            window = window - order[:, None, None]
            (step,) = set(np.diff(window[:, 0, 0, 0]))
            numbers = window[:, 0, 0, 0] - 60
            columns = (window[0, 0, 5] - 60) // 10
            (video,) = set(np.searchsorted(starts, numbers, "right") - 1)
            assert video == made.videos[i]
            seen["steps"].add(step)
            seen["left"].add(columns.min())
            seen["mirrored"].add(columns[0] > columns[-1])
            seen["order"].add(tuple(order))
            seen["video"].add(video)
    assert seen["steps"] == {*range(1, 6), *range(-5, 0)}
    assert seen["left"] == set(range(5))
    assert seen["mirrored"] == {False, True}
    assert len(seen["order"]) == 6
    assert seen["video"] == {0, 1, 2}  # the second is too short for three frames per step


def test_colours_change_with_the_whole_window(tmp_path):
    made = windows(marked_film(tmp_path / "film.hdf5", channels=1), shape=(1, 6, 8))
    batch = made.__getitems__(range(len(made)))
    rows = batch[:, :, 0, 2:].sort(dim=-1).values  # without the frames' numbers, not mirrored
    assert (rows == rows[:, :1, :1]).all()
    steps = rows[:, 0, 0].int().diff(dim=-1).float().mean(-1)
    assert steps.std() > 0.1  # contrast


def test_windows_of_short_videos(tmp_path):
    path = marked_film(tmp_path / "film.hdf5", lengths=(9, 4))
    assert len(windows(path)) == 1  # at a smaller skip
    with pytest.raises(UserError, match="the longest train video has 9 frames, a window needs 13"):
        windows(path, seed=None)
    with pytest.raises(UserError, match=r"has 9 frames, a window needs 10: lower --seq_length"):
        windows(path, length=10)


@pytest.mark.parametrize("shape", [(1, 6, 8), (3, 6, 13), (3, 11, 8)])
def test_frames_that_are_not_the_autoencoders_are_refused(tmp_path, shape):
    path = marked_film(tmp_path / "film.hdf5")
    with pytest.raises(UserError, match=r"film\.hdf5 has frames \(3, 10, 12\), its autoencoder's"):
        windows(path, shape=shape)


# The stages

SMALL = ["--num_epochs", 2, "--batch_size", 4, "--device", "cpu", "--schedule", "constant"]
WINDOW = ["--seq_length", 6, "--rollout", 2]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A folder with a film, and the runs of an autoencoder and an LSTM with a grid."""
    root = tmp_path_factory.mktemp("film")
    write_movie(root / "movie.hdf5")
    codec = ["--arch", "grid", "--nfilts", 2, "--z_dim", 64, "--save_to", root / "vcae"]
    run(train_vcae, "--data_file", root / "movie.hdf5", *codec, *SMALL)
    lstm = ["--seq_length", 4, "--lstm_n_hid", 6, "--save_to", root / "lstm"]
    run(train_lstm, "--data_file", root / "vcae/latents.hdf5", *lstm, *SMALL)
    return root


def train(film, folder, *flags):
    lstm = ["--lstm", film / "lstm/best.pt"]
    run(train_jointly, *lstm, "--save_to", folder, *SMALL, *WINDOW, *flags)
    return checkpoint.load(folder / "last.pt", FilmPredictor)


@pytest.fixture(scope="module")
def trained(film, tmp_path_factory):
    folder = tmp_path_factory.mktemp("painted") / "run"
    train(film, folder)
    return folder


def test_an_lstm_of_a_grid_has_its_own_defaults(film):
    content = checkpoint.load(film / "lstm/best.pt", train_lstm.LatentLSTM)
    assert content["config"]["grid"] == [8, 8]
    assert content["config"]["residual"] == "paced"
    with h5py.File(film / "vcae/latents.hdf5") as file:
        assert (file.attrs["grid_rows"], file.attrs["grid_columns"]) == (8, 8)


def test_both_parts_learn_and_the_codec_stays(film, trained):
    content = checkpoint.load(trained / "last.pt", FilmPredictor)
    lstm = checkpoint.load(film / "lstm/best.pt", train_lstm.LatentLSTM)
    assert content["parents"]["codec"]["id"] == lstm["parents"]["codec"]["id"]
    for name, weight in lstm["model"].items():
        assert not torch.equal(weight, content["model"][f"lstm.{name}"]), name
    assert [row["epoch"] for row in content["history"]] == [1, 2]


def test_resumed_equals_unbroken(film, trained, tmp_path):
    train(film, tmp_path / "broken", "--num_epochs", 1)
    resumed = train(film, tmp_path / "broken", "--resume", "--num_epochs", 2)
    unbroken = checkpoint.load(trained / "last.pt", FilmPredictor)
    for name, weight in unbroken["model"].items():
        assert torch.equal(weight, resumed["model"][name]), name


def test_later_stages_take_it(trained, tmp_path):
    flags = ["--model", trained / "best.pt", "--context", 3, "--device", "cpu"]
    run(sample_video, *flags, "--horizon", 8, "--n", 2, "--dest", tmp_path / "s")
    assert len(list((tmp_path / "s").iterdir())) == 2
    dest = ["--dest", tmp_path / "e"]
    run(evaluate, *flags, "--horizon", 2, "--forget", "--n", 2, *dest)
    rows = json.loads((tmp_path / "e/metrics.json").read_text())["predictors"]
    name = str(trained / "best.pt")
    assert {name, f"{name}, state lost", "copy of the last frame"} <= rows.keys()
    assert f"{name}, restored" not in rows


def test_what_does_not_go_with_a_painter_is_refused(trained, tmp_path):
    model = ["--model", trained / "best.pt", "--context", 3, "--horizon", 2, "--dest", tmp_path]
    with pytest.raises(UserError, match=r"--restore: .*best\.pt paints upon the last true frame"):
        run(sample_video, *model, "--restore")
    with pytest.raises(UserError, match="--temperature draws from a mixture"):
        run(sample_video, *model, "--temperature", 1)
    with pytest.raises(UserError, match="--samples draws from a mixture"):
        run(evaluate, *model, "--samples", 2)


def test_frames_smaller_than_a_coarse_pixel_have_a_coarse_error():
    assert shrink(torch.rand(2, 3, 1, 2, 3)).shape == (2, 3, 1, 1, 1)
    frames = torch.rand(2, 3, 1, 5, 8)
    assert torch.allclose(shrink(frames)[..., 1, 1], frames[..., 4:, 4:].mean((3, 4)))


@pytest.mark.parametrize("flags", [["--loss", "mdn"], ["--diffs"]])
def test_what_does_not_go_with_a_grid_is_refused(film, tmp_path, flags):
    latents = film / "vcae/latents.hdf5"
    with pytest.raises(
        UserError, match="places in a grid, which --loss mdn and --diffs do not take"
    ):
        run(train_lstm, "--data_file", latents, "--save_to", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_z_dim_that_does_not_divide_into_places_is_refused(film, tmp_path):
    data = ["--data_file", film / "movie.hdf5", "--save_to", tmp_path / "run", "--device", "cpu"]
    with pytest.raises(UserError, match="--z_dim 100 does not divide into 8 x 8 places: take 64"):
        run(train_vcae, *data, "--arch", "grid", "--z_dim", 100)
    small = ["--num_epochs", 1, "--max_per_epoch", 1, "--batch_size", 2, "--nfilts", 1]
    run(train_vcae, *data, "--arch", "grid", *small)
    assert checkpoint.load(tmp_path / "run/best.pt", VCAE)["config"]["z_dim"] == 4 * 8 * 8


def test_frames_made_anew_are_refused(film, tmp_path):
    shutil.copytree(film, tmp_path / "film")
    (tmp_path / "film/movie.hdf5").unlink()
    write_movie(tmp_path / "film/movie.hdf5", height=16)
    with pytest.raises(UserError, match=r"movie\.hdf5 has frames \(3, 16, 30\), its autoenc"):
        train(tmp_path / "film", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_window_without_context_is_refused(film, tmp_path):
    with pytest.raises(UserError, match="--rollout 5 leaves no context in --seq_length 6"):
        train(film, tmp_path / "run", "--rollout", 5)
    assert not (tmp_path / "run").exists()
