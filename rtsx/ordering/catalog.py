"""What has arrived as STAC: fetched scenes as a static catalog, and the quads of a basemap as a table, both of which cubes read."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapely import box, to_wkb
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from rtsx.cube.stac.item import time_of
from rtsx.errors import CubeError, OrderError, OutputExistsError
from rtsx.ordering.basemap import Mosaic, QuadRange
from rtsx.ordering.provider import RemoteFile, checksum_of
from rtsx.ordering.quads import QuadLedger
from rtsx.storage import staged

if TYPE_CHECKING:
    from rtsx.cube.rasterio import RasterHeader

COLLECTION = "collection.json"
"""Name of the document of the whole catalog, beside the folders of its scenes."""
_CLAIM = ".collection.json"
"""Name of what says whose a folder is before that document is there."""
_EXTENSIONS = {
    "file:": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "proj:": "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
    "eo:": "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "raster:": "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "view:": "https://stac-extensions.github.io/view/v1.0.0/schema.json",
}
_STRUCTURE = {"self", "root", "parent", "collection", "item", "items"}
"""Links that say where an item lies in its old catalog."""


def registered_items(folder: Path) -> dict[str, Path]:
    """Return items that lie in a folder, by id."""
    return {path.stem: path for path in sorted(folder.glob("*/*.json")) if path.stem == path.parent.name}


def register_item(
    folder: Path,
    described: Mapping[str, Any],
    files: Sequence[RemoteFile],
    *,
    collection: str,
    clip: BaseGeometry | None = None,
) -> Path:
    """Write the item of one scene beside its files, complete or not at all; last of all, so that it marks completeness.

    Every asset gets a relative href, its size and checksum; a raster also CRS, transform, shape and bands from its header,
    where the provider's own words leave them open.

    Parameters
    ----------
    folder
        The catalog's; the files are in ``folder/<scene id>``.
    described
        Item as the provider describes it; of its assets those that have arrived are kept.
    files
        What has arrived.
    collection
        Id of the collection.
    clip
        Ground that the rasters were clipped to, in longitude and latitude; None for whole scenes.

    Returns
    -------
    Path
        The item; one that is there with the same content is left as it is.
    """
    scene = str(described["id"])
    described_assets = described.get("assets") or {}
    assets = {}
    for file in sorted(files, key=lambda file: file.asset):
        path = folder / scene / file.name
        asset = described_assets.get(file.asset, {})
        assets[file.asset] = {**asset, **described_asset(path, file, asset)}
    geometry = shape(described["geometry"])
    if clip is not None and geometry.is_valid and geometry.intersects(clip):
        geometry = geometry.intersection(clip)
    links = [link for link in described.get("links") or () if link.get("rel") not in _STRUCTURE]
    links += [
        {"rel": rel, "href": "../collection.json", "type": "application/json"}
        for rel in ("root", "parent", "collection")
    ]
    item = {
        "stac_version": "1.0.0",
        **described,
        "type": "Feature",
        "collection": collection,
        "properties": dict(described["properties"]),
        "geometry": mapping(geometry),
        "bbox": list(geometry.bounds),
        "assets": assets,
        "links": links,
    }
    item["stac_extensions"] = _extensions(item)
    path = folder / scene / f"{scene}.json"
    _write(path, item)
    return path


def register_collection(folder: Path, collection: str, *, description: str) -> Path:
    """Write the collection of all items in a folder; one that is there with the same content is left as it is.

    Raises
    ------
    OrderError
        There are no items in the folder.
    """
    path = folder / COLLECTION
    while True:
        known = registered_items(folder)
        items = [json.loads(item.read_text()) for item in known.values()]
        if not items:
            raise OrderError(f"{folder} holds no items to make a collection of. Fetch first.")
        _write(path, _collection(items, collection, description))
        (folder / _CLAIM).unlink(missing_ok=True)
        if registered_items(folder) == known:  # else another order has put items there meanwhile
            return path


def claim_collection(folder: Path, collection: str) -> None:
    """Make a folder that of a collection before anything lies in it: of several orders that begin at once, one has it.

    Raises
    ------
    OrderError
        It is another's.
    """
    claim, document = folder / _CLAIM, folder / COLLECTION
    if not document.exists():
        with suppress(OutputExistsError), staged(claim, overwrite=False) as draft:
            draft.write_text(json.dumps({"id": collection}))
    try:
        require_collection(folder, collection)
    finally:
        if document.exists():  # which counts, also where it came meanwhile
            claim.unlink(missing_ok=True)


def require_collection(folder: Path, collection: str) -> None:
    """Refuse a folder that holds another collection, or receives the scenes of one.

    Raises
    ------
    OrderError
        It does.
    """
    path = next((one for one in (folder / COLLECTION, folder / _CLAIM) if one.exists()), None)
    if path is None:
        return
    try:
        found = json.loads(path.read_text())["id"]
    except FileNotFoundError:  # whose document has just come instead
        require_collection(folder, collection)
        return
    except (ValueError, KeyError, TypeError) as error:
        raise OrderError(f"{path} is no STAC collection: {error!r}. Choose another folder.") from error
    if found != collection:
        unfinished = f" Where nothing of it is wanted any more, remove {path}." if path.name == _CLAIM else ""
        raise OrderError(
            f"{folder} holds collection {found!r}; this order's is {collection!r}. Choose another folder in out, or say "
            f"collection: {found}.{unfinished}"
        )


def _collection(items: Sequence[Mapping[str, Any]], collection: str, description: str) -> dict[str, Any]:
    west, south, east, north = zip(*(item["bbox"] for item in items), strict=True)
    times = sorted(time.isoformat().replace("+00:00", "Z") for item in items if (time := time_of(item)) is not None)
    licences = sorted({item["properties"]["license"] for item in items if item["properties"].get("license")})
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": collection,
        "description": description,
        "license": licences[0] if len(licences) == 1 else "other",
        "extent": {
            "spatial": {"bbox": [[min(west), min(south), max(east), max(north)]]},
            "temporal": {"interval": [[times[0], times[-1]] if times else [None, None]]},
        },
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            *(
                {"rel": "item", "href": f"./{item['id']}/{item['id']}.json", "type": "application/geo+json"}
                for item in items
            ),
        ],
    }


def described_asset(path: Path, file: RemoteFile, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the file itself says, about which the provider is silent."""
    asset: dict[str, Any] = {"href": f"./{file.name}", "file:size": path.stat().st_size}
    checksum = file.checksum or checksum_of(path)
    asset["file:checksum"] = checksum.multihash
    if "type" not in described and file.media_type:
        asset["type"] = file.media_type
    if file.is_raster:
        from rtsx.cube.rasterio import read_header  # here, because what orders needs none

        with suppress(CubeError):  # one that does not say where it lies, such as a preview: it is registered as it is
            asset |= raster_fields(read_header(path), described)
    return asset


