"""What tests of every room share."""

import fcntl
import gc
import os
import pickle
import shutil
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
from _pytest.doctest import DoctestModule
from hypothesis import settings
from hypothesis.internal.conjecture import providers

if TYPE_CHECKING:
    from rtsx.synthetic import RegionFiles

# No deadline, because on a shared machine the first example pays for imports and page faults of others.
settings.register_profile("rtsx", deadline=None)
settings.load_profile("rtsx")

# Clusters in this process look at their loops fifty times a second, and at the stacks of their threads a hundred times: for
# dashboards, which nobody reads here.
os.environ.setdefault("DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL", "500ms")
os.environ.setdefault("DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED", "False")

# No example is a word out of the package, because to look for them in its files, and to hold each to an alphabet, takes longer than the tests.
providers.is_local_module_file = lambda path: False

# Compiling takes less than starting a pool of processes for it, each of which loads torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# No test cuts the power, and on a shared disk every call waits for what others write. That it is called has a test.
os.fsync = lambda handle: None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Leave out examples, because tests have none, and looking for them takes longer than reading the files."""
    return [found for found in (yield) if not isinstance(found, DoctestModule)]


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that was imported: two million objects that stay."""
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real imagery: `RTSX_REAL_DATA`, else ``../shared/data`` beside the checkout, else a skip."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RTSX_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: set RTSX_REAL_DATA, or put it at {beside}")
    return folder


T = TypeVar("T")


class Once(Protocol):
    """Makes what tests of several files share."""

    def __call__(self, name: str, write: Callable[[Path], T]) -> T:
        """Return what writing a folder of this name returned, to whichever worker asked first; nobody changes the folder."""


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Folders that are written once for all workers."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if base.name.startswith("worker-") else base  # of tests.forked

    def make(name: str, write: Callable[[Path], Any]) -> Any:
        made = root / f"{name}.pickle"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(root / name, ignore_errors=True)  # of one that was killed
                draft = made.with_suffix(".draft")
                draft.write_bytes(pickle.dumps(write(root / name)))
                draft.replace(made)
        return pickle.loads(made.read_bytes())

    return make


@pytest.fixture(scope="session")
def region_files(once: Once) -> "RegionFiles":
    """A synthetic region: four overlapping scenes in two UTM zones, tiles of elevation, trends, and their catalog."""
    from rtsx.synthetic import RegionSpec, write_region  # here, because most tests need none of it

    spec = RegionSpec(seed=1, size=256, scenes=2, years=(2023, 2024))
    return once("region-files", partial(write_region, spec))
