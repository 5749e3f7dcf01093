"""Autoencoder and LSTM trained together, on videos made on the way."""

import h5py
import numpy as np
import pytest
import torch
from conftest import run

import evaluate
import sample_video
import train_jointly
from data.generated import GeneratedVideos
from models.joint import Joint
from runtime.errors import UserError
from training import checkpoint

SMALL = [
    "--schedule",
    "constant",
    "--batch_size",
    5,
    "--device",
    "cpu",
    "--seq_length",
    7,
    "--rollout",
    3,
]


def train(chain, folder, *flags):
    run(train_jointly, "--lstm", chain / "lstm" / "best.pt", "--save_to", folder, *SMALL, *flags)
    return checkpoint.load(folder / "last.pt", Joint)


@pytest.fixture(scope="module")
def trained(chain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint") / "run"
    train(chain, folder, "--num_epochs", 2)
    return folder


def tiny(free=2, **config):
    torch.manual_seed(0)
    vcae = {"frame_shape": [1, 32, 32], "z_dim": 3, "n_hid": 8, "arch": "deep", "nfilts": 2}
    return Joint(
        vcae, {"z_dim": 3, "n_hid": 6, "layers": 1, "dropout": 0.0, "free": free, **config}
    )


def test_begins_from_the_weights_of_its_parents(chain, tmp_path):
    """At a learning rate of next to nothing the parents come out again."""
    trained = train(chain, tmp_path / "still", "--num_epochs", 1, "--lr", 1e-12)["model"]
    vcae, lstm = torch.load(chain / "vcae" / "best.pt"), torch.load(chain / "lstm" / "best.pt")
    for part, parent in (("vcae", vcae), ("lstm", lstm)):
        for name, weight in parent["model"].items():
            if "running" not in name and "num_batches" not in name:
                torch.testing.assert_close(trained[f"{part}.{name}"], weight)


def test_both_networks_learn(chain, trained):
    content = checkpoint.load(trained / "last.pt", Joint)
    parents = {"vcae": chain / "vcae" / "best.pt", "lstm": chain / "lstm" / "best.pt"}
    for part, path in parents.items():
        for name, weight in torch.load(path)["model"].items():
            if name.endswith("weight"):
                assert not torch.equal(weight, content["model"][f"{part}.{name}"]), (
                    f"{part}.{name} stood still"
                )


def test_resumed_equals_unbroken(chain, trained, tmp_path):
    train(chain, tmp_path / "broken", "--num_epochs", 1)
    resumed = train(chain, tmp_path / "broken", "--resume", "--num_epochs", 2)
    unbroken = checkpoint.load(trained / "last.pt", Joint)
    assert all(
        torch.equal(weight, resumed["model"][name]) for name, weight in unbroken["model"].items()
    )


def test_later_stages_take_its_lstm_like_any_other(trained, tmp_path):
    run(
        evaluate,
        "--model",
        trained / "lstm.pt",
        "--context",
        4,
        "--horizon",
        3,
        "--dest",
        tmp_path / "e",
    )
    flags = ["--context", 4, "--horizon", 3, "--n", 1, "--dest", tmp_path / "s"]
    run(sample_video, "--model", trained / "lstm.pt", *flags)
    assert len(list((tmp_path / "s").iterdir())) == 1


def test_its_lstm_may_be_trained_jointly_again(trained, tmp_path):
    run(
        train_jointly,
        "--lstm",
        trained / "lstm.pt",
        "--save_to",
        tmp_path / "again",
        *SMALL,
        "--num_epochs",
        1,
    )
    assert (tmp_path / "again" / "lstm.pt").exists()
    assert (tmp_path / "again" / "pictures" / "best.png").stat().st_size > 0


def test_gradient_of_free_running_frames_reaches_every_weight():
    model = tiny()
    model.beta = 0
    with torch.no_grad():
        model.vcae.log_sigma.weight.fill_(0)
    model.train()
    model(torch.rand(4, 6, 1, 32, 32))["loss"].backward()
    norms = {name: weight.grad.norm() for name, weight in model.named_parameters()}
    rounding = 1e-6 * max(norms.values())
    assert not [name for name, norm in norms.items() if not norm > rounding]


def test_predicted_frames_are_not_read():
    """What is predicted depends on the frames fed in alone; the squared error on the others, too."""
    model, frames = tiny().eval(), torch.rand(2, 6, 1, 32, 32)
    changed = frames.clone()
    changed[:, -3:] = 0
    reconstruction = [model(f)["reconstruction"] for f in (frames, changed)]
    kl = [model(f)["kl"] for f in (frames, changed)]
    assert reconstruction[0] == reconstruction[1]
    assert kl[0] == kl[1]
    assert model(frames)["squared_error"] != model(changed)["squared_error"]


def test_generated_videos_are_those_of_the_file_in_kind_and_others_in_every_epoch(chain):
    videos = GeneratedVideos(chain / "frames.hdf5", "train", 9, seed=0)
    with h5py.File(chain / "frames.hdf5") as file:
        first = file["train/frames"][:8]
    batches = []
    for epoch in (1, 2, 1):
        videos.set_epoch(epoch)
        batches.append(videos.__getitems__([0, 3]).numpy())
    assert batches[0].shape == (2, 9, *first.shape[1:])
    assert batches[0].dtype == np.uint8
    assert (batches[0] == batches[2]).all()
    assert (batches[0] != batches[1]).any()
    assert (batches[0][0, :8] != first).any(), "a video of the file came again"
    assert len(videos) == 12


def test_validation_digits_are_not_training_digits(chain):
    train, valid = (
        GeneratedVideos(chain / "frames.hdf5", split, 9, seed=0) for split in ("train", "valid")
    )
    seen = {digit.tobytes() for digit in train.images}
    assert not any(digit.tobytes() in seen for digit in valid.images)


def test_frames_that_were_not_generated_are_refused(tmp_path, chain):
    path = tmp_path / "film.hdf5"
    path.write_bytes((chain / "frames.hdf5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file.attrs["physics"]
    with pytest.raises(UserError, match=r"film\.hdf5 was not made by moving_mnist\.py"):
        GeneratedVideos(path, "train", 9, seed=0)
