"""The C allocator, set to keep what a forward pass frees for the next one."""

import ctypes
import os

KEEPING = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""Variables of the environment that do to a process that is started what `configure_malloc` does to this one. For workers, which
have threads, and with them heaps, before anything of ours runs."""

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
# Turned into the largest size there is. Not the largest int, because a tile of 2176 px frees more than 2 GiB, which was
# handed back and asked for again at every pass.
_NEVER_TRIM = -1


def configure_malloc() -> bool:
    """Make this process keep freed memory instead of handing it back to the system; returns whether it can.

    A network on a CPU allocates and frees the same large tensors at every pass, and by default glibc asks the system
    for each anew: pages are zeroed and mapped again, a quarter of the time of Unet/resnet18 at tiles of 1024 px and
    more. Here they stay: the process holds its peak until it ends, which is why this is for programs whose work is
    prediction (`rtsx predict` and `rtsx demo` call it) and never happens on import. Only glibc can; elsewhere nothing changes.

    Call it first, before threads start: every thread then draws on one heap, because the heaps that glibc gives to
    single threads cannot hold large blocks.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(parameter, value) == 1
        for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER_TRIM))
    )


def _is_glibc() -> bool:
    try:
        return str(os.confstr("CS_GNU_LIBC_VERSION")).startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
