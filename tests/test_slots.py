"""The VAE of slots: objects are drawn where they are said to be, and keep their slot over time."""

import math
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import torch
from conftest import run

import evaluate
import moving_mnist
import sample_video
import train_jointly
import train_lstm
import train_vcae
from data.hdf5 import Frames, create
from models import codec
from models.lstm import LatentLSTM
from models.slots import SlotVAE, match_slots
from runtime.device import in_threads
from runtime.errors import UserError
from training import checkpoint
from training.trained import Trained, load_codec


def tiny(frame_shape=(1, 32, 32), slots=2, combine="max", seed=0):
    torch.manual_seed(seed)
    return SlotVAE(
        frame_shape, z_dim=6 * slots, slots=slots, size=10, combine=combine, n_hid=16
    ).eval()


def at(model, row, column):
    """The place of a slot whose middle is at (row, column), in pixels."""
    return (torch.tensor([row, column]) - model.half_frame + 0.5) / model.half_frame


def test_an_object_is_drawn_where_its_place_is():
    model = tiny((1, 32, 48), slots=1)
    look = torch.randn(1, 1, 4)
    with torch.no_grad():
        glyph = model.glyph(look).view(10, 10)
        drawn = model.draw(look, at(model, 12.5, 30.5).view(1, 1, 2))[0, 0]
    expected = torch.zeros(32, 48)
    expected[8:18, 26:36] = glyph
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-4)


def test_half_a_pixel_is_half_of_each():
    model = tiny(slots=1)
    look = torch.randn(1, 1, 4)
    places = [at(model, 12.5 + shift, 15.5).view(1, 1, 2) for shift in (0, 0.5, 1)]
    here, between, there = (model.draw(look, place) for place in places)
    torch.testing.assert_close(between, (here + there) / 2, atol=1e-5, rtol=1e-4)


def test_a_glimpse_shows_what_was_drawn():
    model = tiny(slots=1)
    look, place = torch.randn(1, 1, 4), at(model, 12.5, 15.5).view(1, 1, 2)
    drawn = model.draw(look, place)
    offsets = torch.arange(10) - 4.5
    torch.testing.assert_close(model.glimpse(drawn, place, offsets)[0, 0], drawn[0, 0, 8:18, 11:21])


@pytest.mark.parametrize(("combine", "expected"), [("sum", 1.0), ("max", 0.7)])
def test_overlap(combine, expected):
    drawn = torch.tensor([0.7, 0.6]).view(1, 2, 1, 1)
    assert tiny(combine=combine).overlay(drawn).item() == pytest.approx(expected)


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
@pytest.mark.parametrize("combine", ["sum", "max"])
def test_gradient_reaches_every_weight(slots, combine):
    model = tiny((1, 32, 48), slots, combine).train()
    model(torch.rand(3, 1, 32, 48))["loss"].backward()
    norms = {name: weight.grad.norm() for name, weight in model.named_parameters()}
    rounding = 1e-5 * max(norms.values())
    assert not [name for name, norm in norms.items() if not norm > rounding]
    mu, log_sigma = model.encode(torch.rand(3, 1, 32, 48))
    assert mu.shape == log_sigma.shape == (3, 6 * slots)
    assert model.decode(mu).shape == (3, 1, 32, 48)


@pytest.mark.parametrize("slots", [2, 3, 4])
@pytest.mark.parametrize("told_by", ["place", "look"])
def test_slots_are_put_in_the_order_expected(slots, told_by):
    torch.manual_seed(0)
    z_what, z_where = 3 * torch.randn(5, slots, 4), torch.randn(5, slots, 2)
    if told_by == "place":
        z_what[:] = z_what[:, :1]
    else:
        z_where = z_where[:, :1] + 0.001 * torch.randn_like(z_where)
    means = torch.cat([z_what, z_where], -1)[:, torch.arange(slots).roll(1)]
    mixed = torch.stack([means, means], 1).flatten(2)  # (V, 2, z_dim)
    z_what += 0.1 * torch.randn_like(z_what)
    torch.testing.assert_close(match_slots(mixed, z_what, z_where + 0.01), z_where)


