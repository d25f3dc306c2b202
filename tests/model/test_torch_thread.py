"""The torch thread: one for a process, and the only one that has torch's threads below it."""

import os
import subprocess
import sys
import threading

import pytest

from rtsx.model.torch_thread import on_torch_thread

TEAM = 5
"""Threads of a team: its master, which Python knows, and others, which it does not."""

SCRIPT = """
import os, sys, threading
import numpy as np, torch, xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
import rtsx
from rtsx.synthetic import demo_bundle_path

def unknown():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

torch.set_num_threads(int(sys.argv[1]))
before = unknown()
geobox = GeoBox((512, 512), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
pixels = np.random.default_rng(0).random((512, 512), np.float32)
bundle = rtsx.ModelBundle.open(demo_bundle_path())
cube = xr.Dataset({name: (("y", "x"), pixels) for name in bundle.layers}).assign_coords(xr_coords(geobox, always_yx=True))
cube = cube.chunk({"y": 256, "x": 256})
rtsx.predict_cube(cube, bundle, backend="eager", tile=256, overlap=64).compute(num_workers=3)
print(unknown() - before)
torch.ones(1024, 1024).add_(1)
print(unknown() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads that Linux lists")
def test_opening_and_predicting_start_one_team_of_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(TEAM)], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == [str(TEAM - 1), str(2 * (TEAM - 1))]  # the second shows that the count sees teams


def test_work_is_done_one_after_the_other_in_one_thread() -> None:
    inside, most, names = 0, 0, set()
    lock, barrier = threading.Lock(), threading.Barrier(4)

    def work() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            names.add(threading.get_ident())
        with lock:
            inside -= 1

    def ask() -> None:
        barrier.wait()
        for _ in range(50):
            on_torch_thread(work)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, len(names)) == (1, 1)


def test_work_may_ask_again_and_errors_arrive() -> None:
    assert on_torch_thread(lambda: on_torch_thread(threading.get_ident)) == on_torch_thread(threading.get_ident)
    with pytest.raises(ZeroDivisionError):
        on_torch_thread(lambda: 1 // 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    script = """
import os
from rtsx.model.torch_thread import on_torch_thread
on_torch_thread(int)
child = os.fork()
if child == 0:
    on_torch_thread(int)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "7"
