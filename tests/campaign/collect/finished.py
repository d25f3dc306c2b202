"""Cells that are finished without a network: a made-up map is cut up and written as tasks write it."""

import io
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.ndimage import gaussian_filter

from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.ledger import CampaignLedger, write_prices
from rtsx.campaign.map import create_map, map_store, map_year
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import OutlineSpec, Prices
from rtsx.campaign.records import CommitRecord
from rtsx.cube import export_cog
from rtsx.cube.build_state import DigestStore
from rtsx.cube.georeference import with_georeference
from rtsx.footprints import extract_footprints
from rtsx.grid import Grid
from rtsx.inference.predict import variable_attrs
from rtsx.storage.object_store import ObjectStore, open_object_store
from tests.campaign.plans import make_plan

TOP, LEFT = 300, -210
"""Cell at the upper left of the maps; -210 is inside a partition, so that borders of partitions cross the maps."""

Pixels = dict[str, NDArray[Any]]


def plan_of(
    rows: int,
    columns: int,
    *,
    cell: int = 32,
    without: Iterable[Address] = (),
    year: int = 2024,
    spec: OutlineSpec | None = None,
    classes: tuple[str, ...] = ("target",),
    **changes: Any,
) -> CampaignPlan:
    """A plan of rows and columns of cells; `without` are left out, counted from the upper left."""
    grid = Grid("EPSG:3413", 40.0, cell_size=cell)
    left_out = set(without)
    cells = [(TOP + j, LEFT + i) for j in range(rows) for i in range(columns) if (j, i) not in left_out]
    plan = make_plan()
    shape = (rows * cell, columns * cell)
    tiling = replace(plan.prediction.tiling, shape=shape, offset=(TOP * cell, LEFT * cell))
    values: dict[str, Any] = {
        "year": year,
        "grid": grid,
        "rows": (TOP, TOP + rows),
        "columns": (LEFT, LEFT + columns),
        "cells": CellTable(np.array(cells, np.int32).reshape(-1, 2)),
        "prediction": replace(plan.prediction, tiling=tiling, classes=classes),
        "outlines": spec or OutlineSpec(min_area_m2=14400.0, edge_distance=3),
        "shard": cell // 2,
        "chunk": cell // 4,
    }
    return make_plan(**(values | changes))


def make_pixels(plan: CampaignPlan, *, seed: int, smooth: float = 3.0, threshold: float = 0.5) -> Pixels:
    """Objects of every size, some over several cells, and invalid ground."""
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.normal(size=plan.shape), smooth) * smooth
    level = np.clip(50 + 60 * (field - threshold), 0, 100).astype(np.uint8)
    valid = gaussian_filter(random.normal(size=plan.shape), 4) < 0.15
    several = len(plan.prediction.classes)
    if several > 1:
        level = np.stack([np.roll(level, 7 * number, axis=0) for number in range(several)])
    return {
        "probability": np.where(valid, level, np.uint8(255)),
        "binary": np.where(valid, (level >= 50).astype(np.uint8), np.uint8(255)),
        "valid": valid,
    }


def masked(pixels: Pixels, plan: CampaignPlan, cells: Iterable[Address]) -> Pixels:
    """The map with nothing but these cells on it."""
    known = np.zeros(plan.shape, bool)
    for cell in cells:
        known[plan.region(cell)] = True
    nodata = np.uint8(255)
    return {
        "probability": np.where(known, pixels["probability"], nodata),
        "binary": np.where(known, pixels["binary"], nodata),
        "valid": pixels["valid"] & known,
    }


def dataset(pixels: Pixels, plan: CampaignPlan, geobox: GeoBox) -> xr.Dataset:
    """A prediction of the year."""
    classes = plan.prediction.classes
    variables = {
        name: xr.Variable(("class", "y", "x")[-array.ndim :], array, variable_attrs(name, array.dtype.name))
        for name, array in pixels.items()
    }
    pred = with_georeference(variables, geobox, lattice_origin=plan.grid.origin)
    if len(classes) > 1:
        pred = pred.assign_coords({"class": list(classes)})
    attrs = {"bundle_id": "tiny", "bundle_digest": "+".join(plan.prediction.members), "bundle_classes": list(classes)}
    return pred.assign_coords(time=np.datetime64(f"{plan.year}-01-01", "ns")).assign_attrs(attrs)


def whole(pixels: Pixels, plan: CampaignPlan) -> xr.Dataset:
    """The map as one prediction."""
    return dataset(pixels, plan, plan.geobox)


def whole_footprints(pixels: Pixels, plan: CampaignPlan) -> Any:
    """What is found on the map at once."""
    spec = plan.outlines
    assert spec is not None
    return extract_footprints(whole(pixels, plan), **_rule(spec))


