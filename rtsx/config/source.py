"""One source of a config: where its images come from, its layers and quality data, and what a preset means for them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from rtsx.config.place import PeriodConfig
from rtsx.config.validate import ConfigModel, FilePath, Names, from_folder
from rtsx.cube.file_images import FileImages, StoreImages
from rtsx.cube.images import BandRequest, ImageSource
from rtsx.cube.mask_rules import MASK_RULES, VOCABULARIES, MaskRule, mask_rule
from rtsx.cube.recipe import (
    TASSELED_CAP_BANDS,
    TREND_LAYERS,
    Composite,
    Grouping,
    LayerRecipe,
    QualityRecipe,
    ReaderName,
    SourceRecipe,
    TrendMethod,
    TrendRecipe,
)
from rtsx.cube.resample.dtype import Resampling
from rtsx.cube.sensors import SENSORS, SensorCatalog, get_sensor
from rtsx.cube.stac import ItemTable, StacCatalog, StacSearch
from rtsx.cube.stac.assets import SIGNER_GROUP
from rtsx.cube.terrain import get_terrain
from rtsx.errors import ConfigError, CubeError


class LayerConfig(ConfigModel):
    """One layer: where it lies in an image, and how it comes onto the grid."""

    asset: str | dict[str, str] | None = None
    """Key of the asset that holds it, or keys by collection; the sensor's, else found by the name of the band, if left out."""
    band: int | str | None = None
    """Number (from 1) or name of the band; if left out, the band called like the layer, else the only one."""
    resampling: Resampling | None = None
    """How it is warped; bilinear if nothing says otherwise."""
    scale_factor: float | None = None
    """Physical units per stored unit; as item or file declare if left out."""
    add_offset: float | None = None
    """Physical value of stored 0; likewise."""
    nodata: float | None = None
    """Stored value of a missing pixel; likewise."""
    dtype: Literal["float32"] | None = None
    """Dtype of the layer; as stored if left out."""
    units: str | None = None
    """Physical unit."""
    long_name: str | None = None
    """What a plot calls it."""

    def recipe(self, name: str) -> LayerRecipe:
        """The recipe of a layer of that name."""
        bands = () if self.band is None else (self.band,)
        wanted = BandRequest(name=name, bands=bands, **self.shared(BandRequest))
        return LayerRecipe(wanted=wanted, **self.shared(LayerRecipe))

    @classmethod
    def from_recipe(cls, recipe: LayerRecipe) -> Self:
        """The config of a layer.

        Raises
        ------
        ConfigError
            It is made of several bands.
        """
        wanted = recipe.wanted
        if len(wanted.bands) > 1:
            raise ConfigError(f"A layer is one band; {wanted.name!r} has {list(wanted.bands)}. Make them layers.")
        return cls(band=wanted.bands[0] if wanted.bands else None, **cls.taken(wanted), **cls.taken(recipe))


def _spelled(given: object) -> object:
    """Layers as a mapping: from a list of names, and from ``name: band``."""
    if isinstance(given, list | tuple):
        odd = [name for name in given if not isinstance(name, str)]
        if odd:
            raise ValueError(
                f"a list of layers has names; got {odd[0]!r}, which is none. Write `layers: {{name: band}}`"
            )
        twice = [name for number, name in enumerate(given) if name in given[:number]]
        if twice:
            raise ValueError(f"every layer has a name of its own; {twice} are there twice")
        return {name: {} for name in given}
    if not isinstance(given, Mapping):
        return given
    return {
        name: {} if one is None else {"band": one} if isinstance(one, int | str) else one for name, one in given.items()
    }


Layers = Annotated[
    dict[str, LayerConfig],
    BeforeValidator(_spelled, json_schema_input_type=dict[str, LayerConfig | int | str | None] | list[str]),
]
"""Layers by name, a list of names, or bands by name."""


