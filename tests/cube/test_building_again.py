"""Building that was stopped goes on: killed anywhere, it ends as if it had never been."""

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import pytest
import zarr

from rtsx.cube import build
from rtsx.cube import build_state as records
from rtsx.cube.build import AlignedParts, build_cube
from rtsx.cube.check import build_state
from rtsx.cube.images import GivenImages, Image
from rtsx.cube.open import open_cube
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.terrain import terrain_named
from rtsx.errors import CubeError
from tests.cube.buildable import REGION, bytes_of, make_mixed, make_scenes
from tests.cube.scenes import GRID, Ground, at, optical, recipe


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def scenes(ground: Ground) -> list[Image]:
    return make_scenes(ground)


@pytest.fixture(scope="module")
def mixed(ground: Ground, scenes: list[Image]) -> CubeRecipe:
    return make_mixed(ground, scenes)


SCRIPT = """
import json, os, pickle, signal, sys
import dask, distributed, scipy.linalg, scipy.special  # what every build would load, once for all that are killed
from zarr.storage import LocalStore
from rtsx.cube import aligned, begun, building, overviews

def dying(original, *, before, number):
    seen = 0
    def wrapped(*args, **kwargs):
        nonlocal seen
        mine = seen = seen + 1
        if before and mine == number:
            os.kill(os.getpid(), signal.SIGKILL)
        done = original(*args, **kwargs)
        if mine == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return wrapped

def tear(number):
    import zarr.storage._local as local
    seen, put = 0, local._put
    def torn(path, value, exclusive=False):
        nonlocal seen
        seen += "blue" in str(path) or "red" in str(path)
        if seen == number:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".0123.partial").write_bytes(bytes(value.as_buffer_like())[:7])
            os.kill(os.getpid(), signal.SIGKILL)
        return put(path, value, exclusive)
    local._put = torn

def build(recipe, out, place, number, layout):
    if layout == "aligned":
        overviews._SMALLEST_TOP_LEVEL = 30
    if place == "torn":
        tear(number)
    else:
        room, name, before = {
            "mark": (building, "write_mark", True),
            "after mark": (building, "write_mark", False),
            "prepare": (begun, "create_marks", True),
            "level": (aligned, "write_level", False),
            "finish": (building, "finish_store", True),
        }[place]
        setattr(room, name, dying(getattr(room, name), before=before, number=number))
    with dask.config.set(scheduler="threads", num_workers=2):
        build.build_cube(recipe, out, layout=layout)

with open(sys.argv[1], "rb") as file:
    recipe = pickle.load(file)
ends = []
for case in json.loads(sys.argv[2]):
    child = os.fork()
    if not child:
        try:
            build(recipe, *case)
        finally:
            os._exit(1)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""
ALIGNED = [("prepare", 1, 9), ("torn", 12, None), ("mark", 4, 6), ("level", 1, 0), ("finish", 1, 0)]
"""Where a build is killed, the how-manieth time that it comes there, and how many parts are left then."""


@pytest.fixture(scope="module")
def killed(mixed: CubeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of builds that ended themselves without a word; one process loads the library for all of them."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "recipe.pickle").write_bytes(pickle.dumps(mixed))
    cases = [(str(folder / f"{place}.zarr"), place, number, "aligned") for place, number, _ in ALIGNED]
    cases.append((str(folder / "native.zarr"), "after mark", 3, "native"))
    words = [str(folder / "recipe.pickle"), json.dumps(cases)]
    ended = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True)
    assert json.loads(ended.stdout or "[]") == [-signal.SIGKILL] * len(cases), ended.stderr[-3000:]
    return folder


@pytest.fixture
def with_overviews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels below even these small stores."""
    monkeypatch.setattr("rtsx.cube.pyramid._SMALLEST_TOP_LEVEL", 30)


