"""How files and folders are written, locked and named.

Files appear whole or not at all; one process at a time may fill a folder; files name each other by
relative paths.
"""

import errno
import fcntl
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from runtime.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a disk answers that has none
folder_lock = ExitStack()


@contextmanager
def atomic_write(path):
    """A path beside `path` to write a file to.

    It gets the name `path` when the block ends well, and is on disk then. It has the same suffix,
    and is locked, so that of two writers of one place the second is told. If the block fails it is
    removed, and what was at `path` stays. Raises UserError if the file cannot be written, or
    another process is writing it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(tmp_path(path), being_written(path)):
            try:
                yield tmp_path(path)
                to_disk(tmp_path(path))
                os.replace(tmp_path(path), path)
            except BaseException:
                with suppress(OSError):
                    tmp_path(path).unlink()
                raise
        with suppress(OSError):  # not every file system does it
            to_disk(path.parent)
    except (OSError, RuntimeError) as error:
        # Writers of archives stumble over what they could not write: HDF5 names it, PyTorch's comes
        # after it.
        if (
            isinstance(error, RuntimeError)
            and "errno = " not in str(error)
            and type(error.__context__) is not OSError
        ):
            raise
        raise UserError(
            f"{path} cannot be written, and is as it was ({error}): {way_out(error)}"
        ) from None


@contextmanager
def atomic_folder(path):
    """A folder beside `path` to fill, which gets the name `path` when the block ends well.

    It is locked, as in `atomic_write`. Raises UserError if it cannot be written, or another process
    is writing it.
    """
    path = Path(path)
    try:
        tmp_path(path).mkdir(parents=True, exist_ok=True)
        mark = tmp_path(path) / ".lock"
        if any(tmp_path(path).iterdir()) and not mark.exists():
            raise UserError(
                f"{tmp_path(path)}, where it would be made, holds something else: move it away"
            )
        with lock(mark, being_written(path)):
            refuse_existing(path)  # made meanwhile
            for left in tmp_path(path).iterdir():  # by a run that was killed
                if left != mark:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield tmp_path(path)
            mark.unlink()
            tmp_path(path).rename(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}): {way_out(error)}") from None


def refuse_existing(path):
    """Raise UserError if there is something at `path` already."""
    if os.path.lexists(path):
        raise UserError(f"{path} exists already; delete it, or name another place")


def being_written(path):
    return f"{path} is being written by another process: wait for it, or name another"


def way_out(error):
    """What helps where a file cannot be written: room on the disk, or another place."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    text = f"{error} {error.__context__}"
    return (
        "make room, or name another"
        if any(f"rrno {code}" in text or f"rrno = {code}" in text for code in full)
        else "name another"
    )


def tmp_path(path):
    """The name under which a file is written: a hidden one, lest it be somebody's own."""
    path = Path(path)
    return path.with_name(f".{path.stem}.part{path.suffix}")


def to_disk(path):
    """Wait until a file, or a folder's list of names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock(path, busy):
    """Hold the file at `path`, made if it is not there, until the block ends or the process does.

    Raises UserError(busy) if another process holds it. On a disk without locks it says so and goes
    on.
    """
    while True:
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666), "wb", closefd=True
        ) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(busy) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                warn_of_no_locks(Path(path).parent)
            if is_at(
                file, path
            ):  # else its holder renamed it meanwhile, and the name is free again
                yield
                return


def is_at(file, path):
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@cache
def warn_of_no_locks(folder):
    print(
        f"{folder} lies on a disk without locks: let no other process write there", file=sys.stderr
    )


def lock_folder(folder):
    """Make a folder this process's own until it ends or locks another.

    Raises UserError if another process has it.
    """
    folder_lock.close()
    writable_folder(folder)
    folder_lock.enter_context(
        lock(
            Path(folder) / ".lock",
            f"{folder} is in use by another process: wait for it, or name another",
        )
    )


def writable_folder(folder):
    """Make the folder if it is not there. Raises UserError if no file can be written in it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{folder} is no folder that can be written to ({error.strerror}): name another"
        ) from None


def relative(path, folder):
    """`path` as files in `folder` name it, relative.

    Between real places, so that links to either do not matter.
    """
    return os.path.relpath(os.path.realpath(path), os.path.realpath(folder))


def resolve(name, folder):
    """Where a file lies that files in `folder` call `name`: the path from the working directory."""
    return os.path.relpath(os.path.join(os.path.realpath(folder), name))
