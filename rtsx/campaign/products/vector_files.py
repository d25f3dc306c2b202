"""Footprints as one file for a desktop or a web map: GeoPackage, FlatGeobuf, PMTiles; written partition by partition."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from pyogrio.raw import write_arrow

from rtsx.campaign.products.tables import plainly_typed
from rtsx.errors import CampaignError, MissingExtraError, OutputNotWritableError
from rtsx.footprints import to_geographic


@dataclass(frozen=True, kw_only=True)
class VectorFormat:
    """A format that holds a whole table in one file."""

    suffix: str
    """Ending of the file, with its dot."""
    driver: str
    """GDAL's name for it."""
    media_type: str
    """For STAC."""
    is_geographic: bool
    """Whether outlines have to be in longitude and latitude."""
    options: dict[str, str]


FORMATS = {
    "gpkg": VectorFormat(
        suffix=".gpkg",
        driver="GPKG",
        media_type="application/geopackage+sqlite3",
        is_geographic=False,
        options={"VERSION": "1.2"},  # of 1.4, which GDAL writes without this, the GDAL of older desktops warns
    ),
    "flatgeobuf": VectorFormat(
        suffix=".fgb", driver="FlatGeobuf", media_type="application/vnd.flatgeobuf", is_geographic=False, options={}
    ),
    # Zoom 12 has 4096 steps of 2.4 m at the equator and of 0.8 m at 70 degrees: finer than the pixels of the map. Web maps end
    # at 85 degrees north, and outlines beyond are not in the tiles.
    "pmtiles": VectorFormat(
        suffix=".pmtiles",
        driver="PMTiles",
        media_type="application/vnd.pmtiles",
        is_geographic=True,
        options={"MINZOOM": "0", "MAXZOOM": "12"},
    ),
}
"""Formats by the name that `collect` takes."""

_CHANGED = "2000-01-01T00:00:00.000Z"
"""What a GeoPackage says of when it was changed, so that equal tables give equal files."""


def format_named(name: str) -> VectorFormat:
    """Look up the format of a name or ending.

    Raises
    ------
    CampaignError
        There is none.
    MissingExtraError
        The GDAL that pyogrio brings cannot write it.
    """
    wanted = name.lower().lstrip(".")
    found = next((one for key, one in FORMATS.items() if wanted in (key, one.suffix[1:])), None)
    if found is None:
        raise CampaignError(f"Footprints are collected as {', '.join(FORMATS)}, beside GeoParquet; got {name!r}.")
    if "w" not in pyogrio.list_drivers().get(found.driver, ""):
        raise MissingExtraError(
            f"The GDAL {pyogrio.__gdal_version__} that pyogrio uses cannot write {found.driver}; install pyogrio as a wheel "
            "(pip install --force-reinstall --only-binary=pyogrio pyogrio), or leave the format out."
        )
    return found


def one_file(
    tables: Iterable[geopandas.GeoDataFrame],
    form: VectorFormat,
    *,
    crs: str,
    empty: geopandas.GeoDataFrame,
    geometry: Literal["MultiPolygon", "Point"] = "MultiPolygon",
) -> bytes:
    """Write a file with the rows of all tables, as bytes.

    Tables are taken one after the other, so that only one of them is in memory, and the finished file once.

    Parameters
    ----------
    tables
        Outlines in `crs`.
    form
        The format.
    crs
        Of all of them.
    empty
        A table with their columns and without a row.
    geometry
        Of all rows; outlines of one part become those of several.

    Raises
    ------
    OutputNotWritableError
        The file could not be made in the folder for temporary files.
    """
    schema = _batch(empty, form).schema
    batches = pa.RecordBatchReader.from_batches(schema, _batches(tables, form, schema=schema))
    with tempfile.TemporaryDirectory(prefix="rtsx-") as folder:
        path = Path(folder) / f"footprints{form.suffix}"
        try:
            with _gdal_option("OGR_CURRENT_DATE", _CHANGED):
                write_arrow(
                    batches,
                    path,
                    layer="footprints",
                    driver=form.driver,
                    geometry_name="geometry",
                    geometry_type=geometry,
                    crs="EPSG:4326" if form.is_geographic else crs,
                    dataset_options=form.options,
                )
            return path.read_bytes()
        except (OSError, DataSourceError, DataLayerError, FeatureError) as error:
            raise OutputNotWritableError(
                f"The {form.driver} file could not be made in {folder} ({error}). Is its disk full? Another folder is taken "
                "from the environment variable TMPDIR."
            ) from error


def _batches(
    tables: Iterable[geopandas.GeoDataFrame], form: VectorFormat, *, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for table in tables:
        if len(table):
            yield _batch(table, form).select(schema.names).cast(schema)


def _batch(table: geopandas.GeoDataFrame, form: VectorFormat) -> pa.RecordBatch:
    placed = to_geographic(table) if form.is_geographic else table
    outlines = np.asarray(placed.geometry.array, np.object_)
    collected = outlines
    if len(outlines) and not (shapely.get_type_id(outlines) == shapely.GeometryType.POINT).all():
        parts, owner = shapely.get_parts(outlines, return_index=True)
        collected = shapely.multipolygons(parts, indices=owner)
    rows = plainly_typed(placed)
    batch = pa.RecordBatch.from_pandas(rows.drop(columns=rows.geometry.name), preserve_index=False)
    return batch.append_column("geometry", pa.array(shapely.to_wkb(collected), pa.binary()))


@contextmanager
def _gdal_option(name: str, value: str) -> Iterator[None]:
    before = pyogrio.get_gdal_config_option(name)
    pyogrio.set_gdal_config_options({name: value})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({name: before})
