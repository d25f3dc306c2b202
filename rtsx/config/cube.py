"""The config of a cube: what a YAML file says, and the recipe that it means."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from rtsx.config.place import GridConfig, PeriodConfig, RegionConfig
from rtsx.config.preset import PRESETS, Preset, PresetName, tcvis_window
from rtsx.config.source import SourceConfig
from rtsx.config.strict import Names, Strict
from rtsx.cube.derived import derived_named
from rtsx.cube.recipe import CubeRecipe
from rtsx.errors import ConfigError, CubeError
from rtsx.grid import Cell

__all__ = ["CubeConfig"]

_WINDOW = "{tcvis_window}"
"""Stands in addresses for the window of the trends, such as 2000-2019."""


class CubeConfig(Strict):
    """A cube: grid, ground, days and sources.

    Examples
    --------
    >>> files = {"files": "scene.tif", "layers": ["red", "nir"]}
    >>> config = CubeConfig.model_validate({"sources": {"scene": files}, "derived": ["ndvi"]})
    >>> config.recipe().sources[0].layer_names
    ('red', 'nir')
    """

    preset: PresetName | None = None
    """Published models whose preprocessing holds where nothing else is said."""
    grid: GridConfig = GridConfig()
    """The pixel lattice."""
    region: RegionConfig | None = None
    """Ground of the cube; nothing where the caller names a cell."""
    period: PeriodConfig | None = None
    """Days of all sources that name none; all days if left out."""
    tcvis_window: str | None = Field(default=None, pattern=r"^\d{4}-\d{4}$")
    """What ``{tcvis_window}`` in addresses stands for; by preset and year of the period if left out."""
    sources: dict[str, SourceConfig] = Field(min_length=1)
    """Where the layers come from, by name."""
    derived: Names | None = None
    """Layers computed pixel by pixel from others; the preset's if left out."""
    layers: Names | None = None
    """Variables in their order; the preset's order, else all, if left out."""
    chunk: int = Field(default=1024, gt=0)
    """Side of a chunk, px."""

    def resolved(self) -> Self:
        """The config with everything said: no preset, sensor or variable is left.

        Raises
        ------
        ConfigError
            Something is said nowhere, or contradicts.
        """
        preset = None if self.preset is None else PRESETS[self.preset]
        sources = {}
        for name, source in self.sources.items():
            try:
                sources[name] = self._placed(source).resolved(preset, self.period)
            except (ConfigError, CubeError) as error:
                raise ConfigError(f"sources.{name}: {str(error).rstrip('.')}") from error
        derived, layers = self._named(sources, preset)
        return self.changed(
            preset=None, period=None, tcvis_window=None, sources=sources, derived=derived, layers=layers
        )

    def recipe(self) -> CubeRecipe:
        """The recipe of this config; reads the region's file, and nothing else.

        Raises
        ------
        ConfigError
            Something is said nowhere, or the region cannot be read.
        CubeError
            Sources do not fit together.
        """
        config = self.resolved()
        return CubeRecipe(
            grid=config.grid.grid(),
            sources=tuple(source.recipe(name) for name, source in config.sources.items()),
            region=None if config.region is None else config.region.geometry(),
            derived=tuple(derived_named(name) for name in config.derived or ()),
            layers=config.layers,
            chunk=config.chunk,
        )

    @property
    def cell(self) -> Cell | None:
        """The cell that the region names; None where it names none.

        Raises
        ------
        GridError
            It is no name of a cell.
        """
        return None if self.region is None else self.region.cell_of(self.grid.grid())

    @classmethod
    def from_recipe(cls, recipe: CubeRecipe, *, cell: Cell | None = None) -> Self:
        """The resolved config of a recipe.

        Parameters
        ----------
        recipe
            Made of parts that have names or addresses.
        cell
            Ground, instead of the recipe's region.

        Raises
        ------
        ConfigError
            A part is an object that no file can name.
        """
        region = None if recipe.region is None else RegionConfig.from_geometry(recipe.region)
        return cls(
            grid=GridConfig.from_grid(recipe.grid),
            region=region if cell is None else RegionConfig(cell=cell.id),
            sources={source.name: SourceConfig.from_recipe(source) for source in recipe.sources},
            derived=tuple(layer.name for layer in recipe.derived),
            layers=recipe.layers,
            chunk=recipe.chunk,
        )

    def without_secrets(self) -> Self:
        """The config without the headers of servers, to be stored beside an output."""
        return type(self).model_validate(_bare(self.model_dump(exclude_none=True)))

    def _placed(self, source: SourceConfig) -> SourceConfig:
        """A source with the window of the trends in its addresses."""
        if _WINDOW not in repr(source):
            return source
        window = self._window()
        return SourceConfig.model_validate(_replaced(source.model_dump(exclude_unset=True), window))

    def _window(self) -> str:
        if self.tcvis_window is not None:
            return self.tcvis_window
        if self.preset is None or self.period is None:
            raise ConfigError(
                f"{_WINDOW} follows from preset and period; give both, or tcvis_window: 2000-2019 or another"
            )
        period = self.period.period()
        windows = {tcvis_window(PRESETS[self.preset], year) for year in range(period.start.year, period.end.year + 1)}
        if len(windows) > 1:
            raise ConfigError(
                f"{_WINDOW} goes by the year of the images, and the period {period.start} to {period.end} spans several: "
                f"{', '.join(sorted(windows))}. Say tcvis_window, or make a cube for each"
            )
        return windows.pop()

    def _named(
        self, sources: Mapping[str, SourceConfig], preset: Preset | None
    ) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """Derived layers, and the order of all."""
        names: set[str] = set()
        for source in sources.values():
            names |= {*source.terrain} if source.terrain and not source.keep_dem else {*(source.layers or ())}
            names |= {*source.terrain}
        usual = () if preset is None else tuple(one for one in preset.derived if set(derived_named(one).needs) <= names)
        derived = usual if self.derived is None else self.derived
        layers = self.layers
        if layers is None and preset is not None and preset.order is not None:
            known = names | set(derived)
            # What the preset does not know comes last, instead of being dropped without a word.
            layers = (*(one for one in preset.order if one in known), *sorted(known - set(preset.order)))
        return derived, layers


def _replaced(values: Any, window: str) -> Any:
    if isinstance(values, str):
        return values.replace(_WINDOW, window)
    if isinstance(values, Mapping):
        return {key: _replaced(value, window) for key, value in values.items()}
    return [_replaced(value, window) for value in values] if isinstance(values, list | tuple) else values


def _bare(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _bare(value) for key, value in values.items() if key != "headers"}
    return values
