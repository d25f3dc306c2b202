"""Layers and quality data of a source: where they lie in an image, how they come onto the grid, which pixels to trust."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rtsx.config.validate import ConfigModel, FilePath
from rtsx.cube.images import BandRequest, ImageSource
from rtsx.cube.mask_rules import MASK_RULES, VOCABULARIES, MaskRule, mask_rule
from rtsx.cube.recipe import LayerRecipe, QualityRecipe
from rtsx.cube.resample.dtype import Resampling
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
