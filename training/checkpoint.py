"""One file format for trained networks: how it is saved, how it is loaded.

A checkpoint is a dict of tensors, numbers, strings, lists and dicts, read with `weights_only=True`:
    format, kind     the format's number, the model class's name
    config           what the model class is built from
    model            its state_dict; matrices and kernels may be in half precision
    args             the flags of the run
    history          a dict of numbers per epoch
    parents          {role: {"path", "id"}}, what it was built on
    optimizer, progress   in last.pt: what it takes to continue

It may come from anywhere: checkpoint_checks.py has what is checked when one is loaded.
"""

import hashlib
from pathlib import Path

import torch

from runtime import files, limits, processes
from runtime.errors import UserError
from training import checkpoint_checks as checks
from training.checkpoint_checks import CONFIG, FORMAT


def flag(name):
    """The argparse type of a flag that sets the value `name` of a configuration."""
    return limits.limited(CONFIG[name])


def save(path, model, args, history, parents, optimizer=None, progress=None, half=False):
    """Write a checkpoint atomically. Of several processes the first does.

    args: the flags; history: a dict of numbers per epoch; parents: {role: {"path", "id"}};
    optimizer, progress: what it takes to continue, the latter of an unfinished epoch; half: store
    matrices and kernels in half precision. Raises UserError, before anything is written, if `load`
    would refuse it.
    """
    if processes.rank():
        return
    weights = model.state_dict()
    if half:
        weights = {name: checks.narrowed(weight) for name, weight in weights.items()}
    content = {
        "format": FORMAT,
        "kind": type(model).__name__,
        "config": model.config,
        "model": weights,
        "args": args,
        "history": history,
        "parents": parents,
    }
    if optimizer is not None:
        content |= {"optimizer": optimizer.state_dict(), "progress": progress}
    try:
        checks.check_content(content, type(model))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} could not be loaded again ({error!s:.200}), so it is not written"
        ) from None
    with files.atomic_write(path) as tmp, open(tmp, "wb") as file:
        torch.save(content, file)


def load(path, *kinds):
    """The content of a checkpoint, checked, on the CPU; its tensors stay mapped from the file.

    Those in half precision are read and widened. kinds: the model classes it may be of. Raises
    UserError if the file is missing, unreadable, damaged, of another format or kind, or if its
    parts do not belong together.
    """
    try:
        with open(path, "rb") as file:
            content = unpack(path, file)
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there; run the stage that makes it, or name another file"
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder: name the checkpoint in it, {Path(path) / 'best.pt'}"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception:  # whatever the parsers of zip and pickle stumble over
        raise UserError(
            f"{path} cannot be read as a checkpoint; run the stage that makes it again"
        ) from None
    by_name = {kind.__name__: kind for kind in kinds}
    checks.check_header(content, path, list(by_name))
    try:
        checks.check_content(content, by_name[content["kind"]])
        checks.check_tensors(content["model"], Path(path).stat().st_size)
    except Exception as error:  # a constructor may stumble over anything
        raise UserError(
            f"{path} is not a complete checkpoint ({error!s:.200}); run the stage that makes it "
            "again"
        ) from None
    # A plain dict has none of torch's own attributes.
    weights = content["model"].items()
    content["model"] = {name: weight.to(checks.full_type(weight)) for name, weight in weights}
    return content


def unpack(path, file):
    """The content of an open checkpoint, mapped into memory if possible, else read."""
    checks.check_archive(file)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, UnicodeError):
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def resume_state(content, model, path):
    """Adam's state and the progress within an epoch, or None, from the content of a last.pt.

    Raises UserError if they are not of this model's parameters, or not what `save` was given.
    """
    try:
        state = content["optimizer"]["state"]
        progress = content["progress"]
        checks.check_progress(progress)
        checks.check_moments(state, list(model.parameters()))
    except Exception:
        raise UserError(
            f"{path} has no training state to continue from; start over without --resume"
        ) from None
    return state, progress


def build(content, *kinds):
    """The model of a checkpoint's content, in evaluation mode."""
    by_name = {kind.__name__: kind for kind in kinds}
    model = by_name[content["kind"]](**content["config"])
    model.load_state_dict(content["model"])
    return model.eval()


def identity(content):
    """A short id of a checkpoint's weights, the same wherever the file lies."""
    digest = hashlib.sha256()
    for name, tensor in content["model"].items():
        digest.update(name.encode())
        flat = tensor.cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def parent(path, content, run):
    """How a checkpoint in the folder `run` names one that it was built on: relative path and id."""
    return {"path": files.relative(path, run), "id": identity(content)}


def parent_path(path, content, role):
    """Where the parent `role` of the checkpoint at `path` lies, from the working directory."""
    return files.resolve(content["parents"][role]["path"], Path(path).resolve().parent)
