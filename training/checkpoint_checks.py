"""What a checkpoint from elsewhere may hold. It is checked before a model is built from it.

`save` asks the same, so that nothing is written that could not be loaded again.
"""

import math
import os
import zipfile

import torch

from data.hdf5_checks import ATTRIBUTES
from models.losses import LOSSES
from models.residuals import RESIDUALS
from runtime import limits
from runtime.errors import UserError

FORMAT = 2
KEYS = {"format", "kind", "config", "model", "args", "history", "parents"}
TYPES = {"config": dict, "model": dict, "args": dict, "parents": dict, "history": list}
MAX_TEXT = 1000  # characters of a value or a path

# What a configuration may say, as `limits.fits` has it: text, a value of a set, an integer in a
# range, or a number from low to high. The flags have the same limits. Add a line here for a new
# hyper-parameter: `save` refuses a model that has one without.
CONFIG = {
    "arch": {"2016", "deep", "grid"},
    "combine": {"sum", "max"},
    "loss": LOSSES.keys(),
    "residual": RESIDUALS.keys(),
    **dict.fromkeys(
        ("binary", "bounded", "diffs", "peepholes", "unpool"), frozenset((False, True))
    ),
    **dict.fromkeys(("z_dim", "n_hid", "nfilts"), range(1, 2**20)),
    **dict.fromkeys(("channels", "side", "size", "fsize"), range(1, 2**12 + 1)),
    **dict.fromkeys(("L", "mixtures", "passes"), range(1, 1001)),
    "shown": range(2, 1001),
    "layers": range(1, 65),
    "slots": range(5),
    "free": range(2**20),
    "dropout": (0, 0.99),
    "pxsh": (0, 1),
    "beta": (0, 1e9),
    "clip": (0, math.inf),
    **dict.fromkeys(("specstr", "split_layer"), str),
}
NESTED = ("vcae", "lstm")  # configurations in those of `Joint` and `FilmPredictor`
SHAPES = ("frame_shape", "feature_shape")  # (channels, height, width)
MAX_SIDE = 2**16
MIN_SLOT = 3  # numbers in a slot: its position, and at least one for its appearance
# What a network of a kind was built on. Each has a path and, except for the frames, an id.
PARENTS = {
    "CAE": ("frames",),
    "Deconvoluter": ("cae",),
    "VAE": ("cae", "deconv"),
    "LatentLSTM": ("codec", "frames"),
    "FilmPredictor": ("codec", "frames"),
}
# The command that trains each kind, for messages.
MADE_BY = {
    "VCAE": "train_vcae.py",
    "SlotVAE": "train_vcae.py --arch slots",
    "CAE": "train_cae.py",
    "Deconvoluter": "train_deconv.py",
    "VAE": "train_vae_on_convs.py",
    "LatentLSTM": "train_lstm.py",
    "Joint": "train_jointly.py",
    "FilmPredictor": "train_jointly.py on a film",
}
PLAIN = (type(None), bool, int, float, str)


def check_archive(file):
    """Raise ValueError if the zip archive is compressed, or its entries claim more than its size.

    torch would map a compressed entry as it is.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("compressed")
    if sum(entry.file_size for entry in entries) > file.seek(0, os.SEEK_END):
        raise ValueError("more in it than its size")


def check_header(content, path, names):
    """Raise UserError if this is no checkpoint of this format and of one of the model classes."""
    header = [content.get(key) for key in ("format", "kind")] if type(content) is dict else []
    if [type(value) for value in header] != [int, str] or not 0 < header[0] < 2**20:
        raise UserError(f"{path} is not a checkpoint made by this project's stages")
    number, kind = header
    if number != FORMAT:
        raise UserError(
            f"{path} is a checkpoint of format {number}, and this code reads format {FORMAT}: "
            "run the stage that makes it again"
        )
    if kind not in names:
        found = MADE_BY.get(kind, f"{kind:.20}")
        needed = " or ".join(MADE_BY.get(name, name) for name in names)
        raise UserError(f"{path} is a checkpoint of {found}; one of {needed} is needed")


def check_content(content, kind):
    """Raise an exception if the parts of a checkpoint have wrong types or do not fit each other.

    kind: the model class. Values of tensors are left to `check_tensors`.
    """
    if missing := KEYS - content.keys():
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    for key, wanted in TYPES.items():
        if not isinstance(content[key], wanted):
            raise ValueError(f"its {key} is a {type(content[key]).__name__}")
    check_config(content["config"])
    check_shapes(content["model"], content["config"], kind)
    check_args(content["args"], kind.__name__)
    check_history(content["history"])
    check_parents(content["parents"], kind.__name__)


def check_config(config):
    """Raise ValueError if CONFIG does not allow a value: building the model could take for ever."""
    for name, value in config.items():
        if name in NESTED:
            check_config(value)
        elif name in SHAPES:
            if len(value) != 3 or not all(type(n) is int and 1 <= n < MAX_SIDE for n in value):
                raise ValueError(f"config: {name} is {value!s:.20}")
        elif name == "grid":
            numbers = type(value) in (list, tuple) and all(type(n) is int for n in value)
            if not numbers or len(value) not in (0, 2) or not all(n > 0 for n in value):
                raise ValueError(f"config: {name} is {value!s:.20}")
        elif name not in CONFIG:
            raise ValueError(
                f"config: {name!s:.20} has no line in CONFIG of training/checkpoint_checks.py, "
                "which sets limits"
            )
        elif not limits.fits(value, CONFIG[name]) or len(str(value)) > MAX_TEXT:
            raise ValueError(f"config: {name} is {value!s:.20}")
    slots = config.get("slots")
    if slots:
        divides = config["z_dim"] % slots == 0 and config["z_dim"] // slots >= MIN_SLOT
        if not divides or config.get("diffs"):
            raise ValueError(f"config: {slots} slots do not go with the rest of it")
    elif config.get("residual") == "objects":
        raise ValueError("config: objects are slots, which it does not have")
    grid = config.get("grid")
    if grid and (
        slots
        or config["z_dim"] % math.prod(grid)
        or config.get("loss") == "mdn"
        or config.get("diffs")
    ):
        raise ValueError(f"config: a grid of {grid} does not go with the rest of it")


def check_shapes(tensors, config, kind):
    """Raise ValueError if the tensors' names, types and shapes are not what the config asks for."""
    with torch.device("meta"):  # nothing is allocated, whatever the config asks for
        model = kind(**config)
    wanted = {name: (t.dtype, *t.shape) for name, t in model.state_dict().items()}
    found = {name: (full_type(t), *t.shape) for name, t in tensors.items()}
    if found != wanted:
        name = min(name for name, _ in found.items() ^ wanted.items())
        raise ValueError(
            f"{name} is {found.get(name, 'missing')}, its config asks for "
            f"{wanted.get(name, 'none')}"
        )


