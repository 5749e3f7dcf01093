"""Files that appear whole or not at all, and folders that one process at a time may fill."""

import os
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cli import UserError

claimed = ExitStack()


@contextmanager
def whole(path):
    """A path beside `path` to write a file to: it gets the name `path` when the block ends well, and is on disk then.

    It has the same suffix. If the block fails it is removed, and what was at `path` stays. Raises UserError if the
    file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial(path)
        to_disk(partial(path))
        os.replace(partial(path), path)
        with suppress(OSError):  # not every file system does it
            to_disk(path.parent)
    except (OSError, RuntimeError) as error:
        # Writers of archives stumble over what they could not write: HDF5 names it, PyTorch's comes after it.
        if isinstance(error, RuntimeError) and "errno = " not in str(error) and type(error.__context__) is not OSError:
            raise
        raise UserError(f"{path} cannot be written, and is as it was ({error}): make room, or name another") from None
    finally:
        with suppress(OSError):
            partial(path).unlink()


def partial(path):
    """The name under which a file is written."""
    path = Path(path)
    return path.with_name(f"{path.stem}.part{path.suffix}")


def to_disk(path):
    """Wait until a file, or a folder's list of names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def claim(folder):
    """Make a folder this process's own until it ends or claims another. Raises UserError if another process has it."""
    claimed.close()
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        claimed.enter_context(FileLock(Path(folder) / ".lock", timeout=0))
    except Timeout:
        raise UserError(f"{folder} is in use by another process: wait for it, or name another --save_to") from None


def writable_folder(folder):
    """Make the folder. Raises UserError if no file can be written in it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"no file can be written in {folder} ({error.strerror}): name another folder") from None
