"""The VAE of slots: objects are drawn where they are said to be, and keep their slot over time."""

import shutil

import h5py
import pytest
import torch
from conftest import run

import evaluate
import moving_mnist
import sample_video
import show_slots
import train_jointly
import train_lstm
import train_vcae
from cli import UserError
from data.hdf5 import Frames
from models import checkpoint
from models.codec import Codec
from models.lstm import LatentLSTM
from models.slots import SlotVAE, in_order


def tiny(frame_shape=(1, 32, 32), slots=2, combine="max", seed=0):
    torch.manual_seed(seed)
    return SlotVAE(frame_shape, z_dim=6 * slots, slots=slots, size=10, combine=combine, n_hid=16).eval()


def at(model, row, column):
    """The place of a slot whose middle is at (row, column), in pixels."""
    return (torch.tensor([row, column]) - model.half_frame + 0.5) / model.half_frame


def test_an_object_is_drawn_where_its_place_is():
    model = tiny((1, 32, 48), slots=1)
    look = torch.randn(1, 1, 4)
    with torch.no_grad():
        glyph = torch.sigmoid(model.glyph(look)).view(10, 10)
        drawn = model.drawn(look, at(model, 12.5, 30.5).view(1, 1, 2))[0, 0]
    expected = torch.zeros(32, 48)
    expected[8:18, 26:36] = glyph
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-4)


def test_half_a_pixel_is_half_of_each():
    model = tiny(slots=1)
    look = torch.randn(1, 1, 4)
    places = [at(model, 12.5 + shift, 15.5).view(1, 1, 2) for shift in (0, 0.5, 1)]
    here, between, there = (model.drawn(look, place) for place in places)
    torch.testing.assert_close(between, (here + there) / 2, atol=1e-5, rtol=1e-4)


def test_a_crop_sees_what_was_drawn():
    model = tiny(slots=1)
    look, place = torch.randn(1, 1, 4), at(model, 12.5, 15.5).view(1, 1, 2)
    drawn = model.drawn(look, place)
    offsets = torch.arange(10) - 4.5
    torch.testing.assert_close(model.crop(drawn, place, offsets)[0, 0], drawn[0, 0, 8:18, 11:21])


@pytest.mark.parametrize(("combine", "expected"), [("sum", 1.0), ("max", 0.7)])
def test_overlap(combine, expected):
    drawn = torch.tensor([0.7, 0.6]).view(1, 2, 1, 1)
    assert tiny(combine=combine).combined(drawn).item() == pytest.approx(expected)


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
@pytest.mark.parametrize("combine", ["sum", "max"])
def test_gradient_reaches_every_weight(slots, combine):
    model = tiny((1, 32, 48), slots, combine).train()
    model(torch.rand(3, 1, 32, 48))["loss"].backward()
    still = [name for name, weight in model.named_parameters() if not weight.grad.abs().sum() > 0]
    assert not still
    mu, log_sigma = model.encode(torch.rand(3, 1, 32, 48))
    assert mu.shape == log_sigma.shape == (3, 6 * slots)
    assert model.decode(mu).shape == (3, 1, 32, 48)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_slots_are_kept_over_time(slots):
    """Objects that cross, at constant velocity, in slots shuffled frame by frame."""
    torch.manual_seed(0)
    look = torch.randn(4, 1, slots, 4).expand(-1, 9, -1, -1)
    start, velocity = torch.randn(4, 1, slots, 2), 0.1 * torch.randn(4, 1, slots, 2)
    place = start + velocity * torch.arange(9.0)[:, None, None]
    true = torch.cat([look, place], -1)
    latents = torch.stack([true, torch.full_like(true, -3)], 2)
    shuffled = latents.clone()
    for v in range(4):
        for t in range(1, 9):
            shuffled[v, t] = shuffled[v, t, :, torch.randperm(slots)]
    torch.testing.assert_close(in_order(shuffled.flatten(3), slots), latents.flatten(3))


def test_the_lstm_treats_slots_alike():
    """What it predicts for slots that change places changes places."""
    torch.manual_seed(0)
    lstm = LatentLSTM(12, 8, 1, loss="mse", residual="second", slots=2).eval()
    latents = torch.randn(3, 5, 2, 12)
    swapped = latents.unflatten(-1, (2, 6)).flip(3).flatten(3)
    one, two = lstm.rollout(latents, 4), lstm.rollout(swapped, 4)
    torch.testing.assert_close(two, one.unflatten(-1, (2, 6)).flip(2).flatten(2))


def test_what_goes_on_is_the_place_and_what_stays_is_the_look():
    """An LSTM that adds nothing: places at their last speed, looks the mean of those read."""
    lstm = LatentLSTM(12, 8, 1, loss="distance", residual="second", slots=2).eval()
    torch.nn.init.zeros_(lstm.project.weight)
    latents = torch.randn(3, 5, 2, 12)
    with torch.no_grad():
        last = lstm.rollout(latents, 4)[:, -1].unflatten(-1, (2, 6))
    read = latents[:, :, 0].unflatten(-1, (2, 6))
    torch.testing.assert_close(last[..., :4], read[..., :4].mean(1))
    torch.testing.assert_close(last[..., 4:], read[:, -1, :, 4:] + 4 * (read[:, -1] - read[:, -2])[..., 4:])


