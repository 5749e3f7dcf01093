"""The movie's stages in order, in-process, on tiny data; what is larger than the codec's square is
cropped.
"""

import h5py
import numpy as np
import pytest
import torch
from conftest import run
from PIL import Image

import evaluate
import sample_video
import train_cae
import train_deconv
import train_jointly
import train_lstm
import train_vae_on_convs
from data import hdf5
from data.hdf5 import Frames
from data.pictures import BORDER, CAPTION
from models.lstm import LatentLSTM
from runtime.errors import UserError
from training import checkpoint
from training.trained import Trained, load_codec

SPEC = "d-0.1,4-5,p-2,d-0.1,6-3,d-0.1,6-3,d-0.1,12"
ABOUT = {"source": "made up", "frame_rate": 24.0, "frame_skip": 3}


def write_movie(path, height=20, width=30, lengths=(20, 14, 25)):
    """A colour movie of moving gradients, its shots of different lengths."""
    rng = np.random.default_rng(0)
    with hdf5.create(path, "frames", ABOUT) as file:
        for split in hdf5.SPLITS:
            n = sum(lengths)
            ramp = (
                np.arange(n)[:, None, None, None] * 5
                + np.arange(width) * 4
                + np.arange(height)[:, None] * 3
            )
            file[f"{split}/frames"] = ((ramp + rng.integers(0, 256, (1, 3, 1, 1))) % 256).astype(
                np.uint8
            )
            file[f"{split}/starts"] = np.cumsum([0, *lengths])
    return path


@pytest.fixture(scope="module", params=["2016", "deep", "grid"])
def movie(tmp_path_factory, request):
    """A folder in which every stage of the movie's chain has run, in either architecture."""
    root = tmp_path_factory.mktemp("movie")
    arch = ["--arch", request.param]
    z_dim = 64 if request.param == "grid" else 5
    if request.param != "2016":
        arch += ["--nfilts", 3]
    write_movie(root / "movie.hdf5")
    small = ["--num_epochs", 2, "--device", "cpu", "--batch_size", 16]
    run(
        train_cae,
        "--data_file",
        root / "movie.hdf5",
        "--save_to",
        root / "cae",
        "--specstr",
        SPEC,
        *small,
    )
    run(train_deconv, "--cae", root / "cae/best.pt", "--save_to", root / "deconv", *arch, *small)
    parents = ["--cae", root / "cae/best.pt", "--deconv", root / "deconv/best.pt"]
    run(
        train_vae_on_convs,
        *parents,
        "--save_to",
        root / "vae",
        "--z_dim",
        z_dim,
        *([] if request.param == "grid" else ["--n_hid", 9]),
        "--crops",
        3,
        *arch,
        *small,
    )
    lstm = ["--seq_length", 4, "--lstm_n_hid", 6]
    run(
        train_lstm,
        "--data_file",
        root / "vae/latents.hdf5",
        "--save_to",
        root / "lstm",
        *lstm,
        *small,
    )
    return root


def test_the_chain_runs_to_pictures(movie, tmp_path):
    run(
        sample_video,
        "--model",
        movie / "lstm/best.pt",
        "--dest",
        tmp_path,
        "--context",
        3,
        "--horizon",
        2,
        "--device",
        "cpu",
    )
    gifs = list(tmp_path.glob("*.gif"))
    assert len(gifs) == 3
    grid = load_codec(movie / "vae/best.pt", torch.device("cpu")).grid
    for gif in gifs:
        assert pixels(gif) == ((20, 30) if grid else (20, 20))
    for name in ("cae", "deconv", "vae"):
        assert (movie / name / "pictures" / "reconstructions.png").stat().st_size > 0
    for name in ("cae", "deconv", "vae", "lstm"):
        assert (movie / name / "pictures" / "best.png").stat().st_size > 0
        assert (movie / name / "log.png").stat().st_size > 0


def pixels(gif, scale=3):
    """Height and width of the frames that a GIF compares."""
    with Image.open(gif) as image:
        height = image.height - CAPTION - 2 * BORDER
        width = (image.width - 3 * BORDER) / 2
        return height / scale, width / scale


@pytest.mark.parametrize("movie", ["grid"], indirect=True)
def test_a_painter_shows_whole_frames(movie, tmp_path):
    small = ["--num_epochs", 1, "--batch_size", 4, "--device", "cpu"]
    flags = ["--seq_length", 4, "--rollout", 1, "--shown", 2, "--save_to", tmp_path / "joint"]
    run(train_jointly, "--lstm", movie / "lstm/best.pt", *flags, *small)
    assert (tmp_path / "joint/pictures/best.png").stat().st_size > 0
    with pytest.raises(UserError, match=r"last\.pt has lstm: free 1 \(the flags: 0\): make the"):
        run(train_jointly, "--resume", "--save_to", tmp_path / "joint", "--rollout", 0)
    args = ["--model", tmp_path / "joint/best.pt", "--context", 3, "--horizon", 2, "--n", 1]
    write_movie(tmp_path / "wider.hdf5", height=24, width=40)
    run(sample_video, *args, "--dest", tmp_path / "own")
    run(sample_video, *args, "--dest", tmp_path / "other", "--data_file", tmp_path / "wider.hdf5")
    assert pixels(next((tmp_path / "own").iterdir())) == (20, 30)
    assert pixels(next((tmp_path / "other").iterdir())) == (24, 40)
    write_movie(tmp_path / "lower.hdf5", height=18, width=40)
    with pytest.raises(UserError, match=r"lower\.hdf5 has frames 18 x 40, smaller than 20 x 20: "):
        run(sample_video, *args, "--data_file", tmp_path / "lower.hdf5")


