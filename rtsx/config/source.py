"""One source of a config: its images, and what becomes of them."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from rtsx.config.images import (
    Catalog,
    CatalogConfig,
    Files,
    FilesConfig,
    Items,
    ItemsConfig,
    StacConfig,
    Store,
    StoreConfig,
)
from rtsx.config.layer import LayerConfig, Layers, QualityConfig
from rtsx.config.place import PeriodConfig
from rtsx.config.preset import Preset
from rtsx.config.strict import Names, Strict
from rtsx.cube.align.resampling import Resampling
from rtsx.cube.files import FileImages, StoreImages
from rtsx.cube.recipe import Composite, Grouping, ReaderName, SourceRecipe
from rtsx.cube.sensor import SENSORS, sensor_named
from rtsx.cube.source import ImageSource
from rtsx.cube.stac import ItemTable, StacCatalog, StacSearch
from rtsx.cube.terrain import terrain_named
from rtsx.errors import ConfigError, CubeError

__all__ = ["SensorConfig", "SourceConfig"]

_KINDS = ("stac", "catalog", "items", "files", "zarr")


class SensorConfig(Strict):
    """A well-known product: names, packing and units of its bands."""

    name: str
    """Name that `open_cube` knows, such as planetscope."""
    bands: int | None = None
    """Number of bands of its files, where they have no names; the layers then are bands by number."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        sensor = sensor_named(self.name)
        if self.bands is not None:
            sensor.names(self.bands)
        return self

    def layers(self, files: FilesConfig | None) -> tuple[str, ...]:
        """All layers of the product's files; reads the header of the first one where there are several kinds.

        Raises
        ------
        ConfigError
            It has several kinds of files, and neither the number of bands is given nor a file that says it.
        """
        sensor = sensor_named(self.name)
        if self.bands is None and len(sensor.bands) > 1:
            problem = ""
            try:
                if files is not None:
                    return files.source().layer_names()
            except CubeError as error:
                problem = f". The first file does not say how many: {str(error).rstrip('.')}"
            counts = " or ".join(str(len(names)) for names in sensor.bands)
            raise ConfigError(
                f"{self.name} files have {counts} bands. Name the layers, or say sensor: {{name: {self.name}, bands: ...}}"
                f"{problem}"
            )
        return sensor.bands[0] if self.bands is None else sensor.names(self.bands)

    def described(self, name: str, layer: LayerConfig) -> LayerConfig:
        """A layer with what the product says about it, where it says nothing itself."""
        sensor = sensor_named(self.name)
        if name not in {known for names in sensor.bands for known in names}:
            return layer
        known: dict[str, object] = {
            "scale_factor": sensor.scale_factor,
            "add_offset": sensor.add_offset,
            "nodata": sensor.nodata,
            "units": sensor.units,
        }
        if self.bands is not None and name in sensor.names(self.bands):
            known["band"] = sensor.names(self.bands).index(name) + 1
        return layer.changed(**{key: value for key, value in known.items() if getattr(layer, key) is None})


