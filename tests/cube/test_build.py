"""Building stores part by part: the same pixels, however often it was stopped, wherever images lie."""

import json
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

from rtsx.cube import build_state as records
from rtsx.cube.build import CubeBuilder, build_store
from rtsx.cube.check import build_state, check_cube
from rtsx.cube.georeference import geobox_of
from rtsx.cube.images import GivenImages, Image
from rtsx.cube.load import region_geobox
from rtsx.cube.native import NativeImages, with_native_images
from rtsx.cube.open import open_source
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.terrain import get_terrain
from rtsx.errors import CubeError, MissingCoverageWarning, OutputExistsError
from rtsx.storage.lock import exclusive_lock
from tests import warm
from tests.cube.buildable import REGION, assert_same, bytes_of, make_mixed, make_scenes
from tests.cube.scenes import CUBE, GRID, Ground, at, optical, recipe, trend


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def scenes(ground: Ground) -> list[Image]:
    return make_scenes(ground)


@pytest.fixture(scope="module")
def mixed(ground: Ground, scenes: list[Image]) -> CubeRecipe:
    return make_mixed(ground, scenes)


@pytest.fixture(scope="module")
def opened(mixed: CubeRecipe) -> xr.Dataset:
    """What the recipe opens to, in memory."""
    return open_source(mixed).compute(scheduler="synchronous")


@pytest.fixture(scope="module")
def simple(scenes: list[Image]) -> CubeRecipe:
    """One image and one part, for what does not depend on what is built."""
    return recipe(optical(scenes[:1]), region=REGION, chunk=100)


@pytest.fixture
def own_scenes(tmp_path: Path) -> list[Image]:
    """Scenes that a test may damage."""
    folder = tmp_path / "images"
    folder.mkdir()
    return make_scenes(Ground(folder))


@pytest.mark.slow
def test_an_aligned_store_holds_what_the_recipe_opens_to(mixed: CubeRecipe, opened: xr.Dataset, tmp_path: Path) -> None:
    made = build_store(mixed, tmp_path / "cube.zarr")
    cube, wanted = open_source(tmp_path / "cube.zarr"), opened
    assert made.parts == made.built == 4
    assert made.gaps == ()
    assert_same(cube, wanted)
    assert list(cube.data_vars) == list(wanted.data_vars)
    for name in wanted.data_vars:
        assert {key: str(value) for key, value in cube[name].attrs.items()} == {
            key: str(value) for key, value in wanted[name].attrs.items()
        }
    assert {name: cube.attrs[name] for name in wanted.attrs} == wanted.attrs
    assert cube["red"].dtype == np.uint16  # as stored, not as float


@pytest.mark.slow
def test_a_native_store_opens_to_the_same_cube(own_scenes: list[Image], tmp_path: Path) -> None:
    images = tmp_path / "images"
    mixed = make_mixed(Ground(images), own_scenes)
    made = build_store(mixed, tmp_path / "native.zarr", layout="native", shard=80)
    assert made.parts == made.built > 6
    moved = with_native_images(mixed, str(tmp_path / "native.zarr"))
    wanted = open_source(mixed).compute(scheduler="synchronous")
    for file in images.iterdir():
        file.unlink()  # the store needs them no more
    assert_same(open_source(moved), wanted)
    group = zarr.open_group(tmp_path / "native.zarr", mode="r")
    assert sorted(name for name in group["planetscope"].group_keys()) == ["a", "b", "c"]  # type: ignore[union-attr]
    assert open_source(tmp_path / "native.zarr" / "planetscope" / "b").odc.crs.epsg == 32608


