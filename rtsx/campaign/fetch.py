"""Stores of fetched pixels: what the cells of a campaign read, copied once, for workers that reach no source.

A store holds blocks of images on their own grids, and for each cell of a plan a record of the images that its sources gave. A block
is fetched by the first cell that needs it and shared by the others, those of other years and campaigns too; its own record is
written last. Where a cell's record is there, so is all that it reads.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from itertools import product
from re import sub
from time import sleep
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, ContainsGroupError

from rtsx.campaign.cell_input import (
    FetchedImages,
    FetchRecord,
    cell_geobox,
    cubes_of,
    input_stamps,
    is_gap,
    layers_of,
    stamps_of,
)
from rtsx.campaign.cells import Address, chosen_cells
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import LeaseTaken, held, map_in_threads, write_prices
from rtsx.campaign.plan import CampaignPlan, read_plan, require_same
from rtsx.campaign.preflight import check_object_store
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.records import ProgressCallback, RunSummary
from rtsx.campaign.searches import ask_searches_again, with_answers
from rtsx.campaign.stages import note_stage
from rtsx.campaign.task_queue import CellResult, CellTask, cell_result
from rtsx.campaign.worker import require_zone, run_cells
from rtsx.cube import CubeRecipe
from rtsx.cube.build_state import DigestStore, PartPlan, PartRecord, corrupt_keys
from rtsx.cube.chunk_loader import collect_missing, collected_missing
from rtsx.cube.images import Image
from rtsx.cube.native import NativeGroup, StoredImage, bands_in, native_groups, read_native, stored_image
from rtsx.cube.pinning import ResolvedImages, image_stamp, remote_state, resolve_images
from rtsx.cube.recipe import SourceRecipe
from rtsx.cube.resample.readers import MASKED, VALID
from rtsx.cube.write import compressor_for
from rtsx.errors import CampaignError, CubeError
from rtsx.storage import refuse_other_format
from rtsx.storage.object_store import ObjectStore, open_object_store
from rtsx.storage.zarr import WholeStore, store_of

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign

_SIDE = 2048
"""Of a block, px of its image: few objects, and little ground around a cell that nobody looks at."""
_READERS = 8
"""Blocks that are fetched at a time."""
_TICK_S = 0.2
"""Seconds between two looks at blocks that others are fetching."""


@dataclass(frozen=True, kw_only=True)
class FetchJob:
    """Fetches cells of one campaign into a store. A value that pickles; several threads may call one."""

    recipe: CampaignRecipe
    """Sources, and the output with the answers to their searches."""
    plan: CampaignPlan
    store: FetchedImages
    """Where to."""

    def __post_init__(self) -> None:
        """Refuse sources that another library reads, which reads no such store."""
        for source in self.recipe.cube.sources:
            if source.reader != "rtsx":
                raise CampaignError(
                    f"Source {source.name!r} is read by {source.reader}, which cannot read what is fetched. Write reader: rtsx."
                )

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Fetch a cell, unless it was or another run is at it; see `CellTask`."""
        return cell_result(self._run, cell, attempt=attempt, run=run)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the fields alone, because open stores do not travel."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def _run(self, cell: Address, run: str) -> Literal["done", "skipped"]:
        mark = self.store.layout.mark(cell)
        with held(self._objects, self.store.layout, cell, run=run, lease_s=self.recipe.retry.lease_s):
            if self._objects.get(mark) is not None:  # by whoever held it before
                return "skipped"
            return "done" if self._objects.create(mark, self._fetched(cell, run).to_json().encode()) else "skipped"

    def _fetched(self, cell: Address, run: str) -> FetchRecord:
        answered = with_answers(self._answers, YearLayout(self.plan.year), self.recipe.cube)
        geobox = cell_geobox(self.plan, cell)
        cube = resolve_images(answered, geobox, ids=None)
        found: dict[str, tuple[StoredImage, ...]] = {}
        blocks: dict[str, _Block] = {}
        n_bytes = 0
        # In threads that take for a gap what the cell will take for one.
        with ThreadPoolExecutor(_READERS, "rtsx-fetch", initializer=collect_missing, initargs=([], is_gap)) as pool:
            for source in cube.sources:
                assert isinstance(source.images, ResolvedImages)
                images = []
                states = pool.map(remote_state, source.images.images)
                for image, state in zip(source.images.images, states, strict=True):
                    named = {one.name for one in source.wanted}
                    wanted = replace(image, bands={name: one for name, one in image.bands.items() if name in named})
                    groups = native_groups(wanted, source, path="", cube=geobox, anchor=cube.grid.origin)
                    path = _path(source, image, state, groups=groups)
                    groups = [replace(group, path=f"{path}{group.path}") for group in groups]
                    for group in groups:
                        whole = _whole(group)
                        plan = PartPlan.of(whole.geobox.shape.yx, side=_SIDE)
                        layout = YearLayout(self.plan.year, f"blocks/{group.path}")
                        for address in _meeting(plan, group):
                            blocks[layout.mark(address)] = _Block(whole, source, plan, address, layout)
                    images.append(stored_image(_copy(wanted, groups, stamp=image_stamp(image), path=path)))
                found[source.name] = tuple(images)
            left = list(blocks)
            while left:
                done = list(pool.map(lambda key: self._fetched_block(blocks[key], run), left))
                n_bytes += sum(n or 0 for n in done)
                left = [key for key, n in zip(left, done, strict=True) if n is None]
                if left:
                    sleep(_TICK_S)  # until others have fetched them, or are lost
        return FetchRecord(images=found, blocks=tuple(blocks), n_bytes=n_bytes)

    def _fetched_block(self, block: "_Block", run: str) -> int | None:
        """Fetch a block, unless it was; the bytes of its pixels, 0 where it was there, None where another is at it."""
        key = block.layout.mark(block.address)
        if self._objects.get(key) is not None:
            return 0
        try:
            with held(self._objects, block.layout, block.address, run=run, lease_s=self.recipe.retry.lease_s):
                return 0 if self._objects.get(key) is not None else self._copied(block, key)
        except LeaseTaken:
            return None

    def _copied(self, block: "_Block", key: str) -> int:
        """Copy a block, and write its record last of all; the bytes of its pixels."""
        store, n_bytes = DigestStore(self._pixels), 0
        root = _root(store)
        rows, columns = block.window
        with collected_missing() as gaps:
            for name, pixels in read_native(block.group, block.source, rows=rows, columns=columns):
                array = _array(root, block.group, name, plan=block.plan)
                array.with_config({"write_empty_chunks": True})[rows, columns] = pixels
                n_bytes += pixels.nbytes
        # Of pixels alone, because metadata is shared with other blocks.
        digests = {name: digest for name, digest in store.digests.items() if not name.endswith("zarr.json")}
        self._objects.put(key, PartRecord(digests, tuple(gaps)).to_json().encode())
        return n_bytes

    @cached_property
    def _objects(self) -> ObjectStore:
        return self.store.objects

    @cached_property
    def _answers(self) -> ObjectStore:
        return open_object_store(self.recipe.output, self.recipe.storage_options)

    @cached_property
    def _pixels(self) -> Store:
        path = self.store.pixels
        cure = "Remove it, and fetch again, which writes it anew."
        return WholeStore(store_of(path, {}, read_only=False), path, cure=cure)


