"""A synthetic region on disk: scenes, auxiliary layers, truth, and a static STAC catalog of them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np

from rtsx.errors import OutputExistsError
from rtsx.storage import local_path, refuse_other_format
from rtsx.synthetic.auxiliary import TCVIS_CRS, TCVIS_STEP_DEG, heights, write_dem, write_tcvis
from rtsx.synthetic.ground import Ground, make_ground
from rtsx.synthetic.items import collections, dem_collection_id, dem_item, scene_item, tcvis_item
from rtsx.synthetic.region import RegionSpec, ground_outline
from rtsx.synthetic.sampling import covering_grid
from rtsx.synthetic.scene import make_scene, write_images
from rtsx.synthetic.stac import catalog_collections, catalog_items, write_catalog, write_document

__all__ = ["RegionFiles", "region_collections", "region_items", "write_region"]


@dataclass(frozen=True, kw_only=True)
class RegionFiles:
    """Where the files of a written region lie."""

    spec: RegionSpec
    """What they were made from."""
    catalog: Path
    """Static STAC catalog of everything below; written last."""
    images: tuple[Path, ...]
    """PlanetScope-like COGs, in the order of `RegionSpec.scene_specs`; see `SceneFiles.image`."""
    udm2: tuple[Path, ...]
    """Usable data masks, likewise."""
    dem: tuple[Path, ...]
    """Tiles of elevation, in the order of `RegionSpec.dem_tiles`: float32 in EPSG:3413, m, nodata -9999."""
    tcvis: Path
    """Trends: uint8 in EPSG:4326, nodata 0."""
    truth: Path
    """GeoParquet in EPSG:4326: outlines of all slumps of the ground, with region, site, area_m2."""
    description: Path
    """JSON: the spec that makes the region again; written first."""

    @classmethod
    def named(cls, spec: RegionSpec, folder: Path) -> "RegionFiles":
        """Name the files of a region; whether they are there is another question."""
        ids = [scene.image_id for scene in spec.scene_specs]
        scenes, dem = folder / "planetscope", folder / dem_collection_id(spec.dem_resolution_m)
        trends = f"{spec.region}_tcvis"
        return cls(
            spec=spec,
            catalog=folder / "catalog.json",
            images=tuple(scenes / name / f"{name}_3B_AnalyticMS_SR.tif" for name in ids),
            udm2=tuple(scenes / name / f"{name}_3B_udm2.tif" for name in ids),
            dem=tuple(dem / tile.name / f"{tile.name}_dem.tif" for tile in spec.dem_tiles),
            tcvis=folder / "tcvis" / trends / f"{trends}.tif",
            truth=folder / "slumps.parquet",
            description=folder / "region.json",
        )

    @property
    def rasters(self) -> tuple[Path, ...]:
        """All COGs."""
        return (*self.images, *self.udm2, *self.dem, self.tcvis)


def write_region(spec: RegionSpec, folder: str | Path) -> RegionFiles:
    """Make a region and write scenes, auxiliary layers, truth and a static catalog into `folder`, which is created.

    A run that was interrupted is finished by the same call; what it left is written again.

    Raises
    ------
    OutputExistsError
        The folder holds a finished region, or the leavings of another one.
    """
    refuse_other_format(folder, what="the folder of a region")
    files = RegionFiles.named(spec, local_path(folder))
    claim_region(files)
    for path in files.rasters:
        path.parent.mkdir(parents=True, exist_ok=True)
    ground = make_ground(spec.ground_spec)
    items = []
    for scene_spec, image, udm2 in zip(spec.scene_specs, files.images, files.udm2, strict=True):
        scene = make_scene(scene_spec, ground=ground)
        write_images(scene, image=image, udm2=udm2)
        items.append(scene_item(scene, image=image, udm2=udm2))
    # Cut from one array instead of sampled each, so that tiles agree to the last bit where they overlap.
    height = heights(ground, spec.dem_mosaic.transform, shape=spec.dem_mosaic.shape)
    for tile, path in zip(spec.dem_tiles, files.dem, strict=True):
        write_dem(path, height[tile.window(spec.dem_mosaic)], transform=tile.transform)
        items.append(dem_item(path, name=tile.name, resolution_m=spec.dem_resolution_m))
    bounds = ground_outline(ground.spec, crs=spec.crs).bounds
    transform, shape = covering_grid(bounds, source=spec.crs, target=TCVIS_CRS, step=TCVIS_STEP_DEG, margin=0)
    write_tcvis(files.tcvis, ground=ground, transform=transform, shape=shape)
    items.append(tcvis_item(files.tcvis, name=files.tcvis.stem))
    region_truth(ground, spec).to_parquet(files.truth, compression="zstd", write_covering_bbox=True)
    write_catalog(
        files.catalog.parent,
        items,
        collections=collections(dem_resolution_m=spec.dem_resolution_m),
        name=spec.region,
        description=f"Synthetic region, seed {spec.seed}: {len(files.images)} scenes of one ground.",
    )
    return files


def region_items(files: RegionFiles) -> list[dict[str, Any]]:
    """Every item of a region with absolute hrefs, for a STAC server: scenes, elevation, trends; see `catalog_items`."""
    return catalog_items(files.catalog)


def region_collections(files: RegionFiles) -> list[dict[str, Any]]:
    """The collections of these items, without links."""
    return catalog_collections(files.catalog)


def claim_region(files: RegionFiles) -> None:
    """Create the folder with the region's description, unless something else is there."""
    folder = files.catalog.parent
    # Through JSON, because a tuple comes back as a list.
    wanted = json.loads(json.dumps(asdict(files.spec)))
    if files.catalog.exists():
        raise OutputExistsError(f"Expected no region in {folder}, but found catalog.json. Choose another folder.")
    if folder.exists() and any(folder.iterdir()):
        if not files.description.exists():
            raise OutputExistsError(f"Expected an empty folder for a region, but {folder} is not. Choose another one.")
        found = json.loads(files.description.read_text())
        differing = [f"{name}={found.get(name)!r}" for name in wanted if found.get(name) != wanted[name]]
        if differing:
            raise OutputExistsError(
                f"Expected nothing, or what an interrupted run of this region left, in {folder}, but found what one with "
                f"{', '.join(differing)} left. Remove the folder, or choose another one."
            )
    write_document(files.description, wanted)


def region_truth(ground: Ground, spec: RegionSpec) -> geopandas.GeoDataFrame:
    """Outlines of a ground in longitude and latitude, with region and site."""
    table = ground.slumps()
    site = spec.scene_specs[0].site
    table.insert(0, "region", np.full(len(table), spec.region, object))
    table.insert(1, "site", np.full(len(table), site, object))
    return table.to_crs("EPSG:4326")
