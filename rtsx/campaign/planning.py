"""Plan a campaign: a recipe to a frozen plan, with the memory of one task; reads metadata of single cells and no pixel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import xarray as xr

from rtsx.campaign.cell_input import FetchedImages, cubes_of, layers_of, likely_cells
from rtsx.campaign.cells import Address, campaign_tiling, chosen_cells, widest_read
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, planned_years, write_prices
from rtsx.campaign.map import create_map
from rtsx.campaign.plan import CampaignPlan, put_plan, read_plan, require_same, require_same_map, write_plan
from rtsx.campaign.preflight import check_object_store, opened_sample, require_space
from rtsx.campaign.products.footprints import water_polygons
from rtsx.campaign.recipe import CampaignRecipe, OutlineSpec, PredictionSpec
from rtsx.campaign.searches import ask_searches, plan_turn
from rtsx.cube import CubeRecipe, geobox_of, layer_names
from rtsx.errors import BundleError, CampaignError
from rtsx.footprints.pieces import AREA_THRESHOLDS
from rtsx.inference.device import CPU, Hardware, default_batch_size, tiles_ahead
from rtsx.inference.ensemble import (
    bundle_ids,
    check_runtime,
    ensemble,
    tiling_needs_of,
    warn_of_choices,
    warn_of_pixel_size,
)
from rtsx.inference.memory import MemoryPlan, available_bytes, largest_tile, mask_bytes, planned_hardware, require_card
from rtsx.inference.runner import forward_bytes_per_pixel, needed_layers, packings_of, prediction_plan
from rtsx.model import ModelBundle, OutlineChoice
from rtsx.storage import refuse_other_format
from rtsx.storage.object_store import ObjectStore, open_object_store
from rtsx.tiling import TilePlan

# Bands of stored pixels at a time: the one at work, the one that is read meanwhile, and both once more while they are joined.
_BANDS = 4
# Blocks of network input, and bands of output, at a time: what is at work, and what waits for the tiles below.
_BLOCKS = 2
# What the windows of one block or band span where a tile is smaller, px.
_SPAN = 2048
# Of a pixel of a cell whose objects are outlined: a label beside each map.
_LABEL_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class TaskMemory:
    """What decides the memory of a task but for its tiles."""

    bundles: Sequence[ModelBundle]
    stored_bytes: int
    """Of one pixel of all layers that are read, and of its validity."""
    side: int
    """Side of a cell, px."""
    is_outlined: bool
    """Whether objects are outlined."""
    batch_size: int | None
    """Tiles per forward pass; None for the device's own."""
    hardware: Hardware = CPU
    """What runs the networks; a GPU holds them, and their input, in memory of its own."""
    precision: str = "auto"
    """Of the network's arithmetic."""
    mask_bytes: int = 0
    """Of a forward pass of the largest network that masks clouds, which runs on the CPU."""
    spread: bool = False
    """Whether members are added up one by one."""

    @classmethod
    def of(cls, recipe: CampaignRecipe, sample: xr.Dataset, *, layers: Sequence[str]) -> "TaskMemory":
        """Of a recipe, whose layers are stored as those of the cube of a cell are; reads no pixel."""
        return cls(
            bundles=recipe.bundles,
            stored_bytes=1 + sum(sample[name].dtype.itemsize for name in layers),
            side=recipe.cube.grid.cell_size,
            is_outlined=recipe.outlines is not None,
            batch_size=recipe.prediction.batch_size,
            hardware=planned_of(recipe),
            precision=recipe.prediction.precision,
            mask_bytes=mask_bytes(sample, layers),
            spread=recipe.prediction.spread,
        )

    def estimate(self, tiling: TilePlan) -> MemoryPlan:
        """Estimate what a worker process needs for one cell at most, besides libraries and weights.

        Parameters
        ----------
        tiling
            Of the whole map.
        """
        across = widest_read(tiling, side=self.side)
        span = max(tiling.tile, _SPAN)
        height = min(span, self.side + 2 * tiling.tile)
        classes = len(self.bundles[0].classes)
        kept = (2 + self.spread) * classes + 1 + (_LABEL_BYTES if self.is_outlined else 0)
        if self.hardware.name != "CPU":  # batches are filled from the bands below, of which a cell has only so many
            tiles = self._rows(tiling) * ceil(self.side / tiling.step)
            ahead = tiles_ahead(self.hardware, batch_size=self._batch_size(tiling))
            more = min(ceil(ahead / tiles), ceil(self.side / (self._rows(tiling) * tiling.step)))
            return MemoryPlan(
                window_bytes=(_BANDS + more) * height * across * self.stored_bytes,
                output_bytes=(_BLOCKS + more) * 4 * self._sums * height * across + kept * self.side**2,
                network_bytes=self.mask_bytes,
            )
        return MemoryPlan(
            window_bytes=_BANDS * height * across * self.stored_bytes
            + _BLOCKS * height * min(span, across) * 4 * self._channels,
            output_bytes=_BLOCKS * 4 * self._sums * height * across + kept * self.side**2,
            network_bytes=max(self._pixel_bytes * self._batch_size(tiling) * tiling.tile**2, self.mask_bytes),
        )

    def tiling(
        self,
        spec: PredictionSpec,
        *,
        rows: tuple[int, int],
        columns: tuple[int, int],
        available: int,
        settled: int | None = None,
    ) -> TilePlan:
        """Choose the tiling of a map that a worker of `available` bytes can run, as `campaign_tiling` does."""
        needs = tiling_needs_of(
            self.bundles, scales=spec.scales, measures="auto" in (spec.tile, spec.overlap, spec.blend)
        )
        return campaign_tiling(
            rows=rows,
            columns=columns,
            side=self.side,
            needs=needs,
            spec=spec,
            largest=largest_tile(self.bundles, hardware=self.hardware, precision=spec.precision, available=available),
            fits=lambda tiling: self.estimate(tiling).total_bytes <= available,
            settled=settled,
        )

    def require(self, tiling: TilePlan, *, available: int) -> None:
        """Refuse tiles that a worker of `available` bytes cannot hold, or its GPU.

        Raises
        ------
        MemoryPlanError
            One of them has less.
        """
        self.estimate(tiling).require(available)
        span, batch_size = max(tiling.tile, _SPAN), self._batch_size(tiling)
        require_card(
            self.hardware,
            network_bytes=self._pixel_bytes * batch_size * tiling.tile**2,
            block_bytes=span**2 * (self.stored_bytes + 4 * self._channels + 4 * self._sums),
            tiles_per_block=self._rows(tiling) ** 2,
            batch_size=batch_size,
            tile=tiling.tile,
        )

    @property
    def _channels(self) -> int:
        """Input channels of all members that want different ones."""
        return sum(len(layers) for layers, _ in {(bundle.inputs, bundle.fill) for bundle in self.bundles})

    @property
    def _sums(self) -> int:
        """Outputs that are added up for each pixel."""
        return len(self.bundles[0].classes) * (len(self.bundles) if self.spread else 1)

    @property
    def _pixel_bytes(self) -> int:
        """Of one forward pass."""
        return max(forward_bytes_per_pixel(each, self.hardware, precision=self.precision) for each in self.bundles)

    def _batch_size(self, tiling: TilePlan) -> int:
        default = default_batch_size(self.hardware, tile=tiling.tile, bytes_per_pixel=self._pixel_bytes)
        return default if self.batch_size is None else self.batch_size

    @staticmethod
    def _rows(tiling: TilePlan) -> int:
        """Rows of tiles of one band."""
        return max(1, (_SPAN - tiling.overlap) // tiling.step)


def planned_of(recipe: CampaignRecipe) -> Hardware:
    """Return what will run the networks of a campaign."""
    spec = recipe.prediction
    try:
        return planned_hardware(recipe.bundles, device=spec.device, backend=spec.backend)
    except BundleError:  # a cluster that is started later has it
        return Hardware.named(spec.device)


def plan_campaign(
    recipe: CampaignRecipe, *, like: CampaignPlan | None = None, answered: Callable[[Address], CubeRecipe] | None = None
) -> CampaignPlan:
    """Plan a campaign: its cells in their order, the tiles of its map, and all that its bytes depend on.

    Parameters
    ----------
    recipe
        What is asked for.
    like
        A plan that is stored already, of this year or an earlier one. Where the recipe leaves the tile open, and bundles
        and grid are the same, its tile is kept: the largest that the memory holds is another one on every machine.
    answered
        What gives the recipe of the layers of a cell without asking its sources; None asks them.

    Returns
    -------
    CampaignPlan
        Equal for equal recipes. A million cells take some seconds.

    Raises
    ------
    CampaignError
        The region has no cell or no images, a source has time steps or a sun that moves, or the backend is left open.
    BundleError, PlanError
        Layers, units, tile, overlap or turns do not go with the bundles.
    MemoryPlanError
        A worker has no memory for one cell, or its GPU none for its tiles.
    CubeError
        A source cannot be asked.

    Warns
    -----
    EnsembleWarning
        Members of an ensemble have chosen other thresholds or outlines than the first, whose choice counts.
    PixelSizeWarning
        Pixels are not of the size that a bundle was trained with.
    """
    spec, bundles, grid = recipe.prediction, ensemble(recipe.bundles), recipe.cube.grid
    _check(recipe)
    choice = chosen_cells(grid, recipe.region, without=recipe.without, extent=recipe.extent)
    likely = likely_cells(recipe, choice.cells, stored=like)
    sample = opened_sample(answered or recipe.cube, choice.cells, likely=likely)
    available = spec.memory_bytes or available_bytes()
    memory = TaskMemory.of(recipe, sample, layers=needed_layers(bundles, layer_names(sample)))
    is_alike = (
        spec.tile == "auto"
        and like is not None
        and (like.grid, like.prediction.members) == (grid, tuple(bundle.digest for bundle in bundles))
        and like.prediction.scales == spec.scales
    )
    settled = like.prediction.tiling.tile if is_alike and like is not None else None
    tiling = memory.tiling(spec, rows=choice.rows, columns=choice.columns, available=available, settled=settled)
    if like is None:  # else it was asked before, perhaps for larger machines than this one
        memory.require(tiling, available=available)
    prediction = prediction_plan(
        bundles,
        layers=layer_names(sample),
        tiling=tiling,
        augment=spec.augment,
        scales=spec.scales,
        merge=spec.merge,
        keep_members=spec.spread,
        dtype="uint8",
    )
    packings_of(bundles, sample, layers=prediction.layers)
    warn_of_choices(bundles)
    warn_of_pixel_size(bundles, geobox_of(sample), scales=spec.scales)
    return CampaignPlan(
        name=recipe.name,
        year=recipe.year,
        grid=grid,
        rows=choice.rows,
        columns=choice.columns,
        cells=choice.cells,
        prediction=prediction,
        layers=layers_of(recipe.cube),
        outlines=None if recipe.outlines is None else _outlines(recipe.outlines, chosen=prediction.outlines, like=like),
        cogs=recipe.cogs,
        shard=recipe.shard,
        chunk=recipe.chunk,
        runtime={"backend": spec.backend, "precision": spec.precision},
    )


def _outlines(spec: OutlineSpec, *, chosen: OutlineChoice | None, like: CampaignPlan | None) -> OutlineSpec:
    """Fill in what a recipe leaves open: threshold and least area as the bundle says, columns as in the plan before."""
    if chosen is not None:
        threshold = chosen.threshold if spec.threshold is None else spec.threshold
        min_area_m2 = chosen.min_area_m2 if spec.min_area_m2 is None else spec.min_area_m2
        spec = replace(spec, threshold=threshold, min_area_m2=min_area_m2)
    thresholds = spec.area_thresholds
    if thresholds is None:  # so that years have the same columns
        before = None if like is None else like.outlines
        thresholds = AREA_THRESHOLDS if before is None else before.area_thresholds
    return replace(spec, min_area_m2=spec.least_area_m2, area_thresholds=thresholds)


def _check(recipe: CampaignRecipe) -> None:
    """Refuse what no cell could do, before any source is asked."""
    spec = recipe.prediction
    check_runtime(
        device=spec.device,
        precision=spec.precision,
        backend=spec.backend,
        batch_size=spec.batch_size,
        scales=spec.scales,
    )
    if str(spec.backend) == "auto":  # which the annotation rules out, and nothing before
        raise CampaignError(
            "A campaign needs one backend, because workers that chose differently would not write the same bytes; got "
            "'auto'. Take 'eager', which every bundle has, or another that is installed on all workers."
        )
    if spec.memory_bytes is not None and spec.memory_bytes < 1:
        raise CampaignError(f"Memory of a worker is a number of bytes above 0; got {spec.memory_bytes}.")
    if spec.spread and len({bundle.digest for bundle in recipe.bundles}) < 2:
        raise CampaignError(
            "Spread is how far the members of an ensemble disagree, but there is one model. Name several, or leave spread out."
        )
    if spec.spread and spec.blend == "max":
        raise CampaignError(
            "Spread cannot go with blend max, where members count no more one by one. Take another blend."
        )
    timed = [source.name for source in recipe.cube.sources if source.group != "all"]
    if timed:
        raise CampaignError(
            f"A campaign maps one year, and sources {timed} have time steps of their own. Take group='all' and a period "
            "within the year."
        )
    moving = [source.name for source in recipe.cube.sources if source.sun_of is not None]
    if moving:
        raise CampaignError(
            f"Sources {moving} take the sun of hillshade from the images near each cell (sun_of), so that the map would have "
            "seams where cells meet. Leave sun_of out, for the fixed sun that is the same everywhere."
        )


_BLOCK_BYTES = 4096
"""Of a disk that every mark takes. What maps take nobody knows beforehand: they compress to anything, and sea to nothing."""


def create_plan(recipe: CampaignRecipe, *, config: str) -> CampaignPlan:
    """Create the plan of a recipe, store it beside its output and make room for its map; return the stored one where it is the same.

    A new plan asks each search of a STAC API for the ground of all cells, and stores the items beside itself.

    Parameters
    ----------
    recipe
        What is asked for.
    config
        Text that is stored beside the plan.

    Raises
    ------
    CampaignError
        The output cannot keep marks, holds another plan or cells of one, or the recipe cannot work.
    OutputNotWritableError
        The output cannot be written, or has no room.
    CubeError
        A source cannot be asked.

    Warns
    -----
    RuntimeWarning
        Cells have to ask a STAC API themselves, because its items hold secrets, or it does not answer for many cells.
    """
    refuse_other_format(recipe.output, what="the folder of a campaign")
    objects = open_object_store(recipe.output, recipe.storage_options)
    check_object_store(objects, lease_s=recipe.retry.lease_s)
    if read_plan(objects, recipe.year) is not None:
        return _planned(recipe, objects, config=config)
    # One plans, and the others find its plan: a tile that follows from the memory would be another one elsewhere, and what searches answer, too.
    with plan_turn(recipe):
        return _planned(recipe, objects, config=config)


def _planned(recipe: CampaignRecipe, objects: ObjectStore, *, config: str) -> CampaignPlan:
    """Return the plan that is stored, or make and store it."""
    stored = read_plan(objects, recipe.year)
    water, before = (None if one is None or one.outlines is None else one.outlines.water for one in (recipe, stored))
    if water is not None and water != before:  # not at each start of a worker, which may lack the file
        water_polygons(water)
    answered = None if stored is None else cubes_of(recipe, stored, objects, digest=stored.digest)
    if recipe.fetched is not None:
        if stored is None:
            raise CampaignError(
                f"{recipe.output} holds no plan of {recipe.year}, and a store of fetched pixels belongs to a plan. Plan the campaign "
                "and fetch it where there is a network: rtsx campaign plan, then rtsx campaign fetch."
            )
        FetchedImages(recipe.fetched, stored.year, stored.digest).require_all(stored)
    years = planned_years(objects)
    like = stored or (read_plan(objects, years[-1]) if years else None)
    plan = plan_campaign(recipe, like=like, answered=answered)
    if stored is not None:
        require_same(stored, plan)
        if stored.outlines != plan.outlines:  # in water, which changes no cell
            stored = replace(stored, outlines=plan.outlines)
            put_plan(objects, stored)
        plan = stored
        if config:  # what changes no byte may have changed, such as retries and devices, and workers read it here
            objects.put(YearLayout(plan.year).config, config.encode())
    else:
        _refuse_foreign_marks(objects, plan)
        require_space(recipe.output, len(plan.cells) * _BLOCK_BYTES)
        require_same_map(objects, plan)
        create_map(recipe.output, plan, bundle_id=bundle_ids(recipe.bundles), storage_options=recipe.storage_options)
        ask_searches(objects, plan, recipe.cube)
        write_plan(objects, plan, config=config)
    write_prices(objects, recipe.prices, year=plan.year)
    return plan


def _refuse_foreign_marks(objects: ObjectStore, plan: CampaignPlan) -> None:
    """Raise where cells were done by another plan that is gone: they would pass for cells of this one."""
    for mark in CampaignLedger(objects, YearLayout(plan.year)).marks():
        if mark.plan_digest != plan.digest:
            raise CampaignError(
                f"The output holds cells of {plan.year} that were made by a plan that is not there any more "
                f"({mark.plan_digest[:12]}, this one is {plan.digest[:12]}). Restore it, or take another output."
            )
        return  # one speaks for all, because no run mixes plans
