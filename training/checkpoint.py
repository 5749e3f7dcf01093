"""One file format for trained networks: tensors, numbers, strings, lists and dicts, loaded with `weights_only=True`."""

import hashlib
import math
import os
import zipfile
from pathlib import Path

import torch

from models.losses import LOSSES
from models.residuals import RESIDUALS
from runtime import files, limits, processes
from runtime.errors import UserError

FORMAT = 2
KEYS = {"format", "kind", "config", "model", "args", "history", "parents"}

# What a configuration may say: text, a value of a set, a whole number of a range, a number from low to high. The flags
# have the same limits. A new hyper-parameter needs its line here: `save` refuses a model with one that has none.
CONFIG = {
    "arch": {"2016", "deep"},
    "combine": {"sum", "max"},
    "loss": LOSSES.keys(),
    "residual": RESIDUALS.keys(),
    **dict.fromkeys(("binary", "bounded", "diffs", "peepholes", "unpool"), frozenset((False, True))),
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
# What a network of a kind was built on; each has a path and, but for the frames, an id.
PARENTS = {
    "CAE": ("frames",),
    "Deconvoluter": ("cae",),
    "VAE": ("cae", "deconv"),
    "LatentLSTM": ("codec", "frames"),
}
PLAIN = (type(None), bool, int, float, str)


def flag(name):
    """The argparse type of a flag that sets the value `name` of a configuration."""
    return limits.limited(CONFIG[name])


def save(path, model, args, history, parents, optimizer=None, progress=None):
    """Write a checkpoint, complete or not at all (`files.atomic_write`). Of several processes the first does.

    args: the flags; history: a dict of numbers per epoch; parents: {role: {"path", "id"}}, what it was built on;
    optimizer, progress: what it takes to go on, the latter of an epoch that is not over. Raises UserError, before
    anything is written, if `load` would refuse it.
    """
    if processes.rank():
        return
    content = {
        "format": FORMAT,
        "kind": type(model).__name__,
        "config": model.config,
        "model": model.state_dict(),
        "args": args,
        "history": history,
        "parents": parents,
    }
    if optimizer is not None:
        content |= {"optimizer": optimizer.state_dict(), "progress": progress}
    try:
        check_content(content, type(model))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} could not be loaded again ({error!s:.200}), so it is not written") from None
    with files.atomic_write(path) as partial, open(partial, "wb") as file:
        torch.save(content, file)


def load(path, *kinds):
    """The content of a checkpoint, on the CPU, checked; its tensors stay mapped from the file.

    Raises UserError if the file is missing, cannot be read, is damaged, no checkpoint of this format, of none of the
    kinds (model classes), or if its parts are not what `save` writes or do not belong together.
    """
    try:
        with open(path, "rb") as file:
            content = unpack(path, file)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run the stage that makes it, or name another file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name the checkpoint in it, {Path(path) / 'best.pt'}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception:  # whatever the parsers of zip and pickle stumble over
        raise UserError(f"{path} cannot be read as a checkpoint; run the stage that makes it again") from None
    about = [content.get(key) for key in ("format", "kind")] if type(content) is dict else []
    if [type(value) for value in about] != [int, str] or not 0 < about[0] < 2**20:
        raise UserError(f"{path} is not a checkpoint made by this project's stages")
    if content["format"] != FORMAT:
        raise UserError(
            f"{path} is a checkpoint of format {content['format']}, and this code reads format {FORMAT}: "
            "run the stage that makes it again"
        )
    if content["kind"] not in [kind.__name__ for kind in kinds]:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise UserError(f"{path} holds a {content['kind']:.20}, where a {names} is needed")
    try:
        check_content(content, {kind.__name__: kind for kind in kinds}[content["kind"]])
        check_tensors(content["model"], Path(path).stat().st_size)
    except Exception as error:  # a constructor may stumble over anything
        raise UserError(f"{path} is no whole checkpoint ({error!s:.200}); run the stage that makes it again") from None
    content["model"] = dict(content["model"])  # without what torch hangs on to it
    return content


