"""How a delivery looks: styles of each layer as QML and SLD, mosaics of its tiles, and a QGIS project that opens all of it."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.coarse import RAMP
from rtsx.campaign.products.rasters import RasterFile, delivered
from rtsx.geometry.crs import crs_code
from rtsx.pages import render_text

_QGIS = "3.22.16"
"""Version of QGIS whose files these are; later ones read them."""

Stops = tuple[tuple[float, str], ...]
"""Values of a raster, physical, and their colours."""

_OUTLINES: tuple[tuple[float, float, str], ...] = (
    (0.0, 0.5, "#1f78b4"),
    (0.5, 0.65, "#fed976"),
    (0.65, 0.8, "#fd8d3c"),
    (0.8, 1.0, "#b10026"),
)
"""Greatest probability of an outline, from (excluded) and to (included), and its colour."""
_VERDICTS: tuple[tuple[str, str, str], ...] = (
    ("target", "confirmed", "#1a9641"),
    ("other", "refused", "#636363"),
    ("unsure", "unsure", "#fdae61"),
    ("", "without a verdict", "#1f78b4"),
)
"""What reviewers say, empty for nothing; in the legend; and its colour."""
_COUNTS: Stops = ((0.0, "#f7fbff"), (1.0, "#c6dbef"), (5.0, "#6baed6"), (25.0, "#2171b5"), (100.0, "#08306b"))
_AREAS: Stops = ((0.0, "#f7fcf5"), (0.01, "#c7e9c0"), (0.1, "#74c476"), (0.5, "#238b45"), (2.0, "#00441b"))
_SPREAD: Stops = ((0.0, "#f7fcfd"), (0.05, "#bfd3e6"), (0.1, "#8c96c6"), (0.2, "#88419d"), (0.5, "#4d004b"))
_BINARY: Stops = ((1.0, "#e31a1c"),)


@dataclass(frozen=True, kw_only=True)
class MapLayer:
    """A file of the package as a layer of a map."""

    key: str
    """Of the file."""
    title: str
    """Name in the legend."""
    kind: Literal["polygon", "point", "ramp", "classes"]
    """Outlines, points, or a raster whose colours are interpolated or belong to single values."""
    crs: str
    """In which it is."""
    shown: bool
    """Whether it is shown when the project is opened."""
    by_verdict: bool = False
    """Whether outlines are coloured by what reviewers say, instead of by their greatest probability."""
    stops: Stops = ()
    """Of a raster."""
    band: int = 1
    """Of a raster: what is drawn."""
    from_scale: float | None = None
    """Denominator of the scale from which on it is drawn; None for all scales. Thousands of files cannot be drawn at once."""

    @property
    def name(self) -> str:
        """Its key without the ending, and its styles': QGIS takes a style beside a file that is called alike."""
        return self.key.rsplit(".", 1)[0]

    @property
    def is_raster(self) -> bool:
        """Whether it has pixels."""
        return self.kind in ("ramp", "classes")

    @property
    def classes(self) -> Sequence[tuple[str | float, str | float, str]]:
        """Of outlines, what they are coloured by."""
        return _VERDICTS if self.by_verdict else _OUTLINES

    @property
    def identity(self) -> str:
        """Its id in a project; QGIS makes its own of ids of up to ten characters."""
        return f"delivered_{self.name.replace('/', '_')}"

    @property
    def source(self) -> str:
        """Where a project beside it finds it."""
        return f"./{self.key}" + ("" if self.is_raster else "|layername=footprints")

    @property
    def provider(self) -> str:
        """Library that reads it."""
        return "gdal" if self.is_raster else "ogr"

    def qml(self) -> bytes:
        """Its style for QGIS."""
        return _document("layer.qml", layer=self, version=_QGIS)

    def sld(self) -> bytes:
        """Its style for map servers."""
        return _document("layer.sld", layer=self)


