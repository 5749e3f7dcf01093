"""The convolutional autoencoder and the deconvoluter against the original's tensors, and the spec
parser.
"""

import pytest
import torch
from golden import assert_close, load

from models.cae import CAE, Deconvoluter, parse_spec

SPEC = "d-0.2,4-5,p-2,d-0.2,6-3,d-0.2,6-3,d-0.2,10"


def flipped(weight):
    """The original convolved truly: our filters are theirs turned around."""
    return weight.flip(2, 3) if weight.ndim == 4 else weight.T if weight.ndim == 2 else weight


def cae(tensors, unpool):
    model = CAE(SPEC, channels=3, side=20, unpool=unpool).eval()
    for name, parameter in named(model).items():
        parameter.data = flipped(tensors[f"param:{name}"])
    return model


def named(model):
    """Our parameters under the original's names; their biases are layers of their own."""
    names = {}
    for name, layer in model.layers.items():
        if hasattr(layer, "weight"):
            number = name.removeprefix("conv").removeprefix("dense")
            names |= {
                f"{name}.W": layer.weight,
                f"bias{number}.b": layer.bias,
                f"inv_bias_{name}.b": layer.inverse_bias,
            }
    return names


@pytest.mark.parametrize(("name", "unpool"), [("cae_poolinv", True), ("cae_nopoolinv", False)])
def test_cae_layers_loss_and_gradients(name, unpool):
    tensors = load(name)
    model, x = cae(tensors, unpool), tensors["x"]
    out = {}
    for layer_name, layer in model.layers.items():
        if hasattr(layer, "bare"):
            assert_close(layer.bare(x), tensors[f"layer:{layer_name}"])
            assert_close(model.features(tensors["x"], layer_name), tensors[f"layer:{layer_name}"])
        x = out[layer_name] = layer(x)
        key = {
            "c": "nl" + layer_name.lstrip("conv"),
            "d": layer_name if "drop" in layer_name else "encode",
            "p": layer_name,
        }
        assert_close(x, tensors[f"layer:{key[layer_name[0]]}"])
    assert_close(model.reconstruct(tensors["x"]).flatten(1), tensors["det_output"])
    loss = model(tensors["x"])["loss"]
    loss.backward()
    assert_close(loss, tensors["det_loss"])
    for key, parameter in named(model).items():
        assert_close(parameter.grad, flipped(tensors[f"det_grad:{key}"]))


@pytest.mark.parametrize(("name", "unpool"), [("cae_poolinv", True), ("cae_nopoolinv", False)])
def test_unpooling_serves_every_tied_maximum(name, unpool):
    tensors = load(name)
    assert_close(
        cae(tensors, unpool).reconstruct(tensors["x_ties"]).flatten(1), tensors["det_output_ties"]
    )


def test_deconvoluter_layers_loss_and_gradients():
    tensors = load("deconv")
    model = Deconvoluter(SPEC, "conv7").eval()
    convolutions = [layer for layer in model.painter if hasattr(layer, "weight")]
    names = ("conv3", "conv5", "conv8", "conv10")
    for name, layer in zip(names, convolutions, strict=True):
        layer.weight.data, layer.bias.data = (
            flipped(tensors[f"param:{name}.W"]),
            tensors[f"param:{name}.b"],
        )
    assert_close(model.paint(tensors["feat"]), tensors["det_output"])
    loss = model(tensors["feat"], tensors["target"])["loss"]
    loss.backward()
    assert_close(loss, tensors["det_loss"])
    for name, layer in zip(names, convolutions, strict=True):
        assert_close(layer.weight.grad, flipped(tensors[f"det_grad:{name}.W"]))
        assert_close(layer.bias.grad, tensors[f"det_grad:{name}.b"])


@pytest.mark.parametrize("arch", ["2016", "deep"])
@pytest.mark.parametrize("specstr", [SPEC, "8-5,p-2,8-3,p-2,8-3,p-2,8-3,20"])
def test_deconvoluter_paints_frames_of_the_crops_size(arch, specstr):
    features = CAE(specstr, 3, 64).features(torch.rand(2, 3, 64, 64), "conv7")
    model = Deconvoluter(specstr, "conv7", 3, arch=arch, nfilts=4)
    assert model.paint(features).shape == (2, 3, 64, 64)
    model(features, torch.rand(2, 3, 64, 64))["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("specstr", "position"),
    [
        ("16-5,p-2,x", 10),
        ("", 1),
        ("d-1.5", 1),
        ("16-5,,p-2", 6),
        ("16-0", 1),
        ("16-5,512,p-2", 10),
        ("512,16-5", 5),
        ("p-2 ", 1),
    ],
)
def test_nonsense_is_refused_with_its_position(specstr, position):
    with pytest.raises(ValueError, match=f"at character {position}:"):
        parse_spec(specstr)


def test_names_count_dropout_and_pooling():
    names = [name for name, _, _ in parse_spec("d-0.2,16-5,p-2,d-0.2,32-3,d-.5,32-3,d-0,512")]
    assert names[1::2] == ["conv2", "dropout4", "dropout6", "dropout8"]
    assert names[2::2] == ["pool3", "conv5", "conv7", "dense9"]


def test_too_deep_for_the_crop():
    with pytest.raises(ValueError, match="after pool4"):
        CAE("4-5,p-4,4-3,p-8", side=16)


@pytest.mark.parametrize("specstr", ["4-3,p-2,5-3", "d-0.2,4-4,p-3,6-2,10,5"])
def test_odd_sizes_reconstruct(specstr):
    x = torch.rand(2, 3, 17, 17)
    assert CAE(specstr, side=17).reconstruct(x).shape == x.shape