class QualityConfig(ConfigModel):
    """Which pixels of a source can be trusted."""

    asset: str | None = None
    """Key of the asset that holds the quality data."""
    model: FilePath | None = None
    """Bundle that tells clear ground from clouds, and from their shadows, by the image's own bands; instead of an asset."""
    inputs: Layers | None = None
    """Layers that only the model reads; of the sensor, else by their names, if left out."""
    bands: tuple[int | str, ...] = ()
    """Its bands; all if left out."""
    name: str | None = None
    """What to call the data; like the asset if left out."""
    rule: str | dict[str, str] | None = None
    """Name of a mask rule, an expression for good pixels, or expressions for some of invalid, low and good; the preset's
    if left out."""
    data: str | tuple[str, ...] | None = None
    """For expressions: kind of data, such as udm2, scl or qa_pixel, or the names of its bands."""
    keep_low: bool = False
    """Trust low quality too."""
    erode_m: float = Field(default=0.0, ge=0)
    """Ground beside invalid ground and scene edges that is not trusted either, m."""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.model is not None and (self.asset is not None or self.bands):
            raise ValueError("quality data is an asset of the image, or computed by a model; give one of them")
        if self.model is None and self.inputs is not None:
            raise ValueError("inputs are those of a model, and none is given; add model: BUNDLE")
        if self.rule is not None:
            self._rule()
        return self

    def recipe(self) -> QualityRecipe:
        """The recipe; `rule` has to be given by now."""
        wanted = BandRequest(name=self.name or self.asset or "quality", asset=self.asset, bands=self.bands)
        return QualityRecipe(wanted=wanted, **self.shared(QualityRecipe) | {"rule": self._rule()})

    @classmethod
    def from_recipe(cls, recipe: QualityRecipe, images: ImageSource) -> Self:
        """The config of a quality recipe, and of the model that computes what it reads of some images.

        Raises
        ------
        ConfigError
            The rule is a function, which no file can name.
        """
        rule, data = _stated(recipe.rule)
        model = getattr(images, "model", None)
        known = {
            one.name: LayerConfig.from_recipe(LayerRecipe(wanted=one)) for one in getattr(images, "known", None) or ()
        }
        own = {"rule": rule, "data": data, "model": model, "inputs": known or None}
        return cls(**cls.taken(recipe.wanted) | cls.taken(recipe) | own)

    def _rule(self) -> MaskRule:
        assert self.rule is not None  # the preset has given one by now
        return mask_rule(self.rule, data="sky" if self.data is None and self.model is not None else self.data)

    def masked(self, images: ImageSource) -> ImageSource:
        """The images, with the mask that a model gives them."""
        if self.model is None:
            return images
        from rtsx.inference.clouds import CloudMasked  # here, because it loads torch

        known = tuple(layer.recipe(name).wanted for name, layer in (self.inputs or {}).items())
        return CloudMasked(images, self.model, name=self.recipe().wanted.name, known=known)


def _stated(rule: MaskRule) -> tuple[str | dict[str, str], str | None]:
    """A rule as a name, or as expressions and the kind of data."""
    if MASK_RULES.get(rule.name) == rule:
        return rule.name, None
    texts = dict(part.split(": ", 1) for part in rule.name.split("; ") if ": " in part)
    for data in VOCABULARIES:
        try:
            if texts and mask_rule(texts, data=data) == rule:
                return texts, data
        except CubeError:  # other names
            continue
    raise ConfigError(
        f"Mask rule {rule.name!r} cannot be written to a file. Those that can are {sorted(MASK_RULES)}, and expressions "
        f"on {sorted(VOCABULARIES)}."
    )


def _as_path(given: object, info: ValidationInfo) -> object:
    """What lies at a path, which counts from the folder of the config; also as the path alone."""
    given = {"path": given} if isinstance(given, str) else given
    if isinstance(given, Mapping) and isinstance(given.get("path"), str):
        return {**given, "path": from_folder(given["path"], info)}
    return given


def _as_assets(given: object, info: ValidationInfo) -> object:
    """``files: x.tif`` and ``files: {image: x.tif}`` as assets, whose paths count from the folder of the config."""
    if isinstance(given, str | list | tuple):
        given = {"image": given}
    if not isinstance(given, Mapping):
        return given
    if not {"assets"} <= set(given) <= {"assets", "sensor"}:
        given = {"assets": dict(given)}
    if not isinstance(given["assets"], Mapping):
        return given
    assets = {
        name: [from_folder(path, info) if isinstance(path, str) else path for path in paths]
        for name, paths in ((name, [one] if isinstance(one, str) else one) for name, one in given["assets"].items())
        if isinstance(paths, list | tuple)
    }
    return {**given, "assets": {**given["assets"], **assets}}


