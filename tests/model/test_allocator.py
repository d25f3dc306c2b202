import platform
import subprocess
import sys

import pytest

from rtsx.model import allocator

# In a process of its own, because there is no way back. Not the first allocation counts, but the third.
FAULTS = """
import resource, runpy, sys, threading
module = runpy.run_path(sys.argv[2])  # without the package, which would load torch
kept = module["keep_freed_memory"]() if sys.argv[1] == "keep" else None

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    size = 64 * 2**20
    for _ in range(2):
        b"x" * size
    before = faults()
    b"x" * size
    print(kept, faults() - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(how):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how, allocator.__file__], check=True, capture_output=True, text=True
    )
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_that_is_freed_in_a_thread_is_not_mapped_again():
    kept, count = faults("keep")
    assert kept == "True"
    assert count < faults("leave")[1] / 4


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_is_glibc", lambda: False)
    assert allocator.keep_freed_memory() is False