class Sloppy(SlotVAE):
    """Corrects nothing, so that what it is given shows."""

    def correct(self, x, z_what, z_where, others):
        return z_what, z_where, torch.zeros_like(z_what)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_objects_are_followed_through_each_other(slots):
    """They all meet in the middle, at constant velocity; each frame's slots come in an order of
    their own.
    """
    torch.manual_seed(0)
    model = Sloppy((1, 48, 48), z_dim=6 * slots, slots=slots, size=10, n_hid=16).eval()
    angle = torch.arange(slots) * 6.28 / slots
    z_where = (
        torch.stack([angle.cos(), angle.sin()], -1) * torch.linspace(-0.7, 0.65, 10)[:, None, None]
    )
    z_what = torch.randn(slots, 4).expand(10, -1, -1)
    true = model.to_latents(z_what, z_where, torch.zeros_like(z_what))
    mixed = torch.stack(
        [in_another_order(frame, slots) if t else frame for t, frame in enumerate(true)]
    )
    frames = model.decode(true[:, 0])
    torch.testing.assert_close(model.follow(mixed[None], frames[None])[0], true)


def in_another_order(latent, slots):
    return latent.unflatten(-1, (slots, -1))[:, torch.randperm(slots)].flatten(1)


def test_what_was_found_is_kept_where_it_explains_the_frame_better():
    """An object that turns: the place to which it seemed to go is wrong, and with it the frame
    drawn from there.
    """
    torch.manual_seed(0)
    model = Sloppy((1, 48, 48), z_dim=6, slots=1, size=10, n_hid=16).eval()
    z_where = torch.tensor([0.0, 0.2, 0.4, 0.2, 0.0])[:, None, None].expand(-1, 1, 2)
    z_what = torch.randn(1, 4).expand(5, -1, -1)
    true = model.to_latents(z_what, z_where, torch.zeros_like(z_what))
    torch.testing.assert_close(model.follow(true[None], model.decode(true[:, 0])[None])[0], true)


def test_a_place_that_was_missed_is_led_back_to():
    """The third frame's object was found elsewhere: where it was going explains the frame better."""
    torch.manual_seed(0)
    model = Sloppy((1, 48, 48), z_dim=6, slots=1, size=10, n_hid=16).eval()
    z_where = torch.tensor([-0.2, 0.0, 0.2, 0.4])[:, None, None].expand(-1, 1, 2)
    z_what = torch.randn(1, 4).expand(4, -1, -1)
    true = model.to_latents(z_what, z_where, torch.zeros_like(z_what))
    missed = true.clone()
    missed[2, 0, -2:] = 0.5
    followed = model.follow(missed[None], model.decode(true[:, 0])[None])[0]
    torch.testing.assert_close(followed[:, 0], true[:, 0])


def test_one_slot_is_led_while_the_other_is_found():
    """In the third frame one object turns, so that only what was found is right, and the other was
    found elsewhere.
    """
    torch.manual_seed(0)
    model = Sloppy((1, 48, 48), z_dim=12, slots=2, size=10, n_hid=16).eval()
    z_where = torch.tensor(
        [[[0.2, -0.5], [-0.6, 0.5]], [[0.4, -0.5], [-0.4, 0.5]], [[0.0, -0.5], [-0.2, 0.5]]]
    )
    z_what = torch.randn(2, 4).expand(3, -1, -1)
    true = model.to_latents(z_what, z_where, torch.zeros_like(z_what))
    found = z_where.clone()
    found[2, 1, 0] = 0.6
    latents = model.to_latents(z_what, found, torch.zeros_like(z_what))
    torch.testing.assert_close(model.follow(latents[None], model.decode(true[:, 0])[None])[0], true)


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("combine", ["sum", "max"])
def test_what_was_found_a_pixel_off_is_put_right(slots, combine):
    """Of two videos at once, whose objects turn at each frame, so that they are not where they
    seemed to go, either.
    """
    torch.manual_seed(0)
    model = Sloppy(
        (1, 40, 56), z_dim=6 * slots, slots=slots, size=10, combine=combine, n_hid=16
    ).eval()
    there = torch.tensor([[-0.6, -0.6], [0.5, 0.6], [-0.5, 0.5], [0.6, -0.5]])[:slots]
    z_where = there + 2 / 20 * torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None, None] * torch.ones(
        2, 4, slots, 2
    )
    z_what = 2 * torch.randn(2, 1, slots, 4).expand(-1, 4, -1, -1)
    videos = zip(z_what, z_where, strict=True)
    true = torch.stack([model.to_latents(*video, torch.zeros(4, slots, 4)) for video in videos])
    found = true.clone()
    found.unflatten(-1, (slots, -1))[:, 1:, 0, :, -2:] += torch.tensor([0.8 / 20, -0.8 / 28])
    frames = model.decode(true[:, :, 0].flatten(0, 1)).unflatten(0, (2, 4))
    followed = model.follow_again(model.follow(found, frames), frames)
    torch.testing.assert_close(followed[:, :, 0], true[:, :, 0], atol=0.05 / 20, rtol=0)