def unpack(path, file):
    """The content of the open checkpoint at `path`, mapped into memory where disk and name allow it, else read."""
    check_archive(file)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, UnicodeError):
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def check_archive(file):
    """Raise ValueError if what is in the zip archive is compressed, which torch would map unread, or too large."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("compressed")
    if sum(entry.file_size for entry in entries) > file.seek(0, os.SEEK_END):
        raise ValueError("more in it than its size")


def check_content(content, kind):
    """Raise an exception if the parts of a checkpoint of a `kind` are not what they should be, or do not fit.

    No tensor is looked into: `check_tensors` does that.
    """
    if missing := KEYS - content.keys():
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    for key in ("config", "model", "args", "parents", "history"):
        if not isinstance(content[key], list if key == "history" else dict):
            raise ValueError(f"its {key} is a {type(content[key]).__name__}")
    check_config(content["config"])
    with torch.device("meta"):  # nothing is allocated, whatever the configuration asks for
        wanted = {name: (t.dtype, *t.shape) for name, t in kind(**content["config"]).state_dict().items()}
    found = {name: (t.dtype, *t.shape) for name, t in content["model"].items()}
    if found != wanted:
        name = min(name for name, _ in found.items() ^ wanted.items())
        raise ValueError(f"{name} is {found.get(name, 'missing')}, its config asks for {wanted.get(name, 'none')}")
    args, parents = content["args"], content["parents"]
    for name, value in args.items():
        if type(name) is not str or type(value) not in PLAIN:
            raise ValueError(f"args: {name!s:.20} is a {type(value).__name__}")
    if kind.__name__ == "LatentLSTM" and not (type(args["frame_skip"]) is int and 1 <= args["frame_skip"] < 2**31):
        raise ValueError(f"frame_skip is {args['frame_skip']}")
    for row in content["history"]:
        if "valid_loss" not in row or not all(type(k) is str and type(v) in (int, float) for k, v in row.items()):
            raise ValueError("history is not one of losses")
    for role in PARENTS.get(kind.__name__, ()):
        parent = dict(parents[role])
        named = [parent["path"]] + ([parent["id"]] if role != "frames" else [])
        if not all(type(name) is str and len(name) <= 1000 for name in named):
            raise ValueError(f"its {role} has no path or id")


def check_tensors(tensors, size):
    """Raise ValueError if the tensors of a file of `size` bytes are no plain finite weights that it has room for."""
    if not all(type(t) is torch.Tensor and t.layout is torch.strided and t.is_cpu for t in tensors.values()):
        raise ValueError("model holds something else than tensors")
    # A view may repeat one number a trillion times: its shape, too, has to be one that the file has room for.
    if sum(t.numel() * t.itemsize for t in tensors.values()) > size:
        raise ValueError("model is larger than the file")
    if not all(math.isfinite(end) for t in tensors.values() for end in t.aminmax()):
        raise ValueError("its weights are not finite")


def check_config(config):
    """Raise ValueError if a value is not one that CONFIG knows, and so could take for ever to build."""
    for name, value in config.items():
        if name in ("vcae", "lstm"):  # of `Joint`
            check_config(value)
        elif name in ("frame_shape", "feature_shape"):
            if len(value) != 3 or not all(type(n) is int and n in range(1, 2**16) for n in value):
                raise ValueError(f"config: {name} is {value!s:.20}")
        elif name not in CONFIG:
            raise ValueError(f"config: {name!s:.20} has no line in CONFIG of training/checkpoint.py, which sets limits")
        elif not limits.fits(value, CONFIG[name]) or len(str(value)) > 1000:
            raise ValueError(f"config: {name} is {value!s:.20}")
    if slots := config.get("slots"):
        z_dim = config["z_dim"]
        if z_dim % slots or z_dim // slots < 3 or config.get("loss") == "mdn" or config.get("diffs"):
            raise ValueError(f"config: {slots} slots do not go with the rest of it")


def resume_state(content, model, path):
    """What the content of the last.pt at `path` has to continue from: Adam's state, and the progress within an epoch.

    Raises UserError if they are not of this model's parameters, or not what `save` was given.
    """
    weights = list(model.parameters())
    try:
        state, progress = content["optimizer"]["state"], content["progress"]
        if progress is not None:
            kinds = {
                name: type(value) for name, value in (progress | progress["of"]).items() if name != "max_per_epoch"
            }
            whole = dict.fromkeys(("step", "count", "seed", "batch_size", "examples"), int)
            if (
                kinds != {"totals": dict, "of": dict, "seconds": float, "waited": float, **whole}
                or progress["step"] < 0
            ):
                raise ValueError
            if not all(type(total) is float for total in progress["totals"].values()):
                raise ValueError
        for i, moments in state.items():
            shapes = {"step": (), "exp_avg": weights[i].shape, "exp_avg_sq": weights[i].shape}
            if {name: (type(t), t.dtype, t.shape, t.layout) for name, t in moments.items()} != {
                name: (torch.Tensor, torch.float32, shape, torch.strided) for name, shape in shapes.items()
            }:
                raise ValueError
    except Exception:
        raise UserError(f"{path} has no state of a training to continue from; start over without --resume") from None
    return state, progress


def build(content, *kinds):
    """The model of a checkpoint's content, in evaluation mode."""
    model = {kind.__name__: kind for kind in kinds}[content["kind"]](**content["config"])
    model.load_state_dict(content["model"])
    return model.eval()


def identity(content):
    """A short id of a checkpoint's weights, the same wherever the file lies."""
    digest = hashlib.sha256()
    for name, tensor in content["model"].items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy() if tensor.ndim else tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def parent(path, content, run):
    """How a checkpoint in the folder `run` names the one it was built on: relative path and id."""
    return {"path": files.relative(path, run), "id": identity(content)}


def parent_path(path, content, role):
    """Where the parent `role` of the checkpoint at `path` lies: it is named as seen from there."""
    return files.resolve(content["parents"][role]["path"], Path(path).resolve().parent)
