"""How a delivery looks: styles of each layer as QML and SLD, mosaics of its tiles, and a QGIS project that opens all of it."""

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal
from xml.etree import ElementTree as ET

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.coarse import RAMP
from rtsx.campaign.products.rasters import RasterFile, delivered
from rtsx.geometry.crs import crs_code

_QGIS = "3.22.16"
"""Version of QGIS whose files these are; later ones read them."""
_OGC, _SLD = "http://www.opengis.net/ogc", "http://www.opengis.net/sld"

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

    def qml(self) -> bytes:
        """Its style for QGIS."""
        root = ET.Element("qgis", {"version": _QGIS, "styleCategories": "Symbology"})
        self.draw(root)
        return _xml(root, doctype="<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>")

    def draw(self, parent: ET.Element) -> None:
        """Add the elements of QGIS that say how it is drawn."""
        if self.is_raster:
            _add_raster_pipe(parent, self)
            _child(parent, "blendMode", "0")
        else:
            _add_classes(parent, self)

    def _sld_classes(self) -> Iterator[tuple[str, str, ET.Element]]:
        """Label, colour and filter of each class of outlines."""
        if self.by_verdict:
            for value, label, colour in _VERDICTS:
                comparison = "PropertyIsEqualTo" if value else "PropertyIsNull"
                yield label, colour, _compared(comparison, "verdict", value or None)
            return
        for low, high, colour in _OUTLINES:
            both = ET.Element("ogc:And")
            both.append(_compared("PropertyIsGreaterThan", "prob_max", f"{low:g}"))
            both.append(_compared("PropertyIsLessThanOrEqualTo", "prob_max", f"{high:g}"))
            yield f"{low:g} to {high:g}", colour, both

    def sld(self) -> bytes:
        """Its style for map servers."""
        root = ET.Element("StyledLayerDescriptor", {"version": "1.0.0", "xmlns": _SLD, "xmlns:ogc": _OGC})
        named = ET.SubElement(root, "NamedLayer")
        _child(named, "Name", self.name.rsplit("/", 1)[-1])
        style = ET.SubElement(ET.SubElement(named, "UserStyle"), "FeatureTypeStyle")
        if self.is_raster:
            symbolizer = ET.SubElement(ET.SubElement(style, "Rule"), "RasterSymbolizer")
            channel = ET.SubElement(ET.SubElement(symbolizer, "ChannelSelection"), "GrayChannel")
            _child(channel, "SourceChannelName", str(self.band))
            colours = ET.SubElement(symbolizer, "ColorMap", {"type": self.kind.replace("classes", "values")})
            for value, colour in self.stops:
                stated = {"color": colour, "quantity": f"{value:g}", "label": f"{value:g}"}
                ET.SubElement(colours, "ColorMapEntry", stated)
            return _xml(root)
        for label, colour, chosen in self._sld_classes():
            rule = ET.SubElement(style, "Rule")
            _child(rule, "Title", label)
            ET.SubElement(rule, "ogc:Filter").append(chosen)
            if self.kind == "polygon":
                within = ET.SubElement(rule, "PolygonSymbolizer")
            else:
                drawn = ET.SubElement(rule, "PointSymbolizer")
                within = ET.SubElement(ET.SubElement(drawn, "Graphic"), "Mark")
                _child(within, "WellKnownName", "circle")
            fill = ET.SubElement(within, "Fill")
            _child(fill, "CssParameter", colour, name="fill")
            _child(fill, "CssParameter", "0.35" if self.kind == "polygon" else "1", name="fill-opacity")
            fill = ET.SubElement(within, "Stroke")
            _child(fill, "CssParameter", colour, name="stroke")
        return _xml(root)


