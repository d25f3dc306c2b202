"""The task of a campaign: one cell, from its sources to its shards of the map, outlines and GeoTIFFs, and its commit record."""

import asyncio
import io
import json
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from itertools import product
from time import perf_counter
from typing import Any, Literal

import geopandas
import numpy as np
import psutil
import xarray as xr
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

from rtsx.campaign.cell_input import CellReader, CellWindow, cubes_of, stamps_of
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.ledger import CampaignLedger, held
from rtsx.campaign.map import ShardEncoder, map_store, map_year, variables_of
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import CampaignRecipe, OutlineSpec
from rtsx.campaign.records import CommitRecord, InputVersion, hardware_name, versions_here, worker_name
from rtsx.campaign.task_queue import CellResult, CellTask, cell_result
from rtsx.cube import CubeRecipe
from rtsx.cube.build_state import DigestStore
from rtsx.cube.chunk_loader import MissingImage
from rtsx.cube.cog import encoded_cog
from rtsx.cube.georeference import with_georeference
from rtsx.cube.pinning import resolve_images
from rtsx.errors import CampaignError, NoImageError
from rtsx.footprints import extract_footprints
from rtsx.grid.grid import cell_id
from rtsx.inference.ensemble import bundle_ids
from rtsx.inference.kernel import NODATA
from rtsx.inference.plan import Region
from rtsx.inference.predict import variable_attrs
from rtsx.inference.streaming import predict_region
from rtsx.model import ModelBundle
from rtsx.storage.object_store import ObjectStore, open_object_store


def cell_job(recipe: CampaignRecipe, plan: CampaignPlan, *, most_lost: int | None = None) -> "CellJob":
    """Make the job of a plan, ready to be sent: the plan's digest is computed here, once."""
    bare = replace(plan, cells=CellTable(plan.cells.addresses))  # without what it has cached since it was made
    return CellJob(recipe=recipe, plan=bare, plan_digest=plan.digest, most_lost=most_lost)


