"""The movie's feature extractor, a convolutional autoencoder, and the deconvoluter.

A spec lists the layers, separated by commas, numbered from 1, dropout and pooling included:
    d-P   dropout with probability P            p-K   max-pooling over K x K
    F-K   valid convolution, F filters K x K    N     dense layer of N units
In "d-0.2,16-5,p-2,d-0.2,32-3,d-0.2,32-3,d-0.2,512", "conv7" is the seventh layer, a convolution.
"""

import math
import re

import torch
import torch.nn.functional as F
from torch import nn

from models import noise
from models.vae import glorot

PATTERNS = {
    "dropout": re.compile(r"d-(0|0?\.\d+)"),
    "pool": re.compile(r"p-([1-9]\d*)"),
    "conv": re.compile(r"([1-9]\d*)-([1-9]\d*)"),
    "dense": re.compile(r"([1-9]\d*)"),
}


def parse_spec(specstr):
    """The layers of a spec string: [(name such as "conv7", kind, numbers)].

    Raises ValueError, naming the position of the fault, if a layer is none of the four kinds or
    follows a dense one without being dense or dropout.
    """
    layers = []
    position = 1
    dense = False
    for number, word in enumerate(specstr.split(","), 1):
        at = f"{word!r} at character {position}"
        matches = [
            (kind, match)
            for kind, pattern in PATTERNS.items()
            if (match := pattern.fullmatch(word))
        ]
        if not matches:
            raise ValueError(
                f"{at}: a layer is d-P (dropout), p-K (pooling), F-K (convolution) or N (dense)"
            )
        ((kind, match),) = matches
        if dense and kind in ("pool", "conv"):
            raise ValueError(f"{at}: only dropout and dense layers may follow a dense one")
        dense = dense or kind == "dense"
        layers.append(
            (
                f"{kind}{number}",
                kind,
                [float(n) if kind == "dropout" else int(n) for n in match.groups()],
            )
        )
        position += len(word) + 1
    return layers


class TiedConvolution(nn.Module):
    """A valid convolution and its transpose with the same weight.

    Either is followed by a bias of its own and tanh.
    """

    def __init__(self, shape, filters, size):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(filters, shape[0], size, size))
        self.bias = nn.Parameter(torch.zeros(filters))
        self.inverse_bias = nn.Parameter(torch.zeros(shape[0]))
        nn.init.xavier_uniform_(self.weight)
        self.shape_out = (filters, shape[1] - size + 1, shape[2] - size + 1)

    def bare(self, x):
        """The convolution before its bias and tanh: what later stages take as features."""
        return F.conv2d(x, self.weight)

    def forward(self, x):
        return torch.tanh(self.bare(x) + self.bias[:, None, None])

    def inverse(self, y, *_):
        return torch.tanh(F.conv_transpose2d(y, self.weight, self.inverse_bias))


class TiedDense(nn.Module):
    """A dense layer and its transpose with the same weight.

    Either is followed by a bias of its own (back: one per channel) and tanh.
    """

    def __init__(self, shape, units):
        super().__init__()
        self.shape_in = shape
        self.shape_out = (units,)
        self.weight = nn.Parameter(torch.empty(units, math.prod(shape)))
        self.bias = nn.Parameter(torch.zeros(units))
        self.inverse_bias = nn.Parameter(torch.zeros(shape[0]))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x):
        return torch.tanh(F.linear(x.flatten(1), self.weight, self.bias))

    def inverse(self, y, *_):
        y = (y @ self.weight).unflatten(1, self.shape_in)
        return torch.tanh(y + self.inverse_bias.view(-1, *[1] * (len(self.shape_in) - 1)))


