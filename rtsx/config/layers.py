"""Layers and quality data of a source: where they lie in an image, how they come onto the grid, which pixels to trust, and what a sensor says of them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rtsx.config.yaml import ConfigModel, FilePath
from rtsx.cube.file_images import FileImages, StoreImages
from rtsx.cube.images import BandRequest, ImageSource
from rtsx.cube.mask_rules import MASK_RULES, VOCABULARIES, MaskRule, mask_rule
from rtsx.cube.recipe import LayerRecipe, QualityRecipe, Resampling
from rtsx.cube.sensors import SENSORS, SensorCatalog, get_sensor
from rtsx.cube.stac import ItemTable, StacCatalog, StacSearch
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
        """Return the recipe of a layer of that name."""
        bands = () if self.band is None else (self.band,)
        wanted = BandRequest(name=name, bands=bands, **self.shared(BandRequest))
        return LayerRecipe(wanted=wanted, **self.shared(LayerRecipe))

    @classmethod
    def from_recipe(cls, recipe: LayerRecipe) -> Self:
        """Return the config of a layer.

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
    """Return layers as a mapping: from a list of names, and from ``name: band``."""
    if isinstance(given, list | tuple):
        if odd := [name for name in given if not isinstance(name, str)]:
            raise ValueError(
                f"a list of layers has names; got {odd[0]!r}, which is none. Write `layers: {{name: band}}`"
            )
        if twice := [name for number, name in enumerate(given) if name in given[:number]]:
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
        """Return the recipe; `rule` has to be given by now."""
        wanted = BandRequest(name=self.name or self.asset or "quality", asset=self.asset, bands=self.bands)
        return QualityRecipe(wanted=wanted, **self.shared(QualityRecipe) | {"rule": self._rule()})

    @classmethod
    def from_recipe(cls, recipe: QualityRecipe, images: ImageSource) -> Self:
        """Return the config of a quality recipe, and of the model that computes what it reads of some images.

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
        """Return the images, with the mask that a model gives them."""
        if self.model is None:
            return images
        from rtsx.inference.clouds import CloudMasked  # here, because it loads torch

        known = tuple(layer.recipe(name).wanted for name, layer in (self.inputs or {}).items())
        return CloudMasked(images, self.model, name=self.recipe().wanted.name, known=known)


def _stated(rule: MaskRule) -> tuple[str | dict[str, str], str | None]:
    """Return a rule as a name, or as expressions and the kind of data."""
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


SOURCE_KEYS: Mapping[type, str] = {
    StacSearch: "stac",
    StacCatalog: "catalog",
    ItemTable: "items",
    FileImages: "files",
    StoreImages: "zarr",
}
"""Key of a source by where its images come from."""
SOURCE_KINDS = tuple(SOURCE_KEYS.values())
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
        """Return the keys of a source of items, with what the product says of its catalog where they say nothing themselves."""
        sensor = get_sensor(self.name)
        images = {kind: given[kind] for kind in SOURCE_KINDS if given.get(kind) is not None}
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
            if given.get("trend") is not None:
                usual.pop("max_cloud_cover", None)  # a trend has its own
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
        searched = {name: one for name, one in sensor.catalogs.items() if one.url}
        at = [name for name, one in searched.items() if one.url == getattr(images, "url", "").rstrip("/")]
        if self.provider is not None and at and self.provider not in at:
            raise ValueError(
                f"the address is that of {at[0]}, and the provider is said to be {self.provider!r}; leave one out"
            )
        fitting = {name: (*one.collections, *one.others) for name, one in searched.items() if not at or name in at}
        for collection in images.collections:
            held = [one.name for one in SENSORS.values() if one.owner_of(collection) is not None]
            if (at and collection not in fitting[at[0]]) or (held and not sensor.may_hold(held)):
                known = "; ".join(f"{', '.join(names)} of {name}" for name, names in fitting.items())
                raise ValueError(
                    f"collection {collection!r} holds {' and '.join(held) or 'something else'}, and the sensor is {self.name}, "
                    f"which is in {known or 'no collection of others'}. Name one of these, or the sensor that fits"
                )

    def _catalog(self, images: object, *, is_search: bool) -> SensorCatalog | None:
        """Return what the catalog of a source calls the product's parts; None where nobody knows it."""
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
        """Return layers that are read of the product's items, else all of its files; reads the header of the first one where there are several kinds.

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
        """Return a layer with what the product and the catalog of its images say about it, where it says nothing itself."""
        sensor = get_sensor(self.name)
        has_items = isinstance(images, StacSearch | StacCatalog | ItemTable)
        catalog = self._catalog(images, is_search=isinstance(images, StacSearch)) if has_items else None
        assets = {} if catalog is None else catalog.assets
        if name not in {*assets, *(known for names in sensor.bands for known in names)}:
            return layer
        packing = ("scale_factor", "add_offset", "nodata", "units")
        known: dict[str, object] = {key: getattr(sensor, key) for key in packing}
        if self.bands is not None and name in sensor.names(self.bands):
            known["band"] = sensor.names(self.bands).index(name) + 1
        elif name in assets:
            # An asset that is called like the layer is found anyway, and was left unsaid before products had catalogs.
            known["asset"] = None if assets[name] == name else assets[name]
        elif has_items:
            known["band"] = sensor.common_names.get(name)
        return layer.changed(**{key: value for key, value in known.items() if getattr(layer, key) is None})


def _read(layers: object) -> set[str]:
    """Return what the layers of a source are called in its catalog, as far as they are names."""
    if not isinstance(layers, Mapping):
        return {one for one in layers if isinstance(one, str)} if isinstance(layers, list | tuple) else set()
    own = ((name, one.get("asset") if isinstance(one, Mapping) else one) for name, one in layers.items())
    return {one if isinstance(one, str) else str(name) for name, one in own}
