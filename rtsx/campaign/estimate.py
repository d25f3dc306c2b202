"""Estimate what a campaign takes: tiles, memory, bytes, hours and money, with the time of a tile measured on this device."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from types import MappingProxyType

import numpy as np

from rtsx.campaign.cell_input import cubes_of, likely_cells
from rtsx.campaign.cells import mean_over_compute
from rtsx.campaign.costs import CellHours, Costs, MachineEstimate
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, planned_years
from rtsx.campaign.plan import CampaignPlan, read_plan
from rtsx.campaign.planning import TaskMemory
from rtsx.campaign.preflight import opened_sample
from rtsx.campaign.recipe import CampaignRecipe, Prices
from rtsx.inference.device import Hardware
from rtsx.inference.kernel import BlockInput
from rtsx.inference.memory import available_bytes
from rtsx.inference.runner import Runner
from rtsx.model import ModelBundle
from rtsx.model.backend_choice import fixed_sides
from rtsx.model.inputs import Packing
from rtsx.model.network import resolve_device
from rtsx.pages import render_text
from rtsx.storage.object_store import ObjectStore, open_object_store

_LARGER = (2, 4)
"""Times as wide as they are, that cells are compared with."""
_MANY = (0, 16)
"""Cells along each side of a map whose edges hardly count."""
_MOST_MARKS = 2000
"""Commit records that are read to know what cells took."""
_WORTH_TELLING = 0.01
"""Share of the work that larger cells have to save to be named."""


@dataclass(frozen=True, kw_only=True)
class CampaignEstimate:
    """What is known of a campaign before it runs."""

    name: str
    """Name of the campaign."""
    year: int
    """Year of the map."""
    cells: int
    """Cells that are run."""
    cell_size: int
    """Side of a cell, px."""
    pixels: int
    """Pixels of all cells."""
    tiles: int
    """Tiles that are computed, those without a valid pixel included; one that several cells compute counts for each."""
    tiling: str
    """Size, overlap and blend of the tiles, in words."""
    over_compute: float
    """Pixels that the network sees per pixel of the map, overlaps and borders of cells included."""
    over_compute_of_larger: Mapping[int, float]
    """The same for larger cells, by their side in px; only those that would save something."""
    memory_bytes: int
    """Bound of what one task needs, besides libraries and weights."""
    read_bytes: int
    """Bytes of the layers on the map's pixels, halos included, before any compression."""
    write_bytes: int
    """Bytes of the maps before compression, as if every pixel were valid: more than will be stored."""
    device_hours: float | None
    """Hours of one device for the networks alone; None where nothing was measured."""
    device_cost: float | None
    """Price of these hours; None where they or their price are not known."""
    read_cost: float | None
    """Price of reading `read_bytes`, likewise."""
    storage_cost: float | None
    """Price of storing `write_bytes` for a month, likewise."""
    currency: str
    machines: tuple[MachineEstimate, ...] = ()
    """The whole campaign on each machine that has a price."""

    @property
    def megapixels(self) -> float:
        """Pixels of all cells, 10^6."""
        return self.pixels / 1e6

    @classmethod
    def of(
        cls,
        plan: CampaignPlan,
        recipe: CampaignRecipe,
        seconds_per_tile: float | None = None,
        *,
        hardware: str = "",
        done: Mapping[str, CellHours] | None = None,
    ) -> "CampaignEstimate":
        """Estimate a plan; asks the sources for the metadata of one cell, and no server for what a stored search has answered.

        Parameters
        ----------
        plan
            What will be run.
        recipe
            That the plan comes from.
        seconds_per_tile
            As `seconds_per_tile` finds it on the device in question; None leaves hours and their price out.
        hardware
            What that device is, as commit records name it; empty where nobody knows.
        done
            What finished cells took, from `finished_cells`; None compares no machines.

        Raises
        ------
        CampaignError, CubeError
            No source can be asked for the dtypes of the layers.
        """
        objects = open_object_store(recipe.output, recipe.storage_options)
        cubes = cubes_of(recipe, plan, objects, digest=plan.digest)
        sample = opened_sample(cubes, plan.cells, likely=likely_cells(recipe, plan.cells, stored=plan))
        memory = TaskMemory.of(recipe, sample, layers=plan.prediction.layers)
        work, prices, tiling = plan.work, recipe.prices, plan.prediction.tiling
        read = work.n_read * memory.stored_bytes
        maps = 2 * len(plan.prediction.classes)
        written = work.n_pixels * (maps + 1 + maps * plan.cogs)
        hours = None if seconds_per_tile is None else work.n_tiles * seconds_per_tile / 3600
        measured = {} if seconds_per_tile is None else {hardware: seconds_per_tile}
        return cls(
            name=plan.name,
            year=plan.year,
            cells=work.n_cells,
            cell_size=plan.grid.cell_size,
            pixels=work.n_pixels,
            tiles=work.n_tiles,
            tiling=f"{tiling.tile:,} px, overlap {tiling.overlap}, trim {tiling.trim}, {tiling.blend}",
            over_compute=work.over_compute,
            over_compute_of_larger=MappingProxyType(dict(_of_larger(plan, recipe, memory))),
            memory_bytes=memory.estimate(tiling).total_bytes,
            read_bytes=read,
            write_bytes=written,
            device_hours=hours,
            device_cost=_product(hours, prices.worker_hour(hardware)),
            read_cost=_product(read / 1e9, prices.gigabyte_read),
            storage_cost=_product(written / 1e9, prices.gigabyte_month),
            currency=prices.currency,
            machines=tuple(
                MachineEstimate.of(one, cells=work.n_cells, tiles=work.n_tiles, measured=measured, done=done or {})
                for one in (() if done is None else prices.machines)
            ),
        )

    def __str__(self) -> str:
        costs = {"devices": self.device_cost, "reading": self.read_cost, "storage a month": self.storage_cost}
        known = {what: cost for what, cost in costs.items() if cost is not None}
        return render_text("estimate.txt", {"of": self, "costs": known})


