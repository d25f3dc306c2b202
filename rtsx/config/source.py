"""One source of a config: where its images come from, and what sensor and preset mean for its layers."""

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

from rtsx.config.layers import SOURCE_KEYS, SOURCE_KINDS, LayerConfig, Layers, QualityConfig, SensorConfig
from rtsx.config.place import PeriodConfig
from rtsx.config.yaml import ConfigModel, Names, alone, from_folder
from rtsx.cube.file_images import FileImages, StoreImages
from rtsx.cube.images import ImageSource
from rtsx.cube.recipe import (
    TASSELED_CAP_BANDS,
    TREND_LAYERS,
    Composite,
    Grouping,
    ReaderName,
    Resampling,
    SourceRecipe,
    TrendMethod,
    TrendRecipe,
)
from rtsx.cube.sensors import SENSORS, get_sensor
from rtsx.cube.stac import ItemTable, StacCatalog, StacSearch
from rtsx.cube.stac.assets import SIGNER_GROUP
from rtsx.cube.terrain import get_terrain
from rtsx.errors import ConfigError


def _as_path(given: object, info: ValidationInfo) -> object:
    """Return what lies at a path, which counts from the folder of the config; also as the path alone."""
    given = alone("path", str)(given)
    if isinstance(given, Mapping) and isinstance(given.get("path"), str):
        return {**given, "path": from_folder(given["path"], info)}
    return given


def _as_assets(given: object, info: ValidationInfo) -> object:
    """``files: x.tif`` and ``files: {image: x.tif}`` as assets, whose paths count from the folder of the config."""
    given = alone("image", str, list, tuple)(given)
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
    FileImages, BeforeValidator(_as_assets, json_schema_input_type=dict[str, list[str] | str] | list[str] | str)
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
        """Return the recipe; the window is one of years by now."""
        first, last = map(int, self.window.split("-"))
        return TrendRecipe(**self.shared(TrendRecipe) | {"window": (first, last), "resampling": resampling})

    @classmethod
    def from_recipe(cls, recipe: TrendRecipe) -> Self:
        """Return the config of a trend."""
        return cls(**cls.taken(recipe) | {"window": f"{recipe.window[0]}-{recipe.window[1]}"})


Trend = Annotated[TrendConfig, BeforeValidator(alone("window", str), json_schema_input_type=TrendConfig | str)]
"""Trends, or their window alone."""


PresetName = Literal["tss-v1", "darts-v2"]


@dataclass(frozen=True, kw_only=True)
class CubePreset:
    """Choices that hold where a config says nothing itself."""

    mask_rule: str
    """Rule that reads UDM2."""
    terrain_grid: Literal["source", "cube"]
    """Where terrain is computed."""
    resampling: Mapping[str, Resampling]
    """How layers are warped, by name."""
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
            resampling={"dem": "cubic", **dict.fromkeys(TREND_LAYERS, "nearest")},
            order=("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope", *TREND_LAYERS),
            windows=((_LATEST, "2000-2019"),),
        ),
        "darts-v2": CubePreset(
            mask_rule="darts-v2",
            terrain_grid="cube",
            resampling=dict.fromkeys(("dem", *TREND_LAYERS), "cubic"),
            order=None,
            windows=((2018, "2000-2019"), (2019, "2001-2020"), (2021, "2003-2022"), (_LATEST, "2005-2024")),
        ),
    }
)
"""The published models of DARTS v1 (thaw-slump-segmentation), and those of darts-nextgen."""


def tcvis_window(preset: CubePreset, year: int) -> str:
    """Return the window of the trends that goes with images of a year.

    Examples
    --------
    >>> [tcvis_window(CUBE_PRESETS["darts-v2"], year) for year in (2017, 2019, 2021, 2024)]
    ['2000-2019', '2001-2020', '2003-2022', '2005-2024']
    """
    return next(window for last, window in preset.windows if year <= last)


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
            alone("name", str), json_schema_input_type=SensorConfig | Literal[tuple(sorted(SENSORS))] | None
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
        """Return what the sensor knows of a source, where the source says nothing itself."""
        sensor = given.get("sensor") if isinstance(given, Mapping) else None
        try:
            known = SensorConfig.model_validate(alone("name", str)(sensor))
        except ValueError:  # none, or one that its own check refuses with line and key
            return given
        return known.filled(given)

    @model_serializer(mode="wrap")
    def _with_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the keys, and null where the sensor would fill in what is wanted to be nothing."""
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
                f"{self.sensor.name} is ordered and not searched for: add catalog: FOLDER, where `rtsx order fetch` has put it, or "
                "items: FOLDER/NAME.parquet of a basemap"
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
        """Return the source with everything said that preset, sensor and cube say.

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
            terrain_resampling=self.terrain_resampling or "cubic",
            sensor=None,
            asset=None,
            resampling=None if self.trend is None else self._usual(TREND_LAYERS[0], preset),
        )

    def _usual(self, name: str, preset: CubePreset | None) -> Resampling:
        """Return how a layer is warped that does not say so itself."""
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
        """Return the recipe of a resolved source."""
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
        """Return the resolved config of a source.

        Raises
        ------
        ConfigError
            Its images, or a rule of it, are objects that no file can name.
        """
        period = None if recipe.trend is not None else recipe.period
        own = {
            **_images(recipe.images, recipe.name),
            "layers": {layer.name: LayerConfig.from_recipe(layer) for layer in recipe.layers},
            "quality": None if recipe.quality is None else QualityConfig.from_recipe(recipe.quality, recipe.images),
            "period": "any" if period is None else PeriodConfig(**PeriodConfig.taken(period)),
            "terrain": tuple(layer.name for layer in recipe.terrain),
            "trend": None if recipe.trend is None else TrendConfig.from_recipe(recipe.trend),
            "resampling": None if recipe.trend is None else recipe.trend.resampling,
            "required": recipe.is_required,
        }
        return cls.model_validate(cls.taken(recipe) | own)


def _images(images: ImageSource, name: str) -> dict[str, ImageSource]:
    images = getattr(images, "images", images) if hasattr(images, "model") else images
    key = SOURCE_KEYS.get(type(images))
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