@pytest.mark.slow
@pytest.mark.parametrize("group", ["item", "day", "year"])
def test_time_steps_are_built_as_they_open(
    scenes: list[Image], ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: Any
) -> None:
    monkeypatch.setattr("rtsx.cube.build._STEP_BYTES", 1)  # one step at a time
    made = recipe(optical(scenes, group=group), trend([ground.trends("times")]), region=REGION, chunk=80)
    build_store(made, tmp_path / "cube.zarr")
    cube, wanted = open_source(tmp_path / "cube.zarr"), open_source(made)
    assert cube["red"].dims == ("time", "y", "x")
    assert cube["tc_brightness"].dims == ("y", "x")
    assert_same(cube, wanted)
    np.testing.assert_array_equal(cube["time"].values, wanted["time"].values)
    np.testing.assert_array_equal(cube["item_ids"].values, wanted["item_ids"].values)


def test_a_cell_instead_of_the_region(mixed: CubeRecipe, tmp_path: Path) -> None:
    small = replace(mixed, grid=replace(GRID, cell_size=64))
    cell = small.grid.cell_at(*CUBE.extent.geom.centroid.coords[0])
    build_store(small, tmp_path / "cube.zarr", cell=cell)
    assert geobox_of(open_source(tmp_path / "cube.zarr")) == cell.geobox


def test_shards_and_chunks_are_those_of_the_reader(mixed: CubeRecipe, tmp_path: Path) -> None:
    raster = region_geobox(GRID, REGION)
    sizes = {}
    for chunk, shard in ((1024, None), (1024, 2048), (40, None), (300, None)):
        parts = CubeBuilder(
            recipe=replace(mixed, chunk=chunk), geobox=raster.zoom_to((5000, 5000)), shard=shard, overviews=False
        )
        sizes[chunk, shard] = (parts.plan.storage.chunk, parts.plan.storage.shard)
    assert sizes[1024, None] == ((512, 512), (1024, 1024))
    assert sizes[1024, 2048] == ((512, 512), (2048, 2048))
    assert sizes[40, None] == ((40, 40), (40, 40))
    assert sizes[300, None] == ((300, 300), (300, 300))


def test_overviews_lie_below(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsx.cube.write._SMALLEST_TOP_LEVEL", 30)
    made = recipe(optical([ground.scene("alone")]), region=REGION, chunk=100)
    build_store(made, tmp_path / "cube.zarr")
    build_store(made, tmp_path / "flat.zarr", overviews=False)
    groups = zarr.open_group(tmp_path / "cube.zarr", mode="r", use_consolidated=False).group_keys()
    assert sorted(groups) == ["2x", "4x", "build"]
    assert xr.open_datatree(tmp_path / "cube.zarr", engine="zarr").to_dataset().rio.crs == 3413
    assert sorted(zarr.open_group(tmp_path / "flat.zarr", mode="r").group_keys()) == ["build"]
    assert geobox_of(open_source(tmp_path / "cube.zarr" / "4x")).shape[0] == -(
        -geobox_of(open_source(made)).shape[0] // 4
    )


def test_what_is_no_build_is_not_touched(simple: CubeRecipe, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    zarr.create_group(tmp_path / "other.zarr")
    for name, message in (("notes", "is no cube that was built"), ("other.zarr", "was not made by building")):
        with pytest.raises(OutputExistsError, match=message):
            build_store(simple, tmp_path / name)
    with pytest.raises(OutputExistsError, match="is no Zarr store, so it is not overwritten"):
        build_store(simple, tmp_path / "notes", overwrite=True)
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"
    build_store(simple, tmp_path / "other.zarr", overwrite=True)


def test_two_processes_do_not_build_one_store(tmp_path: Path) -> None:
    (tmp_path / "cube.zarr").mkdir()
    store = str(tmp_path / "cube.zarr")
    with (
        exclusive_lock(store, {}),
        pytest.raises(OutputExistsError, match="built by another process"),
        exclusive_lock(store, {}),
    ):
        pass
    with exclusive_lock(store, {}):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "memory"])