Catalog = Annotated[StacCatalog, BeforeValidator(_as_path, json_schema_input_type=StacCatalog | str)]
"""A static STAC catalog, or its path alone."""
Items = Annotated[ItemTable, BeforeValidator(_as_path, json_schema_input_type=ItemTable | str)]
"""A table of items, or its path alone."""
Store = Annotated[StoreImages, BeforeValidator(_as_path, json_schema_input_type=StoreImages | str)]
"""A Zarr store, or its path alone."""
Files = Annotated[
    FileImages,
    BeforeValidator(_as_assets, json_schema_input_type=dict[str, list[str] | str] | list[str] | str),
]
"""Raster files by asset, or the images alone."""


class TrendConfig(ConfigModel):
    """Trends that are computed from scenes of Landsat, as the published ones were."""

    window: str = Field(pattern=r"^(\d{4}-\d{4}|\{tcvis_window\})$")
    """First and last year, such as 2005-2024, or ``{tcvis_window}``."""
    months: tuple[int, ...] = (7, 8)
    """Months of every year that count."""
    method: TrendMethod = "linear"
    """Least squares, as the published models know it, or theil-sen: the median of the slopes between all pairs."""
    layers: Names = TREND_LAYERS
    """Layers to compute; beside the three trends `tc_observations`, and the trends' names with `_stderr`."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """Of the trends: as published, or reflectance a decade."""
    max_cloud_cover: float = Field(default=70.0, gt=0)
    """Scenes with this percent under cloud or more are left out."""

    def recipe(self, resampling: Resampling) -> TrendRecipe:
        """The recipe; the window is one of years by now."""
        first, last = map(int, self.window.split("-"))
        return TrendRecipe(**self.shared(TrendRecipe) | {"window": (first, last), "resampling": resampling})

    @classmethod
    def from_recipe(cls, recipe: TrendRecipe) -> Self:
        """The config of a trend."""
        return cls(**cls.taken(recipe) | {"window": f"{recipe.window[0]}-{recipe.window[1]}"})


Trend = Annotated[
    TrendConfig,
    BeforeValidator(
        lambda given: {"window": given} if isinstance(given, str) else given, json_schema_input_type=TrendConfig | str
    ),
]
"""Trends, or their window alone."""


PresetName = Literal["tss-v1", "darts-v2"]
_TCVIS = TREND_LAYERS


@dataclass(frozen=True, kw_only=True)
class CubePreset:
    """Choices that hold where a config says nothing itself."""

    mask_rule: str
    """Rule that reads UDM2."""
    terrain_grid: Literal["source", "cube"]
    """Where terrain is computed."""
    terrain_resampling: Resampling
    """How terrain that was computed on its own grid is warped."""
    resampling: Mapping[str, Resampling]
    """How layers are warped, by name."""
    derived: tuple[str, ...]
    """Layers that are computed from others, where those are there."""
    order: tuple[str, ...] | None
    """Order of the layers; None where the checkpoint has it."""
    windows: tuple[tuple[int, str], ...]
    """Last image year of each published window of the trends, and the window."""


_LATEST = 9999
CUBE_PRESETS: Mapping[PresetName, CubePreset] = MappingProxyType(
    {
        "tss-v1": CubePreset(
            mask_rule="tss-v1",
            terrain_grid="source",
            terrain_resampling="cubic",
            resampling={"dem": "cubic", **dict.fromkeys(_TCVIS, "nearest")},
            derived=("ndvi",),
            order=("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope", *_TCVIS),
            windows=((_LATEST, "2000-2019"),),
        ),
        "darts-v2": CubePreset(
            mask_rule="darts-v2",
            terrain_grid="cube",
            terrain_resampling="cubic",
            resampling={"dem": "cubic", **dict.fromkeys(_TCVIS, "cubic")},
            derived=("ndvi",),
            order=None,
            windows=((2018, "2000-2019"), (2019, "2001-2020"), (2021, "2003-2022"), (_LATEST, "2005-2024")),
        ),
    }
)
"""The published models of DARTS v1 (thaw-slump-segmentation), and those of darts-nextgen."""


def tcvis_window(preset: CubePreset, year: int) -> str:
    """Window of the trends that goes with images of a year.

    Examples
    --------
    >>> [tcvis_window(CUBE_PRESETS["darts-v2"], year) for year in (2017, 2019, 2021, 2024)]
    ['2000-2019', '2001-2020', '2003-2022', '2005-2024']
    """
    return next(window for last, window in preset.windows if year <= last)


_KEYS: Mapping[type, str] = {
    StacSearch: "stac",
    StacCatalog: "catalog",
    ItemTable: "items",
    FileImages: "files",
    StoreImages: "zarr",
}
SOURCE_KINDS = tuple(_KEYS.values())
"""Keys of a source that say where its images come from; it has one of them."""


class SensorConfig(ConfigModel):
    """A well-known product: names, packing and units of its bands."""

    name: str
    """Name that `open_cube` knows, such as planetscope."""
    bands: int | None = None
    """Number of bands of its files, where they have no names; the layers then are bands by number."""
    provider: str | None = None
    """Whose catalog has it, such as planetary-computer; that of the address, else the first that is known, if left out."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        sensor = get_sensor(self.name)
        if self.bands is not None:
            sensor.names(self.bands)
        if self.provider is not None and self.provider not in sensor.catalogs:
            known = ", ".join(sensor.catalogs) or "nobody"
            raise ValueError(f"{self.name} is known to be had from {known}; got {self.provider!r}")
        return self

    def filled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of a source of items, with what the product says of its catalog where they say nothing themselves."""
        sensor, images = (
            get_sensor(self.name),
            {kind: given[kind] for kind in SOURCE_KINDS if given.get(kind) is not None},
        )
        if not sensor.catalogs or not set(images) <= {"stac", "catalog", "items"}:
            return dict(given)
        full: dict[str, Any] = {**(sensor.defaults if given.get("trend") is None else {}), **given}
        search = images.get("stac", {}) if set(images) <= {"stac"} else None
        catalog = self._catalog(next(iter(images.values()), {}), is_search=search is not None)
        if catalog is not None and catalog.url and isinstance(search, Mapping):
            read = _read(given.get("layers"))
            further = next((fields for some, fields in catalog.searches if read and read <= some), {})
            usual = {"url": catalog.url, "collections": catalog.collections, **catalog.search, **further}
            if str(search.get("url", catalog.url)).rstrip("/") != catalog.url:
                usual.pop("sign", None)  # hooks are for addresses of the provider's own
            full["stac"] = {**usual, **search}
        quality = {**(sensor.quality or {}), **({"asset": catalog.quality} if catalog and catalog.quality else {})}
        if quality and isinstance(full.setdefault("quality", {}), Mapping) and not full["quality"].get("model"):
            full["quality"] = {**quality, **full["quality"]}
        return full

    def check(self, images: StacSearch | StacCatalog | ItemTable) -> None:
        """Refuse collections that hold another product.

        Raises
        ------
        ValueError
            They are known to; the message says which ones fit.
        """
        sensor = get_sensor(self.name)
        at = [
            name
            for name, one in sensor.catalogs.items()
            if one.url and one.url == getattr(images, "url", "").rstrip("/")
        ]
        if self.provider is not None and at and self.provider not in at:
            raise ValueError(
                f"the address is that of {at[0]}, and the provider is said to be {self.provider!r}; leave one out"
            )
        fitting = {
            name: (*one.collections, *one.others)
            for name, one in sensor.catalogs.items()
            if one.url and (not at or name in at)
        }
        for collection in images.collections:
            held = [one.name for one in SENSORS.values() if one.owner_of(collection) is not None]
            if (at and collection not in fitting[at[0]]) or (held and not sensor.may_hold(held)):
                known = "; ".join(f"{', '.join(names)} of {name}" for name, names in fitting.items())
                raise ValueError(
                    f"collection {collection!r} holds {' and '.join(held) or 'something else'}, and the sensor is {self.name}, "
                    f"which is in {known or 'no collection of others'}. Name one of these, or the sensor that fits"
                )

    def _catalog(self, images: object, *, is_search: bool) -> SensorCatalog | None:
        """What the catalog of a source calls the product's parts; None where nobody knows it."""
        known = get_sensor(self.name).catalogs
        stated = images if isinstance(images, Mapping) else getattr(images, "__dict__", {})
        url, named = str(stated.get("url") or "").rstrip("/"), stated.get("collections") or ()
        collections = (named,) if isinstance(named, str) else named
        by_url = (name for name, one in known.items() if url and url == one.url)
        by_collection = (get_sensor(self.name).owner_of(str(collection)) for collection in collections)
        usual = next(iter(known), None) if len(known) == 1 or (is_search and not (url and collections)) else None
        provider = self.provider or next((one for one in (*by_url, *by_collection) if one is not None), usual)
        return None if provider is None else known[provider]

    def layers(self, files: FileImages | None, *, has_items: bool) -> tuple[str, ...]:
        """Layers that are read of the product's items, else all of its files; reads the header of the first one where there are several kinds.

        Raises
        ------
        ConfigError
            It has several kinds of files, and neither the number of bands is given nor a file that says it.
        """
        sensor = get_sensor(self.name)
        if self.bands is None and has_items and sensor.layers:
            return sensor.layers
        if self.bands is None and len(sensor.bands) > 1:
            problem = ""
            try:
                if files is not None:
                    return files.layer_names()
            except CubeError as error:
                problem = f". The first file does not say how many: {str(error).rstrip('.')}"
            counts = " or ".join(str(len(names)) for names in sensor.bands)
            raise ConfigError(
                f"{self.name} files have {counts} bands. Name the layers, or say sensor: {{name: {self.name}, bands: ...}}"
                f"{problem}"
            )
        return sensor.bands[0] if self.bands is None else sensor.names(self.bands)

    def described(self, name: str, layer: LayerConfig, images: object) -> LayerConfig:
        """A layer with what the product and the catalog of its images say about it, where it says nothing itself."""
        sensor = get_sensor(self.name)
        has_items = isinstance(images, StacSearch | StacCatalog | ItemTable)
        catalog = self._catalog(images, is_search=isinstance(images, StacSearch)) if has_items else None
        assets = {} if catalog is None else catalog.assets
        if name not in {*assets, *(known for names in sensor.bands for known in names)}:
            return layer
        known: dict[str, object] = {
            "scale_factor": sensor.scale_factor,
            "add_offset": sensor.add_offset,
            "nodata": sensor.nodata,
            "units": sensor.units,
        }
        if self.bands is not None and name in sensor.names(self.bands):
            known["band"] = sensor.names(self.bands).index(name) + 1
        elif name in assets:
            # An asset that is called like the layer is found anyway, and was left unsaid before products had catalogs.
            known["asset"] = None if assets[name] == name else assets[name]
        elif has_items:
            known["band"] = sensor.common_names.get(name)
        return layer.changed(**{key: value for key, value in known.items() if getattr(layer, key) is None})


