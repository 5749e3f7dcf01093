"""The convolutional VAE against the original's tensors, and its two architectures on frames of any
shape.
"""

import math

import pytest
import torch
from golden import assert_close, load

from models import noise, vae
from models.vae import VAE, VCAE


def copy_of_2016(tensors, copy):
    """Our VCAE with the original's parameters; `copy` chooses which of its two untied decoder
    layers it gets.

    Their dense weights are (in, out), their convolutions true ones (ours correlate: the filters are
    turned around).
    """
    model = VCAE((1, 16, 16), z_dim=4, n_hid=10, nfilts=3, L=1).eval()
    for name, parameter in named(model, copy).items():
        parameter.data = ours(tensors[f"param:{name}"])
    return model


def ours(tensor):
    return tensor.flip(2, 3) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor


def named(model, copy):
    """Our parameters under the original's names."""
    suffix = "#2" if copy else ""
    layers = {
        "conv": model.encoder[1],
        "enc_hid": model.encoder[4],
        "enc_mu": model.mu,
        "enc_logsigma": model.log_sigma,
        "dec_hid": model.decoder[0],
        f"dec_out{suffix}": model.decoder[2],
        "dec_output": model.decoder[5],
    }
    weights = {f"{name}.W": layer.weight for name, layer in layers.items()}
    return weights | {f"{name}.b": layer.bias for name, layer in layers.items()}


@pytest.mark.parametrize("mode", ["det", "train"])
def test_2016_against_the_original(mode, monkeypatch):
    """Outputs, loss and gradients.

    The original did not tie one decoder layer across its two samples (fault 10), so each sample is
    one of our models: the loss is the mean of theirs, and so is the gradient of every layer that
    they share.
    """
    tensors = load("vcae_binary")
    x = tensors["x"]
    if mode == "train":
        tensors |= load("vcae_binary_train")
        monkeypatch.setattr(
            noise, "dropout", lambda x, p, *_: x / (1 - p) * tensors["train_dropout_mask"]
        )
    losses, gradients = [], {}
    for copy in (0, 1):
        model = copy_of_2016(tensors, copy).train(mode == "train")
        if mode == "train":
            monkeypatch.setattr(
                vae, "normal_like", lambda mu, copy=copy: tensors[f"train_eps_{copy}"]
            )
        loss = len(x) * model(x)["loss"]  # theirs is a sum over the batch
        loss.backward()
        losses.append(loss)
        for name, parameter in named(model, copy).items():
            gradients.setdefault(name, []).append(parameter.grad)
    assert_close(sum(losses) / 2, tensors[f"{mode}_loss"])
    for name, parts in gradients.items():
        assert_close(sum(parts) / 2, ours(tensors[f"{mode}_grad:{name}"]))


def test_2016_outputs():
    tensors = load("vcae_binary")
    for copy in (0, 1):
        model = copy_of_2016(tensors, copy)
        mu, log_sigma = model.encode(tensors["x"])
        assert_close(mu, tensors["det_z_mu"])
        assert_close(log_sigma, tensors["det_z_ls"])
        assert_close(model.decode(mu), tensors[f"det_x_out_{copy}"])
    assert_close(copy_of_2016(tensors, 0).decode(tensors["z_in"]), tensors["dec_from_z"])


@pytest.mark.parametrize("mode", ["det", "train"])
def test_vae_of_features_against_the_original(mode, monkeypatch):
    t = load("vae_gauss")
    model = VAE((3, 4, 4), z_dim=4, n_hid=10, L=2, bounded=True).train(mode == "train")
    pairs = {
        "enc_hid": model.encoder[1],
        "enc_mu": model.mu,
        "enc_logsigma": model.log_sigma,
        "dec_hid": model.decoder[0],
    }
    for name, layer in pairs.items():
        layer.weight.data, layer.bias.data = t[f"param:{name}.W"].T, t[f"param:{name}.b"]
    outputs = ("dec_mu", "dec_logsigma")  # one layer here, two there
    model.decoder[2].weight.data = torch.cat([t[f"param:{name}.W"] for name in outputs], 1).T
    model.decoder[2].bias.data = torch.cat([t[f"param:{name}.b"] for name in outputs])

    drawn = torch.stack([t["train_eps_0"], t["train_eps_1"]], 1).flatten(0, 1)
    monkeypatch.setattr(vae, "normal_like", lambda mu: drawn)
    loss = len(t["x"]) * model(t["x"])["loss"]
    loss.backward()
    assert_close(loss, t[f"{mode}_loss"])
    for name, layer in pairs.items():
        assert_close(layer.weight.grad, t[f"{mode}_grad:{name}.W"].T)
        assert_close(layer.bias.grad, t[f"{mode}_grad:{name}.b"])
    assert_close(
        model.decoder[2].weight.grad,
        torch.cat([t[f"{mode}_grad:{name}.W"] for name in outputs], 1).T,
    )
    assert_close(
        model.decoder[2].bias.grad, torch.cat([t[f"{mode}_grad:{name}.b"] for name in outputs])
    )
    mu, log_sigma = model.encode(t["x"])
    assert_close(mu, t["det_z_mu"])
    assert_close(log_sigma, t["det_z_ls"])
    assert_close(model.decode(mu).flatten(1), t["det_x_mu_0"])
    assert_close(model.features(t["z_in"]), t["dec_from_z"])


