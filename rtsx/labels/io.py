"""Read and write tables of labels, whatever vector format they are in; written whole or not at all."""

import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, TypeAlias

import geopandas
import pyogrio
import pyogrio.errors
import shapely.errors

from rtsx.errors import InputNotFoundError, LabelError, OutputNotWritableError, RtsxError
from rtsx.labels.schema import LABEL_COLUMNS, validate_labels
from rtsx.redaction import redacted
from rtsx.storage import absolute, file_name, file_problem, local_path, staged
from rtsx.storage.diagnosis import campaign_around, gdal_problem, is_raster

LabelInput: TypeAlias = str | Path | geopandas.GeoDataFrame
"""A vector file or a table in memory."""

_OGR = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)
# IndexError, because that is what becomes of a FlatGeobuf that ends inside its header.
_UNREADABLE = (OSError, ValueError, IndexError, shapely.errors.GEOSException, *_OGR)
_WKT_COLUMNS = "WKT,geometry,geom,the_geom,wkt_geom"
"""Columns of a CSV that hold outlines as text, by whom they were written: GDAL, geopandas, PostGIS, QGIS."""


def read_table(path: str | Path, *, layer: str | None = None, what: str = "labels") -> geopandas.GeoDataFrame:
    """Read a vector file: GeoParquet, or anything that GDAL reads.

    Parameters
    ----------
    path : str or pathlib.Path
        A local file, or what GDAL opens; `slumps.gpkg|layername=north`, as QGIS has it, is one of its layers.
    layer : str or None
        Which of several layers; None where there is one, or where the path says it.
    what : str
        What the rows are, for messages.

    Returns
    -------
    geopandas.GeoDataFrame
        All columns as they are stored.

    Raises
    ------
    LabelError
        The file cannot be read, has no geometry, or several layers of which none is chosen.
    InputNotFoundError
        There is no such file.
    """
    source, named = without_layer(path)
    if not ("://" in source or source.startswith("/vsi") or Path(source).exists()):
        problem = str(file_problem(source)).removeprefix("There is no such file. ")
        raise InputNotFoundError(f"{what.capitalize()} are read from a file, but {source} is none. {problem}")
    _refuse_folder(source, what=what)
    source = _inside(source, what=what)
    suffix = Path(file_name(source)).suffix.lower()
    is_parquet = suffix in (".parquet", ".geoparquet") or _begins(source, b"PAR1")
    options = {"GEOM_POSSIBLE_NAMES": _WKT_COLUMNS} if suffix in (".csv", ".tsv", ".txt") else {}
    try:
        # By the name of the file, because that is what GDAL calls the only layer of a format without layers.
        names = [Path(source).stem] if is_parquet else [str(one) for one, kind in pyogrio.list_layers(source) if kind]
        chosen = _layer(source, names, named if layer is None else layer)
        table = _read_parquet(source, what=what) if is_parquet else geopandas.read_file(source, layer=chosen, **options)
    except LabelError:
        raise
    except _UNREADABLE as error:
        _refuse_lone_part(source)
        if "geo metadata" in str(error) and not Path(source).is_dir():
            raise LabelError(
                f"{source} is Parquet that does not say which of its columns is a geometry, and in which CRS. Write it as GeoParquet, "
                "as ogr2ogr and QGIS do; in Python, geopandas.GeoDataFrame(table, geometry=...).to_parquet(...)."
            ) from error
        if isinstance(error, shapely.errors.GEOSException):
            raise LabelError(
                f"{source} cannot be read as {what}: it has surfaces of a kind that is no polygon ({error}). Make polygons of them "
                "with ogr2ogr -nlt MULTIPOLYGON NEW OLD."
            ) from error
        otherwise = (
            f"It is a raster, and {what} are outlines: give the vector file."
            if is_raster(source)
            else "Was it copied completely?"
        )
        problem = gdal_problem(source, error, otherwise=otherwise)
        raise LabelError(f"{source} cannot be read as {what}: {problem}") from error
    _refuse_lone_part(source)
    if not isinstance(table, geopandas.GeoDataFrame):
        raise LabelError(f"{source} is a table without geometry, and {what} are outlines. Give the file that has them.")
    return table


def _read_parquet(source: str, *, what: str) -> geopandas.GeoDataFrame:
    if "://" not in source:
        return geopandas.read_parquet(source)
    try:
        return geopandas.read_parquet(source)
    except Exception as error:  # of whatever client fsspec reads with
        if "geo metadata" in str(error):
            raise
        said = "there is no such file" if isinstance(error, FileNotFoundError) else f"{error}".rstrip(".")
        raise LabelError(
            f"{redacted(source)} cannot be read as {what}: {redacted(said)}. Check the address and who may read it, or copy the file here."
        ) from error


