"""How the libraries below PyTorch use memory and threads on a CPU. A script imports this first.

They read the environment while PyTorch is imported. What the user has set there stays. Why these
values: docs/performance.md.
"""

import ctypes
import os
import platform

SPINS = 1000  # rounds, some 50 microseconds, that a thread waits for another before it sleeps
KEPT = 2**30  # bytes of freed memory that are kept for the next tensor
M_TRIM_THRESHOLD = -1  # of glibc's malloc.h
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8


def share_cores():
    """Let threads that wait for others give way to other processes."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def keep_freed_memory():
    """Let the C library keep freed memory. Memory that is new to a process has to be cleared."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # of large tensors, on Linux: in huge pages
    is_set = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not is_set:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        libc.mallopt(M_ARENA_MAX, 1)  # pools of threads give memory back nonetheless


share_cores()
keep_freed_memory()
