"""One layer of a source, and its quality data."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rtsx.config.strict import Strict
from rtsx.cube.align.resampling import Resampling
from rtsx.cube.image import Wanted
from rtsx.cube.recipe import LayerRecipe, QualityRecipe
from rtsx.cube.rules import MASK_RULES, MaskRule, mask_rule
from rtsx.cube.vocabulary import VOCABULARIES
from rtsx.errors import ConfigError, CubeError

__all__ = ["LayerConfig", "Layers", "QualityConfig"]


class LayerConfig(Strict):
    """One layer: where it lies in an image, and how it comes onto the grid."""

    asset: str | None = None
    """Key of the asset that holds it; if left out, found by the name of the band."""
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
        return LayerRecipe(
            wanted=Wanted(
                name=name,
                asset=self.asset,
                bands=() if self.band is None else (self.band,),
                nodata=self.nodata,
                scale_factor=self.scale_factor,
                add_offset=self.add_offset,
            ),
            resampling=self.resampling or "bilinear",
            dtype=self.dtype,
            units=self.units,
            long_name=self.long_name,
        )

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
        return cls(
            asset=wanted.asset,
            band=wanted.bands[0] if wanted.bands else None,
            resampling=recipe.resampling,
            scale_factor=wanted.scale_factor,
            add_offset=wanted.add_offset,
            nodata=wanted.nodata,
            dtype=recipe.dtype,
            units=recipe.units,
            long_name=recipe.long_name,
        )


def _spelled(given: object) -> object:
    """Layers as a mapping: from a list of names, and from ``name: band``."""
    if isinstance(given, list | tuple):
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


class QualityConfig(Strict):
    """Which pixels of a source can be trusted."""

    asset: str | None = None
    """Key of the asset that holds the quality data."""
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
        if self.rule is not None:
            self._rule()
        return self

    def recipe(self) -> QualityRecipe:
        """The recipe; `rule` has to be given by now."""
        return QualityRecipe(
            wanted=Wanted(name=self.name or self.asset or "quality", asset=self.asset, bands=self.bands),
            rule=self._rule(),
            keep_low=self.keep_low,
            erode_m=self.erode_m,
        )

    @classmethod
    def from_recipe(cls, recipe: QualityRecipe) -> Self:
        """The config of a quality recipe.

        Raises
        ------
        ConfigError
            The rule is a function, which no file can name.
        """
        rule, data = _stated(recipe.rule)
        return cls(
            asset=recipe.wanted.asset,
            bands=recipe.wanted.bands,
            name=recipe.wanted.name,
            rule=rule,
            data=data,
            keep_low=recipe.keep_low,
            erode_m=recipe.erode_m,
        )

    def _rule(self) -> MaskRule:
        assert self.rule is not None  # the preset has given one by now
        return mask_rule(self.rule, data=self.data)


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
