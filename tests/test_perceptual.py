"""LPIPS and the Fréchet video distance with small networks in place of AlexNet and I3D."""

import json
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from conftest import run

import evaluate
from evaluation import perceptual
from runtime import cli
from runtime.errors import UserError

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


class Distance(torch.nn.Module):
    """In place of lpips.LPIPS: the mean absolute difference. It notes what it is given."""

    def __init__(self, net, verbose):
        super().__init__()
        assert (net, verbose) == ("alex", False)
        self.seen = []

    def forward(self, a, b):
        self.seen.append((a, b))
        return (a - b).abs().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def lpips(tmp_path, monkeypatch):
    """The packages, as far as they are used, and a file where AlexNet's weights are looked for."""
    name = "alexnet-owt-7be5be79.pth"
    url = f"https://download.pytorch.org/models/{name}"
    weights = types.SimpleNamespace(IMAGENET1K_V1=types.SimpleNamespace(url=url))
    modules = {
        "lpips": {"LPIPS": Distance},
        "torchvision": {},
        "torchvision.models": {"AlexNet_Weights": weights},
    }
    for module, names in modules.items():
        stand_in = types.ModuleType(module)
        vars(stand_in).update(names)
        monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / name
    path.parent.mkdir()
    path.touch()
    return path


class Mean(torch.nn.Module):
    """In place of I3D: each channel's mean over the clip."""

    def forward(self, x):
        return x.mean((2, 3, 4))


class AsPublished(torch.nn.Module):
    """The same with the arguments of the I3D file that most repositories use."""

    def forward(self, x, rescale: bool = True, resize: bool = True, return_features: bool = False):
        if rescale or resize or not return_features or x.shape[1] != 3 or x.shape[3] != 224:
            return torch.full((x.shape[0], 3), 1e6)
        return x.mean((2, 3, 4))


class Pooling(torch.nn.Module):
    """It needs ten frames, as I3D does."""

    def forward(self, x):
        return torch.nn.functional.avg_pool3d(x, [10, 224, 224]).flatten(1)


class Frames(torch.nn.Module):
    """It returns features of frames, where those of clips are wanted."""

    def forward(self, x):
        return x.mean((3, 4))


class Pair(torch.nn.Module):
    """It returns two tensors."""

    def forward(self, x):
        return x.mean((2, 3, 4)), x


class Logarithm(torch.nn.Module):
    """Of black frames it is not finite."""

    def forward(self, x):
        return (x + 1).log().mean((2, 3, 4))