def map_layers(
    plan: CampaignPlan, *, tiles_crs: str, equal_area: str, outlines: bool, expected: str | None, reviewed: bool
) -> list[MapLayer]:
    """List the layers of a delivery, the uppermost first.

    Parameters
    ----------
    plan
        Of the year.
    tiles_crs
        In which the tiles are.
    equal_area
        In which density grids are.
    outlines
        Whether there are outlines.
    expected
        In which rasters of expected area are; None where there are none.
    reviewed
        Whether outlines have verdicts.
    """
    crs = plan.grid.crs
    band = next((number for number, name in enumerate(plan.prediction.classes, start=1) if name != "background"), 1)
    outlined = partial(MapLayer, crs=crs, by_verdict=reviewed)
    gridded = partial(MapLayer, kind="ramp", crs=equal_area, shown=False)
    tiled = partial(MapLayer, crs=tiles_crs, band=band, from_scale=500_000.0)
    by = "verdict" if reviewed else "greatest probability"
    found = [
        outlined(key="footprints_centroids.gpkg", title="Centroids", kind="point", shown=False),
        outlined(key="footprints.gpkg", title=f"Outlines by {by}", kind="polygon", shown=True),
        gridded(key="overview/density_count.tif", title="Objects per cell of 10 km", stops=_COUNTS),
        gridded(key="overview/density_area_km2.tif", title="Area of objects per cell of 10 km, km²", stops=_AREAS),
    ]
    spread = tiled(key="spread.vrt", title="Spread of members", kind="ramp", shown=False, stops=_SPREAD)
    return [
        *(found if outlines else []),
        *([] if expected is None else _expected_layers(expected)),
        tiled(key="binary.vrt", title="Found", kind="classes", shown=False, stops=_BINARY),
        *([spread] if "spread" in delivered(plan) else []),
        tiled(key="probability.vrt", title="Probability", kind="ramp", shown=True, stops=RAMP),
        MapLayer(
            key="overview/greatest_probability.tif",
            title="Greatest probability",
            kind="ramp",
            crs=crs,
            shown=True,
            stops=RAMP,
        ),
    ]


def _expected_layers(crs: str) -> list[MapLayer]:
    gridded = partial(MapLayer, kind="ramp", crs=crs, shown=False)
    stops = tuple((1e6 * km2, colour) for km2, colour in _AREAS)
    ground = ((0.0, "#f7f7f7"), (1e8, "#525252"))
    return [
        gridded(key="overview/expected_area_m2.tif", title="Expected area per cell, m²", stops=stops),
        gridded(key="overview/valid_area_m2.tif", title="Ground with a probability per cell, m²", stops=ground),
    ]


def mosaic(variable: str, files: Sequence[RasterFile], *, bands: Sequence[str], scale: float) -> bytes:
    """Return a GDAL virtual raster of files that lie on one pixel grid; it names them relative to itself."""
    first = files[0].geobox
    size, (x, y) = first.affine.a, (first.affine.c, first.affine.f)
    shapes = np.array([file.geobox.shape.yx for file in files])
    corners = np.array(
        [(round((y - file.geobox.affine.f) / size), round((file.geobox.affine.c - x) / size)) for file in files]
    )
    top, left = corners.min(axis=0).tolist()
    height, width = ((corners + shapes).max(axis=0) - (top, left)).tolist()
    places = (corners - (top, left)).tolist()
    return _document(
        "mosaic.vrt",
        variable=variable,
        files=[*zip((file.name for file in files), shapes.tolist(), places, strict=True)],
        bands=bands,
        scale=scale,
        width=width,
        height=height,
        wkt=first.crs.to_wkt() if first.crs else "",
        transform=(first.affine * Affine.translation(left, top)).to_gdal(),
    )


def qgis_project(title: str, layers: Iterable[MapLayer], *, geobox: GeoBox) -> bytes:
    """Return a QGIS project (``.qgz``) that opens layers with their styles; paths are relative to it.

    Parameters
    ----------
    title
        Of the project.
    layers
        The uppermost first.
    geobox
        Raster of the map, whose CRS and bounds the canvas takes.
    """
    document = _document(
        "map.qgs",
        title=title,
        version=_QGIS,
        layers=[*layers],
        bounds=geobox.boundingbox.bbox,
        crs=str(geobox.crs),
        code_of=lambda crs: crs_code(CRS.from_user_input(crs)),
        wkt_of=lambda crs: CRS.from_user_input(crs).to_wkt(),
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("map.qgs", date_time=(1980, 1, 1, 0, 0, 0))  # equal projects have equal bytes
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, document)
    return buffer.getvalue()


def _document(template: str, **facts: object) -> bytes:
    return f"{render_text(template, facts)}\n".encode()