def test_an_object_is_found_midway_between_where_it_was_before_and_after():
    """In the second of three frames one slot is far off. Of fewer frames none lies between."""
    torch.manual_seed(0)
    model = Sloppy((1, 48, 48), z_dim=12, slots=2, size=10, n_hid=16).eval()
    z_where = torch.tensor([[[-0.5, -0.5], [0.5, 0.5]]]) + 0.1 * torch.arange(3.0)[:, None, None]
    z_what = torch.randn(2, 4).expand(3, -1, -1)
    true = model.to_latents(z_what, z_where, torch.zeros_like(z_what))
    found = true.clone()
    found[1, 0, -2:] = torch.tensor([0.5, -0.5])
    frames = model.decode(true[:, 0])
    again = model.follow_again(found[None], frames[None])[0]
    torch.testing.assert_close(again, true, atol=1e-4, rtol=0)
    for count in (1, 2):
        again = model.follow_again(true[None, :count], frames[None, :count])[0]
        torch.testing.assert_close(again, true[:count], atol=1e-4, rtol=0)


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_known_objects_are_found_again(combine):
    """Where two overlap, both are found again from a pixel away; one that overhangs the frame's
    edge is, too.
    """
    torch.manual_seed(0)
    model = tiny((1, 32, 48), slots=3, combine=combine)
    z_what = 3 * torch.randn(1, 3, 4)
    z_where = torch.stack(
        [at(model, *corner) for corner in ((12.5, 15.5), (15.0, 18.5), (1.0, 40.0))]
    )[None]
    with torch.no_grad():
        frame = model.overlay(model.draw(z_what, z_where))
        away = z_where + torch.tensor([[1.0, -0.5], [-0.5, 1.0], [0.5, 0.5]]) / model.half_frame
        again = model.refine(frame, model.glyph(z_what), away, steps=8)
    torch.testing.assert_close(again, z_where, atol=0.05 / 24, rtol=0)


def test_any_number_of_threads_encodes_videos_alike(monkeypatch, set_threads):
    monkeypatch.setattr(codec, "VIDEOS", 2)
    networks = codec.Direct(tiny((1, 16, 16), slots=1).eval())
    videos = torch.randint(256, (5, 3, 1, 16, 16), dtype=torch.uint8)
    latents = []
    for count in (1, 3):
        set_threads(count)
        latents.append(codec.Codec(networks, "cpu").encode_videos(videos))
        assert torch.get_num_threads() == count
    assert torch.equal(*latents)