def _read(layers: object) -> set[str]:
    """What the layers of a source are called in its catalog, as far as they are names."""
    if not isinstance(layers, Mapping):
        return {one for one in layers if isinstance(one, str)} if isinstance(layers, list | tuple) else set()
    own = ((name, one.get("asset") if isinstance(one, Mapping) else one) for name, one in layers.items())
    return {one if isinstance(one, str) else str(name) for name, one in own}


class SourceConfig(ConfigModel):
    """One catalog, folder or table, and what its images become."""

    stac: StacSearch | None = None
    """A STAC API."""
    catalog: Catalog | None = None
    """A static STAC catalog or a folder of items."""
    items: Items | None = None
    """A GeoParquet table of STAC items."""
    files: Files | None = None
    """Raster files."""
    zarr: Store | None = None
    """A Zarr store."""
    sensor: Annotated[
        SensorConfig | None,
        BeforeValidator(
            lambda given: {"name": given} if isinstance(given, str) else given,
            json_schema_input_type=SensorConfig | Literal[tuple(sorted(SENSORS))] | None,
        ),
    ] = None
    """Product that says where it is searched for, unless images are given, and names, packing, units and quality data of its
    layers."""
    asset: str | None = None
    """Asset of all layers that name none."""
    layers: Layers | None = None
    """What is read; the sensor's bands if left out, or `dem` where there is terrain, or what a trend is computed from."""
    resampling: Resampling | None = None
    """How all layers that say nothing are warped; the preset's, else bilinear, if left out."""
    quality: QualityConfig | None = None
    """Which pixels to trust; all that hold data if left out."""
    period: PeriodConfig | Literal["any"] | None = None
    """Days that count: the cube's if left out; any, which is also what terrain has, for what has no season."""
    group: Grouping = "all"
    """Which images become one time step."""
    composite: Composite = "first"
    """How they become one."""
    terrain: Names = ()
    """Layers that are computed from `dem`."""
    terrain_grid: Literal["source", "cube"] | None = None
    """Where: on the elevation's own grid, or on the cube's; the preset's, else source, if left out."""
    terrain_resampling: Resampling | None = None
    """How terrain of its own grid is warped; the preset's, else cubic, if left out."""
    keep_dem: bool = False
    """Make `dem` a layer too."""
    trend: Trend | None = None
    """Trends that are computed of all scenes of Landsat of a window of years; or that window alone, or ``{tcvis_window}``."""
    sun_of: str | None = None
    """Source whose images say where the sun stands in hillshade."""
    required: bool = True
    """Whether a pixel that this source does not have is invalid in the whole cube."""
    unreadable: Literal["error", "gap"] = "error"
    """What an image that cannot be read is: an error, or missing ground."""
    reader: ReaderName = "rtsx"
    """What reads."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        """What the sensor knows of a source, where the source says nothing itself."""
        sensor = given.get("sensor") if isinstance(given, Mapping) else None
        try:
            known = SensorConfig.model_validate({"name": sensor} if isinstance(sensor, str) else sensor)
        except ValueError:  # none, or one that its own check refuses with line and key
            return given
        return known.filled(given)

    @model_serializer(mode="wrap")
    def _with_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The keys, and null where the sensor would fill in what is wanted to be nothing."""
        written: dict[str, Any] = handler(self)
        if self.sensor is None:
            return written
        filled = self.sensor.filled(written)
        nulls = {key: None for key in filled if key not in written and getattr(self, key) is None}
        inner = {
            key: {one: None for one in filled[key] if one not in known} | dict(known)
            for key, known in written.items()
            if isinstance(known, Mapping) and isinstance(filled.get(key), Mapping) and key in ("stac", "quality")
        }
        return written | nulls | inner

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]
        if not given and self.sensor is not None and get_sensor(self.sensor.name).catalogs:
            raise ValueError(
                f"{self.sensor.name} is ordered and not searched for: add catalog: FOLDER, where `rtsx order fetch` has put it"
            )
        if len(given) != 1:
            raise ValueError(f"a source has one of {', '.join(SOURCE_KINDS)}; got {' and '.join(given) or 'none'}")
        if self.trend is not None and self.period not in (None, "any"):
            raise ValueError("the days of a trend are its window and months; leave period out")
        if self.layers is None and self.sensor is None and not self.terrain and self.trend is None:
            raise ValueError("a source needs layers, or a sensor that knows them; add layers: [...]")
        for name in self.terrain:
            get_terrain(name)
        if self.sensor is not None:
            if self.files is not None:
                get_sensor(self.sensor.name).require_packing()
            elif (images := self.stac or self.catalog or self.items) is not None:
                self.sensor.check(images)
                if self.sensor.bands is not None and self.asset is None and not self._assets_are_named:
                    raise ValueError(
                        f"bands: {self.sensor.bands} counts the bands of files without names, and items name theirs: leave bands "
                        "out, or name the one asset that has them all with asset: NAME"
                    )
        return self

    @property
    def _assets_are_named(self) -> bool:
        return bool(self.layers) and all(layer.asset for layer in (self.layers or {}).values())

    def resolved(self, preset: CubePreset | None, period: PeriodConfig | None) -> Self:
        """The source with everything said that preset, sensor and cube say.

        Raises
        ------
        ConfigError
            Something is said nowhere.
        """
        files = self.files
        if files is not None and files.sensor is None and self.sensor is not None and self.sensor.bands is None:
            files = replace(files, sensor=self.sensor.name)
        names: Mapping[str, LayerConfig] = self.layers or {}
        if self.layers is None:
            has_items = (self.stac or self.catalog or self.items) is not None
            known: tuple[str, ...] = TASSELED_CAP_BANDS if self.trend is not None else ("dem",)
            if self.sensor is not None and self.trend is None:
                known = self.sensor.layers(files, has_items=has_items)
            names = dict.fromkeys(known, LayerConfig())
        quality = self.quality
        if quality is not None and quality.model is not None:
            others = () if self.sensor is None else get_sensor(self.sensor.name).bands[-1]
            inputs = {name: LayerConfig() for name in others if name not in names} | (quality.inputs or {})
            quality = quality.changed(
                inputs={name: self._resolved_layer(name, layer, preset) for name, layer in inputs.items()} or None,
                rule=quality.rule or "model-sky",
                name=quality.name or "sky",
            )
        if self.trend is not None:
            quality = quality or QualityConfig(asset="qa_pixel")
            quality = quality.changed(rule=quality.rule or "landsat-qa-pixel")
        if quality is not None and quality.rule is None:
            if preset is None and self.sensor is None:
                raise ConfigError("quality needs a rule, such as rule: tss-v1, where the cube has no preset")
            # Of the sensors that are known, only PlanetScope leaves the rule to the preset.
            quality = quality.changed(rule="tss-v1" if preset is None else preset.mask_rule)
        if quality is not None:
            quality = quality.changed(name=quality.name or quality.asset or "quality")
        return self.changed(
            files=files,
            layers={name: self._resolved_layer(name, layer, preset) for name, layer in names.items()},
            quality=quality,
            # Elevation has no season, and what its items say of time is when its images were taken.
            period=self.period or ("any" if self.terrain or self.trend is not None or period is None else period),
            terrain_grid=self.terrain_grid or ("source" if preset is None else preset.terrain_grid),
            terrain_resampling=self.terrain_resampling or ("cubic" if preset is None else preset.terrain_resampling),
            sensor=None,
            asset=None,
            resampling=None if self.trend is None else self._usual(TREND_LAYERS[0], preset),
        )

    def _usual(self, name: str, preset: CubePreset | None) -> Resampling:
        """How a layer is warped that does not say so itself."""
        return self.resampling or (None if preset is None else preset.resampling.get(name)) or "bilinear"

    def _resolved_layer(self, name: str, layer: LayerConfig, preset: CubePreset | None) -> LayerConfig:
        layer = layer.changed(asset=layer.asset or self.asset)
        images = self.stac or self.catalog or self.items
        known = layer if self.sensor is None else self.sensor.described(name, layer, images)
        usual = self._usual(name, preset) if self.trend is None else "nearest"
        return known.changed(resampling=layer.resampling or usual)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers that a resolved source makes."""
        if self.trend is not None:
            return self.trend.layers
        read = () if self.terrain and not self.keep_dem else tuple(self.layers or ())
        return (*read, *self.terrain)

    def recipe(self, name: str) -> SourceRecipe:
        """The recipe of a resolved source."""
        (images,) = (getattr(self, kind) for kind in SOURCE_KINDS if getattr(self, kind) is not None)
        own = {
            "name": name,
            "images": images if self.quality is None else self.quality.masked(images),
            "layers": tuple(layer.recipe(one) for one, layer in (self.layers or {}).items()),
            "quality": None if self.quality is None else self.quality.recipe(),
            "period": self.period.period() if isinstance(self.period, PeriodConfig) else None,
            "terrain": tuple(get_terrain(one) for one in self.terrain),
            "trend": None if self.trend is None else self.trend.recipe(self.resampling or "bilinear"),
            "is_required": self.required,
        }
        return SourceRecipe(**self.shared(SourceRecipe) | own)

    @classmethod
    def from_recipe(cls, recipe: SourceRecipe) -> Self:
        """The resolved config of a source.

        Raises
        ------
        ConfigError
            Its images, or a rule of it, are objects that no file can name.
        """
        own = {
            **_images(recipe.images, recipe.name),
            "layers": {layer.name: LayerConfig.from_recipe(layer) for layer in recipe.layers},
            "quality": None if recipe.quality is None else QualityConfig.from_recipe(recipe.quality, recipe.images),
            "period": "any"
            if recipe.period is None or recipe.trend is not None
            else PeriodConfig.from_period(recipe.period),
            "terrain": tuple(layer.name for layer in recipe.terrain),
            "trend": None if recipe.trend is None else TrendConfig.from_recipe(recipe.trend),
            "resampling": None if recipe.trend is None else recipe.trend.resampling,
            "required": recipe.is_required,
        }
        return cls.model_validate(cls.taken(recipe) | own)


def _images(images: ImageSource, name: str) -> dict[str, ImageSource]:
    images = getattr(images, "images", images) if hasattr(images, "model") else images
    key = _KEYS.get(type(images))
    if key is None:
        raise ConfigError(
            f"The images of source {name!r} are {type(images).__name__}, which no file can name. Those that can are searches, "
            "catalogs, tables, files and stores."
        )
    sign = getattr(images, "sign", None)
    if sign is not None and not isinstance(sign, str):
        raise ConfigError(
            f"The signing hook {getattr(sign, '__name__', sign)!r} is a function, which no file can name. Register it as an entry "
            f"point of the group {SIGNER_GROUP!r} in its package, and give its name."
        )
    return {key: images}
