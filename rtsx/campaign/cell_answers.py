"""A cell that was predicted as what others take it for: a Dataset, its outlines as bytes, its GeoTIFFs as bytes."""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.campaign.cell_table import Address
from rtsx.campaign.outline_spec import OutlineSpec
from rtsx.campaign.plan import CampaignPlan
from rtsx.cube import export_cog
from rtsx.cube.georeference import with_georeference
from rtsx.footprints import extract_footprints
from rtsx.grid.cell import cell_id
from rtsx.inference.prediction import answer_attributes
from rtsx.model import ModelBundle

__all__ = ["cell_cog", "cell_dataset", "cell_outlines", "parquet_bytes"]


def cell_dataset(
    pixels: Mapping[str, NDArray[Any]], plan: CampaignPlan, *, geobox: GeoBox, bundles: Sequence[ModelBundle]
) -> xr.Dataset:
    """A prediction of one time, without a dimension for it.

    Parameters
    ----------
    pixels
        `probability` and `binary` ([class,] y, x), `valid` (y, x).
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
        variables[name] = xr.Variable(dims, array, answer_attributes(name, array.dtype.name))
    pred = with_georeference(variables, geobox, lattice_origin=plan.grid.origin)
    if several:
        pred = pred.assign_coords({"class": list(plan.prediction.classes)})
    return pred.assign_coords(time=np.datetime64(f"{plan.year}-01-01", "ns")).assign_attrs(
        bundle_id="+".join(bundle.id for bundle in bundles),
        bundle_digest="+".join(plan.prediction.members),
        bundle_classes=json.dumps(plan.prediction.classes),
        threshold=plan.prediction.threshold,
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
        min_area_m2=rule.min_area_m2,
        threshold=rule.threshold,
        edge_distance=rule.edge_distance,
        halo=rule.halo,
    )


def parquet_bytes(footprints: geopandas.GeoDataFrame) -> bytes:
    """GeoParquet 1.1 with bounding boxes, as `write_footprints` writes it."""
    buffer = io.BytesIO()
    footprints.to_parquet(buffer, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")
    return buffer.getvalue()


def cell_cog(pred: xr.Dataset, variable: str, *, cell: Address) -> bytes:
    """A variable of a cell as a cloud-optimised GeoTIFF; by way of a temporary folder, because GDAL writes files."""
    with tempfile.TemporaryDirectory(prefix="rtsx-cog-") as folder:
        (path,) = export_cog(pred, Path(folder), variables=[variable], prefix=f"{cell_id(*cell)}_")
        return path.read_bytes()
