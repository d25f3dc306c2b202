"""The torch thread: one for a process, and the only one that has torch's threads below it."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from rtsx.model.network import on_torch_thread

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


def test_everyone_is_served_by_one_thread() -> None:
    barrier = threading.Barrier(4)

    def ask(_: int) -> set[int]:
        barrier.wait()
        return {on_torch_thread(threading.get_ident) for _ in range(50)}

    with ThreadPoolExecutor(4) as askers:
        assert len(set.union(*askers.map(ask, range(4)))) == 1


def test_what_has_not_begun_is_dropped_with_its_asker(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def busy() -> None:
        begun.set()
        go_on.wait(60)

    result = Future.result

    def interrupted(future: Future[object], *given: float) -> object:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return result(future, *given)

    with ThreadPoolExecutor(1) as asker:
        first = asker.submit(on_torch_thread, busy)
        begun.wait(60)
        with monkeypatch.context() as patched:
            patched.setattr(Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                on_torch_thread(lambda: done.append("too late"))
        go_on.set()
        first.result()
    on_torch_thread(int)
    assert done == []


def test_an_error_lets_go_of_what_was_asked() -> None:
    class Large:
        """What work holds."""

    def fail(held: Large) -> None:
        raise ValueError("no")

    large = Large()
    gone = weakref.ref(large)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no"):
            on_torch_thread(partial(fail, large))
        del large
        on_torch_thread(int)  # the thread has let go of the work before
        assert gone() is None
    finally:
        gc.enable()


def test_work_may_ask_again_and_errors_arrive() -> None:
    assert on_torch_thread(lambda: on_torch_thread(threading.get_ident)) == on_torch_thread(threading.get_ident)
    with pytest.raises(ZeroDivisionError):
        on_torch_thread(lambda: 1 // 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    script = """
import os
from rtsx.model.network import on_torch_thread
on_torch_thread(int)
child = os.fork()
if child == 0:
    on_torch_thread(int)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "7"