def _of_larger(plan: CampaignPlan, recipe: CampaignRecipe, memory: TaskMemory) -> Iterator[tuple[int, float]]:
    """Yield over-compute of cells several times as wide, where it is less; tiles chosen anew as far as the recipe allows."""
    available = recipe.prediction.memory_bytes or available_bytes()
    for factor in _LARGER:
        larger = replace(memory, side=factor * memory.side)
        tiling = larger.tiling(recipe.prediction, rows=_MANY, columns=_MANY, available=available)
        value = mean_over_compute(tiling, side=larger.side)
        if value < plan.work.over_compute * (1 - _WORTH_TELLING):
            yield larger.side, value


def finished_cells(objects: ObjectStore, plan: CampaignPlan) -> dict[str, CellHours]:
    """Read by hardware what cells took: of this year, or of the newest one whose cells were made in the same way.

    Of many, marks of some thousand cells spread over all are read.
    """
    for year in sorted(planned_years(objects), key=lambda one: (one == plan.year, one), reverse=True):
        layout = YearLayout(year)
        ledger = CampaignLedger(objects, layout)
        earlier, done = read_plan(objects, year), sorted(ledger.done())
        if earlier is None or not done or not _is_alike(earlier, plan):
            continue
        seconds = defaultdict[str, list[float]](list)
        for mark in ledger.marks(done[:: ceil(len(done) / _MOST_MARKS)], damaged=[]):
            seconds[mark.hardware].append(mark.seconds)
        share = sum(map(len, seconds.values())) / len(done)
        paid = Costs.paid(ledger.runs(damaged=[]), Prices()).expenses
        hours = {one.hardware: one.hours for one in paid}
        return {
            name: CellHours.of(each, paid_hours=hours.get(name, 0.0), share=share) for name, each in seconds.items()
        }
    return {}