@pytest.fixture(scope="module")
def whole(mixed: CubeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that nobody stopped, with overviews."""
    path = tmp_path_factory.mktemp("whole") / "whole.zarr"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rtsx.cube.pyramid._SMALLEST_TOP_LEVEL", 30)
        build_cube(mixed, path)
    return path


@pytest.mark.usefixtures("with_overviews")
@pytest.mark.parametrize(("place", "left"), [(place, left) for place, _, left in ALIGNED])
def test_killed_anywhere_and_started_again_equals_never_stopped(
    mixed: CubeRecipe, killed: Path, whole: Path, place: str, left: int | None
) -> None:
    broken = killed / f"{place}.zarr"
    with pytest.raises(CubeError, match="not built to its end yet: run the same rtsx cube build"):
        open_cube(broken)
    done = records.done_parts(zarr.storage.LocalStore(broken)) if place != "prepare" else set()
    made = build_cube(mixed, broken)
    assert made.built == 9 - len(done)
    assert left is None or made.built >= left - 1  # the other thread may be ahead by one
    assert bytes_of(broken) == bytes_of(whole)
    assert build_cube(mixed, broken).built == 0
    assert bytes_of(broken) == bytes_of(whole)


def test_a_native_build_goes_on_too(mixed: CubeRecipe, killed: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.zarr", killed / "native.zarr"
    made = build_cube(mixed, broken, layout="native")
    assert 0 < made.built < made.parts
    build_cube(mixed, whole, layout="native")
    assert bytes_of(broken) == bytes_of(whole)


def test_only_what_has_no_mark_is_built(mixed: CubeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    pieces = AlignedParts.pieces

    def failing(self: AlignedParts, number: int) -> Any:
        seen.append(number)
        if number == 4 and len(seen) < 9:
            raise CubeError("The disk has a headache.")
        return pieces(self, number)

    monkeypatch.setattr(AlignedParts, "pieces", failing)
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(CubeError, match=r"Part 4 of .*: The disk has a headache\. What is done stays done"):
            build_cube(mixed, tmp_path / "cube.zarr")
        before = set(seen)
        state = build_state(str(tmp_path / "cube.zarr"), {})
        assert state is not None
        assert (state.done, state.parts, state.is_complete) == (len(before) - 1, 9, False)
        seen.clear()
        seen.extend([-1] * 9)
        build_cube(mixed, tmp_path / "cube.zarr")
    assert sorted(seen[9:]) == sorted(set(range(9)) - (before - {4}))


def test_another_recipe_is_refused(mixed: CubeRecipe, tmp_path: Path) -> None:
    build_cube(mixed, tmp_path / "cube.zarr")
    source = replace(mixed.sources[1], terrain=(terrain_named("slope"),))
    for other, message in (
        (replace(mixed, chunk=50), r"chunk is 40 there and 50 here"),
        (replace(mixed, sources=(mixed.sources[0], source, mixed.sources[2])), r"sources\[1\]\.terrain is"),
        (replace(mixed, grid=replace(GRID, resolution=20.0)), r"grid\.resolution is 10\.0 there and 20\.0 here"),
    ):
        with pytest.raises(CubeError, match=f"begun from another recipe: {message}.*overwrite=True"):
            build_cube(other, tmp_path / "cube.zarr")
    assert build_cube(replace(mixed, chunk=50), tmp_path / "cube.zarr", overwrite=True).built == 4


def test_going_on_takes_the_images_that_it_began_with(
    scenes: list[Image], ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "describe_recipe", lambda made: {"name": "the same search"})
    source = optical(scenes)
    few, more = (
        recipe(source, region=REGION),
        recipe(
            replace(source, images=GivenImages([*scenes, ground.scene("new", cloud=0.0, time=at("2024-08-08"))])),
            region=REGION,
        ),
    )
    build_cube(few, tmp_path / "whole.zarr")
    stop_after(2, monkeypatch)
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        build_cube(few, tmp_path / "cube.zarr")
    monkeypatch.undo()
    monkeypatch.setattr(build, "describe_recipe", lambda made: {"name": "the same search"})
    gone = recipe(replace(source, images=GivenImages(scenes[:2])), region=REGION)
    with pytest.raises(CubeError, match=r"'planetscope' had 3 images when this build began; \['c'\] are not found"):
        build_cube(gone, tmp_path / "cube.zarr")
    build_cube(more, tmp_path / "cube.zarr")
    assert bytes_of(tmp_path / "cube.zarr") == bytes_of(tmp_path / "whole.zarr")


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C after some marks."""
    written: list[int] = []

    def write(root: zarr.Group, number: int, mark: records.Mark) -> None:
        records.write_mark(root, number, mark)
        written.append(number)
        if len(written) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(build, "write_mark", write)
