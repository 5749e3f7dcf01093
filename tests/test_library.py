"""The page on using the project as a library: its code runs, in another folder, and is short."""

import re
import shutil

import torch
from conftest import ROOT, run
from PIL import Image

import moving_mnist

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(), re.DOTALL)


def test_the_page_runs(chain, tmp_path, monkeypatch):
    shutil.copytree(chain, tmp_path / "runs")
    frames = tmp_path / "runs" / "frames.hdf5"
    frames.unlink()
    longer = ("--seqs", 10, "--seq_len", 40, "--split", "60/20/20")
    run(moving_mnist, "--mnist", "sample", "--dest", frames, *longer)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        exec(block, names)

    assert names["latents"].shape == (1, 10, 2, 6)
    assert names["means"].shape == (1, 30, 6)
    assert names["frames"].shape == (1, 30, 1, 64, 64)
    assert not names["frames"].requires_grad
    torch.testing.assert_close(names["predicted"][:, 1:], names["frames"][:, 1:])
    assert names["reconstructed"].shape == (1, 10, 1, 64, 64)
    assert names["halfway"].shape == (1, 64, 64)
    with Image.open("prediction.gif") as image:
        assert image.n_frames == 30
    Image.open("prediction.png").load()


def test_ten_lines_do_it():
    lines = [line for line in BLOCKS[0].splitlines() if line]
    assert len(lines) <= 10