_conforms: type[CellTask] = FetchJob


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a store holds of a campaign after a call."""

    run: RunSummary
    """What this call did, cell by cell."""
    cells: int
    """Cells of which everything is there."""
    images: int
    """Images that they read."""
    blocks: int
    """Blocks of images that they read."""
    gaps: int
    """Those of them that cannot be read, and that their source leaves out."""
    n_bytes: int
    """Bytes of their pixels, as they were read."""

    def __str__(self) -> str:
        """Say it in some lines."""
        gaps = f", {self.gaps} of them gaps" if self.gaps else ""
        return (
            f"{self.run}\n{self.cells:,} cells are fetched: {self.images:,} images, {self.blocks:,} blocks{gaps}, "
            f"{self.n_bytes / 1e9:.1f} GB of pixels"
        )


def drop_damaged(store: FetchedImages) -> int:
    """Read every block again; those that are not as they were written, and gaps, are to be fetched again, with their cells.

    Returns
    -------
    int
        How many there are.
    """
    objects, pixels = store.objects, store_of(store.pixels, {}, read_only=True)

    def is_damaged(key: str) -> bool:
        content = objects.get(key)
        try:
            block = None if content is None else PartRecord.from_json(content.decode())
        except (CubeError, UnicodeDecodeError):
            block = None
        return block is None or bool(block.gaps) or bool(corrupt_keys(pixels, [block]))

    records = {cell: record for cell in store.ledger.done() if (record := store.record(cell)) is not None}
    keys = sorted({key for record in records.values() for key in record.blocks})
    damaged = {key for key, wrong in zip(keys, map_in_threads(is_damaged, keys), strict=True) if wrong}
    for cell, record in records.items():
        if damaged & set(record.blocks):
            objects.delete(store.layout.mark(cell))
    for key in damaged:
        objects.delete(key)
    return len(damaged)


def drop_changed(
    store: FetchedImages, recipe: CubeRecipe, plan: CampaignPlan, *, now: Callable[[Address], CubeRecipe]
) -> None:
    """Forget cells for which their sources give other images by now, so that they are fetched again; blocks stay."""

    def changed(cell: Address) -> bool:
        return stamps_of(store.cube(recipe, cell)) != input_stamps(now(cell), cell_geobox(plan, cell))

    done = list(store.ledger.done() & set(plan.cells))
    for cell, other in zip(done, map_in_threads(changed, done), strict=True):
        if other:
            store.objects.delete(store.layout.mark(cell))


def fetched_so_far(store: FetchedImages, run: RunSummary) -> Fetched:
    """Count what is there."""
    cells, n_bytes, images, blocks = 0, 0, set[str](), set[str]()
    for record in map_in_threads(store.record, store.ledger.done()):
        if record is not None:
            cells, n_bytes = cells + 1, n_bytes + record.n_bytes
            images |= {f"{name}/{one.id}/{one.stamp}" for name, found in record.images.items() for one in found}
            blocks |= set(record.blocks)
    contents = map_in_threads(store.objects.get, sorted(blocks))
    gaps = sum(content is not None and bool(PartRecord.from_json(content.decode()).gaps) for content in contents)
    return Fetched(run=run, cells=cells, images=len(images), blocks=len(blocks), gaps=gaps, n_bytes=n_bytes)


@dataclass(frozen=True)
class _Block:
    """A block that some cell reads."""

    group: NativeGroup
    """Bands of an image, with all of their raster."""
    source: SourceRecipe
    """How they are read."""
    plan: PartPlan
    """How the raster is cut."""
    address: Address
    """Row and column of the block."""
    layout: YearLayout
    """Keys of the blocks of the image."""

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the raster, px."""
        return self.plan.part(self.address[0] * self.plan.counts[1] + self.address[1]).window


