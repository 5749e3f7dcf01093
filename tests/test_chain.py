"""All stages in order, in-process, on tiny data: each reads what the one before it left."""

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
from conftest import run

import sample_video


def test_stages_leave_what_the_next_ones_need(chain):
    for run_folder in ("vcae", "lstm"):
        assert {"best.pt", "last.pt", "log.csv"} <= {path.name for path in (chain / run_folder).iterdir()}
    assert (chain / "vcae" / "pictures" / "reconstructions.png").stat().st_size > 0
    with h5py.File(chain / "vcae" / "latents.hdf5") as file:
        assert file["train/latents"].shape == (1, 12 * 8, 2, 6)
        assert file["test/starts"][:].tolist() == [0, 8, 16, 24, 32]


@pytest.mark.parametrize("form", ["gif", "mp4", "png"])
@pytest.mark.parametrize("plain", ["--no-plain", "--plain"])
def test_samples_render(chain, tmp_path, form, plain):
    model = chain / "lstm" / "best.pt"
    lengths = ["--prime", 6, "--predict", 5, "--n", 3, "--device", "cpu"]
    run(sample_video, "--model", model, "--dest", tmp_path, "--format", form, plain, *lengths)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    if form == "png":
        assert np.ptp(iio.imread(files[0])) > 0
    else:
        pictures = iio.imread(files[0], index=None, plugin="pyav" if form == "mp4" else "pillow")
        assert len(pictures) == 11
        assert all(np.ptp(picture) > 0 for picture in pictures)
