import ctypes
import os
import subprocess
import sys

import pytest

from rtsx.model import allocator

# In a process of its own, because there is no way back. The allocator's own account of free memory that it holds is asked:
# not every system counts page faults.
HELD = """
import ctypes, runpy, sys, threading
module = runpy.run_path(sys.argv[2])  # without the package, which would load torch
kept = module["configure_malloc"]() if sys.argv[1] == "keep" else None

class Account(ctypes.Structure):  # mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

def work():
    b"x" * (64 * 2**20)

thread = threading.Thread(target=work)
thread.start()
thread.join()
account = ctypes.CDLL(None).mallinfo2
account.restype = Account
print(kept, account().fordblks)
"""


def held(how):
    # Without what somebody may have set for the processes that are started here.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", HELD, how, allocator.__file__]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    kept, size = done.stdout.split()
    return kept, int(size)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="only glibc can be told to keep memory, and says so from 2.33 on",
)
def test_memory_that_is_freed_in_a_thread_is_kept():
    kept, size = held("keep")
    assert kept == "True"
    assert size >= 64 * 2**20 > 8 * held("leave")[1]


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_is_glibc", lambda: False)
    assert allocator.configure_malloc() is False