def _root(store: Store) -> zarr.Group:
    """Return the group of all blocks, made by whoever comes first."""
    try:
        return zarr.open_group(store, mode="a", zarr_format=3, use_consolidated=False)
    except ContainsGroupError:  # another was faster
        return zarr.open_group(store, mode="r+", use_consolidated=False)


def _path(source: SourceRecipe, image: Image, state: str, *, groups: list[NativeGroup]) -> str:
    """Return the path of an image in the store; one that has changed, or of which another recipe or grid reads other levels, has another."""
    layers = [(one.name, one.resampling) for one in source.layers]
    levels = [
        (one.names, one.raster.shape.yx, tuple(one.raster.affine), str(one.raster.crs), one.factor, one.is_masked)
        for one in groups
    ]
    identity = repr((image_stamp(image), state, layers, levels))
    return f"{source.name}/{sub(r'[^A-Za-z0-9._-]', '_', image.id)}.{sha256(identity.encode()).hexdigest()[:16]}"


def _whole(group: NativeGroup) -> NativeGroup:
    """Return a group with all of its raster, so that cells agree on its blocks."""
    height, width = group.raster.shape
    return replace(group, rows=(0, height), columns=(0, width))


def _copy(image: Image, groups: list[NativeGroup], *, stamp: str, path: str) -> Image:
    """Return an image as it lies in the store; one that shows nothing of the cell, and is never read, too."""
    bands = {name: bands_in(_whole(group), name) for group in groups for name in group.names}
    others = {name: replace(one, href=path, bands=(name,)) for name, one in image.bands.items() if name not in bands}
    return replace(image, bands={name: (bands | others)[name] for name in image.bands}, stamp=stamp)