@dataclass(frozen=True, kw_only=True)
class CellJob:
    """Runs cells of one campaign. A value that pickles; several threads may call one."""

    recipe: CampaignRecipe
    """Sources, bundles, and where everything goes."""
    plan: CampaignPlan
    plan_digest: str
    """Its digest, for the marks."""
    most_lost: int | None = None
    """Workers that a cell may take with it before it fails; None where a scheduler counts them."""

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Run a cell, unless it has a mark or another run is at it; see `CellTask`."""
        return cell_result(self._run, cell, attempt=attempt, run=run, hardware=self.hardware)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the fields alone, because open stores do not travel."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def _run(self, cell: Address, run: str) -> Literal["done", "skipped"]:
        with held(self._objects, self._ledger.layout, cell, run=run, lease_s=self.recipe.retry.lease_s) as lease:
            # Not before the lease too, because hardly any cell that is given to a worker has a mark by then.
            if self._ledger.mark(cell) is not None:
                return "skipped"
            if self.most_lost is not None and lease.generation > self.most_lost:  # leases that nobody gave back
                raise CampaignError(
                    f"Cell {cell_id(*cell)} was not finished by {lease.generation - 1} workers that have vanished. See in their "
                    "logs what ended them, such as memory."
                )
            making = _Making(self, cell, run)
            try:
                return "done" if making.committed() else "skipped"
            except BaseException:
                with suppress(Exception):  # what went wrong first is what has to be reported
                    making.give_way()
                raise

    @cached_property
    def hardware(self) -> str:
        """What runs the networks of this process; empty where what the recipe asks for is not here."""
        spec = self.recipe.prediction
        return hardware_name(spec.device, spec.backend)

    @cached_property
    def _objects(self) -> ObjectStore:
        return open_object_store(self.recipe.output, self.recipe.storage_options)

    @cached_property
    def _cube_of(self) -> Callable[[Address], CubeRecipe]:
        return cubes_of(self.recipe, self.plan, self._objects, digest=self.plan_digest)

    @cached_property
    def _ledger(self) -> CampaignLedger:
        return CampaignLedger(self._objects, YearLayout(self.plan.year))

    @cached_property
    def _map(self) -> Store:
        return map_store(self.recipe.output, self.recipe.storage_options)


_conforms: type[CellTask] = CellJob


class _Making:
    """One cell while it is made."""

    def __init__(self, job: CellJob, cell: Address, run: str) -> None:
        self._job, self._cell, self._run = job, cell, run
        self._ground = CellWindow.of(job.plan, cell)
        self._shards = CellShards(job._map, job.plan, cell)
        self._memory = PeakMemory()
        self._began, self._started = perf_counter(), _now()
        self._objects: dict[str, str] = {}
        self._n_valid = self._n_outlines = 0

    def committed(self) -> bool:
        """Make it and mark it; False where another run was faster.

        Nobody else is at the cell, unless a lease ran out while its holder was held up. So that no mark is ever without its
        shard of `valid`, either of the two looks after the other: who has removed it looks for a mark, who has set a mark
        looks whether it is still there.
        """
        self._shards.withdraw()
        if self.give_way():
            return False
        mark = self._made()
        if not self._job._ledger.commit(mark):
            return False
        if self._n_valid and not self._shards.is_published():
            self._shards.publish()
        return True

    def give_way(self) -> bool:
        """Put back what was removed, if another run has marked the cell; whether one has."""
        mark = self._job._ledger.mark(self._cell)
        if mark is not None:
            self._shards.restore(mark.objects)
        return mark is not None

    def _made(self) -> CommitRecord:
        """Make it, and say what was written; `valid` is written last, so that readers see all of the cell or nothing."""
        job = self._job
        cube = resolve_images(job._cube_of(self._cell), self._ground.geobox, ids=None)
        inputs = stamps_of(cube)
        gaps: list[MissingImage] = []
        try:
            with CellReader.opened(self._ground, cube, recipe=job.recipe, gaps=gaps) as reader:
                self._predict(reader)
                if self._n_valid:
                    self._derive(reader)
        except NoImageError:
            self._shards.clear()
        if self._n_valid:
            self._shards.publish()
        self._remove_stale()
        return self._record(inputs, gaps)

    def _predict(self, reader: CellReader) -> None:
        with self._shards.filling() as shards:
            for rows, predicted in predict_region(reader, self._ground.region, runner=reader.runner):
                shards.fill(rows, predicted)
                self._memory.sample()
        self._n_valid = int(np.count_nonzero(self._shards.pixels["valid"]))

    def _derive(self, reader: CellReader) -> None:
        """Outlines and GeoTIFFs."""
        plan, layout, bundles = self._job.plan, self._job._ledger.layout, self._job.recipe.bundles
        if plan.outlines is not None:
            planned = [
                part for address, part in self._ground.neighbours if (plan.cells.addresses == address).all(1).any()
            ]
            haloed = self._shards.haloed | {"valid": reader.halo_valid(planned)}
            geobox = plan.grid[self._cell].haloed(plan.halo)
            outlines = cell_outlines(cell_dataset(haloed, plan, geobox=geobox, bundles=bundles), rule=plan.outlines)
            self._n_outlines = len(outlines)
            if self._n_outlines:
                self._put(layout.outline(self._cell), footprints_parquet(outlines))
        if plan.cogs:
            pred = cell_dataset(self._shards.pixels, plan, geobox=plan.grid[self._cell].geobox, bundles=bundles)
            for name in variables_of(plan)[:-1]:
                self._put(layout.cog(self._cell, name), encoded_cog(pred, name))
        self._memory.sample()

    def _put(self, key: str, content: bytes) -> None:
        self._job._objects.put(key, content)
        self._objects[key] = sha256(content).hexdigest()

    def _remove_stale(self) -> None:
        """Remove what an earlier run of this cell has written and this one has not, so that nobody collects it."""
        layout = self._job._ledger.layout
        cogs = (layout.cog(self._cell, name) for name in variables_of(self._job.plan)[:-1])
        for key in (layout.outline(self._cell), *cogs):
            if key not in self._objects:
                self._job._objects.delete(key)

    def _record(self, inputs: tuple[InputVersion, ...], gaps: list[MissingImage]) -> CommitRecord:
        objects = {**self._shards.digests(), **self._objects}
        return CommitRecord(
            cell=self._cell,
            plan_digest=self._job.plan_digest,
            state="mapped" if self._n_valid else "empty",
            objects=objects if self._n_valid else {},
            inputs=inputs,
            bundles=self._job.plan.prediction.members,
            versions=versions_here(),
            n_valid=self._n_valid,
            n_outlines=self._n_outlines,
            seconds=perf_counter() - self._began,
            peak_memory_bytes=self._memory.n_bytes,
            started=self._started,
            finished=_now(),
            run=self._run,
            worker=worker_name(),
            gaps=tuple(sorted({f"{gap.source}/{gap.image}" for gap in gaps})),
            hardware=self._job.hardware,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class CellShards:
    """The place of one cell in the map of one year, and its pixels on their way there."""

    def __init__(self, store: Store, plan: CampaignPlan, cell: Address) -> None:
        self._store = DigestStore(store)
        self._names = variables_of(plan)
        self._encoder = ShardEncoder(store, self._names)
        self._arrays = self._encoder.arrays
        self._year = map_year(zarr.open_group(store, mode="r", use_consolidated=False), plan.year)
        self._withdrawn: dict[str, Buffer] = {}
        self._region = plan.region(cell)
        self._shard = plan.shard
        self._side = plan.grid.cell_size
        self._written = 0
        self._waiting: list[Future[None]] = []
        inner = slice(plan.halo, plan.halo + self._side)
        wide = self._side + 2 * plan.halo
        self.haloed: dict[str, NDArray[Any]] = {
            name: np.zeros((*array.shape[1:-2], wide, wide), array.dtype) for name, array in self._arrays.items()
        }
        """The cell and the halo of its outlines ([class,] y, x) by name; 0 in the halo, which whoever outlines it fills."""
        self.pixels = {name: haloed[..., inner, inner] for name, haloed in self.haloed.items()}
        """The cell in it, as far as it was filled."""

    def withdraw(self) -> None:
        """Remove the shard of `valid`, so that nobody trusts what is going to be written; it is kept in memory."""
        for key in self._keys("valid"):
            there = sync(self._store.get(key, default_buffer_prototype()))
            if there is not None:
                self._withdrawn[key] = there
                sync(self._store.delete(key))

    def restore(self, digests: Mapping[str, str]) -> None:
        """Put back what was withdrawn, where it is what a mark tells: another run has finished the cell meanwhile.

        Parameters
        ----------
        digests
            SHA-256 by key in the output, as the mark has them.
        """
        for key, content in self._withdrawn.items():
            if digests.get(f"{MAP}/{key}") == sha256(content.to_bytes()).hexdigest():
                sync(self._store.set(key, content))

    def clear(self) -> None:
        """Remove all shards."""
        for name in reversed(self._names):
            sync(self._put(dict.fromkeys(self._keys(name))))

    @contextmanager
    def filling(self) -> Iterator["CellShards"]:
        """Rows of shards are written during the block, by a second thread; all of them have been at its end."""
        with ThreadPoolExecutor(1, "rtsx-write") as self._writer:
            yield self
            for write in self._waiting:
                write.result()

    def fill(self, rows: slice, predicted: Mapping[str, NDArray[Any]]) -> None:
        """Take the next rows of the map, all columns of the cell; whole rows of shards are written, but for `valid`."""
        top = self._region[0].start
        for name, pixels in self.pixels.items():
            own = _per_cent(predicted[name]) if name == "spread" else predicted[name]
            pixels[..., rows.start - top : rows.stop - top, :] = own
        while self._written + self._shard <= rows.stop - top:
            start = self._written
            self._waiting.append(self._writer.submit(self._write_rows, slice(start, start + self._shard)))
            self._written += self._shard
        for write in self._waiting:
            if write.done():
                write.result()  # so that a full disk is reported now, instead of after the last band

    def publish(self) -> None:
        """Write the shard of `valid`, after everything else that belongs to the cell."""
        self._write("valid", self.pixels["valid"], self._region)

    def is_published(self) -> bool:
        """Test whether the shard of `valid` is there."""
        return all(sync(self._store.exists(key)) for key in self._keys("valid"))

    def digests(self) -> dict[str, str]:
        """Return SHA-256 of every shard that was written by its key in the output."""
        return {f"{MAP}/{key}": digest for key, digest in sorted(self._store.digests.items())}

    def _write_rows(self, rows: slice) -> None:
        top = self._region[0].start
        place = (slice(top + rows.start, top + rows.stop), self._region[1])
        for name in self._names[:-1]:
            self._write(name, self.pixels[name][..., rows, :], place)

    def _write(self, name: str, pixels: NDArray[Any], place: Region) -> None:
        keys = list(self._keys(name, place))
        sync(self._put(self._encoder.encoded(name, pixels, at=(self._year, ..., *place), keys=keys)))

    async def _put(self, shards: Mapping[str, Buffer | None]) -> None:
        """Write shards, and remove those that are not stored, all at a time."""
        await asyncio.gather(
            *(
                self._store.delete(key) if content is None else self._store.set(key, content)
                for key, content in shards.items()
            )
        )

    def _keys(self, name: str, place: Region | None = None) -> Iterator[str]:
        """List the keys of a variable's shards in the cell, or in a part of it."""
        array = self._arrays[name]
        side = self._side if name == "valid" else self._shard
        along = [range(part.start // side, part.stop // side) for part in place or self._region]
        for index in product([self._year], *(range(length) for length in array.shape[1:-2]), *along):
            yield f"{name}/{array.metadata.encode_chunk_key(index)}"


def _per_cent(fraction: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return fractions as they are stored: whole per cents, and 255 for NaN."""
    return np.where(np.isnan(fraction), np.float32(NODATA), np.rint(100 * fraction)).astype(np.uint8)


def cell_dataset(
    pixels: Mapping[str, NDArray[Any]], plan: CampaignPlan, *, geobox: GeoBox, bundles: Sequence[ModelBundle]
) -> xr.Dataset:
    """Drop the time dimension of a prediction of one time.

    Parameters
    ----------
    pixels
        `probability`, `binary` and maybe `spread` ([class,] y, x), `valid` (y, x).
    plan
        What they were made by.
    geobox
        Where they lie.
    bundles
        What they were made with.
    """
    several = len(plan.prediction.classes) > 1
    variables = {}
    for name, array in pixels.items():
        dims = ("class", "y", "x") if several and name != "valid" else ("y", "x")
        variables[name] = xr.Variable(dims, array, variable_attrs(name, array.dtype.name))
    pred = with_georeference(variables, geobox, lattice_origin=plan.grid.origin)
    if several:
        pred = pred.assign_coords({"class": list(plan.prediction.classes)})
    return pred.assign_coords(time=np.datetime64(f"{plan.year}-01-01", "ns")).assign_attrs(
        bundle_id=bundle_ids(bundles), bundle_classes=json.dumps(plan.prediction.classes), **plan.prediction.attrs
    )


def cell_outlines(haloed: xr.Dataset, *, rule: OutlineSpec) -> geopandas.GeoDataFrame:
    """Return outlines of a cell, with `cut` and `prob_counts`, so that those of neighbours can be merged with them.

    Parameters
    ----------
    haloed
        The cell and `rule.halo` pixels around it, of which only `valid` counts: False where nothing is mapped.
    rule
        What is outlined.
    """
    return extract_footprints(
        haloed,
        min_area_m2=rule.least_area_m2,
        threshold=rule.threshold,
        edge_distance=rule.edge_distance,
        area_thresholds=rule.area_thresholds or (),
        nodata_fraction=rule.nodata_fraction,
        halo=rule.halo,
    )


def footprints_parquet(footprints: geopandas.GeoDataFrame) -> bytes:
    """Return GeoParquet 1.1 with bounding boxes, as `write_footprints` writes it."""
    buffer = io.BytesIO()
    footprints.to_parquet(buffer, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")
    return buffer.getvalue()


class PeakMemory:
    """Greatest resident memory of this process since a moment.

    The system keeps the greatest ever, which is exact where it has risen since; else the greatest of some samples.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._greatest_ever()
        self._sampled = 0
        self.sample()

    def sample(self) -> None:
        """Look now."""
        self._sampled = max(self._sampled, int(self._process.memory_info().rss))

    @property
    def n_bytes(self) -> int:
        """The greatest so far, bytes."""
        now = self._greatest_ever()
        return now if now > self._before else self._sampled

    @staticmethod
    def _greatest_ever() -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
