"""Many scenes in one folder: as if made one by one, and never twice."""

from pathlib import Path

import pytest

from rtsx.errors import CubeError, OutputExistsError
from rtsx.synthetic import SceneSpec, varied_spec, write_scene, write_scenes
from tests import warm

SPECS = [varied_spec(seed, size=64) for seed in (5, 6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("scenes") / "new"
    with warm.pools():
        assert [scene.was_made for scene in write_scenes(SPECS, made, processes=2)] == [True, True]
    return made


def test_scenes_are_those_of_write_scene(folder: Path, tmp_path: Path) -> None:
    for spec in SPECS:
        write_scene(spec, tmp_path)
    alone = {path.name: path for path in tmp_path.iterdir()}
    assert {path.name for path in folder.iterdir()} == set(alone)
    for path in folder.iterdir():
        assert path.suffix == ".parquet" or path.read_bytes() == alone[path.name].read_bytes()


def test_what_is_there_is_not_made_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    scenes = list(write_scenes(SPECS, folder, processes=1))
    assert [scene.was_made for scene in scenes] == [False, False]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert all(scene.files.truth.exists() for scene in scenes)


@pytest.mark.parametrize("lost", ["description", "truth"])
def test_a_scene_that_is_not_whole_is_made_again(tmp_path: Path, lost: str) -> None:
    (scene,) = write_scenes(SPECS[:1], tmp_path, processes=1)
    path: Path = getattr(scene.files, lost)
    path.unlink()
    (again,) = write_scenes(SPECS[:1], tmp_path, processes=1)
    assert again.was_made
    assert path.exists()
    assert not list(tmp_path.glob(".*"))


def test_a_scene_of_another_spec_is_left_alone(folder: Path) -> None:
    other = varied_spec(5, size=64, slumps_per_km2=3.0)
    with pytest.raises(OutputExistsError, match=r"was made with slumps_per_km2=1\.0\. Choose another folder"):
        list(write_scenes([other], folder, processes=1))


def test_scenes_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match="Seeds 4 and 983044 give scenes of one name"):
        next(write_scenes([SceneSpec(seed=4), SceneSpec(seed=983044, size=64)], tmp_path, processes=1))
    with pytest.raises(CubeError, match="at least one process; got 0"):
        next(write_scenes(SPECS, tmp_path, processes=0))