def _meeting(plan: PartPlan, window: NativeGroup) -> Iterator[Address]:
    """Return row and column of the blocks that a window meets."""
    rows, columns = (
        range(start // side, (stop - 1) // side + 1)
        for (start, stop), side in zip((window.rows, window.columns), plan.storage.shard, strict=True)
    )
    return product(rows, columns)


def _array(root: zarr.Group, group: NativeGroup, name: str, *, plan: PartPlan) -> "zarr.Array[Any]":
    """Return the array of a band, made by whoever comes first."""
    path = f"{group.path}/{name}"
    if path not in root:
        bands = group.image.bands[next((one for one in group.names if name in group.arrays(one)), group.names[0])]
        dtype = np.dtype(bool if name == VALID and group.is_masked else bands.dtype)
        with suppress(ContainsArrayError):  # another was faster
            root.create_array(
                path,
                shape=plan.shape,
                chunks=plan.storage.chunk,
                shards=plan.storage.shard if plan.storage.has_shards else None,
                dtype=dtype,
                # Never nodata, so that a block that was not fetched is an error instead of ground without data.
                fill_value=dtype.type(0 if bands.nodata != 0 and dtype.kind != "b" else 1),
                compressors=(compressor_for(name, dtype),),
                dimension_names=("y", "x"),
                attributes={MASKED: True} if group.is_masked and name != VALID else {},
            )
    array = root[path]
    assert isinstance(array, zarr.Array)
    return array


def planned_inputs(recipe: CampaignRecipe, *, config: str) -> CampaignPlan:
    """Return the stored plan of a recipe without bundles, by which inputs can be fetched; the config and prices beside it become these.

    Raises
    ------
    CampaignError
        There is none, or its cells or layers are others.
    """
    objects = open_object_store(recipe.output, recipe.storage_options)
    stored = read_plan(objects, recipe.year)
    if stored is None:
        raise CampaignError(
            f"A campaign needs at least one bundle to be planned, and {recipe.output} holds no plan of {recipe.year}. Name a model."
        )
    choice = chosen_cells(recipe.cube.grid, recipe.region, without=recipe.without, extent=recipe.extent)
    wanted = replace(
        stored,
        grid=recipe.cube.grid,
        rows=choice.rows,
        columns=choice.columns,
        cells=choice.cells,
        layers=layers_of(recipe.cube),
    )
    require_same(stored, wanted)
    if config:
        objects.put(YearLayout(stored.year).config, config.encode())
    write_prices(objects, recipe.prices, year=stored.year)
    return stored


def fetch_campaign(
    campaign: "Campaign",
    store: str,
    *,
    update: bool,
    check: bool,
    retry: bool,
    until: datetime | None,
    progress: ProgressCallback | None,
) -> Fetched:
    """Fetch what cells read in this process, until it is there for all of them; see `Campaign.fetch`."""
    plan, recipe, objects = campaign.plan, campaign.required_recipe("Fetching", with_bundles=False), campaign.objects
    require_zone(until)
    fetched = FetchedImages(store, plan.year, plan.digest)
    job = FetchJob(recipe=recipe, plan=plan, store=fetched)
    refuse_other_format(store, what="the folder of a store of fetched pixels")
    check_object_store(fetched.objects, lease_s=recipe.retry.lease_s)
    note_stage(objects, plan, "fetched", marked={}, where=fetched.path)
    if update:
        ask_searches_again(objects, plan, recipe)
        drop_changed(fetched, recipe.cube, plan, now=cubes_of(recipe, plan, objects, digest=plan.digest))
    if check:
        drop_damaged(fetched)
    if retry:
        fetched.ledger.reset()
    run = run_cells(job, plan, fetched.ledger, retry=recipe.retry, until=until, progress=progress)
    return fetched_so_far(fetched, run)