def test_an_interrupted_thread_is_not_waited_for(set_threads):
    """Nor is what no thread has begun begun, and threads that come later have as many as before."""
    began = []
    end = threading.Event()

    def work(part):
        began.append(part)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        end.wait(60)

    count = torch.get_num_threads()
    set_threads(1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    with pytest.raises(KeyboardInterrupt):
        in_threads(work, range(3), torch.device("cpu"))
    signal.signal(signal.SIGINT, before)
    assert began == [0]
    end.set()
    set_threads(count)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == count


def test_looks_become_the_mean_of_those_read():
    """What is corrected at each frame of one that does not move: (1 + 2 + 3) / 3, in all frames."""

    class Counting(SlotVAE):
        def correct(self, x, z_what, z_where, others):
            self.looks_read += 1
            return torch.full_like(z_what, self.looks_read), z_where, torch.zeros_like(z_what)

    model = Counting((1, 16, 16), z_dim=6, slots=1, size=10, n_hid=16).eval()
    model.looks_read = 1.0
    still = model.to_latents(torch.ones(3, 1, 4), torch.zeros(3, 1, 2), torch.zeros(3, 1, 4))
    followed = model.follow(still[None], model.decode(still[:, 0])[None])[0]
    torch.testing.assert_close(followed[:, 0, 0], torch.full((3,), 2.0))


def test_the_lstm_treats_slots_alike():
    """What it predicts for slots that change places changes places."""
    torch.manual_seed(0)
    lstm = LatentLSTM(12, 8, 1, loss="mse", residual="second", slots=2).eval()
    latents = torch.randn(3, 5, 2, 12)
    swapped = latents.unflatten(-1, (2, 6)).flip(3).flatten(3)
    one, two = lstm.rollout(latents, 4), lstm.rollout(swapped, 4)
    torch.testing.assert_close(two, one.unflatten(-1, (2, 6)).flip(2).flatten(2))


def test_the_place_goes_on_and_the_look_stays():
    """An LSTM that puts out nothing: places at their last speed. Any other: the looks that were
    read last.
    """
    lstm = LatentLSTM(12, 8, 1, loss="distance", residual="second", slots=2).eval()
    latents = torch.randn(3, 5, 2, 12)
    read = latents[:, :, 0].unflatten(-1, (2, 6))
    with torch.no_grad():
        last = lstm.rollout(latents, 4)[:, -1].unflatten(-1, (2, 6))
        torch.testing.assert_close(last[..., :4], read[:, -1, :, :4])
        lstm.project.weight.zero_()
        last = lstm.rollout(latents, 4)[:, -1].unflatten(-1, (2, 6))
    torch.testing.assert_close(
        last[..., 4:], read[:, -1, :, 4:] + 4 * (read[:, -1] - read[:, -2])[..., 4:]
    )


def test_how_sure_a_look_will_be_is_predicted():
    """With KL there are log-sigmas, too: the look stays, they do not."""
    torch.manual_seed(9)  # by chance one may be small: here none is below 9e-4
    lstm = LatentLSTM(12, 8, 1, loss="kl", residual="second", slots=2).eval()
    latents = torch.randn(3, 5, 2, 12)
    with torch.no_grad():
        mean, log_sigma = lstm.predict(latents[:, 0])[0].unflatten(-1, (2, 6)).unbind(1)
    torch.testing.assert_close(mean[..., :4], latents[:, 0, 0].unflatten(-1, (2, 6))[..., :4])
    assert (log_sigma[..., :4].abs() > 1e-4).all()


def test_distance_is_in_posterior_deviations():
    """8 sqrt(1 + d^2 / 64) of the place, a tenth of sqrt(1 + d^2) of the look: one slot of six."""
    lstm = LatentLSTM(6, 8, 1, loss="distance", residual="first", slots=1).eval()
    torch.nn.init.zeros_(lstm.project.weight)
    latents = torch.zeros(1, 2, 2, 6)
    latents[0, 1, 0, 0], latents[0, 1, 0, 4:] = 5.0, torch.tensor([3.0, 4.0])
    latents[0, 1, 1, :4], latents[0, 1, 1, 4:] = math.log(2), math.log(0.5)
    expected = 8 * (1 + 10**2 / 64) ** 0.5 + 0.1 * (1 + 2.5**2) ** 0.5
    assert lstm(latents)["loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["kl", "weighted", "mse", "distance"])
@pytest.mark.parametrize("residual", ["none", "first", "second"])
def test_training_runs_freely_as_sampling_does(loss, residual):
    torch.manual_seed(0)
    lstm = LatentLSTM(12, 8, 1, loss=loss, residual=residual, slots=2).eval()
    latents = torch.randn(3, 5, 2, 12)
    unrolled = lstm.latent(lstm.unroll(latents, 4))[:, :, 0]
    torch.testing.assert_close(unrolled, lstm.rollout(latents, 5)[:, 1:])


def test_frames_teach_it(chain):
    """A few dozen steps on two digits explain more of a frame than a black one does."""
    frames = Frames(chain / "frames.hdf5", "train").evenly_spaced(30).float() / 255
    torch.manual_seed(0)
    model = SlotVAE((1, 64, 64), z_dim=12, n_hid=32, combine="sum")
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(30):
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
    flags = [
        "--data_file",
        root / "frames.hdf5",
        "--save_to",
        root / "vcae",
        "--arch",
        "slots",
        "--n_hid",
        16,
    ]
    run(train_vcae, *flags, "--z_dim", 12, *small)
    flags = [
        "--data_file",
        root / "vcae" / "latents.hdf5",
        "--save_to",
        root / "lstm",
        "--lstm_n_hid",
        8,
    ]
    run(train_lstm, *flags, "--seq_length", 6, "--loss", "distance", "--residual", "second", *small)
    return root


def test_later_stages_take_it_like_any_other(slotted, tmp_path):
    model = slotted / "lstm" / "best.pt"
    assert checkpoint.load(model, LatentLSTM)["config"]["slots"] == 2
    run(evaluate, "--model", model, "--context", 4, "--horizon", 3, "--dest", tmp_path / "e")
    run(
        sample_video,
        "--model",
        model,
        "--context",
        4,
        "--horizon",
        3,
        "--n",
        1,
        "--dest",
        tmp_path / "s",
    )
    assert (tmp_path / "e" / "slots.png").stat().st_size > 10_000


def test_resumed_equals_unbroken(slotted, tmp_path):
    flags = [
        "--data_file",
        slotted / "frames.hdf5",
        "--arch",
        "slots",
        "--n_hid",
        16,
        "--z_dim",
        12,
        "--batch_size",
        5,
    ]
    flags += ["--device", "cpu", "--schedule", "constant", "--max_per_epoch", 2]
    run(train_vcae, *flags, "--save_to", tmp_path / "unbroken", "--num_epochs", 2)
    run(train_vcae, *flags, "--save_to", tmp_path / "broken", "--num_epochs", 1)
    run(train_vcae, "--save_to", tmp_path / "broken", "--resume", "--num_epochs", 2)
    ends = [
        checkpoint.load(tmp_path / name / "last.pt", SlotVAE) for name in ("unbroken", "broken")
    ]
    assert [len(end["history"]) for end in ends] == [2, 2]
    assert checkpoint.identity(ends[0]) == checkpoint.identity(ends[1])
    with h5py.File(tmp_path / "broken" / "latents.hdf5") as file:
        assert (
            file.attrs["codec_id"].decode()
            == load_codec(tmp_path / "broken" / "best.pt", "cpu").identity
        )


def test_the_dump_is_what_the_codec_makes_of_whole_videos(slotted):
    """Followed when dumped as when predicting: that is not what each frame gives by itself."""
    codec, frames = (
        load_codec(slotted / "vcae" / "best.pt", "cpu"),
        Frames(slotted / "frames.hdf5", "train"),
    )
    videos = torch.stack([frames.video(v) for v in range(12)])
    with h5py.File(slotted / "vcae" / "latents.hdf5") as file:
        assert file.attrs["slots"] == 2
        assert (file.attrs["frame_height"], file.attrs["frame_width"]) == frames.shape[2:]
        lstm = checkpoint.load(slotted / "lstm" / "best.pt", LatentLSTM)
        assert tuple(lstm["config"]["frame_shape"]) == frames.shape[1:]
        dump = torch.from_numpy(file["train/latents"][0]).unflatten(0, (12, 8))
    torch.testing.assert_close(dump, codec.encode_videos(videos))
    with pytest.raises(ValueError, match="the codec is one of frames"):
        codec.encode_videos(videos[..., :-1])
    assert not torch.allclose(
        dump[:, :, 0].flatten(0, 1), codec.encode(videos.flatten(0, 1))[0], atol=1e-3
    )


def test_what_slots_cannot_do_is_refused(slotted, chain, tmp_path):
    dump, small = slotted / "vcae" / "latents.hdf5", ["--seq_length", 6, "--device", "cpu"]
    with pytest.raises(UserError, match="--diffs"):
        run(train_lstm, "--data_file", dump, "--save_to", tmp_path / "lstm", "--diffs", *small)
    plain = chain / "vcae" / "latents.hdf5"
    with pytest.raises(UserError, match="--loss distance"):
        run(
            train_lstm,
            "--data_file",
            plain,
            "--save_to",
            tmp_path / "lstm",
            "--loss",
            "distance",
            *small,
        )
    flags = ["--data_file", plain, "--save_to", tmp_path / "lstm", "--residual", "objects"]
    with pytest.raises(UserError, match="has no slots, which --residual objects needs"):
        run(train_lstm, *flags, *small)
    with pytest.raises(UserError, match="has no slots, which --transpose needs"):
        run(train_lstm, *flags[:4], "--transpose", *small)
    other = shutil.copy(dump, tmp_path / "other.hdf5")
    with h5py.File(other, "r+") as file:
        file.attrs["frame_width"] = 80
    with pytest.raises(UserError, match="--transpose takes square frames"):
        run(train_lstm, "--data_file", other, *flags[2:4], "--transpose", *small)
    with h5py.File(other, "r+") as file:
        del file.attrs["frame_width"]
    with pytest.raises(UserError, match="does not say how large its frames are"):
        run(train_lstm, "--data_file", other, *flags[2:4], *small)
    with pytest.raises(UserError, match="predicts objects in slots; take a film's model"):
        run(sample_video, "--film", "a.mp4", "--model", slotted / "lstm" / "best.pt")
    with pytest.raises(UserError, match="predicts objects in slots: joint training is for"):
        run(
            train_jointly,
            "--lstm",
            slotted / "lstm" / "best.pt",
            "--save_to",
            tmp_path / "joint",
            "--device",
            "cpu",
        )


def test_an_lstm_for_frames_of_another_size_is_refused(slotted, tmp_path):
    shutil.copytree(slotted, tmp_path, dirs_exist_ok=True)
    content = torch.load(tmp_path / "lstm" / "best.pt")
    content["config"]["frame_shape"] = [1, 32, 64]
    torch.save(content, tmp_path / "lstm" / "best.pt")
    with pytest.raises(UserError, match="is for slots in frames"):
        Trained(tmp_path / "lstm" / "best.pt", "cpu")


def test_frames_it_was_not_made_for_are_refused(tmp_path):
    film, crowd = tmp_path / "film.hdf5", tmp_path / "crowd.hdf5"
    with create(film, "frames", {"source": "a film", "frame_rate": 25.0, "frame_skip": 3}) as file:
        for split in ("train", "valid", "test"):
            file[f"{split}/frames"], file[f"{split}/starts"] = (
                np.zeros((4, 3, 64, 64), np.uint8),
                [0, 4],
            )
    flags = [
        "--mnist",
        "sample",
        "--dest",
        crowd,
        "--seqs",
        5,
        "--seq_len",
        4,
        "--split",
        "60/20/20",
    ]
    run(moving_mnist, *flags, "--nums_per_image", 5)
    flags = ["--save_to", tmp_path / "run", "--arch", "slots", "--device", "cpu"]
    # It says more and more, and is still in colour.
    for said in ({}, {"num_sz": 28}, {"nums_per_image": 1}, {"physics": np.bytes_("svg")}):
        with h5py.File(film, "r+") as file:
            file.attrs.update(said)
        with pytest.raises(UserError, match="bright things on black"):
            run(train_vcae, *flags, "--data_file", film)
    with pytest.raises(UserError, match="--slots 4"):
        run(train_vcae, *flags, "--data_file", crowd)
    with pytest.raises(UserError, match="--z_dim 48"):
        run(train_vcae, *flags, "--data_file", crowd, "--slots", 3)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("digits", "size", "frame_size", "physics", "combine"),
    [
        (1, 9, 33, "2016", "sum"),
        (2, 28, 64, "srivastava", "max"),
        (3, 12, 48, "svg", "sum"),
        (4, 20, 47, "2016", "sum"),
    ],
)
def test_slots_sizes_and_combination_come_from_the_file(
    digits, size, frame_size, physics, combine, tmp_path
):
    frames = tmp_path / "frames.hdf5"
    flags = [
        "--mnist",
        "sample",
        "--dest",
        frames,
        "--seqs",
        5,
        "--seq_len",
        4,
        "--split",
        "60/20/20",
    ]
    flags += [
        "--nums_per_image",
        digits,
        "--num_sz",
        size,
        "--frame_size",
        frame_size,
        "--physics",
        physics,
    ]
    run(moving_mnist, *flags)
    flags = [
        "--data_file",
        frames,
        "--save_to",
        tmp_path / "vcae",
        "--arch",
        "slots",
        "--z_dim",
        12,
        "--device",
        "cpu",
    ]
    run(train_vcae, *flags, "--num_epochs", 1, "--n_hid", 16, "--amp")
    config = checkpoint.load(tmp_path / "vcae" / "best.pt", SlotVAE)["config"]
    assert (config["slots"], config["size"], config["combine"]) == (digits, size, combine)


@torch.no_grad()
def test_later_frames_tell_early_overlaps_apart():
    """At first both objects are taken to be at one place; they part, and were apart all along."""
    torch.manual_seed(0)
    model = Sloppy((1, 48, 48), z_dim=12, slots=2, size=10, n_hid=16).eval()
    time = torch.arange(8.0)[:, None]
    one = torch.cat([0.06 * time - 0.05, 0.02 * time], 1)  # (T, 2)
    two = torch.cat([0.05 - 0.06 * time, 0.15 - 0.02 * time], 1)
    z_where = torch.stack([one, two], 1)  # (T, S, 2)
    z_what = 3 * torch.randn(2, 4).expand(8, -1, -1)
    true = model.to_latents(z_what, z_where, torch.zeros_like(z_what))
    found = true.clone()
    found[0, :, 10:] = found[0, :, 4:6]
    followed = model.follow(found[None], model.decode(true[:, 0])[None])[0]
    torch.testing.assert_close(followed[:, 0], true[:, 0], rtol=0, atol=0.01)


@pytest.mark.parametrize("from_last", ["better", "worse"])
def test_what_comes_back_badly_is_followed_from_the_last_frame(from_last, monkeypatch):
    """Of three videos the second alone, and it is kept only if it comes back better."""
    true = torch.randn(3, 5, 2, 12)
    frames = torch.randint(256, (3, 5, 1, 32, 32), dtype=torch.uint8)
    off = true.clone()
    off[1] += 1
    error = torch.zeros(3, 5)
    error[1, 2] = 0.2
    its_error = (error[1:2] * {"better": 0.5, "worse": 2.0}[from_last]).flip(1)
    answers = [(off.clone(), error), (true[1:2].flip(1), its_error)]
    asked = []

    def follow_from_first(frames):
        asked.append(frames)
        return answers[len(asked) - 1]

    followed = codec.Codec(codec.Direct(tiny()), "cpu")
    monkeypatch.setattr(followed, "follow_from_first", follow_from_first)
    latents = followed.encode_videos(frames)
    assert torch.equal(asked[1], frames[1:2].flip(1))
    assert torch.equal(latents, true if from_last == "better" else off)


def test_places_of_an_object_are_whole_pixels_apart():
    """As all digits are drawn. Black frames, too, have places."""
    model = tiny((1, 32, 48))
    frames = torch.randint(256, (2, 4, 1, 32, 48), dtype=torch.uint8)
    frames[1, 1:] = 0
    networks = codec.Codec(codec.Direct(model), "cpu")
    _, places = model.split(networks.encode_videos(frames)[:, :, 0])
    pixels = model.to_pixels(places)
    apart = pixels - pixels[:, :1]
    assert apart.any()
    torch.testing.assert_close(apart, apart.round(), atol=1e-3, rtol=0)
    _, unexplained = networks.follow_few(frames)
    assert unexplained.isfinite().all()
