"""The first page: its examples run, its links lead somewhere, its file tree is the repository's,
and it is short.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run

import models.lstm
import train_lstm
import train_vcae
from data.hdf5 import Videos
from models.losses import LOSSES
from models.lstm import LatentLSTM
from training import checkpoint

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = ("--num_epochs", 1, "--max_per_epoch", 2, "--batch_size", 5, "--device", "cpu")


def example(word):
    """Run the README's block of Python that contains a word. Returns the names that it defines."""
    (block,) = [
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in block
    ]
    names = {"__name__": "example"}
    exec(block, names)
    return names


def test_example_of_a_loss(chain, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "charbonnier", None)  # so that it is gone afterwards
    example("charbonnier")
    latents, folder = chain / "vcae" / "latents.hdf5", tmp_path / "run"
    flags = ("--loss", "charbonnier", "--seq_length", 6, "--lstm_n_hid", 8, "--save_to", folder)
    run(train_lstm, "--data_file", latents, *flags, *SMALL)
    assert checkpoint.load(folder / "best.pt", LatentLSTM)["config"]["loss"] == "charbonnier"


def test_example_of_a_layout(monkeypatch):
    halves = example("Halves")["Halves"]
    monkeypatch.setattr(models.lstm, "layout_of", lambda z_dim, *_: halves(z_dim))
    torch.manual_seed(0)
    latents = torch.randn(2, 6, 2, 12)  # (B, T, rows, z)
    model = LatentLSTM(12, n_hid=8, layers=1, loss="mse", residual="second", free=2)
    model(latents)["loss"].backward()
    future = model.rollout(latents, 3)[:, 6:]
    last = latents[:, -1:, 0]
    assert torch.equal(future[..., :6], last[..., :6].expand(-1, 3, -1))
    assert (future[..., 6:] != last[..., 6:]).all()


def test_example_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    example("my_videos")
    videos = Videos("data/my_videos.hdf5", "valid", "frames")
    assert videos.shape == (300, 1, 64, 64)
    assert np.diff(videos.starts).tolist() == [30] * 10
    run(train_vcae, "--data_file", "data/my_videos.hdf5", "--nfilts", 2, "--n_hid", 8, *SMALL)
    assert Path("runs/vcae/latents.hdf5").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, heading = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if heading:
            lines = re.findall(r"^#+ (.*)", place.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines]
            assert heading in anchors, target


def test_file_tree_is_the_repository():
    (tree,) = re.findall(r"## Files\n\n```\n(.*?)```", README, re.DOTALL)
    named, folder = set(), ROOT
    for line in tree.splitlines():
        for name in re.findall(r"[\w/.]+", line[:27].rstrip()):
            if not line.startswith(" "):
                folder = ROOT
            path = folder / name
            assert path.exists(), path
            named.add(path)
            if name.endswith("/"):
                folder = path
    packages = ("models", "training", "evaluation", "data", "runtime")
    modules = {path for package in packages for path in (ROOT / package).glob("*.py")} | set(
        ROOT.glob("*.py")
    )
    assert {path for path in modules if path.name != "__init__.py"} <= named


def test_commands_and_recipes_exist():
    for page in PAGES:
        for script in re.findall(
            r"recipes/\w+\.sh|tests/\w+\.py|benchmarks/\w+\.py", page.read_text()
        ):
            assert (ROOT / script).exists() or script == "recipes/NAME.sh", (page.name, script)


def test_tests_named_in_the_table_exist():
    tests = "".join(path.read_text() for path in ROOT.glob("tests/test_*.py"))
    names = re.findall(r"\| `(\w+)` \|$", README, re.MULTILINE)
    assert len(names) > 10
    assert [name for name in names if f"def test_{name}" not in tests] == []


def test_it_is_a_first_page():
    assert len(README.split()) <= 2200
