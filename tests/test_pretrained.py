"""Pretrained weights: what is stored of a run, what takes it, and those that are packaged."""

import shutil

import pytest
import torch
from conftest import ROOT, run
from test_movie_chain import write_movie

import evaluate
import sample_video
import train_lstm
import train_vcae
from data.hdf5 import Frames
from models.cae import CAE, Deconvoluter
from models.lstm import LatentLSTM
from models.vae import VAE, VCAE
from recipes import pretrained
from runtime.errors import UserError
from training import checkpoint
from training.trained import Trained

PACKAGED = sorted((ROOT / "pretrained").glob("*/lstm.pt"))
MAX_SIZE = 12e6  # bytes
SPEC = "d-0.1,4-5,p-2,d-0.1,6-3"


@pytest.fixture
def stored(chain, tmp_path, monkeypatch):
    """A working directory with a copy of the chain, and weights stored of it as pretrained/digit."""
    shutil.copytree(chain, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    run(pretrained, "runs/lstm/best.pt", "pretrained/digit")
    return tmp_path / "pretrained" / "digit"


def test_it_predicts_what_the_run_does(stored):
    before = Trained("runs/lstm/best.pt", "cpu")
    after = Trained(stored / "lstm.pt", "cpu")
    context = Frames("runs/frames.hdf5", "test").video(0)[None, :5]  # (V, T, C, H, W)
    old, _ = before.rollout(context, 3)
    new, _ = after.rollout(context, 3)
    torch.testing.assert_close(new, old, atol=0.01, rtol=0)
    assert not torch.equal(new, old)  # in half precision


def test_only_what_prediction_needs_is_stored(stored):
    assert sorted(path.name for path in stored.iterdir()) == ["lstm.pt", "vcae.pt"]
    lstm = torch.load(stored / "lstm.pt")
    assert lstm["args"] == {"frame_skip": 1}
    assert lstm["history"] == []
    assert "optimizer" not in lstm
    assert lstm["parents"]["codec"]["path"] == "vcae.pt"
    # Where the repository's frames would be, wherever those of the run were.
    assert lstm["parents"]["frames"] == {"path": "../../data/frames.hdf5", "frame_rate": 10.0}
    types = {name: weight.dtype for name, weight in lstm["model"].items()}
    assert types["project.weight"] == torch.float16
    assert types["project.bias"] == torch.float32
    for name in ("lstm.pt", "vcae.pt"):
        assert str(stored.parent.parent).encode() not in (stored / name).read_bytes()


def test_its_frames_are_found_or_named(stored, capsys):
    flags = ("--model", stored / "lstm.pt", "--context", 3, "--device", "cpu", "--dest", "out")
    sample = ("--horizon", 2, "--n", 1)
    for stage, more in ((sample_video, sample), (evaluate, ("--horizon", 3))):
        with pytest.raises(
            UserError, match=r"frames\.hdf5, the frames of .*others with --data_file"
        ):
            run(stage, *flags, *more)
        run(stage, *flags, *more, "--data_file", "runs/frames.hdf5")
    assert "training frames are those of runs/frames.hdf5" in capsys.readouterr().out
    (stored.parent.parent / "data").mkdir()
    shutil.copy("runs/frames.hdf5", "data")
    run(sample_video, *flags, *sample)


def test_trainings_start_from_it(stored):
    small = ("--num_epochs", 1, "--max_per_epoch", 1, "--batch_size", 5, "--device", "cpu")
    frames = ("--data_file", "runs/frames.hdf5", "--nfilts", 4, "--z_dim", 6)
    run(train_vcae, *frames, "--save_to", "a", "--init_from", stored / "vcae.pt", *small)
    latents = ("--data_file", "a/latents.hdf5", "--seq_length", 6, "--lstm_n_hid", 8)
    run(train_lstm, *latents, "--save_to", "b", "--init_from", stored / "lstm.pt", *small)


def test_a_films_chain_without_the_dense_layer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_movie(tmp_path / "movie.hdf5")
    torch.manual_seed(0)
    parents = {"frames": {"path": "movie.hdf5"}}
    networks = {
        "cae": CAE(SPEC + ",d-0.2,12", 3, 16),
        "deconv": Deconvoluter(SPEC, "conv5", 3, arch="grid", nfilts=2),
        "vae": VAE((6, 4, 4), 64, arch="grid", nfilts=2),
        "lstm": LatentLSTM(64, 8, 1, loss="mse", residual="paced", grid=[8, 8]),
    }
    for name, network in networks.items():
        flags = {"frame_skip": 3, "lr": 0.1}
        checkpoint.save(tmp_path / f"{name}.pt", network.eval(), flags, [], parents)
        content = checkpoint.load(tmp_path / f"{name}.pt", type(network))
        role = "codec" if name == "vae" else name
        parents[role] = checkpoint.parent(f"{name}.pt", content, tmp_path)

    run(pretrained, "lstm.pt", "film")
    files = ["cae.pt", "deconv.pt", "lstm.pt", "vae.pt"]
    assert sorted(path.name for path in (tmp_path / "film").iterdir()) == files
    assert checkpoint.load("film/cae.pt", CAE)["config"]["specstr"] == SPEC
    context = Frames("movie.hdf5", "test", (16, 16)).video(0)[None, :3]  # (V, T, C, H, W)
    old, old_codec = Trained("lstm.pt", "cpu").rollout(context, 2)
    new, new_codec = Trained("film/lstm.pt", "cpu").rollout(context, 2)
    torch.testing.assert_close(new, old, atol=0.01, rtol=0)
    torch.testing.assert_close(new_codec, old_codec, atol=0.01, rtol=0)


def test_half_precision_is_of_matrices_and_read_as_single(tmp_path):
    vcae = VCAE((1, 16, 16), 4, 4, "deep", 1)
    checkpoint.save(tmp_path / "a.pt", vcae, {}, [], {}, half=True)
    content = checkpoint.load(tmp_path / "a.pt", VCAE)
    stored = torch.load(tmp_path / "a.pt")["model"]
    for name, weight in vcae.state_dict().items():
        assert content["model"][name].dtype == weight.dtype
        rounded = weight.half() if weight.ndim > 1 else weight
        assert torch.equal(stored[name], rounded)
    checkpoint.save(tmp_path / "b.pt", checkpoint.build(content, VCAE), {}, [], {})
    again = checkpoint.load(tmp_path / "b.pt", VCAE)
    assert checkpoint.identity(again) == checkpoint.identity(content)


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.parent.name)
def test_what_is_packaged_belongs_together(path):
    model = Trained(path, "cpu")
    assert model.frame_rate > 0
    assert model.data_file.startswith("data/") or "/data/" in model.data_file
    for file in path.parent.glob("*.pt"):
        content = torch.load(file)
        assert content["args"].keys() <= {"frame_skip"}
        assert content["history"] == []
        for parent in content["parents"].values():
            assert parent["path"].startswith("../../data/") or "/" not in parent["path"]


def test_what_is_packaged_is_small_and_described():
    files = list((ROOT / "pretrained").rglob("*"))
    assert sum(file.stat().st_size for file in files if file.is_file()) < MAX_SIZE
    page = (ROOT / "pretrained" / "README.md").read_text()
    assert [path for path in PACKAGED if f"`{path.parent.name}/`" not in page] == []
