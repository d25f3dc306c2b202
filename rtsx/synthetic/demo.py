"""The scene and the bundle of the demo, and the seeds that keep it honest."""

from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from rtsx.storage import local_path
from rtsx.synthetic.ground import make_ground
from rtsx.synthetic.scene import SceneFiles, claim_scene, make_scene, write_layers
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
    """Folder of the small bundle that ships with rtsx, trained by `rtsx train configs/demo-train.yaml`.

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