@pytest.mark.parametrize("arch", ["2016", "deep"])
def test_vae_reaches_features_of_any_size(arch):
    """Fault 15 of the original: a mean bounded by tanh could not reach its features."""
    torch.manual_seed(0)
    features = 5 + 3 * torch.randn(8, 2, 3, 3) * torch.tensor([1.0, 10.0]).view(2, 1, 1)
    left = {}
    for bounded in (False, True):
        model = VAE((2, 3, 3), z_dim=6, n_hid=20, arch=arch, nfilts=4, bounded=bounded)
        model.normalise_by(features)
        normalised = model.normalised(features)
        torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(normalised.std((0, 2, 3)), torch.ones(2))
        adam = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(300):
            adam.zero_grad()
            error = (model.decode(model.encode(normalised)[0]) - normalised).square().mean()
            error.backward()
            adam.step()
        left[bounded] = error.item()
    assert left[False] < 0.1 < left[True]


def test_deep_vae_takes_the_likeliest_deviation_of_the_batch():
    """No other deviation, shared by all features, makes them likelier (Rybkin et al. 2021)."""
    torch.manual_seed(0)
    model, x = VAE((2, 8, 8), z_dim=3, n_hid=5, arch="deep", nfilts=2), torch.randn(4, 2, 8, 8)
    output = torch.randn(4, 2, 8, 8)
    log_sigma = 0.5 * (output - x).square().mean().log()
    others = [vae.gaussian_nll(output, log_sigma + offset, x) for offset in (-0.1, 0, 0.1)]
    assert model.nll(output, x) == others[1] < min(others[0], others[2])


def test_gaussian_log_likelihood():
    t = load("optim_losses")
    assert_close(-vae.gaussian_nll(t["ll_mu"], t["ll_ls"], t["ll_tgt"]), t["ll_value"])


@pytest.mark.parametrize("arch", ["2016", "deep"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("frame_shape", [(1, 64, 64), (3, 30, 45), (1, 7, 16)])
def test_any_frame_shape_and_likelihood(arch, binary, frame_shape):
    """Faults 11 and 12 of the original: two of four combinations raised, and the frame size was
    ignored.
    """
    torch.manual_seed(0)
    model = VCAE(frame_shape, z_dim=5, n_hid=7, arch=arch, nfilts=2, fsize=5, L=3, binary=binary)
    frames = torch.rand(4, *frame_shape)
    scalars = model(frames)
    scalars["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(value.shape == () and value.isfinite() for value in scalars.values())
    mu, log_sigma = model.encode(frames)
    assert mu.shape == log_sigma.shape == (4, 5)
    assert model.decode(mu).shape == frames.shape


def test_only_the_feature_vae_bounds_its_mean():
    """The original's Gaussian frames have a linear mean: a pixel of 1.5 can be reached. That of
    features has tanh.
    """
    frames = VCAE((1, 8, 8), z_dim=2, n_hid=3, arch="2016", nfilts=2, binary=False)
    features = VAE((1, 8, 8), z_dim=2, n_hid=3, arch="2016", bounded=True)
    z = torch.zeros(1, 2)
    for model, reached in ((frames, 1.5), (features, math.tanh(1.5))):
        last = [layer for layer in model.decoder if hasattr(layer, "bias")][-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, 1.5)
        torch.testing.assert_close(model.decode(z), torch.full((1, 1, 8, 8), reached))


def test_samples_share_the_decoder():
    """Fault 10: the number of samples adds no parameters."""
    sizes = [
        sum(p.numel() for p in VCAE((1, 16, 16), 4, 10, nfilts=3, L=L).parameters()) for L in (1, 5)
    ]
    assert sizes[0] == sizes[1]


def test_beta_weights_the_kl():
    torch.manual_seed(0)
    frames = torch.rand(4, 1, 16, 16)
    model = VCAE((1, 16, 16), 4, 10, beta=0.25).eval()
    scalars = model(frames)
    torch.testing.assert_close(scalars["loss"], scalars["nll"] + 0.25 * scalars["kl"])
    torch.testing.assert_close(
        scalars["squared_error"],
        (model.decode(model.encode(frames)[0]) - frames).square().sum() / 4,
    )


@pytest.mark.parametrize("arch", ["2016", "deep"])
def test_it_learns_to_reconstruct(arch):
    torch.manual_seed(0)
    frames = torch.zeros(8, 1, 16, 16)
    for i in range(8):
        frames[i, :, 2 * i : 2 * i + 2] = 1
    model = VCAE((1, 16, 16), 4, 32, arch=arch, nfilts=4)
    adam = torch.optim.Adam(model.parameters(), 0.01)
    errors = []
    for _ in range(60):
        scalars = model(frames)
        adam.zero_grad()
        scalars["loss"].backward()
        adam.step()
        errors.append(scalars["squared_error"].item())
    assert errors[-1] < 0.3 * errors[0]