def _is_alike(one: CampaignPlan, other: CampaignPlan) -> bool:
    """Test whether cells of two plans take the same work."""
    tiling = replace(one.prediction.tiling, shape=other.prediction.tiling.shape, offset=other.prediction.tiling.offset)
    prediction = replace(one.prediction, tiling=tiling)
    return (prediction, one.grid, one.runtime, one.cogs) == (other.prediction, other.grid, other.runtime, other.cogs)


def _product(amount: float | None, price: float | None) -> float | None:
    return None if amount is None or price is None else amount * price


_LEAST_S = 2.0
"""Seconds after which enough was seen."""
_MOST_PASSES = 20
_SMALL = 256
"""Side of the tile that loads the networks on a CPU, px, where one of the plan's takes many seconds."""


def seconds_per_tile(
    bundles: Sequence[ModelBundle],
    plan: CampaignPlan,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    least_s: float = _LEAST_S,
) -> float:
    """Return seconds that one tile of a plan takes on a device of this machine, all bundles, turns and scales together.

    Pixels are made up and lie in memory, so reading them and writing maps comes on top. A first pass, which loads the
    networks, does not count; then tiles of the plan's own size are run, because larger ones take longer for each pixel.

    Parameters
    ----------
    bundles
        Those of the plan.
    plan
        What will be run.
    device
        As in `predict_cube`.
    batch_size
        Tiles per forward pass; None leaves it to the device.
    least_s
        Seconds that are measured at least, unless twenty passes take less.

    Raises
    ------
    BundleError, MissingExtraError
        The device or the backend of the plan is not there, or cannot run a bundle.
    MemoryPlanError
        The device has no memory for a single tile.
    """
    where = resolve_device(device, backends=[plan.runtime["backend"]])
    tile = plan.prediction.tiling.tile
    strip = partial(_strip, plan, bundles, device=device, batch_size=batch_size)
    many = strip(tile=tile, many=1)[0].batch_size_on(Hardware.of(where))
    _, run = strip(tile=tile, many=many)
    # Other backends and GPUs prepare for tiles of one size, so these have to be the plan's own.
    is_small = where.type == "cpu" and plan.runtime["backend"] == "eager"
    first = strip(tile=_small(plan, bundles), many=1)[1] if is_small else run
    first()
    passes, begin = 0, time.perf_counter()
    while passes < _MOST_PASSES and (passes == 0 or time.perf_counter() - begin < least_s):
        run()
        passes += 1
    return (time.perf_counter() - begin) / passes / many


def _strip(
    plan: CampaignPlan, bundles: Sequence[ModelBundle], *, tile: int, many: int, device: str, batch_size: int | None
) -> tuple[Runner, Callable[[], object]]:
    """Return what runs as many tiles as go together, side by side over made-up pixels, and a call that runs them once."""
    shape = (tile, many * tile)
    tiling = replace(plan.prediction.tiling, shape=shape, offset=(0, 0), tile=tile, overlap=0, trim=0)
    random = np.random.default_rng(0)
    packings = {name: Packing() for name in plan.prediction.layers}
    runner = Runner(
        plan=replace(plan.prediction, tiling=tiling),
        bundles=tuple(bundles),
        packings=packings,
        device=device,
        precision=plan.runtime["precision"],
        backend=plan.runtime["backend"],
        batch_size=batch_size,
    )
    window = BlockInput(
        region=(slice(0, shape[0]), slice(0, shape[1])),
        stored={name: random.random(shape, np.float32) for name in packings},
        packings=packings,
        valid=np.ones(shape, np.bool_),
    )
    return runner, lambda: runner.run(window, tiling.all)


def _small(plan: CampaignPlan, bundles: Sequence[ModelBundle]) -> int:
    """Return the side of the smallest tile that is of use, px; the plan's where a network takes no other."""
    tiling = plan.prediction.tiling
    if any(any(fixed_sides(bundle.source)) for bundle in bundles):
        return tiling.tile
    sizes = range(min(tiling.tile, _SMALL) // tiling.stride * tiling.stride, 0, -tiling.stride)
    fitting = (size for size in sizes if not any(size * scale % tiling.stride for scale in plan.prediction.scales))
    return next(fitting, tiling.tile)
