"""Scenes to write configs about."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rtsx.synthetic import SceneFiles, SceneSpec, varied_spec, write_scenes

SEEDS = (5, 6, 9, 15)


@pytest.fixture(scope="session")
def archive(once: Callable[..., Path]) -> Path:
    """Folder of four small scenes, as `rtsx synthetic scenes` writes them."""

    def write(folder: Path) -> Path:
        specs = [varied_spec(seed, size=96, slumps_per_km2=30.0) for seed in SEEDS]
        list(write_scenes(specs, folder, processes=1))
        return folder

    return once("archive", write)


@pytest.fixture(scope="session")
def scene_specs() -> tuple[SceneSpec, ...]:
    """What the scenes were made from, by name."""
    specs = [varied_spec(seed, size=96, slumps_per_km2=30.0) for seed in SEEDS]
    return tuple(sorted(specs, key=lambda spec: spec.image_id))


@pytest.fixture(scope="session")
def scene_files(archive: Path, scene_specs: tuple[SceneSpec, ...]) -> tuple[SceneFiles, ...]:
    """Their files."""
    return tuple(SceneFiles.named(archive, image_id=spec.image_id, dem_resolution_m=10) for spec in scene_specs)
