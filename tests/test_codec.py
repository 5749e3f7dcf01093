"""Codecs whose latent is a grid take frames larger than those of training."""

import pytest
import torch

from models.cae import CAE, Deconvoluter
from models.codec import ByFeatures, Codec, Direct
from models.film import FilmPredictor
from models.vae import VAE, VCAE

SPEC = "d-0.2,4-5,p-2,d-0.2,4-3,d-0.2,4-3,d-0.2,8"  # the movie's default, with fewer maps


def direct(height=64, width=64, z_dim=128):
    torch.manual_seed(0)
    vae = VCAE((3, height, width), z_dim, arch="grid", nfilts=2)
    return Codec(Direct(vae.eval()), torch.device("cpu"))


def by_features():
    torch.manual_seed(0)
    cae = CAE(SPEC)
    deconv = Deconvoluter(SPEC, "conv7", arch="grid", nfilts=3)
    vae = VAE((4, 26, 26), 128, arch="grid", nfilts=2)
    return Codec(ByFeatures(vae.eval(), cae.eval(), deconv.eval()), torch.device("cpu"))


def noise(*shape):
    return torch.randint(256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("make", [direct, by_features])
@pytest.mark.parametrize(
    ("size", "fitting"),
    [
        ((64, 64), (64, 64)),
        ((64, 71), (64, 64)),
        ((64, 72), (64, 72)),
        ((64, 85), (64, 80)),
        ((64, 114), (64, 112)),
        ((75, 90), (72, 88)),
    ],
)
def test_as_much_of_a_larger_frame_as_fits(make, size, fitting):
    codec = make()
    codec.widen(*size)
    height, width = fitting
    assert codec.frame_shape == (3, height, width)
    assert codec.grid == (height // 8, width // 8)  # a place has as many pixels as before
    assert codec.z_dim == 2 * codec.grid[0] * codec.grid[1]
    latents = codec.encode_videos(noise(2, 3, *codec.frame_shape))
    assert latents.shape == (2, 3, 2, codec.z_dim)
    assert codec.decode(latents[:, :, 0]).shape == (2, 3, *codec.frame_shape)


@pytest.mark.parametrize("make", [direct, by_features])
def test_frames_as_large_as_those_of_training_are_coded_as_ever(make):
    frames = noise(2, 3, 64, 64)
    coded = make().encode(frames)
    codec = make()
    codec.widen(64, 64)
    for one, other in zip(coded, codec.encode(frames), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(make().decode(coded[0]), codec.decode(coded[0]))


def test_edges_matter_only_near_them():
    """Pieces of 8 x 64 pixels are coded alike, whether they are the frame or its middle."""
    frames = noise(2, 3, 8, 96)
    narrow = direct(8, 64, z_dim=1024)
    wide = direct(8, 64, z_dim=1024)
    wide.widen(8, 96)
    middle = frames[..., 16:80]
    decoded = narrow.decode(narrow.encode(middle)[0])
    of_wide = wide.decode(wide.encode(frames)[0])[..., 16:80]
    reach = 7  # px: three convolutions of 3 x 3, then four
    inside = slice(reach, -reach)
    torch.testing.assert_close(decoded[..., inside], of_wide[..., inside], rtol=0, atol=1e-5)
    assert not torch.allclose(decoded[..., 0], of_wide[..., 0], atol=1e-5)


def test_a_painter_of_larger_frames():
    codec = by_features()
    lstm = {"z_dim": 128, "n_hid": 6, "layers": 1, "loss": "mse", "residual": "paced"}
    model = FilmPredictor({**lstm, "grid": [8, 8]}, channels=3).eval()
    codec.widen(64, 85)
    model.lstm.layout.shape = codec.grid
    frames = noise(2, 3, *codec.frame_shape)
    painted = model.rollout(frames / 255, codec.encode_videos(frames), 2)
    assert painted.shape == (2, 5, 3, 64, 80)