def _rule(spec: OutlineSpec) -> dict[str, Any]:
    names = ("min_area_m2", "threshold", "edge_distance", "nodata_fraction")
    return {name: getattr(spec, name) for name in names} | {"area_thresholds": spec.area_thresholds or ()}


class Output:
    """An output whose cells are finished one by one."""

    def __init__(
        self,
        plan: CampaignPlan,
        path: str | Path,
        options: dict[str, Any] | None = None,
        *,
        store: ObjectStore | None = None,
    ) -> None:
        self.plan, self.path, self.options = plan, str(path), options or {}
        self.has_map = store is None
        self.valid = np.zeros(plan.shape, bool)
        self.objects = store or open_object_store(self.path, self.options)
        self.layout = YearLayout(plan.year)
        self.ledger = CampaignLedger(self.objects, self.layout)
        if self.has_map:
            create_map(self.path, plan, bundle_id="demo", storage_options=self.options)
        write_prices(self.objects, Prices(), year=plan.year)

    def finish(self, pixels: Pixels, cells: Iterable[Address], *, run: str = "a") -> None:
        """Write cells as a task does."""
        planned = masked(pixels, self.plan, self.plan.cells)["valid"]
        for cell in cells:
            self._finish(pixels, planned, cell, run=run)

    def _finish(self, pixels: Pixels, planned: NDArray[np.bool_], cell: Address, *, run: str) -> None:
        plan, layout = self.plan, self.layout
        assert plan.outlines is not None
        region = plan.region(cell)
        own = {name: np.ascontiguousarray(array[(..., *region)]) for name, array in pixels.items()}
        # Without a map, its digest all the same: what is counted on it is counted anew when it changes.
        self.valid[region] = own["valid"]
        objects = self._write_map(own, cell) if self.has_map else {f"{MAP}/{cell}": sha256(own["valid"]).hexdigest()}
        is_empty = not own["valid"].any()
        count = 0
        if not is_empty:
            outlines = self._outlines(pixels, planned, cell)
            count = len(outlines)
            if count:
                buffer = io.BytesIO()
                outlines.to_parquet(buffer, index=False, compression="zstd", write_covering_bbox=True)
                objects |= self._put(layout.outline(cell), buffer.getvalue())
            if plan.cogs:
                objects |= self._write_cogs(dataset(own, plan, plan.grid[cell].geobox), cell)
        mark = CommitRecord(
            cell=cell,
            plan_digest=plan.digest,
            state="empty" if is_empty else "mapped",
            objects={} if is_empty else objects,
            inputs=(),
            bundles=plan.prediction.members,
            versions={},
            n_valid=int(own["valid"].sum()),
            n_outlines=count,
            seconds=1.0,
            peak_memory_bytes=1,
            started="2025-01-01T00:00:00+00:00",
            finished="2025-01-01T00:00:01+00:00",
            run=run,
            worker="w",
        )
        assert self.ledger.commit(mark)

    def _outlines(self, pixels: Pixels, planned: NDArray[np.bool_], cell: Address) -> Any:
        """Outlines with a halo, in which cells that are not planned are invalid."""
        spec, (y, x) = self.plan.outlines, self.plan.region(cell)
        assert spec is not None
        halo = max(spec.edge_distance, 1)
        sides = [
            (one.start - halo, one.stop + halo, length) for one, length in zip((y, x), self.plan.shape, strict=True)
        ]
        inside = tuple(slice(max(start, 0), min(stop, length)) for start, stop, length in sides)
        beyond = [(max(-start, 0), max(stop - length, 0)) for start, stop, length in sides]
        haloed = {}
        for name, array in (pixels | {"valid": planned}).items():
            edges = [(0, 0)] * (array.ndim - 2) + beyond
            haloed[name] = np.pad(array[(..., *inside)], edges, constant_values=0 if name == "valid" else 255)
        return extract_footprints(
            dataset(haloed, self.plan, self.plan.grid[cell].haloed(halo)), halo=halo, **_rule(spec)
        )

    def _write_map(self, own: Pixels, cell: Address) -> dict[str, str]:
        store = DigestStore(map_store(self.path, self.options))
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
        place = (map_year(group, self.plan.year), ..., *self.plan.region(cell))
        for name, pixels in own.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            array[place] = pixels
        return {f"{MAP}/{key}": digest for key, digest in store.digests.items()}

    def _write_cogs(self, pred: xr.Dataset, cell: Address) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            files = export_cog(pred, folder)
            digests = [self._put(self.layout.cog(cell, file.stem), file.read_bytes()) for file in files]
        return {key: digest for one in digests for key, digest in one.items()}

    def _put(self, key: str, content: bytes) -> dict[str, str]:
        self.objects.put(key, content)
        return {key: sha256(content).hexdigest()}
