"""The demo's scene: what `write_scene` writes, with a catalog, and cleared away without touching anything else."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import pytest

from rtsx.errors import OutputExistsError
from rtsx.synthetic import SceneSpec, archive, remove_demo_scenes, write_demo_scene, write_scene
from rtsx.synthetic.stac import catalog_items

SPEC = SceneSpec(seed=3, size=128)


@pytest.fixture
def files(tmp_path):
    return write_demo_scene(SPEC, tmp_path / "scene")


def test_the_layers_are_those_of_write_scene(files, tmp_path):
    plain = write_scene(SPEC, tmp_path / "plain")
    for name, path in asdict(plain).items():
        same = asdict(files.scene)[name]
        assert same.name == path.name
        assert hashlib.sha256(same.read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest()


def test_its_catalog_holds_every_layer_in_its_own_projection(files, stac_errors):
    items = catalog_items(files.catalog)
    assert [stac_errors(item) for item in items] == [[], [], []]
    paths = [Path(asset["href"]) for item in items for asset in item["assets"].values()]
    scene = files.scene
    assert paths == [path.resolve() for path in (scene.image, scene.udm2, scene.dem, scene.tcvis)]
    assert {item["collection"]: item["properties"]["proj:code"] for item in items} == {
        "planetscope": "EPSG:32608",
        "arcticdem-mosaic-10m": "EPSG:3413",
        "tcvis": "EPSG:4326",
    }
    assert {files.catalog, *files.documents} == set(files.catalog.parent.rglob("*.json")) - {scene.description}


def test_scenes_of_earlier_runs_go_and_nothing_else(files):
    folder = files.catalog.parent
    write_scene(SceneSpec(seed=4, size=64, dem_resolution_m=32), folder)
    (folder / "planetscope" / "notes.txt").write_text("mine")
    (folder / "other.tif").write_text("mine")
    remove_demo_scenes(folder)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == ["other.tif", "planetscope/notes.txt"]
    again = write_demo_scene(SPEC, folder)
    assert len(catalog_items(again.catalog)) == 3


def test_nothing_to_remove_is_no_error(tmp_path):
    remove_demo_scenes(tmp_path / "missing")


@pytest.mark.parametrize("step", ["write_layers", "write_catalog"])
def test_an_interrupted_run_is_cleared_by_the_next(step, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archive, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_demo_scene(SPEC, tmp_path)
    with pytest.raises(OutputExistsError, match="Expected no scene 20240721_200339_0003"):
        write_demo_scene(SPEC, tmp_path)
    remove_demo_scenes(tmp_path)
    assert list(tmp_path.iterdir()) == []