def without_layer(path: str | Path) -> tuple[str, str | None]:
    """Return the absolute path of a file, and the name of a layer that stands behind it.

    Examples
    --------
    >>> without_layer("/data/slumps.gpkg|layername=north"), without_layer("/data/slumps.shp")
    (('/data/slumps.gpkg', 'north'), ('/data/slumps.shp', None))
    """
    source, _, layer = str(path).partition("|layername=")
    return absolute(source), layer or None


def _refuse_folder(source: str, *, what: str) -> None:
    """Refuse a folder of tables, such as the products of a campaign, by the tables that may be meant; GDAL reads folders of its formats."""
    folder = Path(source)
    if not folder.is_dir():
        return
    inside, parts = folder / "footprints.gpkg", any(folder.glob("*.parquet"))
    there = [one for one in (inside, folder.parent / f"{folder.name}.gpkg") if one.is_file()]
    campaign = campaign_around(folder)
    if campaign is not None:
        there += sorted(campaign.glob("years/*/products/footprints.gpkg"))
    elif not parts and inside not in there:
        return
    named = f", such as {there[0]}" if there else ""
    raise LabelError(
        f"{what.capitalize()} are read from a file, but {source} is a folder of several. Give one file{named}; rtsx campaign collect "
        "--format gpkg writes one of a campaign, and rtsx merge unites tables."
    )


_IN_ARCHIVES = (".shp", ".gpkg", ".geojson", ".fgb", ".kml")
"""Endings of vector files in archives."""


def _begins(source: str, magic: bytes) -> bool:
    """Test whether a local file begins with some bytes, whatever it is called."""
    path = Path(source)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _inside(source: str, *, what: str) -> str:
    """Return the path of the one vector file in a zip or tar archive, or of what gzip has packed, else the path as it is.

    GDAL looks neither in folders of an archive nor beside other files, and reads KMZ without its columns.
    """
    if source.lower().endswith((".tar", ".tgz", ".tar.gz")) and Path(source).is_file() and tarfile.is_tarfile(source):
        with tarfile.open(source) as tarred:
            names, system = tarred.getnames(), "/vsitar"
    elif source.lower().endswith(".gz") and Path(source).is_file():
        return f"/vsigzip/{source}"
    elif Path(source).suffix.lower() in (".zip", ".shz", ".kmz") and zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            names, system = archive.namelist(), "/vsizip"
    else:
        return source
    lower = {name.lower() for name in names}
    found = [name for name in names if name.lower().endswith(_IN_ARCHIVES) and not name.startswith(("__MACOSX/", "."))]
    for name in found:
        shape = name[: -len(".shp")]
        _refuse_missing(
            f"{source}/{name}",
            [end for end in (".shx", ".dbf") if name.lower().endswith(".shp") and f"{shape}{end}".lower() not in lower],
        )
    if len(found) == 1:
        return f"{system}/{source}/{found[0]}"
    if any("/" in name or not name.lower().endswith(".shp") for name in found):
        raise LabelError(
            f"{source} holds several files of {what}: {', '.join(found)}. Name the one that is meant: {system}/{source}/{found[-1]}."
        )
    # GDAL takes several shapefiles of an archive for layers.
    return source if system == "/vsizip" else f"{system}/{source}"


def _refuse_lone_part(source: str) -> None:
    """Refuse a shapefile without its index or its columns, which GDAL reads as outlines that say nothing of themselves."""
    shape = Path(source)
    if shape.suffix.lower() != ".shp" or not shape.is_file() or file_problem(shape) is not None:
        return
    beside = {path.name.lower() for path in shape.parent.glob(f"{escape(shape.stem)}.*")}
    _refuse_missing(source, [end for end in (".shx", ".dbf") if f"{shape.stem}{end}".lower() not in beside])


def _refuse_missing(source: str, missing: list[str]) -> None:
    """Refuse a shapefile of which parts are missing."""
    if missing:
        raise LabelError(
            f"{source} is one of several files of a shapefile, and {' and '.join(missing)} {'are' if missing[1:] else 'is'} not beside it. Copy all "
            f"of them: {Path(source).stem}.shp, .shx (places), .dbf (columns) and .prj (CRS)."
        )