@pytest.mark.parametrize(
    "moment", ["build.resolve_images", "build_state.create_marks", "build_state.done_parts", "build.finish_store"]
)
def test_a_second_build_is_refused_from_the_first_look_to_the_last_byte(
    simple: CubeRecipe, tmp_path: Path, place: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = str(tmp_path / "cube.zarr") if place == "local" else f"memory://{moment}/cube.zarr"
    room, name = moment.split(".")
    real = getattr(sys.modules[f"rtsx.cube.{room}"], name)
    refused = []

    def between(*given: Any, **named: Any) -> Any:
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError, match="being built by another process"):
                build_store(simple, target, overwrite=overwrite)
            refused.append(overwrite)
        return real(*given, **named)

    monkeypatch.setattr(f"rtsx.cube.{moment}", between)
    build_store(simple, target)
    assert refused == [False, True]
    assert_same(open_source(target), open_source(simple))
    assert build_store(simple, target).built == 0


def test_the_lock_of_a_build_that_was_killed_holds_nobody_up(simple: CubeRecipe, tmp_path: Path) -> None:
    (tmp_path / ".cube.zarr.lock").touch()
    build_store(simple, tmp_path / "cube.zarr")
    assert not (tmp_path / ".cube.zarr.lock").exists()
    system = fsspec.filesystem("memory")
    system.pipe_file("/killed/cube.zarr.lock/000001", b"1.0")
    build_store(simple, "memory://killed/cube.zarr")
    assert not system.find("/killed/cube.zarr.lock")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["aligned", "native"])
def test_a_build_is_not_continued_over_images_that_were_rewritten(
    own_scenes: list[Image], tmp_path: Path, layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "cube.zarr"
    made = recipe(optical(own_scenes), region=REGION, chunk=60)
    image = Path(own_scenes[1].bands["red"].href)
    old = image.read_bytes()
    real, seen = records.write_mark, []

    def change(*given: Any) -> None:
        real(*given)
        seen.append(given)
        if len(seen) == 2:
            image.write_bytes(old + b" ")

    monkeypatch.setattr("rtsx.cube.build_state.write_mark", change)
    for _ in range(2):  # changed while it was built, and before it is continued
        with (
            pytest.raises(CubeError, match=r"1 images have changed since .*planetscope/b.*overwrite"),
            dask.config.set(scheduler="synchronous"),
        ):
            build_store(made, target, layout=layout)
    state = build_state(str(target))
    assert state is not None
    assert not state.is_complete
    build_store(made, target, layout=layout, overwrite=True)
    assert build_store(made, target, layout=layout).built == 0


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["aligned", "native"])
def test_images_that_cannot_be_read_are_recorded(own_scenes: list[Image], tmp_path: Path, layout: Any) -> None:
    Path(own_scenes[1].bands["red"].href).write_bytes(b"no picture")
    strict = recipe(optical(own_scenes), region=REGION, chunk=60)
    with pytest.raises(CubeError, match=r"Part \d of .*image 'b'"), dask.config.set(scheduler="synchronous"):
        build_store(strict, tmp_path / "strict.zarr", layout=layout)
    lenient = recipe(optical(own_scenes, unreadable="gap"), region=REGION, chunk=60)
    with pytest.warns(MissingCoverageWarning, match="image 'b'"):
        made = build_store(lenient, tmp_path / "cube.zarr", layout=layout)
    assert made.gaps == ("planetscope/b",)
    state = build_state(str(tmp_path / "cube.zarr"))
    assert state is not None
    assert state.gaps == ("planetscope/b",)
    given = with_native_images(lenient, str(tmp_path / "cube.zarr")) if layout == "native" else tmp_path / "cube.zarr"
    without = recipe(optical([own_scenes[0], own_scenes[2]]), region=REGION, chunk=60)
    cube, wanted = open_source(given).compute(), open_source(without).compute()
    for name in ("red", "valid"):
        np.testing.assert_array_equal(cube[name].values, wanted[name].values)


