"""What one cell reads: its windows and halo, which pixels are valid, the versions of its inputs, and where its images come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, map_in_threads
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.records import InputVersion
from rtsx.campaign.searches import with_answers
from rtsx.cube import CubeRecipe
from rtsx.cube.build_state import describe_recipe
from rtsx.cube.chunk_loader import MissingImage, collect_missing
from rtsx.cube.load import load_recipe
from rtsx.cube.native import StoredImage, image_in
from rtsx.cube.pinning import ResolvedImages, image_stamp, resolve_images
from rtsx.cube.recipe import SourceRecipe
from rtsx.cube.stac.item import item_footprint
from rtsx.errors import CampaignError, CubeError
from rtsx.geometry.crs import cached_transformer
from rtsx.grid.grid import cell_id
from rtsx.inference.plan import Region, input_window, region_overlap, region_within, regions_meet
from rtsx.parsing import StoredRecord
from rtsx.storage import absolute
from rtsx.storage.object_store import ObjectStore, open_object_store
from rtsx.storage.retry import classify_error

if TYPE_CHECKING:
    from rtsx.inference.runner import Runner


def cell_geobox(plan: CampaignPlan, cell: Address) -> GeoBox:
    """Return the raster of all that a cell looks at: images that meet it are the cell's inputs."""
    return CellWindow.of(plan, cell).geobox