def _compared(comparison: str, name: str, value: str | None) -> ET.Element:
    """Return a comparison of a column of SLD."""
    made = ET.Element(f"ogc:{comparison}")
    _child(made, "ogc:PropertyName", name)
    if value is not None:
        _child(made, "ogc:Literal", value)
    return made


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
    corners = {
        file.name: (round((file.geobox.affine.c - x) / size), round((y - file.geobox.affine.f) / size))
        for file in files
    }
    left, top = (min(corner[axis] for corner in corners.values()) for axis in (0, 1))
    right = max(corners[file.name][0] + file.geobox.shape.x for file in files)
    bottom = max(corners[file.name][1] + file.geobox.shape.y for file in files)
    root = ET.Element("VRTDataset", {"rasterXSize": str(right - left), "rasterYSize": str(bottom - top)})
    affine = first.affine * Affine.translation(left, top)
    _child(root, "SRS", first.crs.to_wkt() if first.crs else "")
    _child(root, "GeoTransform", ", ".join(f"{value:.17g}" for value in affine.to_gdal()))
    for number, name in enumerate(bands, start=1):
        band = ET.SubElement(root, "VRTRasterBand", {"dataType": "Byte", "band": str(number)})
        for tag, text in (("Description", name), ("NoDataValue", "255"), ("Offset", "0"), ("Scale", f"{scale:g}")):
            _child(band, tag, text)
        for file in files:
            height, width = file.geobox.shape.yx
            source = ET.SubElement(band, "SimpleSource")
            _child(source, "SourceFilename", f"{variable}/{file.name}.tif", relativeToVRT="1")
            _child(source, "SourceBand", str(number))
            extent = {"xSize": str(width), "ySize": str(height)}
            # So that no file is opened before it is drawn.
            stated = {"RasterXSize": str(width), "RasterYSize": str(height), "DataType": "Byte"}
            ET.SubElement(source, "SourceProperties", stated | {"BlockXSize": "512", "BlockYSize": "512"})
            ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **extent})
            column, row = corners[file.name]
            ET.SubElement(source, "DstRect", {"xOff": str(column - left), "yOff": str(row - top), **extent})
    return _xml(root)


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
    root = ET.Element("qgis", {"projectname": title, "version": _QGIS})
    _child(root, "title", title)
    tree, canvas = ET.Element("layer-tree-group"), ET.Element("mapcanvas", {"name": "theMapCanvas"})
    extent = ET.SubElement(canvas, "extent")
    for name, edge in zip(("xmin", "ymin", "xmax", "ymax"), geobox.boundingbox.bbox, strict=True):
        _child(extent, name, f"{edge:.17g}")
    _srs(canvas, "destinationsrs", str(geobox.crs))
    project, order = ET.Element("projectlayers"), ET.Element("layerorder")
    for layer in layers:
        identity = f"delivered_{layer.name.replace('/', '_')}"  # QGIS makes its own of ids of up to ten characters
        source = f"./{layer.key}" + ("" if layer.is_raster else "|layername=footprints")
        provider = "gdal" if layer.is_raster else "ogr"
        shown = "Qt::Checked" if layer.shown else "Qt::Unchecked"
        stated = {"id": identity, "name": layer.title, "source": source, "providerKey": provider, "checked": shown}
        ET.SubElement(tree, "layer-tree-layer", stated | {"expanded": "0"})
        ET.SubElement(order, "layer", {"id": identity})
        attributes = {"type": "raster"} if layer.is_raster else {"type": "vector", "geometry": layer.kind.capitalize()}
        if layer.from_scale is not None:
            attributes |= {"hasScaleBasedVisibilityFlag": "1", "minScale": f"{layer.from_scale:g}", "maxScale": "0"}
        made = ET.SubElement(project, "maplayer", attributes)
        for tag, text in (("id", identity), ("datasource", source), ("layername", layer.title)):
            _child(made, tag, text)
        _child(made, "provider", provider, encoding="UTF-8")
        _srs(made, "srs", layer.crs)
        layer.draw(made)
    paths = ET.Element("properties")
    _child(ET.SubElement(paths, "Paths"), "Absolute", "false", type="bool")
    system, crs = ET.SubElement(paths, "SpatialRefSys"), str(geobox.crs)
    _child(system, "ProjectionsEnabled", "1", type="int")
    _child(system, "ProjectCrs", crs_code(CRS.from_user_input(crs)) or f"WKT:{crs}", type="QString")
    root.extend([tree, canvas, project, order, paths])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("map.qgs", date_time=(1980, 1, 1, 0, 0, 0))  # equal projects have equal bytes
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, _xml(root, doctype="<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"))
    return buffer.getvalue()


