"""Scenes in folders: many, made in several processes and never twice; the demo's with its catalog, the seeds that keep it honest, and its bundle."""

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path

from rtsx.errors import CubeError, OutputExistsError
from rtsx.storage import local_path, refuse_other_format, settle, stage
from rtsx.synthetic.ground import make_ground
from rtsx.synthetic.scene import SceneFiles, claim_scene, make_scene, write_layers, write_scene
from rtsx.synthetic.spec import DEM_RESOLUTIONS_M, DEMO_SEED, SceneSpec
from rtsx.synthetic.stac import (
    PLANETSCOPE,
    TCVIS,
    collections,
    dem_collection_id,
    dem_item,
    document_paths,
    scene_item,
    tcvis_item,
    write_catalog,
)


@dataclass(frozen=True, kw_only=True)
class WrittenScene:
    """A scene that is on disk, whole."""

    files: SceneFiles
    """Where its layers lie."""
    was_made: bool
    """True where this call has made it, False where it was there."""


def write_scenes(specs: Sequence[SceneSpec], folder: str | Path, *, processes: int) -> Iterator[WrittenScene]:
    """Write scenes as `write_scene` does, `processes` at a time, and yield each as it is there.

    A scene appears with all its files or not at all, so a call that was stopped is finished by the same call. What is there
    already, whole and from the same spec, is left alone.

    Parameters
    ----------
    specs
        What to make; yielded in this order.
    folder
        Where to; created.
    processes
        Scenes that are made at the same time, each by a process of its own; 1: by this one.

    Raises
    ------
    CubeError
        Two specs would have files of the same names, or `processes` is below 1.
    OutputExistsError
        The folder holds a scene of the same name from another spec.
    """
    if processes < 1:
        raise CubeError(f"Scenes are made by at least one process; got {processes}.")
    refuse_other_format(folder, what="a folder of scenes")
    folder = local_path(folder)
    _refuse_equal_names(specs)
    missing = [spec for spec in specs if not _is_complete(spec, folder)]
    if processes == 1:
        for spec in specs:
            if spec in missing:
                _write_whole(spec, folder)
            yield WrittenScene(files=_files(spec, folder), was_made=spec in missing)
        return
    # Spawned, because a fork would inherit the threads of numerical libraries half-alive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(processes, len(missing))), mp_context=context) as pool:
        made = {spec.image_id: pool.submit(_write_whole, spec, folder) for spec in missing}
        try:
            for spec in specs:
                if spec.image_id in made:
                    made[spec.image_id].result()
                yield WrittenScene(files=_files(spec, folder), was_made=spec.image_id in made)
        finally:
            pool.shutdown(cancel_futures=True)


def _refuse_equal_names(specs: Sequence[SceneSpec]) -> None:
    seeds: dict[str, int] = {}
    for spec in specs:
        if spec.image_id in seeds:
            raise CubeError(
                f"Seeds {seeds[spec.image_id]} and {spec.seed} give scenes of one name, {spec.image_id}. Leave one out."
            )
        seeds[spec.image_id] = spec.seed


def _files(spec: SceneSpec, folder: Path) -> SceneFiles:
    return SceneFiles.named(folder, image_id=spec.image_id, dem_resolution_m=spec.dem_resolution_m)


def _paths(files: SceneFiles) -> list[Path]:
    """Return all files of a scene, its description last."""
    return [getattr(files, field.name) for field in fields(files)]


def _is_complete(spec: SceneSpec, folder: Path) -> bool:
    files = _files(spec, folder)
    if not files.description.exists():
        return False  # with the leavings of a move that was interrupted, perhaps; they are written over
    found, wanted = json.loads(files.description.read_text()), json.loads(json.dumps(asdict(spec), default=str))
    differing = [f"{name}={found.get(name)!r}" for name in wanted if found.get(name) != wanted[name]]
    if differing:
        raise OutputExistsError(
            f"{folder} holds a scene {spec.image_id} that was made with {', '.join(differing)}. Choose another folder, or "
            "remove it."
        )
    return all(path.exists() for path in _paths(files))


def _write_whole(spec: SceneSpec, folder: Path) -> None:
    with stage(folder / spec.image_id) as draft:
        # The description moves last, because it is what says that a scene is whole.
        for source, target in zip(_paths(write_scene(spec, draft)), _paths(_files(spec, folder)), strict=True):
            settle(source)
            source.replace(target)