def narrowed(weight):
    """A weight as it is stored in half precision: vectors, such as biases, stay as they are."""
    return weight.half() if weight.dtype == torch.float32 and weight.ndim > 1 else weight


def full_type(weight):
    """The type that a stored weight is used in: it may be `narrowed`."""
    is_narrow = weight.dtype == torch.float16 and weight.ndim > 1
    return torch.float32 if is_narrow else weight.dtype


def check_args(args, kind):
    """Raise ValueError if the flags are not plain values, or an LSTM's lack its frame skip."""
    for name, value in args.items():
        if type(name) is not str or type(value) not in PLAIN:
            raise ValueError(f"args: {name!s:.20} is a {type(value).__name__}")
    if kind in ("LatentLSTM", "FilmPredictor"):
        skip = args["frame_skip"]
        if type(skip) is not int or not 1 <= skip < 2**31:
            raise ValueError(f"frame_skip is {skip}")


def check_history(history):
    """Raise ValueError if a row is not {name: number}, the validation loss among them."""
    for row in history:
        numbers = all(
            type(key) is str and type(value) in (int, float) for key, value in row.items()
        )
        if "valid_loss" not in row or not numbers:
            raise ValueError("its history is not one of losses")


def check_parents(parents, kind):
    """Raise an exception if a network that this one was built on has no path or no id.

    Frames have no id. Their rate is there if they may not be.
    """
    for role in PARENTS.get(kind, ()):
        parent = dict(parents[role])
        names = [parent["path"]]
        if role != "frames":
            names.append(parent["id"])
        rate = parent.get("frame_rate", 1.0)
        if not limits.fits(rate, ATTRIBUTES["frame_rate"]):
            raise ValueError(f"its frame_rate is {rate!s:.20}")
        if not all(type(name) is str and len(name) <= MAX_TEXT for name in names):
            raise ValueError(f"its {role} has no path or id")


def check_tensors(tensors, size):
    """Raise ValueError if they are not plain, finite weights that `size` bytes can hold."""
    for tensor in tensors.values():
        is_plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided
        if not is_plain or not tensor.is_cpu:
            raise ValueError("model holds something else than tensors")
    # A view may repeat one number a trillion times: count what its shape claims, too.
    if sum(tensor.numel() * tensor.itemsize for tensor in tensors.values()) > size:
        raise ValueError("model is larger than the file")
    if not all(math.isfinite(end) for tensor in tensors.values() for end in tensor.aminmax()):
        raise ValueError("its weights are not finite")


def check_progress(progress):
    """Raise an exception if progress is neither None nor what `loop.run_pass` returns."""
    if progress is None:
        return
    values = progress | progress["of"]
    types = {name: type(value) for name, value in values.items() if name != "max_per_epoch"}
    counts = dict.fromkeys(("step", "count", "seed", "batch_size", "examples"), int)
    times = dict.fromkeys(("seconds", "waited"), float)
    if types != {"totals": dict, "of": dict, **counts, **times} or progress["step"] < 0:
        raise ValueError("progress")
    if not all(type(total) is float for total in progress["totals"].values()):
        raise ValueError("totals")


def check_moments(state, weights):
    """Raise an exception if Adam's state is not of these weights, a list of parameters."""
    for i, moments in state.items():
        shapes = {"step": (), "exp_avg": weights[i].shape, "exp_avg_sq": weights[i].shape}
        found = {name: (type(t), t.dtype, t.shape, t.layout) for name, t in moments.items()}
        plain = (torch.Tensor, torch.float32)
        wanted = {name: (*plain, shape, torch.strided) for name, shape in shapes.items()}
        if found != wanted:
            raise ValueError("moments")