def save(network, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have another format
        torch.jit.script(network).save(str(path))
    return str(path)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lpips_gets_rgb_from_minus_one_to_one(lpips, channels):
    measure = perceptual.Lpips(CPU)
    true = RNG.random((3, 50, channels, 64, 64), np.float32)
    true[0, 0, :, 0] = 0
    true[0, 0, :, 1] = 1
    predicted = np.clip(true + np.float32(0.1), 0, 1)
    worse = np.clip(true + np.float32(0.3), 0, 1)
    assert (measure(true, true) == 0).all()
    near, far = measure(predicted, true), measure(worse, true)
    assert near.shape == far.shape == (3, 50)
    assert (near > 0).all()
    assert (far > near).all()
    used = 3 if channels >= 3 else 1
    difference = 2 * np.abs(predicted - true)[:, :, :used].mean((2, 3, 4))
    np.testing.assert_allclose(near, difference, rtol=1e-4)
    sizes = [len(a) for a, _ in measure.network.seen]
    assert max(sizes) <= perceptual.FRAMES
    assert sum(sizes) == 3 * 150
    first, _ = measure.network.seen[0]
    assert first.shape[1:] == (3, 64, 64)
    assert (first.min(), first.max()) == (-1, 1)
    if channels < 3:
        assert torch.equal(first[:, 0], first[:, 2])


def test_lpips_is_not_defined_for_tiny_frames(lpips):
    frames = RNG.random((2, 3, 1, 30, 64), np.float32)
    assert np.isnan(perceptual.Lpips(CPU)(frames, frames)).all()


def test_lpips_without_its_packages_or_weights(lpips, monkeypatch):
    lpips.unlink()
    with pytest.raises(UserError, match=r"alexnet-owt.* is not there: fetch it from https://"):
        perceptual.Lpips(CPU)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-lpips.txt"):
        perceptual.Lpips(CPU)


def test_frechet_distance_of_gaussians():
    """Of known means and covariances: (3 - 1)^2 + (2 - 5)^2 for N(1, 2^2) and N(3, 5^2)."""
    a = RNG.normal(size=(400, 6))
    assert perceptual.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    shift = np.arange(6)
    assert perceptual.frechet_distance(a, a + shift) == pytest.approx(55)
    standard = (a[:, :1] - a[:, :1].mean()) / a[:, :1].std(ddof=1)
    assert perceptual.frechet_distance(1 + 2 * standard, 3 + 5 * standard) == pytest.approx(4 + 9)
    few = RNG.normal(size=(5, 6))
    assert perceptual.frechet_distance(few, few) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_that_of_matrix_roots():
    linalg = pytest.importorskip("scipy.linalg")
    a = RNG.normal(size=(300, 5)) @ RNG.normal(size=(5, 5))
    b = RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 5)) + 1
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert perceptual.frechet_distance(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("network", [Mean(), AsPublished()], ids=["plain", "as published"])
@pytest.mark.parametrize("channels", [1, 3])
def test_distance_of_videos(network, channels, tmp_path):
    """Videos of one grey level: their features are that level, from -1 to 1, in three channels."""
    fvd = perceptual.VideoDistance(save(network, tmp_path / "i3d.pt"), 10, CPU)
    level = RNG.uniform(0.2, 0.6, 12).astype(np.float32)
    true = np.zeros((12, 10, channels, 20, 24), np.float32) + level[:, None, None, None, None]
    for videos in (np.arange(5), np.arange(5, 12)):
        fvd.keep(12, "truth", videos, true[videos])
        fvd.keep(12, "same", videos, true[videos])
        fvd.keep(12, "brighter", videos, true[videos] + np.float32(0.25))
    assert fvd.distance("same") == pytest.approx(0, abs=1e-6)
    assert fvd.distance("brighter") == pytest.approx(3 * 0.5**2, rel=1e-3)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Pooling(), "at least 10 frames"),
        (Frames(), "(1, 3, 9)"),
        (Pair(), "fails"),
        (Logarithm(), "not finite"),
        (None, "is no TorchScript file"),
    ],
)
def test_networks_that_are_no_i3d(network, said, tmp_path):
    path = tmp_path / "i3d.pt"
    path.write_text("not what you think")
    if network:
        save(network, path)
    with pytest.raises(UserError) as raised:
        perceptual.VideoDistance(str(path), 9, CPU)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_is_no_i3d(tmp_path):
    with pytest.raises(UserError, match="is no TorchScript file"):
        perceptual.VideoDistance(str(tmp_path), 10, CPU)


def test_both_are_columns(chain, lpips, tmp_path, capsys):
    path = save(Mean(), tmp_path / "i3d.pt")
    lengths = ["--context", 4, "--horizon", 3, "--device", "cpu", "--dest", tmp_path / "e"]
    run(evaluate, "--model", chain / "lstm/best.pt", *lengths, "--lpips", "--i3d", path)
    assert "| LPIPS | FVD |" in capsys.readouterr().out
    table = json.loads((tmp_path / "e/metrics.json").read_text())["predictors"]
    assert all(row["lpips"] > 0 for row in table.values())
    assert all(row["fvd"] >= 0 for row in table.values())
    assert "lpips" in (tmp_path / "e/metrics.csv").read_text().splitlines()[0]
    run(evaluate, "--data_file", chain / "frames.hdf5", *lengths)
    assert "LPIPS" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--lpips", "requirements-lpips.txt"),
        ("--i3d nowhere.pt", "nowhere.pt is not there"),
        ("--i3d i3d.pt --n 1", "--n"),
    ],
)
def test_what_is_missing_is_told_before_work(flags, said, chain, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.chdir(tmp_path)
    save(Mean(), tmp_path / "i3d.pt")
    command = f"--data_file {chain / 'frames.hdf5'} --context 4 --horizon 3 {flags}"
    with pytest.raises(SystemExit) as left:
        cli.run(evaluate.main, evaluate.flags(), command.split())
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "picture_output").exists()
