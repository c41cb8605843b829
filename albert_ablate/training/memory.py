"""Keep freed memory for the next step instead of giving it back to the system."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Make glibc's allocator reuse large blocks; returns whether that succeeded.

    Every training step on CPU allocates and frees the same gigabytes. By default each block above 32 MB is mapped anew
    and its pages are zeroed on first use, which costs up to a quarter of a step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(
        mallopt(name, value)
        for name, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    )