class Pool(nn.Module):
    """Max-pooling and its way back.

    Back, a value goes to every position that held the maximum (`unpool`), or to its whole window.
    """

    def __init__(self, shape, size, unpool):
        super().__init__()
        self.size = size
        self.unpool = unpool
        self.shape_out = (shape[0], shape[1] // size, shape[2] // size)

    def forward(self, x):
        return F.max_pool2d(x, self.size)

    def inverse(self, y, x, pooled):
        """Spread y over the windows that x was pooled from, to `pooled`.

        Pixels in no window get nothing.
        """
        spread = F.interpolate(y, scale_factor=self.size)  # each value over its whole window
        height, width = spread.shape[2:]
        if self.unpool:
            maxima = F.interpolate(pooled, scale_factor=self.size)
            spread = spread * (maxima == x[..., :height, :width])
        # Rows and columns that are left over when windows do not divide x.
        return F.pad(spread, (0, x.shape[3] - width, 0, x.shape[2] - height))


class Dropout(noise.Dropout):
    """Dropout on the way in; nothing on the way back."""

    def __init__(self, shape, p):
        super().__init__(p)
        self.shape_out = shape

    def inverse(self, y, *_):
        return y


LAYERS = {"dropout": Dropout, "pool": Pool, "conv": TiedConvolution, "dense": TiedDense}


class CAE(nn.Module):
    """A convolutional autoencoder of square crops with tied weights.

    It is trained on the mean squared error.

    specstr:  its layers, see above
    channels: of a crop
    side:     of a crop, in pixels
    pxsh:     subtracted from pixels in [0, 1], so that tanh can reach them
    unpool:   see `Pool`
    """

    def __init__(self, specstr, channels=3, side=64, pxsh=0.5, unpool=True):
        super().__init__()
        self.config = {
            "specstr": specstr,
            "channels": channels,
            "side": side,
            "pxsh": pxsh,
            "unpool": unpool,
        }
        self.pxsh = pxsh
        self.layers = nn.ModuleDict()
        shape = (channels, side, side)
        for name, kind, numbers in parse_spec(specstr):
            options = [unpool] if kind == "pool" else []
            self.layers[name] = LAYERS[kind](shape, *numbers, *options)
            shape = self.layers[name].shape_out
            if min(shape) < 1:
                raise ValueError(
                    f"nothing is left of a {side} x {side} crop after {name}; make it shorter"
                )
        self.to(memory_format=torch.channels_last)

    def shifted(self, frames):
        """Frames uint8 as float32 in [-pxsh, 1 - pxsh]."""
        return frames.float() / 255 - self.pxsh

    def features(self, x, split_layer):
        """What the convolution `split_layer` gives for shifted frames x, before bias and tanh."""
        for name, layer in self.layers.items():
            if name == split_layer:
                return layer.bare(x)
            x = layer(x)
        raise ValueError(f"no layer {split_layer}")

    def reconstruct(self, x):
        """Shifted frames (n, channels, side, side), encoded and decoded."""
        activations = [x]  # the input of each layer, then the code
        for layer in self.layers.values():
            activations.append(layer(activations[-1]))
        y = activations.pop()
        pooled = y  # what the layer put out on the way in, by which pools find their maxima
        for layer in reversed(self.layers.values()):
            y = layer.inverse(y, activations[-1], pooled)
            pooled = activations.pop()
        return y

    def forward(self, x):
        """The mean squared error of the reconstruction of shifted frames."""
        return {"loss": F.mse_loss(self.reconstruct(x), x)}


class Deconvoluter(nn.Module):
    """Paints the image from the features of a CAE's layer `split_layer`.

    Its layers are the CAE's spec reversed, with weights of its own.

    arch "2016": dropout, nearest upsampling for pools, full convolutions with tanh, dense layers
    left out; then a 3x3 convolution with tanh to the image. arch "deep": the same convolutions,
    `nfilts` maps each, with batch norm and SiLU, and no dropout. arch "grid": as "deep", but
    smooth: bilinear upsampling, and edges repeated. Trained on the mean squared error.
    """

    def __init__(self, specstr, split_layer, channels=3, pxsh=0.5, arch="2016", nfilts=64):
        super().__init__()
        self.config = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        self.pxsh = pxsh
        layers = parse_spec(specstr)
        names = [name for name, _, _ in layers]
        if split_layer not in names or not split_layer.startswith("conv"):
            convolutions = ", ".join(name for name in names if name.startswith("conv")) or "none"
            raise ValueError(
                f"{split_layer} is no convolution of {specstr}: there are {convolutions}"
            )
        end = names.index(split_layer) + 1
        # A dropout right after the layer is undone, too.
        if names[end : end + 1] == [f"dropout{end + 1}"]:
            end += 1
        # Beyond a frame's edge "grid" repeats the edge, where zeros would darken it.
        padding = "replicate" if arch == "grid" else "zeros"
        upsampling = "bilinear" if arch == "grid" else "nearest"
        painter = []
        maps = layers[names.index(split_layer)][2][0]  # channels so far: those of the features
        for _, kind, numbers in reversed(layers[:end]):
            if kind == "pool":
                painter.append(nn.Upsample(scale_factor=numbers[0], mode=upsampling))
            elif kind == "dropout" and arch == "2016":
                painter.append(noise.Dropout(*numbers))
            elif kind == "conv":
                filters, size = numbers
                # Padded by size - 1, so that it grows by what the valid convolution cut off.
                if arch == "2016":
                    painter += [nn.Conv2d(maps, filters, size, padding=size - 1), nn.Tanh()]
                    maps = filters
                else:
                    painter += [
                        nn.Conv2d(
                            maps, nfilts, size, padding=size - 1, bias=False, padding_mode=padding
                        ),
                        nn.BatchNorm2d(nfilts),
                        nn.SiLU(),
                    ]
                    maps = nfilts
        painter.append(nn.Conv2d(maps, channels, 3, padding=1, padding_mode=padding))
        self.painter = nn.Sequential(*painter, nn.Tanh())
        if arch == "2016":
            self.apply(glorot)
        self.to(memory_format=torch.channels_last)

    def paint(self, features):
        """Shifted frames (n, channels, side, side) for features of the split layer."""
        return self.painter(features)

    def forward(self, features, frames):
        """The mean squared error between frames painted from features and the shifted frames."""
        return {"loss": F.mse_loss(self.paint(features), frames)}