def raster_fields(header: "RasterHeader", described: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of an asset that the header of its file tells."""
    box = header.geobox
    fields: dict[str, Any] = {
        # The header's, whatever the provider says, because a clipped file has another grid than its scene.
        "proj:shape": list(box.shape),
        "proj:transform": [round(value, 12) for value in tuple(box.affine)[:6]],
        "roles": list(described.get("roles") or ["data"]),
    }
    if box.crs is not None:
        epsg = box.crs.epsg
        # Both spellings, because readers know one or the other.
        fields |= {"proj:epsg": epsg, "proj:code": f"EPSG:{epsg}"} if epsg else {"proj:wkt2": box.crs.to_wkt()}
    if described.get("bands"):
        return fields
    names = [band.get("name") for band in described.get("eo:bands") or ()]
    if not names and all(header.descriptions):
        fields["eo:bands"] = [{"name": name} for name in header.descriptions]
    stored = list(described.get("raster:bands") or ())
    stored += [{}] * (header.count - len(stored))
    fields["raster:bands"] = [{**_band(header, index), **dict(stored[index])} for index in range(header.count)]
    return fields


def _band(header: "RasterHeader", index: int) -> dict[str, Any]:
    band: dict[str, Any] = {"data_type": header.dtypes[index]}
    if header.nodata[index] is not None:
        nodata = header.nodata[index]
        band["nodata"] = "nan" if nodata != nodata else nodata  # as JSON has no NaN
    if (header.scales[index], header.offsets[index]) != (1.0, 0.0):
        band |= {"scale": header.scales[index], "offset": header.offsets[index]}
    return band


def _extensions(item: Mapping[str, Any]) -> list[str]:
    """Return schemas that are stated, and those of the fields that have come on."""
    schemas = list(item.get("stac_extensions") or ())
    used = {key for holder in (item["properties"], *item["assets"].values()) for key in holder}
    for prefix, schema in _EXTENSIONS.items():
        family = schema.rsplit("/", 2)[0]
        if any(key.startswith(prefix) for key in used) and not any(family in known for known in schemas):
            schemas.append(schema)
    return schemas


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1) + "\n"
    if path.exists() and path.read_text() == text:
        return
    with staged(path, overwrite=True) as stage:
        stage.write_text(text)


_GROUP_ROWS = 4096
_BANDS = {
    ("uint8", 3): ("red", "green", "blue"),
    ("uint8", 4): ("red", "green", "blue", "alpha"),
    ("uint16", 4): ("blue", "green", "red", "nir"),
    ("uint16", 5): ("blue", "green", "red", "nir", "alpha"),
}
"""Bands of Planet's visual and analytic mosaics, by dtype and number."""


def _item(mosaic: Mosaic, quad: QuadRange, name: str, *, asset: str) -> dict[str, Any]:
    bounds = mosaic.bounds(quad)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": mosaic.name,
        "geometry": to_wkb(box(*bounds)),
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
        "datetime": mosaic.start + (mosaic.end - mosaic.start) / 2,  # its middle, because one day is asked for
        "start_datetime": mosaic.start,
        "end_datetime": mosaic.end,
        "assets": json.dumps({"data": json.loads(asset)}),
    }


