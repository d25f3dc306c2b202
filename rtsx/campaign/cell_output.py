"""What one cell writes: its shards of the map, its outlines and its GeoTIFFs."""

import asyncio
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from itertools import product
from typing import Any

import geopandas
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import MAP
from rtsx.campaign.map import ShardEncoder, answers_of, map_year
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import OutlineSpec
from rtsx.cube.build_state import DigestStore
from rtsx.cube.georeference import with_georeference
from rtsx.footprints import extract_footprints
from rtsx.inference.blocks import Region
from rtsx.inference.kernel import NODATA
from rtsx.inference.predict import variable_attrs
from rtsx.model import ModelBundle


class CellShards:
    """The place of one cell in the map of one year, and its pixels on their way there."""

    def __init__(self, store: Store, plan: CampaignPlan, cell: Address) -> None:
        self._store = DigestStore(store)
        self._names = answers_of(plan)
        self._encoder = ShardEncoder(store, self._names)
        self._arrays = self._encoder.arrays
        self._year = map_year(zarr.open_group(store, mode="r", use_consolidated=False), plan.year)
        self._withdrawn: dict[str, Buffer] = {}
        self._region = plan.region(cell)
        self._shard = plan.shard
        self._side = plan.grid.cell_size
        self._written = 0
        self._waiting: list[Future[None]] = []
        halo = 0 if plan.outlines is None else plan.outlines.halo
        inner = slice(halo, halo + self._side)
        wide = self._side + 2 * halo
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

    def fill(self, rows: slice, answers: Mapping[str, NDArray[Any]]) -> None:
        """Take the next rows of the map, all columns of the cell; whole rows of shards are written, but for `valid`."""
        top = self._region[0].start
        for name, pixels in self.pixels.items():
            own = _per_cent(answers[name]) if name == "spread" else answers[name]
            pixels[..., rows.start - top : rows.stop - top, :] = own
        while self._written + self._shard <= rows.stop - top:
            start = self._written
            self._waiting.append(self._writer.submit(self._write_rows, slice(start, start + self._shard)))
            self._written += self._shard
        for write in self._waiting:
            if write.done():
                write.result()  # so that a full disk is told now, instead of after the last band

    def publish(self) -> None:
        """Write the shard of `valid`, after everything else that belongs to the cell."""
        self._write("valid", self.pixels["valid"], self._region)

    def is_published(self) -> bool:
        """Test whether the shard of `valid` is there."""
        return all(sync(self._store.exists(key)) for key in self._keys("valid"))

    def digests(self) -> dict[str, str]:
        """SHA-256 of every shard that was written by its key in the output."""
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
        bundle_id="+".join(bundle.id for bundle in bundles),
        bundle_classes=json.dumps(plan.prediction.classes),
        **plan.prediction.attrs,
    )


def cell_outlines(haloed: xr.Dataset, *, rule: OutlineSpec) -> geopandas.GeoDataFrame:
    """Outlines of a cell, with `cut` and `prob_counts`, so that those of neighbours can be merged with them.

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
    """GeoParquet 1.1 with bounding boxes, as `write_footprints` writes it."""
    buffer = io.BytesIO()
    footprints.to_parquet(buffer, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")
    return buffer.getvalue()