def _add_raster_pipe(parent: ET.Element, layer: MapLayer) -> None:
    low, high = f"{layer.stops[0][0]:g}", f"{layer.stops[-1][0]:g}"
    ramp = "INTERPOLATED" if layer.kind == "ramp" else "EXACT"
    stated = {"type": "singlebandpseudocolor", "band": str(layer.band), "opacity": "1", "alphaBand": "-1"}
    stated |= {"classificationMin": low, "classificationMax": high}
    drawn = ET.SubElement(ET.SubElement(parent, "pipe"), "rasterrenderer", stated)
    stated = {"colorRampType": ramp, "classificationMode": "1", "clip": "0", "minimumValue": low, "maximumValue": high}
    shader = ET.SubElement(ET.SubElement(drawn, "rastershader"), "colorrampshader", stated)
    for value, colour in layer.stops:
        ET.SubElement(shader, "item", {"value": f"{value:g}", "color": colour, "alpha": "255", "label": f"{value:g}"})


def _add_classes(parent: ET.Element, layer: MapLayer) -> None:
    drawn = ET.SubElement(parent, "renderer-v2")
    if layer.by_verdict:
        drawn.attrib |= {"type": "categorizedSymbol", "attr": "verdict"}
        classes, symbols = ET.SubElement(drawn, "categories"), ET.SubElement(drawn, "symbols")
        colours = [colour for *_, colour in _VERDICTS]
        for number, (value, label, _) in enumerate(_VERDICTS):
            stated = {"value": value, "symbol": str(number), "label": label, "render": "true"}
            ET.SubElement(classes, "category", stated)
    else:
        drawn.attrib |= {"type": "graduatedSymbol", "attr": "prob_max", "graduatedMethod": "GraduatedColor"}
        classes, symbols = ET.SubElement(drawn, "ranges"), ET.SubElement(drawn, "symbols")
        colours = [colour for *_, colour in _OUTLINES]
        for number, (low, high, _) in enumerate(_OUTLINES):
            stated = {"lower": f"{low:g}", "upper": f"{high:g}", "symbol": str(number), "label": f"{low:g} to {high:g}"}
            ET.SubElement(classes, "range", stated | {"render": "true"})
    is_fill = layer.kind == "polygon"
    kind, simple = ("fill", "SimpleFill") if is_fill else ("marker", "SimpleMarker")
    for number, colour in enumerate(colours):
        symbol = ET.SubElement(symbols, "symbol", {"type": kind, "name": str(number), "alpha": "1"})
        part = ET.SubElement(symbol, "layer", {"class": simple, "enabled": "1", "pass": "0", "locked": "0"})
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        values = {
            "color": f"{red},{green},{blue},{90 if is_fill else 255}",
            "outline_color": f"{red},{green},{blue},255",
            "outline_width": "0.4",
            **({"style": "solid"} if is_fill else {"name": "circle", "size": "1.6"}),
        }
        options = ET.SubElement(part, "Option", {"type": "Map"})
        for name, value in values.items():
            ET.SubElement(options, "Option", {"name": name, "type": "QString", "value": value})


def _srs(parent: ET.Element, tag: str, crs: str) -> None:
    code = crs_code(CRS.from_user_input(crs))
    _child(ET.SubElement(ET.SubElement(parent, tag), "spatialrefsys"), "authid" if code else "wkt", code or crs)


def _child(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _xml(root: ET.Element, *, doctype: str = "") -> bytes:
    ET.indent(root)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    head, _, body = content.partition(b"\n")
    return b"\n".join([head, *([doctype.encode()] if doctype else []), body, b""])