def write_items(ledger: QuadLedger, path: Path, mosaic: Mosaic) -> None:
    """Write the quads that are there as a GeoParquet table of STAC items, neighbours together."""
    import pyarrow as pa  # here, because what orders needs none
    import pyarrow.parquet as pq

    schema = pa.schema(
        {
            "type": pa.string(),
            "stac_version": pa.string(),
            "id": pa.string(),
            "collection": pa.string(),
            "geometry": pa.binary(),
            "bbox": pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")]),
            "datetime": pa.timestamp("us", "UTC"),
            "start_datetime": pa.timestamp("us", "UTC"),
            "end_datetime": pa.timestamp("us", "UTC"),
            "assets": pa.string(),
        },
        metadata={
            "geo": json.dumps(
                {
                    "version": "1.1.0",
                    "primary_column": "geometry",
                    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
                }
            )
        },
    )
    with staged(path, overwrite=True) as stage, pq.ParquetWriter(stage, schema) as table:
        rows = ledger.there()
        while some := list(islice(rows, _GROUP_ROWS)):
            items = [_item(mosaic, QuadRange(y, x, y + 1, x + 1), name, asset=asset) for y, x, name, asset in some]
            table.write_table(pa.Table.from_pylist(items, schema))


def with_band_names(asset: dict[str, Any]) -> dict[str, Any]:
    """Return the asset of a quad with the names of its bands, where the file does not tell them."""
    stored = asset["raster:bands"]
    names = _BANDS.get((stored[0]["data_type"], len(stored)))
    if "eo:bands" not in asset and names is not None:
        asset["eo:bands"] = [{"name": name} | ({"common_name": name} if name != "alpha" else {}) for name in names]
    asset["type"] = "image/tiff; application=geotiff; profile=cloud-optimized"
    return asset
