"""The reference tensors of the original code, and how closely ours must agree with them."""

from pathlib import Path

import numpy as np
import torch


def load(name):
    """The tensors of tests/golden/NAME.npz; "param:07:layer.W" is found under "param:layer.W",
    gradients likewise.
    """
    arrays = np.load(Path(__file__).parent / "golden" / f"{name}.npz")
    parts = {key: key.split(":") for key in arrays.files if arrays[key].dtype.kind != "U"}
    return {
        ":".join([p[0], p[-1]] if len(p) == 3 else p): torch.from_numpy(arrays[key])
        for key, p in parts.items()
    }


def assert_close(ours, theirs):
    """Equal to the rounding of two float32 programs: 1e-5 of the tensor's largest entry."""
    ours = ours.detach()
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max() + 1e-7