def test_distance_minds_a_large_error_less_than_its_square():
    lstm = LatentLSTM(6, 8, 1, loss="distance", residual="first", slots=1).eval()
    torch.nn.init.zeros_(lstm.project.weight)
    latents = torch.zeros(1, 3, 2, 6)
    losses = []
    for error in (100.0, 200.0):
        latents[:, 2, 0, 4] = error
        losses.append(lstm(latents)["loss"].item())
    assert losses[1] / losses[0] == pytest.approx(2, rel=0.02)


def test_frames_teach_it(chain):
    """A few dozen steps on two digits explain more of a frame than a black one does, and of every frame."""
    frames = Frames(chain / "frames.hdf5", "train").evenly_spaced(30).float() / 255
    torch.manual_seed(0)
    model = SlotVAE((1, 64, 64), z_dim=12, n_hid=32, combine="sum")
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        scalars = model(frames)
        scalars["loss"].backward()
        optimizer.step()
    assert scalars["squared_error"] < 0.75 * frames.square().sum() / len(frames)


@pytest.fixture(scope="module")
def slotted(chain, tmp_path_factory):
    root = tmp_path_factory.mktemp("slots")
    shutil.copy(chain / "frames.hdf5", root)
    small = ["--num_epochs", 1, "--batch_size", 5, "--device", "cpu"]
    flags = ["--data_file", root / "frames.hdf5", "--save_to", root / "vcae", "--arch", "slots", "--n_hid", 16]
    run(train_vcae, *flags, "--z_dim", 12, *small)
    flags = ["--data_file", root / "vcae" / "latents.hdf5", "--save_to", root / "lstm", "--lstm_n_hid", 8]
    run(train_lstm, *flags, "--seq_length", 6, "--loss", "distance", "--residual", "second", *small)
    return root


def test_later_stages_take_it_like_any_other(slotted, tmp_path):
    model = slotted / "lstm" / "best.pt"
    assert checkpoint.load(model, LatentLSTM)["config"]["slots"] == 2
    run(evaluate, "--model", model, "--context", 4, "--horizon", 3, "--dest", tmp_path / "e")
    run(sample_video, "--model", model, "--prime", 4, "--predict", 3, "--n", 1, "--dest", tmp_path / "s")
    run(show_slots, "--model", model, "--context", 4, "--horizon", 3, "--n", 2, "--dest", tmp_path / "slots.png")
    assert (tmp_path / "slots.png").stat().st_size > 10_000


def test_a_run_is_resumed(slotted, tmp_path):
    shutil.copytree(slotted / "vcae", tmp_path / "vcae")
    run(
        train_vcae,
        "--save_to",
        tmp_path / "vcae",
        "--resume",
        "--num_epochs",
        2,
        "--data_file",
        slotted / "frames.hdf5",
    )
    assert len(checkpoint.load(tmp_path / "vcae" / "best.pt", SlotVAE)["history"]) > 0


def test_the_dump_is_what_the_codec_makes_of_whole_videos(slotted):
    """One order of slots, in the dump as when predicting."""
    codec = Codec(slotted / "vcae" / "best.pt", "cpu")
    video = Frames(slotted / "frames.hdf5", "test").video(0)
    with h5py.File(slotted / "vcae" / "latents.hdf5") as file:
        assert file.attrs["slots"] == 2
        torch.testing.assert_close(torch.from_numpy(file["test/latents"][0, :8]), codec.encode_videos(video[None])[0])


def test_what_slots_cannot_do_is_refused(slotted, chain, tmp_path):
    dump, small = slotted / "vcae" / "latents.hdf5", ["--seq_length", 6, "--device", "cpu"]
    with pytest.raises(UserError, match="--loss mdn"):
        run(train_lstm, "--data_file", dump, "--save_to", tmp_path / "lstm", "--loss", "mdn", *small)
    with pytest.raises(UserError, match="SlotVAE"):
        run(train_jointly, "--lstm", slotted / "lstm" / "best.pt", "--save_to", tmp_path / "joint", "--device", "cpu")
    with pytest.raises(UserError, match="without slots"):
        run(show_slots, "--model", chain / "lstm" / "best.pt", "--device", "cpu")


def test_frames_it_was_not_made_for_are_refused(chain, tmp_path):
    flags = ["--data_file", chain / "frames.hdf5", "--save_to", tmp_path / "run", "--arch", "slots", "--device", "cpu"]
    with pytest.raises(UserError, match="--z_dim 33 does not divide into --slots 2"):
        run(train_vcae, *flags, "--z_dim", 33)
    with pytest.raises(UserError, match="--z_dim 4"):
        run(train_vcae, *flags, "--z_dim", 4)


@pytest.mark.parametrize(("digits", "size"), [(1, 9), (3, 12), (4, 20)])
def test_slots_and_sizes_come_from_the_file(digits, size, tmp_path):
    frames = tmp_path / "frames.hdf5"
    flags = ["--mnist", "sample", "--dest", frames, "--seqs", 5, "--seq_len", 4, "--split", "60/20/20"]
    run(moving_mnist, *flags, "--nums_per_image", digits, "--num_sz", size, "--frame_size", 48)
    flags = ["--data_file", frames, "--save_to", tmp_path / "vcae", "--arch", "slots", "--z_dim", 12, "--device", "cpu"]
    run(train_vcae, *flags, "--num_epochs", 1, "--n_hid", 16)
    config = checkpoint.load(tmp_path / "vcae" / "best.pt", SlotVAE)["config"]
    assert (config["slots"], config["size"], config["combine"]) == (digits, size, "sum")
    with pytest.raises(UserError, match="does not divide"):
        run(train_vcae, *flags, "--z_dim", 13 if digits > 1 else 2, "--save_to", tmp_path / "another")
