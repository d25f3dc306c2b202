"""A synthetic region on both sides of a UTM zone border: scenes, elevation tiles, truth and catalog on disk."""

import datetime as dt
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from rtsx.errors import CubeError, OutputExistsError
from rtsx.storage import local_path, refuse_other_format, write_whole
from rtsx.synthetic.ground import Ground, make_ground
from rtsx.synthetic.noise import covering_grid
from rtsx.synthetic.scene import (
    DEM_CRS,
    TCVIS_CRS,
    TCVIS_STEP_DEG,
    heights,
    make_scene,
    write_dem,
    write_images,
    write_tcvis,
)
from rtsx.synthetic.spec import BLOCK, MARGIN, PIXEL_M, LandscapeSpec, SceneSpec
from rtsx.synthetic.stac import (
    catalog_items,
    collections,
    dem_collection_id,
    dem_item,
    scene_item,
    tcvis_item,
    write_catalog,
)

SPACING = 0.5
"""Distance between the middles of neighbouring scenes, as part of a scene's side."""
JITTER = 0.06
"""Largest shift of a scene from its place, likewise."""
SEASON = (185, 240)
"""Days of the year that scenes are of: July and August."""
TILES_PER_SIDE = 2.2
"""Width of the ground in EPSG:3413, in tiles of elevation: it meets three or four of them each way."""


@dataclass(frozen=True, kw_only=True)
class DemTile:
    """One tile of the elevation mosaic."""

    name: str
    """Id in the published manner: row and column from the pixel grid's south-western corner, pixel, version."""
    transform: Affine
    """Transform: px to `DEM_CRS`."""
    shape: tuple[int, int]
    """Height and width, px."""

    def window(self, mosaic: "DemTile") -> tuple[slice, slice]:
        """Return rows and columns of the tile in another one that holds it."""
        row = round((self.transform.f - mosaic.transform.f) / mosaic.transform.e)
        column = round((self.transform.c - mosaic.transform.c) / mosaic.transform.a)
        return slice(row, row + self.shape[0]), slice(column, column + self.shape[1])