@dataclass(frozen=True, kw_only=True)
class CellWindow:
    """Pixels of the map around one cell."""

    plan: CampaignPlan
    cell: Address
    """Row and column of the cell."""
    region: Region
    """Pixels of the cell."""
    read: Region
    """Pixels that its tiles see."""
    around: Region
    """The cell and the halo that its outlines look at, on all sides."""
    haloed: Region
    """The same as far as the map goes."""

    @classmethod
    def of(cls, plan: CampaignPlan, cell: Address) -> "CellWindow":
        """Compute the windows of a cell of a plan.

        Raises
        ------
        CampaignError
            The map has no room for it.
        """
        region = plan.region(cell)
        y, x = (slice(part.start - plan.halo, part.stop + plan.halo) for part in region)
        height, width = plan.shape
        return cls(
            plan=plan,
            cell=cell,
            region=region,
            read=input_window(plan.prediction.tiling, region),
            around=(y, x),
            haloed=region_overlap((y, x), (slice(0, height), slice(0, width))),
        )

    @property
    def geobox(self) -> GeoBox:
        """Raster of everything that is looked at."""
        y, x = (
            slice(min(one.start, other.start), max(one.stop, other.stop))
            for one, other in zip(self.read, self.haloed, strict=True)
        )
        return self.window((y, x))

    def window(self, region: Region) -> GeoBox:
        """Return the raster of some pixels of the map, which may lie beyond its ends."""
        side = self.plan.grid.cell_size
        top, left = self.plan.rows[0] * side, self.plan.columns[0] * side
        y, x = region
        return self.plan.grid.window((top + y.start, top + y.stop), (left + x.start, left + x.stop))

    @property
    def unread(self) -> tuple[Region, ...]:
        """The parts of the halo that no tile of the cell sees, each pixel once."""
        (top, bottom), (left, right) = ((part.start, part.stop) for part in self.haloed)
        seen_y, seen_x = self.read
        first, last = max(top, min(seen_y.start, bottom)), min(bottom, max(seen_y.stop, top))
        parts = (
            (slice(top, first), slice(left, right)),
            (slice(last, bottom), slice(left, right)),
            (slice(first, last), slice(left, seen_x.start)),
            (slice(first, last), slice(seen_x.stop, right)),
        )
        return tuple((y, x) for y, x in parts if y.start < y.stop and x.start < x.stop)

    @property
    def neighbours(self) -> tuple[tuple[Address, Region], ...]:
        """Other cells that the halo lies in, and the part of the halo in each."""
        side = self.plan.grid.cell_size
        rows, columns = (range(part.start // side, (part.stop - 1) // side + 1) for part in self.haloed)
        cells = [(self.plan.rows[0] + j, self.plan.columns[0] + i) for j, i in product(rows, columns)]
        return tuple((cell, region_overlap(self.haloed, self.plan.region(cell))) for cell in cells if cell != self.cell)


_READERS = 4
"""Chunks that are read at a time: servers answer several requests as fast as one."""


class CellReader:
    """Reads the pixels of one cell for `predict_region`. Used by one thread at a time."""

    def __init__(self, ground: CellWindow, cube: CubeRecipe, *, runner: "Runner", pool: ThreadPoolExecutor) -> None:
        self._ground = ground
        self._cube = cube
        self._pool = pool
        self.runner = runner
        """What runs on these layers."""
        self._valid = np.zeros([part.stop - part.start for part in ground.around], bool)

    @classmethod
    @contextmanager
    def opened(
        cls, ground: CellWindow, cube: CubeRecipe, *, recipe: CampaignRecipe, gaps: list[MissingImage]
    ) -> Iterator["CellReader"]:
        """Open a reader for the time of the block.

        Parameters
        ----------
        ground
            What is looked at.
        cube
            The recipe of the layers, with the images of this cell resolved.
        recipe
            Bundles, and how they are run.
        gaps
            Receives the images that were left out, where their source says so; errors that can pass stay errors.

        Raises
        ------
        NoImageError
            A required source has no image of this cell.
        CubeError
            Images do not fit together.
        BundleError, PlanError
            The layers are not stored as the bundles need them, or the bundles are not those of the plan.
        """
        from rtsx.inference.runner import Runner, packings_of  # here, because whoever fetches cells runs no network

        spec = recipe.prediction
        plan = ground.plan.prediction
        runner = Runner(
            plan=plan,
            bundles=recipe.bundles,
            packings=packings_of(recipe.bundles, _opened(cube, ground, None), layers=plan.layers),
            device=spec.device,
            precision=spec.precision,
            backend=spec.backend,
            batch_size=spec.batch_size,
        )
        with ThreadPoolExecutor(_READERS, "rtsx-source", initializer=collect_missing, initargs=(gaps, is_gap)) as pool:
            yield cls(ground, cube, runner=runner, pool=pool)

    def __call__(self, window: Region) -> Mapping[str, NDArray[Any]]:
        """Layers (y, x) of some pixels of the map by name, as stored, and as `valid` those that the plan can trust."""
        names = self.runner.plan.layers
        cube = _opened(self._cube, self._ground, window)
        lazy = {name: cube[name].data for name in (*names, "valid")}
        # In threads of our own, instead of dask's scheduler in force, which on a worker is the whole cluster.
        (pixels,) = compute(lazy, scheduler="threads", pool=self._pool)
        stored = {name: np.asarray(pixels[name]) for name in names}
        valid = self.runner.valid(stored, np.asarray(pixels["valid"]))
        if regions_meet(window, self._ground.haloed):
            seen = region_overlap(window, self._ground.haloed)
            self._valid[region_within(seen, self._ground.around)] = valid[region_within(seen, window)]
        return {**stored, "valid": valid}

    def halo_valid(self, planned: Sequence[Region]) -> NDArray[np.bool_]:
        """Compute the valid pixels (y, x) of the cell and its halo, after the cell was read; reads what no tile has seen.

        Parameters
        ----------
        planned
            Parts of the halo in cells of the campaign; elsewhere nothing is mapped, and nothing is trusted.

        Returns
        -------
        numpy.ndarray
            With the whole halo on all sides; beyond the map's end nothing is trusted.
        """
        for window in self._ground.unread:
            self(window)
        trusted = np.zeros_like(self._valid)
        for part in (self._ground.region, *planned):
            place = region_within(part, self._ground.around)
            trusted[place] = self._valid[place]
        return trusted


def is_gap(error: CubeError) -> bool:
    """Test whether an image can never be read; a gap in a finished cell would stay, although the image may be there in a minute."""
    return classify_error(error) == "lasting"


def _opened(cube: CubeRecipe, ground: CellWindow, window: Region | None) -> xr.Dataset:
    """Open the lazy cube of a window; pixels are the grid's own wherever it is cut."""
    geobox, begun = ground.geobox if window is None else ground.window(window), (0, 0)
    images = (image for source in cube.sources for image in getattr(source.images, "images", ()))
    if window is not None and any(bands.opener == "zarr" for image in images for bands in image.bands.values()):
        # In chunks of the grid, which are those of a store on it: each of others would decode four.
        side = ground.plan.grid.cell_size
        begun = ground.plan.rows[0] * side + window[0].start, ground.plan.columns[0] * side + window[1].start
    return load_recipe(cube, geobox, anchor=cube.grid.origin, begun=begun)


def layers_of(cube: CubeRecipe) -> dict[str, Any]:
    """Describe the recipe of layers without what changes no pixel of a cell: their own region, and the chunks of their reads."""
    return {name: one for name, one in describe_recipe(cube).items() if name not in ("region", "chunk")}


def input_stamps(recipe: CubeRecipe, geobox: GeoBox) -> tuple[InputVersion, ...]:
    """List the versions of the images that a recipe finds in an area, as they are now.

    Parameters
    ----------
    recipe
        Its sources are asked.
    geobox
        Raster of the area, such as `cell_geobox`.

    Returns
    -------
    tuple
        Sorted; equal to an earlier answer where no image came, went or changed. Of a file it counts what its item says
        (checksum or ETag); where it has neither, also when the item was updated, size and time of change of a local file, and
        the digest of the root metadata of a Zarr store. A file behind a URL of which nobody says anything counts as unchanged.

    Raises
    ------
    CubeError
        A source cannot be asked.
    """
    return stamps_of(resolve_images(recipe, geobox, ids=None))


def stamps_of(recipe: CubeRecipe) -> tuple[InputVersion, ...]:
    """Return stamps of the images of a pinned recipe, sorted."""
    return tuple(
        sorted(
            InputVersion(source=source.name, image=image.id, stamp=image_stamp(image))
            for source in recipe.sources
            if isinstance(source.images, ResolvedImages)
            for image in source.images.images
        )
    )


_PIXELS = "pixels.zarr"
"""The blocks, below the store."""
_FIRST = 1000
"""Images of a source that are looked at for a cell that has any."""


class CellNotFetchedError(CampaignError):
    """A store lacks a cell."""


@dataclass(frozen=True, kw_only=True)
class FetchRecord(StoredRecord):
    """What one cell reads, all of which is there."""

    what = "This is no record of a fetched cell"
    raises = CampaignError

    images: Mapping[str, tuple[StoredImage, ...]]
    """What each source gave, in its order."""
    blocks: tuple[str, ...]
    """Keys of the records of its blocks."""
    n_bytes: int
    """Bytes of the pixels that this cell was the first to need."""


@dataclass(frozen=True)
class FetchedImages:
    """What a store holds for the cells of one plan. A value that pickles."""

    path: str
    """Folder or URL of the store."""
    year: int
    """Of the plan."""
    plan_digest: str
    """Of the plan."""

    def __post_init__(self) -> None:
        """Make the path mean the same in every working folder."""
        object.__setattr__(self, "path", absolute(self.path))

    @property
    def layout(self) -> YearLayout:
        """Keys of its records."""
        return YearLayout.of_fetched(self.year, self.plan_digest)

    @property
    def objects(self) -> ObjectStore:
        """Its objects."""
        return open_object_store(self.path, {})

    @property
    def ledger(self) -> CampaignLedger:
        """Which cells are fetched, and which were set aside."""
        return CampaignLedger(self.objects, self.layout)

    @property
    def pixels(self) -> str:
        """Path or URL of the Zarr store of the blocks."""
        return f"{self.path.rstrip('/')}/{_PIXELS}"

    def record(self, cell: Address) -> FetchRecord | None:
        """Read the record of a cell; None where it was not fetched.

        Raises
        ------
        CampaignError
            It is damaged.
        """
        content = self.objects.get(self.layout.mark(cell))
        return None if content is None else FetchRecord.from_json(content)

    def require_all(self, plan: CampaignPlan) -> None:
        """Refuse a store that lacks cells which were not set aside either, where their reason is known.

        Raises
        ------
        CampaignError
            It does.
        """
        missing = set(plan.cells) - self.ledger.done() - self.ledger.set_aside_cells()
        if missing:
            raise CampaignError(
                f"{self.path} lacks {len(missing)} of the {len(plan.cells)} cells of this plan, such as "
                f"{cell_id(*min(missing))}. Run rtsx campaign fetch with the YAML file, --year {plan.year} and --to {self.path}, "
                "where there is a network; it goes on where it stopped."
            )

    def cube(self, recipe: CubeRecipe, cell: Address) -> CubeRecipe:
        """Return the recipe with the images that were fetched for a cell.

        Raises
        ------
        CellNotFetchedError
            It was not fetched.
        """
        record = self.record(cell)
        if record is None:
            raise CellNotFetchedError(
                f"Cell {cell_id(*cell)} is not in {self.path}. Fetch it where there is a network, and run it again."
            )
        images = {
            name: ResolvedImages(tuple(image_in(self.pixels, one) for one in found))
            for name, found in record.images.items()
        }
        return replace(recipe, sources=tuple(replace(one, images=images[one.name]) for one in recipe.sources))


def cubes_of(
    recipe: CampaignRecipe, plan: CampaignPlan, objects: ObjectStore, *, digest: str
) -> Callable[[Address], CubeRecipe]:
    """Return what gives the recipe of the layers of a cell: from the store of `recipe`, else with the searches of the year."""
    if recipe.fetched is not None:
        store = FetchedImages(recipe.fetched, plan.year, digest)
        return lambda cell: store.cube(recipe.cube, cell)
    return lambda cell: with_answers(objects, YearLayout(plan.year), recipe.cube)


def likely_cells(recipe: CampaignRecipe, cells: CellTable, *, stored: CampaignPlan | None) -> Iterator[Address]:
    """Yield cells, each once, that have images: of a store of `recipe`, else the ones in the middle of what its sources find first."""
    if recipe.fetched is not None and stored is not None:
        store = FetchedImages(recipe.fetched, stored.year, stored.digest)
        records = map_in_threads(store.record, cells)
        yield from (
            cell for cell, one in zip(cells, records, strict=True) if one is not None and all(one.images.values())
        )
        return
    seen, grid = set[Address](), recipe.cube.grid
    for source in recipe.cube.sources:
        for ground in islice(_grounds(source, recipe.region), _FIRST) if source.is_required else ():
            middle = ground.representative_point()
            cell = grid.cell_at(*cached_transformer("EPSG:4326", grid.crs).transform(middle.x, middle.y))
            if (address := (cell.iy, cell.ix)) in cells and address not in seen:
                seen.add(address)
                yield address


def _grounds(source: SourceRecipe, region: BaseGeometry) -> Iterator[BaseGeometry]:
    """Yield the ground of images of a source, longitude and latitude, as it finds them; few requests where the first are enough."""
    images: Any = source.images
    while not hasattr(images, "found_items") and hasattr(images, "images") and hasattr(images.images, "find"):
        images = images.images  # below whatever adds to them, such as a mask
    if hasattr(images, "found_items"):
        found = (item_footprint(item) for item in images.found_items(region, source.period))
    else:
        wanted = [layer.wanted for layer in source.layers]
        found = (image.footprint for image in images.find(region, source.period, wanted))
    met = (ground.intersection(region) for ground in found if ground is not None)
    yield from (ground for ground in met if not ground.is_empty)
