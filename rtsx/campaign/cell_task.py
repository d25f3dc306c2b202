"""The task of a campaign: one cell, from its sources to its commit record."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import Store

from rtsx.campaign.cell_input import CellReader, CellWindow, stamps_of
from rtsx.campaign.cell_output import CellShards, cell_dataset, cell_outlines, footprints_parquet
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.fetch import cubes_of
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.lease import held
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.map import answers_of, map_store
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.campaign.records import CommitRecord, InputVersion
from rtsx.campaign.task_queue import CellResult, CellTask
from rtsx.campaign.worker import PeakMemory, cell_result, worker_name
from rtsx.campaign.workers import hardware_name, versions_here
from rtsx.cube import CubeRecipe
from rtsx.cube.chunk_loader import MissingImage
from rtsx.cube.cog import encoded_cog
from rtsx.cube.pinning import resolve_images
from rtsx.errors import CampaignError, NoImageError
from rtsx.grid.grid import cell_id
from rtsx.inference.streaming import predict_region
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
        if self._ledger.mark(cell) is not None:
            return "skipped"
        with held(self._objects, self._layout, cell, run=run, lease_s=self.recipe.retry.lease_s) as lease:
            if self.most_lost is not None and lease.generation > self.most_lost:  # leases that nobody gave back
                raise CampaignError(
                    f"Cell {cell_id(*cell)} was not finished by {lease.generation - 1} workers that have vanished. See in their "
                    "logs what ended them, such as memory."
                )
            if self._ledger.mark(cell) is not None:  # by whoever held it before
                return "skipped"
            making = _Making(self, cell, run)
            try:
                return "done" if making.committed() else "skipped"
            except BaseException:
                with suppress(Exception):  # what went wrong first is what has to be told
                    making.give_way()
                raise

    @cached_property
    def hardware(self) -> str:
        """What runs the networks of this process; empty where what the recipe asks for is not here."""
        spec = self.recipe.prediction
        return hardware_name(spec.device, spec.backend)

    @cached_property
    def _layout(self) -> YearLayout:
        return YearLayout(self.plan.year)

    @cached_property
    def _objects(self) -> ObjectStore:
        return open_object_store(self.recipe.output, self.recipe.storage_options)

    @cached_property
    def _cube_of(self) -> Callable[[Address], CubeRecipe]:
        return cubes_of(self.recipe, self.plan, self._objects, digest=self.plan_digest)

    @cached_property
    def _ledger(self) -> CampaignLedger:
        return CampaignLedger(self._objects, self._layout)

    @cached_property
    def _map(self) -> Store:
        return map_store(self.recipe.output, self.recipe.storage_options)

    @cached_property
    def _planned(self) -> NDArray[np.bool_]:
        """Cells (row, column) of the map that are in the plan; a picture, because a set of a million is a hundred times it."""
        (top, bottom), (left, right) = self.plan.rows, self.plan.columns
        planned = np.zeros((bottom - top, right - left), bool)
        y, x = (self.plan.cells.addresses - (top, left)).T
        planned[y, x] = True
        return planned

    def is_planned(self, cell: Address) -> bool:
        """Test whether a cell of the map is in the plan."""
        return bool(self._planned[cell[0] - self.plan.rows[0], cell[1] - self.plan.columns[0]])


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
        self._n_outlines = 0

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
        return self._told(inputs, gaps)

    @property
    def _n_valid(self) -> int:
        return int(np.count_nonzero(self._shards.pixels["valid"]))

    def _predict(self, reader: CellReader) -> None:
        with self._shards.filling() as shards:
            for rows, answers in predict_region(reader, self._ground.region, runner=reader.runner):
                shards.fill(rows, answers)
                self._memory.sample()

    def _derive(self, reader: CellReader) -> None:
        """Outlines and GeoTIFFs."""
        plan, layout, bundles = self._job.plan, self._job._layout, self._job.recipe.bundles
        if plan.outlines is not None:
            planned = [part for address, part in self._ground.neighbours if self._job.is_planned(address)]
            haloed = self._shards.haloed | {"valid": reader.halo_valid(planned)}
            geobox = plan.grid[self._cell].haloed(self._ground.halo)
            outlines = cell_outlines(cell_dataset(haloed, plan, geobox=geobox, bundles=bundles), rule=plan.outlines)
            self._n_outlines = len(outlines)
            if self._n_outlines:
                self._put(layout.outline(self._cell), footprints_parquet(outlines))
        if plan.cogs:
            pred = cell_dataset(self._shards.pixels, plan, geobox=plan.grid[self._cell].geobox, bundles=bundles)
            for name in answers_of(plan)[:-1]:
                self._put(layout.cog(self._cell, name), encoded_cog(pred, name))
        self._memory.sample()

    def _put(self, key: str, content: bytes) -> None:
        self._job._objects.put(key, content)
        self._objects[key] = sha256(content).hexdigest()

    def _remove_stale(self) -> None:
        """Remove what an earlier run of this cell has written and this one has not, so that nobody collects it."""
        layout = self._job._layout
        for key in (
            layout.outline(self._cell),
            *(layout.cog(self._cell, name) for name in answers_of(self._job.plan)[:-1]),
        ):
            if key not in self._objects:
                self._job._objects.delete(key)

    def _told(self, inputs: tuple[InputVersion, ...], gaps: list[MissingImage]) -> CommitRecord:
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