def _layer(source: str, names: list[str], layer: str | None) -> str | None:
    if layer is not None:
        if layer not in names:
            raise LabelError(f"{source} has no layer {layer!r}; there are {', '.join(names) or 'none'}.")
        return layer
    if len(names) > 1:
        raise LabelError(
            f"{source} has several layers: {', '.join(names)}. Name the file with the one that is meant: "
            f"'{source}|layername={names[-1]}'."
        )
    return names[0] if names else None


_Writer = Callable[[geopandas.GeoDataFrame, Path, str], None]


def write_table(table: geopandas.GeoDataFrame, target: Path, *, overwrite: bool, what: str) -> Path:
    """Write a table that has been checked, by way of a hidden draft beside it.

    Parameters
    ----------
    table : geopandas.GeoDataFrame
        Polygons and MultiPolygons, or Points.
    target : pathlib.Path
        With an ending that `require_format` knows.
    overwrite : bool
        Replace a file that is there; until the new one is complete, the old one stays.
    what : str
        What the rows are, for messages, such as "footprints".

    Raises
    ------
    OutputExistsError
        The path is taken and `overwrite` is False, or it is a folder.
    OutputNotWritableError
        The folder is missing or cannot be written to, or the disk is full.
    """
    write = _WRITERS[target.suffix.lower()]
    if not target.parent.is_dir():
        raise OutputNotWritableError(
            f"the folder of {target} must exist and be writable, but there is no such folder: create it, or choose another"
        )
    with staged(target, overwrite=overwrite) as draft:
        try:
            # GeoPackage takes no layer whose name begins with one of these.
            write(table, draft, target.stem.lstrip("`~!@#$%^&*()+-={}|[]\\:\";'<>?,./ ") or what)
        except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as error:
            raise OutputNotWritableError(
                f"{len(table)} {what} were not written to {target}: {str(error).rstrip('.')}. Free space or check the disk, then "
                "run again; nothing is left half-written."
            ) from error
    return target


def require_format(path: Path, *, what: str, error: type[RtsxError]) -> None:
    """Refuse the name of a file with an ending that no table is written with."""
    if path.suffix.lower() not in _WRITERS:
        raise error(
            f"{what} are kept in .parquet (GeoParquet), .gpkg (GeoPackage) or .fgb (FlatGeobuf) files, but "
            f"{path.name!r} {f'ends in {path.suffix!r}' if path.suffix else 'has no ending'}: change the ending"
        )


def _write_parquet(table: geopandas.GeoDataFrame, path: Path, layer: str) -> None:
    """Write GeoParquet, which has no layers and therefore no use for `layer`."""
    table.to_parquet(path, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")


def _write_ogr(table: geopandas.GeoDataFrame, path: Path, layer: str, *, driver: str) -> None:
    points = table.geom_type == "Point"
    if points.any():
        kind: dict[str, Any] = {"geometry_type": "Point" if points.all() else "Unknown"}
    else:
        kind = {"geometry_type": "MultiPolygon", "promote_to_multi": True}
    table.to_file(path, driver=driver, layer=layer, engine="pyogrio", **kind)


_WRITERS: dict[str, _Writer] = {
    ".parquet": _write_parquet,
    ".gpkg": partial(_write_ogr, driver="GPKG"),
    ".fgb": partial(_write_ogr, driver="FlatGeobuf"),
}
TABLE_SUFFIXES = tuple(_WRITERS)
"""Endings that tables are written with."""


def write_labels(labels: geopandas.GeoDataFrame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write labels to one file, complete or not at all.

    Parameters
    ----------
    labels : geopandas.GeoDataFrame
        In the one schema, as `standardise_labels` gives them; also without rows.
    path : str or pathlib.Path
        The ending chooses the format: ``.parquet`` (GeoParquet 1.1, zstd, with bounding boxes for spatial filters), which keeps
        every dtype, ``.gpkg`` (GeoPackage) or ``.fgb`` (FlatGeobuf).
    overwrite : bool
        Replace a file that is there; until the new one is complete, the old one stays.

    Returns
    -------
    pathlib.Path
        Where they are.

    Raises
    ------
    LabelError
        The ending is unknown, or `labels` are not what `validate_labels` expects.
    OutputExistsError
        The path is taken and `overwrite` is False.
    OutputNotWritableError
        The folder is missing or cannot be written to.
    """
    target = local_path(path)
    require_format(target, what="labels", error=LabelError)
    validate_labels(labels)
    ordered = labels[[*LABEL_COLUMNS, *(name for name in labels.columns if name not in LABEL_COLUMNS)]]
    return write_table(ordered, target, overwrite=overwrite, what="labels")
