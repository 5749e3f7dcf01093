"""A C++ file as a library: built at first use, and kept in the user's cache."""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import torch

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
TORCH = Path(torch.__file__).parent / "lib"


def load(source):
    """The library (of ctypes) of the C++ file at `source`, linked with libtorch.

    Raises OSError, and RuntimeError if it cannot be compiled; the message is one line.
    """
    text = source.read_bytes()
    built_for = " ".join((*FLAGS, torch.__version__, str(TORCH), processor()))
    name = hashlib.sha256(text + built_for.encode()).hexdigest()[:16]
    library = cache_folder() / f"{source.stem}-{name}.so"
    if not library.exists():
        build(source, library)
    return ctypes.CDLL(str(library))


def build(source, library):
    """Compile. Of several processes that do it at once, the last one's file stays."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder, library.name)
        compiler = os.environ.get("CXX", "c++")
        command = [compiler, *FLAGS, str(source), "-o", str(made), f"-L{TORCH}", "-ltorch_cpu"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            status = f"exit status {done.returncode}"
            reason = next((line for line in done.stderr.splitlines() if "error" in line), status)
            raise RuntimeError(f"{compiler} failed: {reason:.100}")
        made.replace(library)


def cache_folder():
    """Where this user's programs keep what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "video_predict")


def processor():
    """The processor's model and instructions, as text."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines()  # of the first core
    return "\n".join(line for line in lines if line.startswith(("model", "flags", "Features")))
