"""The truth that `rtsx evaluate` is given, outlines or a raster: what of it is the class that is evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from rtsx.cli.console import print_info
from rtsx.storage.diagnosis import is_raster

if TYPE_CHECKING:
    import geopandas
    import xarray as xr

    from rtsx.labels import LabelRaster

_UNKNOWN = 255
"""Value of a raster where nobody can tell."""


@dataclass(frozen=True, kw_only=True)
class StatedTruth:
    """A file of truth, and what a line says about it; None where it says nothing.

    Raises
    ------
    typer.BadParameter
        Something is said that files of its kind do not have.
    """

    path: str
    layer: str | None
    crs: str | None
    class_column: str | None
    class_values: Sequence[str] | None
    """What it calls the class that is evaluated."""
    band: int | None
    ignored: Sequence[str] | None

    def __post_init__(self) -> None:
        """Refuse options of the other kind."""
        of_outlines = {"--layer": self.layer, "--crs": self.crs, "--class-column": self.class_column}
        of_rasters = {"--band": self.band, "--ignored": self.ignored}
        for name, given in (of_outlines if self.is_raster else of_rasters).items():
            if given is not None:
                kind = "a raster" if self.is_raster else "outlines"
                raise typer.BadParameter(f"{name} has no meaning here, because {self.path} is {kind}.", param_hint=name)

    @property
    def is_raster(self) -> bool:
        """Whether it has pixels instead of outlines."""
        return is_raster(self.path)

    def raster(self, pred: "xr.Dataset", *, classes: Sequence[str], wanted: str | None) -> "LabelRaster":
        """Return a raster on the pixels of a map, its codes those of the classes in their order, or those that are said for the wanted one."""
        from rtsx.cube import geobox_of
        from rtsx.labels import open_label_raster
        from rtsx.labels.label_rasters import read_label_raster

        codes = {name: [number] for number, name in enumerate(classes, 1) if wanted in (None, name)}
        if self.class_values is not None:
            self._require_one(codes)
            codes = dict.fromkeys(codes, _integers(self.class_values, option="--class-value"))
        ignored = {_UNKNOWN, *_integers(self.ignored or (), option="--ignored")}
        for values in codes.values():
            ignored -= {*values}
        codes_of_pixels = read_label_raster(self.path, geobox_of(pred), band=self.band or 1)
        return open_label_raster(codes_of_pixels, classes=codes, ignored=sorted(ignored))

    def labels(self, classes: Sequence[str], *, wanted: str | None) -> "geopandas.GeoDataFrame":
        """Return outlines of the classes of a map or of outlines; `wanted` is the one of several that is evaluated."""
        from rtsx.labels import read_labels
        from rtsx.labels.standardise import NEGATIVE

        evaluated = [name for name in classes if wanted in (None, name)]
        columns = None if self.class_column is None else {"class_name": self.class_column}
        given: dict[str, Any] = {"layer": self.layer, "crs": self.crs, "columns": columns}
        if self.class_values is not None:
            self._require_one(evaluated)
            stated = self._stated_classes()
            if not {*self.class_values} & {*stated}:
                raise typer.BadParameter(
                    f"no outline of {self.path} has it; there are {_listed(stated)}.", param_hint="--class-value"
                )
            meant = {text: evaluated[0] if text in self.class_values else NEGATIVE for text in stated}
            table = read_labels(self.path, class_name=meant, **given)
        else:
            if self.class_column is not None:
                self._stated_classes()
            table = read_labels(self.path, **given)
        table = table[table["class_name"] != NEGATIVE]
        named = [str(name) for name in table["class_name"]]
        found = {*named}
        if len(evaluated) == 1:
            if len(found) < 2:
                return table.assign(class_name=evaluated[0])
            if evaluated[0] not in found:
                raise typer.BadParameter(
                    f"{self.path} has outlines of several classes, {_listed(named)}, and {evaluated[0]!r} is evaluated: say which is "
                    f"that, such as --class-value {sorted(found)[0]}.",
                    param_hint="--truth",
                )
            print_info(f"Of {self.path}, outlines of {evaluated[0]!r} alone are the truth; it has {_listed(named)}.")
            return table[table["class_name"] == evaluated[0]]
        if unknown := found - {*evaluated}:
            raise typer.BadParameter(
                f"{self.path} has outlines of {', '.join(sorted(unknown))}, and the map is of {', '.join(evaluated)}: evaluate one "
                f"class with --class {evaluated[0]} --class-value {sorted(unknown)[0]}, or say what all of them mean as classes of a "
                "YAML file; rtsx config example evaluate-scenes writes one.",
                param_hint="--truth",
            )
        return table

    def _require_one(self, evaluated: Sequence[str] | dict[str, Any]) -> None:
        if len(evaluated) > 1:
            raise typer.BadParameter(
                f"it says what the truth calls one class, and there are {', '.join(evaluated)}: say which with --class.",
                param_hint="--class-value",
            )

    def _stated_classes(self) -> list[str]:
        """Return what each row says of its class, in its own words; empty where it says nothing."""
        from rtsx.labels.io import read_table
        from rtsx.labels.standardise import LabelSource

        table = read_table(self.path, layer=self.layer)
        named = [str(name) for name in table.columns if name != table.geometry.name]
        if self.class_column is not None and self.class_column not in named:
            raise typer.BadParameter(
                f"{self.path} has no column {self.class_column!r}; it has {', '.join(named) or 'none'}.",
                param_hint="--class-column",
            )
        columns = {} if self.class_column is None else {"class_name": self.class_column}
        source = LabelSource.of(self.path, table, columns=columns, crs=self.crs)
        if "class_name" not in source.columns:
            raise typer.BadParameter(
                f"no column of {self.path} is known as that of the class: say --class-column, one of {', '.join(named) or 'none'}.",
                param_hint="--class-value",
            )
        return [text or "" for text in source.texts("class_name")]


def _integers(given: Sequence[str], *, option: str) -> list[int]:
    try:
        return [int(one) for one in given]
    except ValueError as error:
        raise typer.BadParameter(
            f"values of a raster are integers, such as 1,2; got {','.join(given)}.", param_hint=option
        ) from error


def _listed(names: Sequence[str]) -> str:
    """Return names, each with how often it occurs."""
    return ", ".join(f"{name or 'nothing'} ({names.count(name)})" for name in sorted({*names}))