TRAINING_SEEDS = tuple(range(1000, 1064))
"""Seeds that the demo's bundle was trained on."""
VALIDATION_SEEDS = tuple(range(2000, 2012))
"""Seeds that chose its epoch and threshold."""
TEST_SEEDS = tuple(range(3000, 3008))
"""Seeds that only measured it, once it was done."""


def demo_spec(*, size: int = 2048, seed: int = DEMO_SEED) -> SceneSpec:
    """Return the demo's scene: 37 km² of tundra, ten times as many slumps as in a dense real region.

    Examples
    --------
    >>> demo_spec().seed in TRAINING_SEEDS + VALIDATION_SEEDS + TEST_SEEDS
    False
    """
    return SceneSpec(seed=seed, size=size)


def demo_bundle_path() -> Path:
    """Return the folder of the small bundle that ships with rtsx, trained by `rtsx train configs/demo-train.yaml`.

    Examples
    --------
    >>> demo_bundle_path().name
    'bundle'
    """
    return Path(str(resources.files("rtsx.synthetic"))) / "bundle"


@dataclass(frozen=True, kw_only=True)
class DemoFiles:
    """Where the demo's scene and its catalog lie."""

    scene: SceneFiles
    """The scene's layers, as `write_scene` writes them."""
    catalog: Path
    """Static STAC catalog of image, mask, elevation and trends; written last."""
    documents: tuple[Path, ...]
    """The catalog's collections and items."""

    @classmethod
    def named(cls, folder: Path, *, image_id: str, dem_resolution_m: int) -> "DemoFiles":
        """Name the files of one scene; whether they are there is another question."""
        scene = SceneFiles.named(folder, image_id=image_id, dem_resolution_m=dem_resolution_m)
        dem = dem_collection_id(dem_resolution_m)
        items = ((PLANETSCOPE, image_id), (dem, scene.dem.stem), (TCVIS, scene.tcvis.stem))
        catalog, *documents = document_paths(folder, items)
        return cls(scene=scene, catalog=catalog, documents=tuple(documents))


def write_demo_scene(spec: SceneSpec, folder: str | Path) -> DemoFiles:
    """Make a scene and write all its layers into `folder`, like `write_scene`, with a static STAC catalog of them.

    Raises
    ------
    OutputExistsError
        The folder already holds this scene; `remove_demo_scenes` clears it.
    """
    folder = local_path(folder)
    scene_files = claim_scene(spec, folder)
    ground = make_ground(spec.ground_spec)
    scene = make_scene(spec, ground=ground)
    write_layers(scene, ground=ground, files=scene_files)
    items = (
        scene_item(scene, image=scene_files.image, udm2=scene_files.udm2),
        dem_item(scene_files.dem, name=scene_files.dem.stem, resolution_m=spec.dem_resolution_m),
        tcvis_item(scene_files.tcvis, name=scene_files.tcvis.stem),
    )
    write_catalog(
        folder,
        items,
        collections=collections(dem_resolution_m=spec.dem_resolution_m),
        name=spec.site,
        description=f"Synthetic scene {spec.image_id} with its auxiliary layers.",
    )
    return DemoFiles.named(folder, image_id=spec.image_id, dem_resolution_m=spec.dem_resolution_m)


def remove_demo_scenes(folder: str | Path) -> None:
    """Remove the scenes of earlier runs and their catalog, finished or not, and nothing else that was put there."""
    folder = local_path(folder)
    for description in folder.glob("????????_??????_????_scene.json"):
        for resolution in DEM_RESOLUTIONS_M:
            image_id = description.name.removesuffix("_scene.json")
            files = DemoFiles.named(folder, image_id=image_id, dem_resolution_m=resolution)
            # The catalog first, because it may only name what is there. The description, which `SceneFiles` ends with,
            # goes last, so that the next run finds what an interrupted removal left.
            documents = (files.catalog, *files.documents)
            rasters = [path for name, path in asdict(files.scene).items() if name != "description"]
            for path in (*documents, *rasters):
                path.unlink(missing_ok=True)
            for folder_of_item in sorted({path.parent for path in files.documents}, reverse=True):
                if folder_of_item.is_dir() and not any(folder_of_item.iterdir()):
                    folder_of_item.rmdir()
        description.unlink()