def test_damage_is_found(mixed: CubeRecipe, tmp_path: Path) -> None:
    store = tmp_path / "cube.zarr"
    build_store(mixed, store)
    found = check_cube(open_source(store), path=str(store))
    assert found.problems == ()
    shard = sorted((store / "red" / "c").rglob("*"))[-1]
    stored = bytearray(shard.read_bytes())
    stored[len(stored) // 2] ^= 1
    shard.write_bytes(stored)
    gone = sorted(file for file in (store / "valid" / "c").rglob("*") if file.is_file())[0]
    gone.unlink()
    found_keys = records.corrupt_keys(
        zarr.storage.LocalStore(store), records.read_marks(zarr.open_group(store, mode="r")).values()
    )
    assert found_keys == sorted(str(file.relative_to(store)) for file in (shard, gone))


@pytest.mark.slow
@pytest.mark.parametrize("node", [".", "build", "build/marks", "red", "x"])
def test_metadata_that_is_truncated_is_named_by_whatever_reads_it(
    simple: CubeRecipe, tmp_path: Path, node: str
) -> None:
    path = tmp_path / "cube.zarr"
    build_store(simple, path)
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["rtsx:complete"] = False
    (path / "zarr.json").write_text(json.dumps({**root, "consolidated_metadata": None}))  # so that its own is read
    damaged = path / node / "zarr.json"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(CubeError, match=f"{damaged} is truncated or damaged"):
        build_store(simple, path)
    if node in ("build", "build/marks"):
        with pytest.raises(CubeError, match=f"{damaged} is truncated or damaged"):
            build_state(str(path))


def test_a_distributed_client_builds_the_same(mixed: CubeRecipe, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    build_store(mixed, tmp_path / "threads.zarr")
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
    with cluster, Client(cluster):
        assert build_store(mixed, tmp_path / "cluster.zarr").built == 4
    assert bytes_of(tmp_path / "threads.zarr") == bytes_of(tmp_path / "cluster.zarr")


@pytest.mark.slow
def test_an_object_store_is_built_too(mixed: CubeRecipe, opened: xr.Dataset) -> None:
    build_store(mixed, "memory://cube.zarr")
    assert_same(open_source("memory://cube.zarr"), opened)
    assert build_store(mixed, "memory://cube.zarr").built == 0
    assert build_store(replace(mixed, chunk=100), "memory://cube.zarr", overwrite=True).built == 1


def test_preparing_asks_every_source_once(mixed: CubeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    find: Callable[..., Any] = GivenImages.find

    def counted(self: GivenImages, *args: Any) -> Any:
        asked.append("asked")
        return find(self, *args)

    monkeypatch.setattr(GivenImages, "find", counted)
    build_store(replace(mixed, chunk=100), tmp_path / "cube.zarr")
    assert len(asked) == 3


@pytest.mark.slow
def test_the_index_of_a_native_store_gives_the_images_back(
    mixed: CubeRecipe, simple: CubeRecipe, tmp_path: Path
) -> None:
    build_store(mixed, tmp_path / "cube.zarr", layout="native", shard=80, config="text of mine")
    images = NativeImages(str(tmp_path / "cube.zarr"), "planetscope").find(REGION, None, mixed.sources[0].wanted)
    given = mixed.sources[0].images.images  # type: ignore[attr-defined]
    for ours, theirs in zip(images, given, strict=True):
        assert (ours.id, ours.time, ours.cloud_cover, ours.footprint) == (
            theirs.id, theirs.time, theirs.cloud_cover, theirs.footprint,
        )  # fmt: skip
        assert ours.bands["red"].scale_factor == theirs.bands["red"].scale_factor
        assert ours.bands["udm2"].bands == tuple(f"udm2_{number}" for number in range(1, 9))
    with pytest.raises(CubeError, match=r"holds images of \['arcticdem', 'planetscope', 'tcvis'\]; 'moon' is not"):
        NativeImages(str(tmp_path / "cube.zarr"), "moon").find(REGION, None, ())
    build_store(simple, tmp_path / "aligned.zarr")
    with pytest.raises(CubeError, match="holds no images on their own grids"):
        NativeImages(str(tmp_path / "aligned.zarr"), "planetscope").find(REGION, None, ())
    state = build_state(str(tmp_path / "cube.zarr"))
    assert state is not None
    assert (state.config, state.layout) == ("text of mine", "native")
    assert json.loads((tmp_path / "cube.zarr" / "zarr.json").read_text())["attributes"]["rtsx:complete"] is True


@pytest.fixture(scope="module")
def layers(ground: Ground, scenes: list[Image]) -> CubeRecipe:
    """Sources of several dtypes that take little time; nine parts."""
    return recipe(optical(scenes, erode_m=25.0), trend([ground.trends("trend")]), region=REGION)


SCRIPT = """
import json, os, pickle, signal, sys
import dask, distributed, scipy.linalg, scipy.special  # what every build would load, once for all that are killed
from zarr.storage import LocalStore
from rtsx.cube import build, build_state, write

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

def run(recipe, out, place, number, layout):
    if layout == "aligned":
        write._SMALLEST_TOP_LEVEL = 30
    if place == "torn":
        tear(number)
    else:
        room, name, before = {
            "mark": (build_state, "write_mark", True),
            "after mark": (build_state, "write_mark", False),
            "prepare": (build_state, "create_marks", True),
            "level": (build, "write_level", False),
            "finish": (build, "finish_store", True),
        }[place]
        setattr(room, name, dying(getattr(room, name), before=before, number=number))
    with dask.config.set(scheduler="threads", num_workers=2):
        build.build_store(recipe, out, layout=layout, shard=80 if layout == "native" else None)

with open(sys.argv[1], "rb") as file:
    recipes = pickle.load(file)
ends = []
for case in json.loads(sys.argv[2]):
    child = os.fork()
    if not child:
        try:
            run(recipes[case[-1]], *case)
        finally:
            os._exit(1)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""
ALIGNED = [("prepare", 1, 9), ("torn", 12, None), ("mark", 4, 6), ("level", 1, 0), ("finish", 1, 0)]
"""Where a build is killed, the how-manieth time that it comes there, and how many parts are left then."""


@pytest.fixture(scope="module")
def killed(layers: CubeRecipe, mixed: CubeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of builds that ended themselves without a word; one process loads the library for all of them."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "recipes.pickle").write_bytes(pickle.dumps({"aligned": layers, "native": mixed}))
    cases = [(str(folder / f"{place}.zarr"), place, number, "aligned") for place, number, _ in ALIGNED]
    cases.append((str(folder / "native.zarr"), "after mark", 3, "native"))
    words = [str(folder / "recipes.pickle"), json.dumps(cases)]
    ended = warm.run(SCRIPT, words)
    assert json.loads(ended.stdout or "[]") == [-signal.SIGKILL] * len(cases), ended.stderr[-3000:]
    return folder


@pytest.fixture
def with_overviews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels below even these small stores."""
    monkeypatch.setattr("rtsx.cube.write._SMALLEST_TOP_LEVEL", 30)


@pytest.fixture(scope="module")
def whole(layers: CubeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that nobody stopped, with overviews."""
    path = tmp_path_factory.mktemp("whole") / "whole.zarr"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rtsx.cube.write._SMALLEST_TOP_LEVEL", 30)
        build_store(layers, path)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("with_overviews")
@pytest.mark.parametrize(("place", "left"), [(place, left) for place, _, left in ALIGNED])
def test_killed_anywhere_and_started_again_equals_never_stopped(
    layers: CubeRecipe, killed: Path, whole: Path, place: str, left: int | None
) -> None:
    broken = killed / f"{place}.zarr"
    with pytest.raises(CubeError, match="not built to its end yet: run the same rtsx cube build"):
        open_source(broken)
    done = records.done_parts(zarr.storage.LocalStore(broken)) if place != "prepare" else set()
    made = build_store(layers, broken)
    assert made.built == 9 - len(done)
    assert left is None or made.built >= left - 1  # the other thread may be ahead by one
    assert bytes_of(broken) == bytes_of(whole)
    assert build_store(layers, broken).built == 0
    assert bytes_of(broken) == bytes_of(whole)


@pytest.mark.slow
def test_a_native_build_goes_on_too(mixed: CubeRecipe, killed: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.zarr", killed / "native.zarr"
    made = build_store(mixed, broken, layout="native", shard=80)
    assert 0 < made.built < made.parts
    build_store(mixed, whole, layout="native", shard=80)
    assert bytes_of(broken) == bytes_of(whole)


def test_only_what_has_no_mark_is_built(layers: CubeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    pieces = CubeBuilder.pieces

    def failing(self: CubeBuilder, number: int) -> Any:
        seen.append(number)
        if number == 4 and len(seen) < 9:
            raise CubeError("The disk has a headache.")
        return pieces(self, number)

    monkeypatch.setattr(CubeBuilder, "pieces", failing)
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(CubeError, match=r"Part 4 of .*: The disk has a headache\. What is done stays done"):
            build_store(layers, tmp_path / "cube.zarr")
        before = set(seen)
        state = build_state(str(tmp_path / "cube.zarr"))
        assert state is not None
        assert (state.done, state.parts, state.is_complete) == (len(before) - 1, 9, False)
        seen.clear()
        seen.extend([-1] * 9)
        build_store(layers, tmp_path / "cube.zarr")
    assert sorted(seen[9:]) == sorted(set(range(9)) - (before - {4}))


def test_another_recipe_is_refused(mixed: CubeRecipe, simple: CubeRecipe, tmp_path: Path) -> None:
    whole = replace(mixed, chunk=100)
    build_store(whole, tmp_path / "cube.zarr")
    source = replace(mixed.sources[1], terrain=(get_terrain("slope"),))
    for other, message in (
        (replace(whole, chunk=50), r"chunk is 100 there and 50 here"),
        (replace(whole, sources=(mixed.sources[0], source, mixed.sources[2])), r"sources\[arcticdem\]\.terrain is"),
        (replace(whole, grid=replace(GRID, resolution=20.0)), r"grid\.resolution is 10\.0 there and 20\.0 here"),
    ):
        with pytest.raises(CubeError, match=f"begun from another recipe: {message}.*overwrite=True"):
            build_store(other, tmp_path / "cube.zarr")
    assert build_store(replace(simple, chunk=50), tmp_path / "cube.zarr", overwrite=True).built == 4


def test_going_on_takes_the_images_that_it_began_with(
    scenes: list[Image],
    ground: Ground,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "describe_recipe", lambda made: {"name": "the same search"})
    source = optical(scenes)
    new = ground.scene("new", cloud=0.0, time=at("2024-08-08"))
    few, more = (
        recipe(replace(source, images=GivenImages(images)), region=REGION, chunk=60)
        for images in (scenes, [*scenes, new])
    )
    build_store(few, tmp_path / "whole.zarr")
    stop_after(2, monkeypatch)
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        build_store(few, tmp_path / "cube.zarr")
    monkeypatch.undo()
    monkeypatch.setattr(records, "describe_recipe", lambda made: {"name": "the same search"})
    gone = recipe(replace(source, images=GivenImages(scenes[:2])), region=REGION, chunk=60)
    with pytest.raises(CubeError, match=r"'planetscope' had 3 images when this build began; \['c'\] are not found"):
        build_store(gone, tmp_path / "cube.zarr")
    build_store(more, tmp_path / "cube.zarr")
    assert bytes_of(tmp_path / "cube.zarr") == bytes_of(tmp_path / "whole.zarr")


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C after some marks."""
    written, real = list[int](), records.write_mark

    def write(root: zarr.Group, number: int, mark: records.PartRecord) -> None:
        real(root, number, mark)
        written.append(number)
        if len(written) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(records, "write_mark", write)