class SourceConfig(Strict):
    """One catalog, folder or table, and what its images become."""

    stac: StacConfig | None = None
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
    """Product that says names, packing and units of the layers; for files, whose bands say little themselves."""
    asset: str | None = None
    """Asset of all layers that name none."""
    layers: Layers | None = None
    """What is read; the sensor's bands if left out, or `dem` where there is terrain."""
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
    sun_of: str | None = None
    """Source whose images say where the sun stands in hillshade."""
    required: bool = True
    """Whether a pixel that this source does not have is invalid in the whole cube."""
    unreadable: Literal["error", "gap"] = "error"
    """What an image that cannot be read is: an error, or missing ground."""
    reader: ReaderName = "rtsx"
    """What reads."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a source has one of {', '.join(_KINDS)}; got {' and '.join(given) or 'none'}")
        if self.layers is None and self.sensor is None and not self.terrain:
            raise ValueError("a source needs layers, or a sensor that knows them; add layers: [...]")
        for name in self.terrain:
            terrain_named(name)
        return self

    def resolved(self, preset: Preset | None, period: PeriodConfig | None) -> Self:
        """The source with everything said that preset, sensor and cube say.

        Raises
        ------
        ConfigError
            Something is said nowhere.
        """
        files = self.files
        if files is not None and files.sensor is None and self.sensor is not None and self.sensor.bands is None:
            files = files.changed(sensor=self.sensor.name)
        names: Mapping[str, LayerConfig] = self.layers or {}
        if self.layers is None:
            names = dict.fromkeys(("dem",) if self.sensor is None else self.sensor.layers(files), LayerConfig())
        quality = self.quality
        if quality is not None and quality.rule is None:
            if preset is None:
                raise ConfigError("quality needs a rule, such as rule: tss-v1, where the cube has no preset")
            quality = quality.changed(rule=preset.mask_rule)
        if quality is not None:
            quality = quality.changed(name=quality.name or quality.asset or "quality")
        return self.changed(
            files=files,
            layers={name: self._resolved_layer(name, layer, preset) for name, layer in names.items()},
            quality=quality,
            # Elevation has no season, and what its items say of time is when its images were taken.
            period=self.period or ("any" if self.terrain or period is None else period),
            terrain_grid=self.terrain_grid or ("source" if preset is None else preset.terrain_grid),
            terrain_resampling=self.terrain_resampling or ("cubic" if preset is None else preset.terrain_resampling),
            sensor=None,
            asset=None,
            resampling=None,
        )

    def _resolved_layer(self, name: str, layer: LayerConfig, preset: Preset | None) -> LayerConfig:
        known = layer if self.sensor is None else self.sensor.described(name, layer)
        usual = None if preset is None else preset.resampling.get(name)
        return known.changed(
            asset=layer.asset or self.asset, resampling=layer.resampling or self.resampling or usual or "bilinear"
        )

    def recipe(self, name: str) -> SourceRecipe:
        """The recipe of a resolved source."""
        (images,) = (getattr(self, kind) for kind in _KINDS if getattr(self, kind) is not None)
        return SourceRecipe(
            name=name,
            images=images.source(),
            layers=tuple(layer.recipe(one) for one, layer in (self.layers or {}).items()),
            quality=None if self.quality is None else self.quality.recipe(),
            period=self.period.period() if isinstance(self.period, PeriodConfig) else None,
            group=self.group,
            composite=self.composite,
            terrain=tuple(terrain_named(one) for one in self.terrain),
            terrain_grid=self.terrain_grid or "source",
            terrain_resampling=self.terrain_resampling or "cubic",
            keep_dem=self.keep_dem,
            sun_of=self.sun_of,
            is_required=self.required,
            unreadable=self.unreadable,
            reader=self.reader,
        )

    @classmethod
    def from_recipe(cls, recipe: SourceRecipe) -> Self:
        """The resolved config of a source.

        Raises
        ------
        ConfigError
            Its images, or a rule of it, are objects that no file can name.
        """
        return cls.model_validate(
            {
                **_images(recipe.images, recipe.name),
                "layers": {layer.name: LayerConfig.from_recipe(layer) for layer in recipe.layers},
                "quality": None if recipe.quality is None else QualityConfig.from_recipe(recipe.quality),
                "period": "any" if recipe.period is None else PeriodConfig.from_period(recipe.period),
                "group": recipe.group,
                "composite": recipe.composite,
                "terrain": tuple(layer.name for layer in recipe.terrain),
                "terrain_grid": recipe.terrain_grid,
                "terrain_resampling": recipe.terrain_resampling,
                "keep_dem": recipe.keep_dem,
                "sun_of": recipe.sun_of,
                "required": recipe.is_required,
                "unreadable": recipe.unreadable,
                "reader": recipe.reader,
            }
        )


def _images(images: ImageSource, name: str) -> dict[str, Strict]:
    match images:
        case StacSearch():
            return {"stac": StacConfig.from_source(images)}
        case StacCatalog():
            return {"catalog": CatalogConfig.from_source(images)}
        case ItemTable():
            return {"items": ItemsConfig.from_source(images)}
        case FileImages():
            return {"files": FilesConfig.from_source(images)}
        case StoreImages():
            return {"zarr": StoreConfig.from_source(images)}
    raise ConfigError(
        f"The images of source {name!r} are {type(images).__name__}, which no file can name. Those that can are searches, "
        "catalogs, tables, files and stores."
    )
