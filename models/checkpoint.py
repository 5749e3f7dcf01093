"""One file format for trained networks: tensors, numbers, strings, lists and dicts, loaded with `weights_only=True`."""

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import torch

import files
import processes
from cli import UserError

FORMAT = 2
KEYS = {"format", "kind", "config", "model", "args", "history", "parents"}


def save(path, model, args, history, parents, optimizer=None, progress=None):
    """Write a checkpoint, whole or not at all (`files.whole`). Of several processes the first does.

    args: the flags; history: a dict of numbers per epoch; parents: {role: {"path", "id"}}, what it was built on;
    optimizer, progress: what it takes to go on, the latter of an epoch that is not over.
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
    with files.whole(path) as partial, open(partial, "wb") as file:
        torch.save(content, file)


def load(path, *kinds):
    """The content of a checkpoint, on the CPU; its tensors are read when they are first used.

    Raises UserError if the file is missing, no checkpoint of this format, or of none of the kinds (model classes).
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; run the stage that makes it, or name another file") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        raise UserError(f"{path} cannot be read as a checkpoint; run the stage that makes it again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= KEYS:
        raise UserError(f"{path} is not a checkpoint of format {FORMAT} made by this project's stages")
    if content["kind"] not in [kind.__name__ for kind in kinds]:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise UserError(f"{path} holds a {content['kind']}, where a {names} is needed")
    return content


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
    return {"path": os.path.relpath(path, run), "id": identity(content)}


def parent_path(path, content, role):
    """Where the parent `role` of the checkpoint at `path` lies: it is named as seen from there."""
    return os.path.normpath(Path(path).parent / content["parents"][role]["path"])