@dataclass(frozen=True, kw_only=True)
class RegionSpec:
    """Overlapping PlanetScope-like scenes of one ground near the border of two UTM zones; all follows from `seed`.

    Every second scene is delivered in the neighbouring zone. Scenes differ in day, clouds, noise, gain and tilt; the ground
    does not change with the years.

    Examples
    --------
    >>> spec = RegionSpec(seed=1, size=256, scenes=2, years=(2023, 2024))
    >>> [(scene.date.year, scene.crs) for scene in spec.scene_specs]
    [(2023, 'EPSG:32608'), (2023, 'EPSG:32609'), (2024, 'EPSG:32609'), (2024, 'EPSG:32608')]
    """

    seed: int
    """Seed of ground and scenes, 0 or above; the demo's bundle was trained and tested on grounds 1000-3007."""
    size: int = 512
    """Side of each scene's raster, px of 3 m; at least 64."""
    scenes: int = 4
    """Scenes a year, 1-50, laid out in a square from the north-western corner on."""
    years: tuple[int, ...] = (2024,)
    """Years with scenes, ascending; the second year's scenes lie where the first's do, in the other zone."""
    longitude: float = -132.0
    """Middle of the region, degrees; the default lies on the border of zones 8 and 9."""
    latitude: float = 67.4
    """Middle of the region, degrees."""
    crs: str = "EPSG:32608"
    """UTM zone of the ground's own pixel grid and of the first scene."""
    neighbour_crs: str = "EPSG:32609"
    """UTM zone of every second scene; the same as `crs` for a region in one zone."""
    cloud_cover: float = 0.08
    """Part of a scene under cloud, on average, 0-0.5."""
    slumps_per_km2: float = 4.0
    """Active slumps per km² of ground."""
    landscape: str = "plateau"
    """Kind of ground, one of `LANDSCAPES`."""
    dem_resolution_m: int = 10
    """Pixel of the elevation, m: 2, 10 or 32."""
    dem_overlap: int = 0
    """Pixels that a tile of elevation reaches beyond each of its borders; 100 m in the published mosaic."""
    region: str = "SyntheticBorder"
    """Name of the region; the truth's field of that name, and the id of the catalog."""

    def __post_init__(self) -> None:
        """Refuse what `SceneSpec` does not, because it cannot know."""
        if not 1 <= self.scenes <= 50 or not self.years or list(self.years) != sorted(set(self.years)):
            raise CubeError(
                "A region needs 1-50 scenes a year and ascending years; "
                f"got scenes={self.scenes} and years={self.years}."
            )
        if not 0 <= self.cloud_cover <= 0.5 or not 0 <= self.dem_overlap <= 100:
            raise CubeError(
                "A region needs cloud_cover 0-0.5 and dem_overlap 0-100; "
                f"got {self.cloud_cover} and {self.dem_overlap}."
            )

    @cached_property
    def scene_specs(self) -> tuple[SceneSpec, ...]:
        """The scenes, by year and place."""
        return tuple(scene.on_ground(self.ground_spec) for scene in self._scenes)

    @cached_property
    def ground_spec(self) -> LandscapeSpec:
        """The ground: a square on the pixel grid of `crs` that no scene reaches beyond."""
        bounds = [scene_bounds(scene, crs=self.crs) for scene in self._scenes]
        left, bottom = np.floor(np.min(bounds, axis=0)[:2] / PIXEL_M) - MARGIN
        right, top = np.ceil(np.max(bounds, axis=0)[2:] / PIXEL_M) + MARGIN
        side = -(-int(max(right - left, top - bottom)) // BLOCK) * BLOCK
        return LandscapeSpec(
            seed=self.seed,
            crs=self.crs,
            left=float(left * PIXEL_M),
            top=float(top * PIXEL_M),
            size=max(side, 256),
            slumps_per_km2=self.slumps_per_km2,
            landscape=self.landscape,
        )

    @cached_property
    def dem_tiles(self) -> tuple[DemTile, ...]:
        """The tiles of elevation that show any ground, from the south-west on, on one pixel grid."""
        ground = self.ground_spec
        step = float(self.dem_resolution_m)
        outline = ground_outline(ground, crs=DEM_CRS)
        west, south, east, north = outline.bounds
        side = int(np.ceil(max(east - west, north - south) / TILES_PER_SIDE / step))
        width = side * step
        # Numbered from the south-western corner of the published tiling.
        origin = np.ceil(-4_100_000 / width) * width
        first = np.floor((np.array([south, west]) - origin) / width).astype(int)
        last = np.floor((np.array([north, east]) - origin) / width).astype(int)
        shown = outline.buffer(-2 * step)
        tiles = []
        for row in range(first[0], last[0] + 1):
            for column in range(first[1], last[1] + 1):
                left, bottom = origin + column * width, origin + row * width
                if shown.intersects(shapely.box(left, bottom, left + width, bottom + width)):
                    edge = self.dem_overlap * step
                    tiles.append(
                        DemTile(
                            name=f"{row:02d}_{column:02d}_{self.dem_resolution_m}m_v4.1",
                            transform=Affine(step, 0, left - edge, 0, -step, bottom + width + edge),
                            shape=(side + 2 * self.dem_overlap, side + 2 * self.dem_overlap),
                        )
                    )
        return tuple(tiles)

    @cached_property
    def dem_mosaic(self) -> DemTile:
        """All tiles as one."""
        transforms = [tile.transform for tile in self.dem_tiles]
        left, top = min(one.c for one in transforms), max(one.f for one in transforms)
        step = float(self.dem_resolution_m)
        mosaic = DemTile(name="mosaic", transform=Affine(step, 0, left, 0, -step, top), shape=(0, 0))
        windows = [tile.window(mosaic) for tile in self.dem_tiles]
        shape = max(rows.stop for rows, _ in windows), max(columns.stop for _, columns in windows)
        return replace(mosaic, shape=shape)

    @cached_property
    def _scenes(self) -> tuple[SceneSpec, ...]:
        """The scenes, each over a ground of its own: the common one has to cover them all."""
        rng = np.random.default_rng([self.seed, 29])
        to_grid = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
        middle = np.array(to_grid.transform(self.longitude, self.latitude))
        columns = int(np.ceil(np.sqrt(self.scenes)))
        rows = -(-self.scenes // columns)
        specs: list[SceneSpec] = []
        for year_index, year in enumerate(self.years):
            days = np.sort(rng.choice(np.arange(*SEASON), self.scenes, replace=False))
            for index, day in enumerate(days):
                row, column = divmod(index, columns)
                place = np.array([column - (columns - 1) / 2, (rows - 1) / 2 - row]) * SPACING
                place += rng.uniform(-JITTER, JITTER, 2)
                crs = (self.crs, self.neighbour_crs)[(index + year_index) % 2]
                left, top = corner(middle + place * self.size * PIXEL_M, size=self.size, source=self.crs, target=crs)
                specs.append(
                    SceneSpec(
                        seed=self.seed * 1000 + len(specs),
                        size=self.size,
                        crs=crs,
                        left=left,
                        top=top,
                        date=dt.date(year, 1, 1) + dt.timedelta(days=int(day) - 1),
                        tilt_deg=round(float(rng.uniform(5, 14)), 2),
                        cloud_cover=round(self.cloud_cover * float(rng.uniform(0.2, 1.8)), 4),
                        dem_resolution_m=self.dem_resolution_m,
                        region=self.region,
                    )
                )
        return tuple(specs)


def corner(middle: NDArray[np.float64], *, size: int, source: str, target: str) -> tuple[float, float]:
    """Return the upper left corner in `target`, on whole pixels, of a raster around a point in `source`."""
    x, y = Transformer.from_crs(source, target, always_xy=True).transform(*middle) if source != target else middle
    half = size * PIXEL_M / 2
    return float(round((x - half) / PIXEL_M) * PIXEL_M), float(round((y + half) / PIXEL_M) * PIXEL_M)


def scene_bounds(spec: SceneSpec, *, crs: str) -> tuple[float, float, float, float]:
    """Return left, bottom, right, top of a scene's raster in another CRS."""
    to_crs = Transformer.from_crs(spec.crs, crs, always_xy=True)
    bounds: tuple[float, float, float, float] = to_crs.transform_bounds(*spec.bounds, densify_pts=21)
    return bounds


def ground_outline(spec: LandscapeSpec, *, crs: str) -> shapely.Polygon:
    """Return the outline of a ground in a CRS."""
    side = spec.size * PIXEL_M
    box = shapely.box(spec.left, spec.top - side, spec.left + side, spec.top).segmentize(side / 20)
    x, y = Transformer.from_crs(spec.crs, crs, always_xy=True).transform(*shapely.get_coordinates(box).T)
    return shapely.Polygon(np.stack([x, y], axis=1))


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
    """Return every item of a region with absolute hrefs, for a STAC server: scenes, elevation, trends; see `catalog_items`."""
    return catalog_items(files.catalog)


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
    write_whole(files.description, (json.dumps(wanted, indent=2) + "\n").encode())


def region_truth(ground: Ground, spec: RegionSpec) -> geopandas.GeoDataFrame:
    """Return outlines of a ground in longitude and latitude, with region and site."""
    table = ground.slumps()
    site = spec.scene_specs[0].site
    table.insert(0, "region", np.full(len(table), spec.region, object))
    table.insert(1, "site", np.full(len(table), site, object))
    return table.to_crs("EPSG:4326")