@pytest.mark.parametrize("movie", ["grid"], indirect=True)
def test_predictions_of_whole_frames(movie):
    """Of the size of training they are as ever; in larger frames far edges change nothing."""
    model = Trained(movie / "lstm/best.pt", torch.device("cpu"))
    torch.manual_seed(0)
    frames = torch.randint(256, (2, 3, 3, 20, 181), dtype=torch.uint8)
    square = frames[..., :20]
    before = model.rollout(square, 2)
    model.widen(20, 20)
    for old, new in zip(before, model.rollout(square, 2), strict=True):
        assert torch.equal(old, new)

    model.widen(20, 181)
    assert model.codec.frame_shape == (3, 20, 180)  # pooling would lose an odd column
    wider, _ = model.rollout(frames[..., :180], 2)
    model.codec.resize(20, 140)
    model.lstm.layout.shape = model.codec.grid
    wide, _ = model.rollout(frames[..., 20:160], 2)
    assert wide.shape == (2, 5, 3, 20, 140)
    torch.testing.assert_close(wide[..., 60:80], wider[..., 80:100], rtol=0, atol=1e-5)


def test_a_painter_wants_places(movie, tmp_path):
    """It paints the squares that the codec takes, with latents that have a grid."""
    lstm = movie / "lstm/best.pt"
    flags = ["--lstm", lstm, "--save_to", tmp_path / "run", "--seq_length", 4, "--rollout", 1]
    flags += ["--num_epochs", 1, "--device", "cpu"]
    if not checkpoint.load(lstm, LatentLSTM)["config"]["grid"]:
        with pytest.raises(UserError, match="latents without places: train its autoencoder with"):
            run(train_jointly, *flags)
        assert not (tmp_path / "run").exists()
        return
    run(train_jointly, *flags)
    model = ["--model", tmp_path / "run/best.pt", "--context", 2, "--horizon", 2, "--n", 1]
    run(sample_video, *model, "--dest", tmp_path / "s")
    run(evaluate, *model, "--dest", tmp_path / "e")
    assert len(list((tmp_path / "s").glob("*.gif"))) == 1
    assert (tmp_path / "e/metrics.json").exists()


def test_latents_hold_every_crop(movie):
    codec = load_codec(movie / "vae/best.pt", torch.device("cpu"))
    frames = Frames(movie / "movie.hdf5", "test")
    with h5py.File(movie / "vae/latents.hdf5") as file:
        latents = torch.from_numpy(file["test/latents"][:])
        assert latents.shape == (3, 59, 2, codec.z_dim)
        assert np.array_equal(file["test/starts"], frames.starts)
        assert file.attrs["frame_skip"] == 3
    for crop, left in enumerate((0, 5, 10)):  # a 20-pixel square in a 30-pixel frame
        mean, log_sigma = codec.encode(frames.__getitems__(range(59))[..., left : left + 20])
        torch.testing.assert_close(latents[crop, :, 0], mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(latents[crop, :, 1], log_sigma, rtol=1e-4, atol=1e-5)


def test_decoding_has_no_dropout(movie):
    """Fault 4 of the original."""
    codec = load_codec(movie / "vae/best.pt", torch.device("cpu"))
    z = torch.randn(4, codec.z_dim)
    assert torch.equal(codec.decode(z), codec.decode(z))


def test_pools_that_do_not_divide_are_refused(tmp_path):
    data = ["--data_file", write_movie(tmp_path / "m.hdf5", height=21)]
    small = ["--num_epochs", 1, "--max_per_epoch", 1, "--device", "cpu"]
    run(train_cae, *data, "--save_to", tmp_path / "cae", "--specstr", SPEC, *small)
    cae = ["--cae", tmp_path / "cae/best.pt", "--save_to", tmp_path / "deconv"]
    with pytest.raises(UserError, match="train it with another --specstr, or on frames of an even"):
        run(train_deconv, *cae, *small)


def test_crops_reach_every_offset_alike(tmp_path):
    """Fault 14 of the original: never the last one. Each frame has an offset of its own, anew in
    each epoch.
    """
    path = write_movie(tmp_path / "m.hdf5", width=23)
    whole, crops = Frames(path, "train"), Frames(path, "train", crop=(20, 20), seed=0)
    counts, before = np.zeros(4, int), None
    for epoch in range(40):
        crops.set_epoch(epoch)
        assert before is None or not np.array_equal(before, crops.corners)
        before = crops.corners
        for i, frame in enumerate(crops.__getitems__(list(range(len(crops))))):
            y, x = crops.corners[i]
            assert y == 0
            assert torch.equal(frame, whole.__getitems__([i])[0][:, :, x : x + 20])
            counts[x] += 1
    assert counts.min() > 0.85 * counts.mean()
    centre = Frames(path, "train", crop=(20, 19))
    assert torch.equal(centre.__getitems__([3])[0], whole.__getitems__([3])[0][:, :, 2:21])


def test_parents_that_do_not_belong_together_are_refused(movie, tmp_path):
    data = [
        "--data_file",
        movie / "movie.hdf5",
        "--specstr",
        SPEC,
        "--num_epochs",
        1,
        "--device",
        "cpu",
    ]
    run(train_cae, *data, "--save_to", tmp_path / "cae", "--seed", 1)
    with pytest.raises(UserError, match="another CAE"):
        run(
            train_vae_on_convs,
            "--cae",
            tmp_path / "cae/best.pt",
            "--deconv",
            movie / "deconv/best.pt",
            "--save_to",
            tmp_path / "v",
        )
    with pytest.raises(UserError, match="there are conv2, conv5, conv7"):
        run(
            train_deconv,
            "--cae",
            movie / "cae/best.pt",
            "--split_layer",
            "pool3",
            "--save_to",
            tmp_path / "d",
        )
    assert not (tmp_path / "v").exists()
